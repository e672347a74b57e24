"""Dirichlet alignment (UCAT): keep the evidence of the pre-trained model under attack.

"Calibrating Uncertainty for Zero-Shot Adversarial CLIP", ICML 2026, arXiv 2512.12997.
Cosines are read as the log-concentrations of a Dirichlet distribution over the classes; the
trained model's on the attacked image is drawn to the frozen model's on the clean image.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, model_validator

from trainables.methods.base import LossParts, Method, Views, cross_entropy, kl_divergence, register

if TYPE_CHECKING:
    from torch import Tensor

PUBLISHED_SCALE = 1 / 0.07
PUBLISHED_WEIGHT = 1e5 / (1 + math.exp(2 * PUBLISHED_SCALE))
"""1e5 / exp(softplus(2 / 0.07)) = 3.905e-8, for `weight_normalisation` none."""
STIRLING = {1: 1 / 12, 3: -1 / 360, 5: 1 / 1260, 7: -1 / 1680, 9: 1 / 1188}
"""Coefficients of x^-n in the logarithm of the gamma function."""

Direction = Literal["trained_to_frozen", "frozen_to_trained"]
WeightNormalisation = Literal["evidence", "none"]


def log_concentration(cosines: Tensor, scale: float) -> Tensor:
    """log alpha = scale * (cosine + 1) in float32. cosines: (..., K) in [-1, 1], not bf16 or fp16:
    those quantise alpha by more than a per cent."""
    return scale * (cosines.float() + 1)


def dirichlet_kl(log_alpha: Tensor, log_beta: Tensor, *, per_evidence: bool = False) -> Tensor:
    """KL(Dir(alpha) || Dir(beta)) in nats; with `per_evidence` divided by beta_0 = sum of beta.

    log_alpha, log_beta: (..., K). Returns (...) in float64: the value reaches e^125 at scale 100,
    and the terms cancel to far below float32's precision.

    ln G(a_0) - ln G(b_0) - sum_k [ln G(a_k) - ln G(b_k)] + sum_k (a_k - b_k) [psi(a_k) - psi(a_0)]

    As written, even float64 is lost where beta_0 is far below alpha_0 (a cosine risen by 0.3 at scale
    100) and where a softmax is saturated. So every ln G is split, ln G(x) = x ln x - x + f(x): the
    first part gives beta_0 KL(m_b || m_a), m the Dirichlets' means, whose terms are all positive.
    """
    log_a, log_b = log_alpha.double(), log_beta.double()
    log_a0, log_b0 = log_a.logsumexp(-1, keepdim=True), log_b.logsumexp(-1, keepdim=True)
    log_mean = log_b - log_b0
    ratio = log_mean - (log_a - log_a0)
    categorical = (log_mean.exp() * (ratio + (-ratio).expm1())).sum(-1)
    rest = _gamma_rest(log_a, log_b).sum(-1) - _gamma_rest(log_a0, log_b0).squeeze(-1)
    evidence = log_b0.squeeze(-1)
    return categorical + rest * (-evidence).exp() if per_evidence else categorical * evidence.exp() + rest


def _gamma_rest(log_a: Tensor, log_b: Tensor) -> Tensor:
    """f(b) - f(a) - f'(a) (b - a) of f(x) = ln G(x) - x ln x + x = (ln 2 pi - ln x) / 2 + r(x)."""
    a, b = log_a.exp(), log_b.exp()
    ratio = log_b - log_a
    (r_a, slope_a), (r_b, _) = _stirling_remainder(a), _stirling_remainder(b)
    return (ratio.expm1() - ratio) / 2 + (r_b - r_a - slope_a * (b - a))


def _stirling_remainder(x: Tensor) -> tuple[Tensor, Tensor]:
    """r(x) = ln G(x) - (x - 1/2) ln x + x - ln(2 pi) / 2, and its derivative; a series from 16 on."""
    small, large = x.clamp(max=16), x.clamp(min=16)
    value = small.lgamma() - (small - 0.5) * small.log() + small - math.log(2 * math.pi) / 2
    slope = small.digamma() - small.log() + 0.5 / small
    series = sum(c * large**-n for n, c in STIRLING.items())
    series_slope = sum(-n * c * large ** -(n + 1) for n, c in STIRLING.items())
    return value.where(x < 16, series), slope.where(x < 16, series_slope)


def dirichlet_loss(
    adversarial_logits: Tensor,
    labels: Tensor,
    log_alpha: Tensor,
    log_beta: Tensor,
    *,
    weight: float,
    weight_normalisation: WeightNormalisation = "none",
    direction: Direction = "trained_to_frozen",
    evidence: bool = True,
) -> LossParts:
    """CE(adversarial) + weight * KL(Dir(alpha) || Dir(beta)).

    adversarial_logits: (B, K) scaled.  labels: (B,).  log_alpha: (B, K) of the trained model on the
    attacked images.  log_beta: (B, K) of the frozen model on the clean images.
    `none` is the publication; `evidence` divides by the batch mean of beta_0, so that a weight means
    the same for any number of classes and any concentration scale, and the weighting of images by
    their evidence stays. Without `evidence` the divergence is KL(m_beta || m_alpha) of the means alone,
    softmax distillation at temperature 1 / scale. Returns parts of shape (B,), in nats, weights applied;
    the divergence of Dirichlets in float64.
    """
    pair = (log_alpha, log_beta) if direction == "trained_to_frozen" else (log_beta, log_alpha)
    divergence = dirichlet_kl(*pair) if evidence else kl_divergence(pair[1], pair[0])
    if weight_normalisation == "evidence":
        log_evidence = log_beta.double().logsumexp(-1)
        divergence = divergence * (math.log(len(log_evidence)) - log_evidence.logsumexp(0)).exp()
    return {
        "cross_entropy": cross_entropy(adversarial_logits, labels),
        "dirichlet_kl": weight * divergence,
    }


@register("dirichlet")
class Dirichlet(Method):
    """Dirichlet alignment with the frozen model's evidence."""

    name: Literal["dirichlet"] = "dirichlet"
    weight: NonNegativeFloat | None = Field(
        None,
        description="Weight of the divergence; by default the published 3.905e-8, or 1 where "
        "weight_normalisation is evidence, or `evidence` false.",
    )
    concentration_scale: PositiveFloat = Field(
        PUBLISHED_SCALE, le=100, description="kappa in alpha = exp(kappa (cosine + 1)); published 1/0.07."
    )
    weight_normalisation: WeightNormalisation = Field(
        "none", description="`evidence`: a weight means the same at every scale and number of classes."
    )
    direction: Direction = Field(
        "trained_to_frozen", description="Of the divergence; the other one was found to collapse."
    )
    evidence: bool = Field(
        True,
        description="False leaves out all evidence, to see what it does: the divergence is then that of "
        "softmax(kappa cosine) alone, the same weight for each image.",
    )

    @model_validator(mode="after")
    def evidence_is_there_to_normalise_by(self) -> Dirichlet:
        if self.weight_normalisation == "evidence" and not self.evidence:
            raise ValueError("weight_normalisation: evidence needs `evidence: true`")
        return self

    @property
    def couples_images(self) -> bool:
        return self.weight_normalisation == "evidence"  # by its mean over the batch

    @property
    def applied_weight(self) -> float:
        if self.weight is not None:
            return self.weight
        published = self.evidence and self.weight_normalisation == "none"
        return PUBLISHED_WEIGHT if published else 1.0

    def loss(self, views: Views) -> LossParts:
        return dirichlet_loss(
            views.adversarial.logits,
            views.labels,
            log_concentration(views.adversarial.cosines, self.concentration_scale),
            log_concentration(views.frozen.clean.cosines, self.concentration_scale),
            weight=self.applied_weight,
            weight_normalisation=self.weight_normalisation,
            direction=self.direction,
            evidence=self.evidence,
        )
