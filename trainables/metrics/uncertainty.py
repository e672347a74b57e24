"""Uncertainty of a prediction, per image: softmax entropy and Dirichlet uncertainties.

The Dirichlet concentrations are alpha_k = exp(kappa (cosine_k + 1)), as in arXiv 2512.12997, at one
kappa for all models, so that trials compare. All three are divided so that 1 means "knows nothing".
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from trainables.methods.dirichlet import PUBLISHED_SCALE, log_concentration

if TYPE_CHECKING:
    from torch import Tensor


STIRLING = {1: 1 / 2, 2: -1 / 12, 4: 1 / 120, 6: -1 / 252, 8: 1 / 240, 10: -1 / 132}
"""Coefficients of x^-n in psi(x + 1) - ln x."""


def entropy(logits: Tensor) -> Tensor:
    """(B,) entropy of softmax(logits) over ln K, in [0, 1]. logits: (B, K), finite; K at least 2."""
    return _nats(logits.double()) / math.log(logits.shape[-1])


def aleatoric(cosines: Tensor, scale: float = PUBLISHED_SCALE) -> Tensor:
    """(B,) expected entropy of the categorical drawn from Dir(alpha), over ln K, in [0, 1].

    -sum_k m_k [psi(alpha_k + 1) - psi(alpha_0 + 1)], m = alpha / alpha_0. cosines: (B, K), K at least 2.
    Computed as the entropy of m less sum_k m_k [r(alpha_k) - r(alpha_0)], psi(x + 1) = ln x + r(x): as
    written, it is the difference of numbers up to 200, and lost where it is below 1e-14.
    """
    log_alpha = log_concentration(cosines, scale).double()
    log_total = log_alpha.logsumexp(-1, keepdim=True)
    mean = log_alpha.softmax(-1)
    excess = (mean * (_digamma_rest(log_alpha) - _digamma_rest(log_total))).sum(-1)
    return (_nats(log_alpha) - excess) / math.log(cosines.shape[-1])


def epistemic(cosines: Tensor, scale: float = PUBLISHED_SCALE) -> Tensor:
    """(B,) K / (alpha_0 + K), in (0, 1): how little evidence there is. cosines: (B, K)."""
    alpha = log_concentration(cosines, scale).double().exp()
    classes = cosines.shape[-1]
    return classes / (alpha.sum(-1) + classes)


def concept_matching(cosines: Tensor) -> Tensor:
    """(B,) the largest softmax of the cosines at temperature 1, in (1 / K, 1): a certainty, by which Ming et
    al., NeurIPS 2022 (arXiv 2211.13445), equation 2, tell images of other classes. cosines: (B, K)."""
    return cosines.double().softmax(-1).amax(-1)


def _nats(logits: Tensor) -> Tensor:
    """(B,) entropy of softmax(logits), as a sum of positive terms: exact where it is tiny, too."""
    largest, winner = logits.max(-1, keepdim=True)
    shifted = logits - largest
    weights = shifted.exp()
    others = weights.scatter(-1, winner, 0.0).sum(-1)
    return others.log1p() - (weights * shifted).sum(-1) / (1 + others)


def _digamma_rest(log_x: Tensor) -> Tensor:
    """r(x) = psi(x + 1) - ln x; a series from 16 on."""
    x = log_x.exp()
    small, large = x.clamp(max=16), x.clamp(min=16)
    exact = (small + 1).digamma() - log_x.clamp(max=math.log(16))
    return (x < 16) * exact + (x >= 16) * sum(c * large**-n for n, c in STIRLING.items())
