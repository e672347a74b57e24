"""PMG-AFT: adversarial fine-tuning guided by the frozen pre-trained model.

Wang et al., CVPR 2024, arXiv 2401.04350; code: serendipity1122/Pre-trained-Model-Guided-Fine-Tuning-
for-Zero-Shot-Adversarial-Robustness. The paper's form is on scaled logits with batch means, the clean
logits being a target. `variant: official_code` is what the released code computes: it normalises the
scaled text features once more, so that all logits are cosines, in the attack too; it sums the two
divergences over the batch; and it sends gradient through the clean logits. The direction of the
divergences is disputed (the authors changed it in 2024-05), hence `kl_direction`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field, NonNegativeFloat

from trainables.methods.base import LossParts, Method, View, Views, cross_entropy, kl_divergence, register

if TYPE_CHECKING:
    from torch import Tensor

KLDirection = Literal["teacher_to_student", "student_to_teacher"]
Variant = Literal["paper", "official_code"]


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
    kl_direction: KLDirection = Field(
        "teacher_to_student", description="Of both divergences; `student_to_teacher` swaps their arguments."
    )
    variant: Variant = Field(
        "paper", description="`official_code`: as released, see trainables/methods/pmg.py."
    )

    @property
    def couples_images(self) -> bool:
        return self.variant == "official_code"  # by the sum over the batch

    def attack_loss(self, attacked: View, views: Views) -> Tensor:
        return cross_entropy(self._logits(attacked), views.labels)

    def loss(self, views: Views) -> LossParts:
        released = self.variant == "official_code"
        parts = pmg_loss(
            self._logits(views.adversarial),
            views.labels,
            self._logits(views.frozen.adversarial),
            self._logits(views.clean if released else views.detached.clean),
            alpha=self.alpha,
            beta=self.beta,
            kl_direction=self.kl_direction,
        )
        if released:  # its divergences are summed over the batch, its cross-entropy is averaged
            batch = len(views.labels)
            parts |= {name: batch * parts[name] for name in ("frozen_kl", "clean_kl")}
        return parts

    def _logits(self, view: View) -> Tensor:
        return view.cosines if self.variant == "official_code" else view.logits
