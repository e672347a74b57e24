"""CaRot: calibrated robust fine-tuning.

Oh et al., NeurIPS 2024, arXiv 2311.01723; the norms and weights are those of the released code
(MLAI-Yonsei/CaRot). Both towers are trained, on image-caption pairs. The original trains on clean
images: that is `attack.epsilon: 0`. With epsilon above 0 the student's contrastive term sees the
attacked image, which is this project's extension; the teacher always sees the clean one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, NonNegativeFloat, PositiveInt

from trainables.methods.base import LossParts, Method, Views, register

if TYPE_CHECKING:
    from torch import Tensor


Norms = Literal["frobenius", "squared"]


def carot_loss(
    contrast: Tensor,
    teacher_contrast: Tensor,
    visual_projection: Tensor,
    text_projection: Tensor,
    *,
    cross_weight: float,
    orthogonality_weight: float,
    distillation_weight: float,
    norms: Norms = "frobenius",
) -> LossParts:
    """Contrastive loss + ||W_v W_t^T||_F + ||W_v^T W_v - I||_F + self-distillation, weighted.

    contrast, teacher_contrast: (B, B) scaled cosines, images in rows and captions in columns, of
    the student and of its moving average. visual_projection W_v: (D_v, D), text_projection W_t:
    (D_t, D). Returns two parts of shape (B,) in nats and two scalars, weights applied. The original
    takes the log of a softmax and can give NaN; this does not.
    """
    rows, columns = contrast.float().log_softmax(1), contrast.float().log_softmax(0)
    teacher = teacher_contrast.float()
    cross_product = visual_projection.float() @ text_projection.float().T
    gram = visual_projection.float().T @ visual_projection.float()
    identity = gram.new_ones(len(gram)).diag()
    power = 2 if norms == "squared" else 1
    distillation = -(teacher.softmax(1) * rows).sum(1) - (teacher.softmax(0) * columns).sum(0)
    return {
        "contrastive": -(rows.diagonal() + columns.diagonal()) / 2,
        "cross": cross_weight * cross_product.norm() ** power,
        "orthogonality": orthogonality_weight * (gram - identity).norm() ** power,
        "distillation": distillation_weight * distillation,
    }


@register("carot")
class CaRot(Method):
    """Calibrated robust fine-tuning, optionally on adversarial images."""

    trains_text: ClassVar[bool] = True

    name: Literal["carot"] = "carot"
    cross_weight: NonNegativeFloat = Field(0.05, description="Weight of ||W_v W_t^T||.")
    orthogonality_weight: NonNegativeFloat = Field(0.2, description="Weight of ||W_v^T W_v - I||.")
    distillation_weight: NonNegativeFloat = Field(1.5, description="Weight of the self-distillation.")
    norms: Norms = Field("frobenius", description="Frobenius norms as in the released code, or `squared`.")
    average_every: PositiveInt = Field(500, description="Steps between updates of the moving average.")
    first_momentum: float = Field(0.05, ge=0, le=1, description="Momentum of the average at first.")
    last_momentum: float = Field(0.9, ge=0, le=1, description="Momentum after a fifth of the steps.")

    @property
    def couples_images(self) -> bool:
        return True  # every image is contrasted with the captions of all

    def loss(self, views: Views) -> LossParts:
        visual, text = views.projections
        return carot_loss(
            views.adversarial.contrast,
            views.average.clean.contrast,
            visual,
            text,
            cross_weight=self.cross_weight,
            orthogonality_weight=self.orthogonality_weight,
            distillation_weight=self.distillation_weight,
            norms=self.norms,
        )

    def averaging(self, step: int, total_steps: int) -> float | None:
        if (step + 1) % self.average_every:
            return None
        progress = min(1.0, step / (0.2 * total_steps))
        return self.first_momentum + progress * (self.last_momentum - self.first_momentum)

    def check_attack(self, attack: Any) -> None:
        """CaRot is defined for clean images too."""
