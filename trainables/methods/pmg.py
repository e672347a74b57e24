"""PMG-AFT: adversarial fine-tuning guided by the frozen pre-trained model.

Wang et al., CVPR 2024, arXiv 2401.04350. This is the paper's form, on scaled logits with batch
means. The direction of the two divergences is disputed (the authors changed it in their code in
2024-05), hence `kl_direction`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field, NonNegativeFloat

from trainables.methods.base import LossParts, Method, Views, cross_entropy, kl_divergence, register

if TYPE_CHECKING:
    from torch import Tensor

KLDirection = Literal["teacher_to_student", "student_to_teacher"]


def pmg_loss(
    adversarial: Tensor,
    labels: Tensor,
    frozen_adversarial: Tensor,
    clean: Tensor,
    *,
    alpha: float,
    beta: float,
    kl_direction: KLDirection = "teacher_to_student",
) -> LossParts:
    """CE(adversarial) + alpha KL(frozen || adversarial) + beta KL(clean || adversarial).

    adversarial, clean: (B, K) logits of the trained model on attacked and clean images.
    frozen_adversarial: (B, K) logits of the pre-trained model on the same attacked images.
    labels: (B,) in [0, K).  `student_to_teacher` swaps the arguments of both divergences.
    Returns parts of shape (B,), in nats, weights applied; nothing is detached here.
    """

    def divergence(teacher: Tensor) -> Tensor:
        if kl_direction == "teacher_to_student":
            return kl_divergence(teacher, adversarial)
        return kl_divergence(adversarial, teacher)

    return {
        "cross_entropy": cross_entropy(adversarial, labels),
        "frozen_kl": alpha * divergence(frozen_adversarial),
        "clean_kl": beta * divergence(clean),
    }


@register("pmg")
class PMG(Method):
    """Pre-trained model guided adversarial fine-tuning."""

    name: Literal["pmg"] = "pmg"
    alpha: NonNegativeFloat = Field(1.0, description="Weight of the divergence from the frozen model.")
    beta: NonNegativeFloat = Field(1.0, description="Weight of the divergence from the clean logits.")
    kl_direction: KLDirection = "teacher_to_student"

    def loss(self, views: Views) -> LossParts:
        return pmg_loss(
            views.adversarial.logits,
            views.labels,
            views.frozen.adversarial.logits,
            views.clean.logits,
            alpha=self.alpha,
            beta=self.beta,
            kl_direction=self.kl_direction,
        )
