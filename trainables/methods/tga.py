"""TGA-ZSR: text-guided attention for zero-shot robustness.

Yu et al., NeurIPS 2024, arXiv 2410.21802, equations 5 to 8; code: zhyblue424/TGA-ZSR. The attention
of an image is how much each of its patches resembles the text of its class. Under attack it shall
stay what the original model's is on the clean image, and on clean images too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field, NonNegativeFloat

from trainables.methods.base import LossParts, Method, View, Views, cross_entropy, register

if TYPE_CHECKING:
    from torch import Tensor

Variant = Literal["paper", "official_code"]


def patch_attention(tokens: Tensor, text: Tensor, variant: Variant = "paper") -> Tensor:
    """(B, P) products of the patches with the text of the image's class, scaled to [0, 1] per image.

    tokens: (B, 1 + P, D) features of class token and patches.  text: (B, D) unit text features.
    `official_code` divides the tokens by their norm over the tokens (its axis 1) instead of leaving
    them as they are, which weighs the channels anew. An image without any contrast has attention 0.
    """
    tokens, text = tokens.float(), text.float()
    if variant == "official_code":
        tokens = tokens / tokens.norm(dim=1, keepdim=True)
    product = (tokens[:, 1:] * text[:, None]).sum(-1)
    low, high = product.amin(-1, keepdim=True), product.amax(-1, keepdim=True)
    return (product - low) / (high - low).clamp(min=1e-12)


def attention_map(attention: Tensor, grid: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """(B, H W) attention of every pixel: (B, P) of the patches, on `grid`, enlarged to `size` (H, W)."""
    from torch.nn.functional import interpolate

    patches = attention.unflatten(-1, grid).unsqueeze(1)
    return interpolate(patches, size, mode="bilinear", align_corners=False).flatten(1)


def tga_loss(
    adversarial: Tensor,
    labels: Tensor,
    adversarial_map: Tensor,
    clean_map: Tensor,
    frozen_clean_map: Tensor,
    *,
    alpha: float = 0.08,
    beta: float = 0.05,
) -> LossParts:
    """CE(adversarial) + alpha ||A(x') - A_0(x)|| + beta ||A(x) - A_0(x)||, norms not squared.

    adversarial: (B, K) scaled logits on the attacked images.  labels: (B,).  The maps: (B, H W) of the
    trained model on attacked and clean images and of the original model on clean images.
    Returns three parts of shape (B,), weights applied.
    """
    return {
        "cross_entropy": cross_entropy(adversarial, labels),
        "attention_refinement": alpha * distance(adversarial_map, frozen_clean_map),
        "attention_constraint": beta * distance(clean_map, frozen_clean_map),
    }


def distance(a: Tensor, b: Tensor) -> Tensor:
    """(B,) Euclidean distance of rows; where they are equal its gradient is 0, not undefined."""
    squared = (a - b).square().sum(-1)
    return squared.where(squared > 0, 1).sqrt().where(squared > 0, 0)


@register("tga")
class TGA(Method):
    """Text-guided attention for zero-shot robustness."""

    name: Literal["tga"] = "tga"
    alpha: NonNegativeFloat = Field(0.08, description="Weight of the attacked image's attention.")
    beta: NonNegativeFloat = Field(0.05, description="Weight of the clean image's attention.")
    variant: Variant = Field(
        "paper", description="`official_code`: as released, see trainables/methods/tga.py."
    )

    def loss(self, views: Views) -> LossParts:
        def attention(view: View) -> Tensor:
            return patch_attention(view.tokens, view.label_text, self.variant)

        adversarial, clean, frozen = (
            attention_map(patches, views.patch_grid, views.image_size)
            for patches in (
                attention(views.adversarial),
                attention(views.clean),
                views.frozen.clean.derived(f"attention of {self.variant}", attention),
            )
        )
        return tga_loss(
            views.adversarial.logits,
            views.labels,
            adversarial,
            clean,
            frozen,
            alpha=self.alpha,
            beta=self.beta,
        )
