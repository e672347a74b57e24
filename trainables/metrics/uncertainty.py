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


def entropy(logits: Tensor) -> Tensor:
    """(B,) entropy of softmax(logits) over ln K, in [0, 1]. logits: (B, K)."""
    log_p = logits.double().log_softmax(-1)
    return -(log_p.exp() * log_p).sum(-1) / math.log(logits.shape[-1])


def aleatoric(cosines: Tensor, scale: float = PUBLISHED_SCALE) -> Tensor:
    """(B,) expected entropy of the categorical drawn from Dir(alpha), over ln K, in [0, 1].

    -sum_k m_k [psi(alpha_k + 1) - psi(alpha_0 + 1)], m = alpha / alpha_0. cosines: (B, K).
    """
    alpha = log_concentration(cosines, scale).double().exp()
    total = alpha.sum(-1, keepdim=True)
    spread = (alpha / total * ((alpha + 1).digamma() - (total + 1).digamma())).sum(-1)
    return -spread / math.log(cosines.shape[-1])


def epistemic(cosines: Tensor, scale: float = PUBLISHED_SCALE) -> Tensor:
    """(B,) K / (alpha_0 + K), in (0, 1): how little evidence there is. cosines: (B, K)."""
    alpha = log_concentration(cosines, scale).double().exp()
    classes = cosines.shape[-1]
    return classes / (alpha.sum(-1) + classes)
