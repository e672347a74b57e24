"""Dirichlet alignment (UCAT): keep the evidence of the pre-trained model under attack.

"Calibrating Uncertainty for Zero-Shot Adversarial CLIP", ICML 2026, arXiv 2512.12997.
Cosines are read as the log-concentrations of a Dirichlet distribution over the classes; the
trained model's on the attacked image is drawn to the frozen model's on the clean image.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat

from trainables.methods.base import LossParts, Method, Views, cross_entropy, register

if TYPE_CHECKING:
    from torch import Tensor

PUBLISHED_SCALE = 1 / 0.07

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
    """
    a, b = log_alpha.double().exp(), log_beta.double().exp()
    a0, b0 = a.sum(-1, keepdim=True), b.sum(-1, keepdim=True)
    normalisers = (a0.lgamma() - b0.lgamma()).squeeze(-1) - (a.lgamma() - b.lgamma()).sum(-1)
    expectation = ((a - b) * (a.digamma() - a0.digamma())).sum(-1)
    divergence = normalisers + expectation
    return divergence / b0.squeeze(-1) if per_evidence else divergence


def dirichlet_loss(
    adversarial_logits: Tensor,
    labels: Tensor,
    log_alpha: Tensor,
    log_beta: Tensor,
    *,
    weight: float,
    weight_normalisation: WeightNormalisation = "evidence",
    direction: Direction = "trained_to_frozen",
) -> LossParts:
    """CE(adversarial) + weight * KL(Dir(alpha) || Dir(beta)).

    adversarial_logits: (B, K) scaled.  labels: (B,).  log_alpha: (B, K) of the trained model on the
    attacked images.  log_beta: (B, K) of the frozen model on the clean images.
    `evidence` divides by the batch mean of beta_0, so that a weight means the same for any number
    of classes and any concentration scale, and the weighting of images by their evidence stays;
    `none` is the publication. Returns parts of shape (B,), in nats, weights applied; the
    divergence in float64.
    """
    pair = (log_alpha, log_beta) if direction == "trained_to_frozen" else (log_beta, log_alpha)
    evidence = log_beta.double().logsumexp(-1)
    divergence = dirichlet_kl(*pair)
    if weight_normalisation == "evidence":
        mean_evidence = evidence.logsumexp(0) - math.log(len(evidence))
        divergence = divergence * (-mean_evidence).exp()
    return {
        "cross_entropy": cross_entropy(adversarial_logits, labels),
        "dirichlet_kl": weight * divergence,
    }


@register("dirichlet")
class Dirichlet(Method):
    """Dirichlet alignment with the frozen model's evidence."""

    name: Literal["dirichlet"] = "dirichlet"
    weight: NonNegativeFloat = Field(
        1.0, description="Weight of the divergence. Published: 3.905e-8 with weight_normalisation none."
    )
    concentration_scale: PositiveFloat = Field(
        PUBLISHED_SCALE, le=100, description="kappa in alpha = exp(kappa (cosine + 1)); published 1/0.07."
    )
    weight_normalisation: WeightNormalisation = "evidence"
    direction: Direction = "trained_to_frozen"

    def loss(self, views: Views) -> LossParts:
        return dirichlet_loss(
            views.adversarial.logits,
            views.labels,
            log_concentration(views.adversarial.cosines, self.concentration_scale),
            log_concentration(views.frozen.clean.cosines, self.concentration_scale),
            weight=self.weight,
            weight_normalisation=self.weight_normalisation,
            direction=self.direction,
        )
