"""TeCoA: text-guided contrastive adversarial training.

Mao et al., ICLR 2023, arXiv 2212.07016, equation 2. Cross-entropy of the adversarial image against
the class texts and nothing else: there is no clean term.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from trainables.methods.base import LossParts, Method, Views, cross_entropy, register

if TYPE_CHECKING:
    from torch import Tensor


def tecoa_loss(adversarial: Tensor, labels: Tensor) -> LossParts:
    """CE(adversarial, labels).

    adversarial: (B, K) logits on the attacked images, already scaled.  labels: (B,) in [0, K).
    Returns one part of shape (B,), in nats.
    """
    return {"cross_entropy": cross_entropy(adversarial, labels)}


@register("tecoa")
class TeCoA(Method):
    """Text-guided contrastive adversarial training."""

    name: Literal["tecoa"] = "tecoa"

    def loss(self, views: Views) -> LossParts:
        return tecoa_loss(views.adversarial.logits, views.labels)
