"""FARE: unsupervised adversarial fine-tuning that keeps the embeddings of the original model.

Schlarmann et al., ICML 2024, arXiv 2402.12336, equation 3; code: chs20/RobustVLM. Neither labels nor
class texts play a part, in the loss or in the attack. The published attack is PGD with momentum.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from trainables.methods.base import LossParts, Method, View, Views, register

if TYPE_CHECKING:
    from torch import Tensor


def fare_loss(adversarial: Tensor, frozen_clean: Tensor) -> LossParts:
    """||adversarial - frozen_clean||^2, summed over the embedding, not divided by its dimension.

    adversarial: (B, D) unnormalised features of the trained model on the attacked images.
    frozen_clean: (B, D) those of the original model on the clean images.
    Returns one part of shape (B,).
    """
    return {"embedding": (adversarial.float() - frozen_clean.float()).square().sum(-1)}


@register("fare")
class FARE(Method):
    """Fine-tuning for adversarially robust embeddings, without labels."""

    needs_text: ClassVar[bool] = False

    name: Literal["fare"] = "fare"

    def attack_loss(self, attacked: View, views: Views) -> Tensor:
        return fare_loss(attacked.features, views.frozen.clean.features)["embedding"]

    def loss(self, views: Views) -> LossParts:
        return fare_loss(views.adversarial.features, views.frozen.clean.features)
