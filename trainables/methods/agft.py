"""AGFT: adversarial fine-tuning guided by the softened predictions of the original model.

Cui et al., CVPR 2026; code: YuboCui/AGFT. The frozen model's clean predictions, softened by a
temperature, are the targets of loss and attack; labels play no part.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field, PositiveFloat

from trainables.methods.base import LossParts, Method, View, Views, register, soft_cross_entropy

if TYPE_CHECKING:
    from torch import Tensor


def agft_loss(
    adversarial: Tensor, frozen_clean: Tensor, *, scale: float = 180.0, teacher_ratio: float = 0.4
) -> LossParts:
    """Cross-entropy of softmax(scale c(x')) against softmax(teacher_ratio scale c_0(x)).

    adversarial: (B, K) cosines of the trained model on the attacked images.
    frozen_clean: (B, K) cosines of the original model on the clean images.
    Returns one part of shape (B,), in nats.
    """
    target = teacher_ratio * scale * frozen_clean.float()
    return {"soft_cross_entropy": soft_cross_entropy(target, scale * adversarial.float())}


@register("agft")
class AGFT(Method):
    """Adversarial fine-tuning with the original model's softened predictions as targets."""

    name: Literal["agft"] = "agft"
    scale: PositiveFloat = Field(180.0, description="Logit scale of training; published 180.")
    teacher_ratio: PositiveFloat = Field(
        0.4, description="Logit scale of the targets over that of the trained model; below 1 they are soft."
    )

    def _loss(self, attacked: View, views: Views) -> LossParts:
        return agft_loss(
            attacked.cosines,
            views.frozen.clean.cosines,
            scale=self.scale,
            teacher_ratio=self.teacher_ratio,
        )

    def attack_loss(self, attacked: View, views: Views) -> Tensor:
        return self._loss(attacked, views)["soft_cross_entropy"]

    def loss(self, views: Views) -> LossParts:
        return self._loss(views.adversarial, views)
