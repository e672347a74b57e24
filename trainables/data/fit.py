"""How an image of any size becomes the model's input: open_clip's own preprocessing, up to the tensor."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from PIL import Image

ResizeMode = Literal["shortest", "longest", "squash"]


@dataclass(frozen=True)
class Fit:
    """The input size (H, W) of a model, and how an image gets there.

    mode: `shortest` side resized, then cropped at the centre; `longest` side resized, then padded with
    `fill`; or `squash`, both sides resized.
    """

    size: tuple[int, int]
    mode: ResizeMode = "shortest"
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    fill: int = 0

    def __call__(self, image: Image.Image) -> Image.Image:
        return image if image.size == self.size[::-1] else spatial_transform(self)(image)


@cache
def spatial_transform(fit: Fit) -> Callable[[Image.Image], Image.Image]:
    """What open_clip does to a PIL image before it becomes a tensor."""
    from open_clip.transform import MaybeConvertMode, MaybeToTensor, image_transform
    from torchvision.transforms import Compose, Normalize

    whole = image_transform(
        fit.size, is_train=False, resize_mode=fit.mode, interpolation=fit.interpolation, fill_color=fit.fill
    )
    after = (MaybeConvertMode, MaybeToTensor, Normalize)
    return Compose([step for step in whole.transforms if not isinstance(step, after)])
