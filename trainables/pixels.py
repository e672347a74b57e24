"""From stored images to the pixels that models see: floats in [0, 1] on the device."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from numpy.typing import NDArray


def to_pixels(images: NDArray[np.uint8], device: torch.device) -> Tensor:
    """(B, 3, H, W) float pixels in [0, 1] on `device` of (B, H, W, 3) uint8 images."""
    tensor = torch.from_numpy(np.array(images))  # a copy: a memory map is read-only
    if device.type == "cuda":
        tensor = tensor.pin_memory().to(device, non_blocking=True)
    return tensor.permute(0, 3, 1, 2).float().div_(255)


def augment(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Random resized crop of 0.9 to 1 of the area and horizontal flip, per image."""
    count = len(pixels)

    def random(low: float, high: float) -> Tensor:
        draw = torch.rand(count, generator=generator, device=pixels.device)
        return low + (high - low) * draw

    side = random(0.9, 1.0).sqrt()
    flip = random(0, 1).round() * 2 - 1
    theta = torch.zeros(count, 2, 3, device=pixels.device)
    theta[:, 0, 0], theta[:, 1, 1] = side * flip, side
    theta[:, 0, 2], theta[:, 1, 2] = random(-1, 1) * (1 - side), random(-1, 1) * (1 - side)
    grid = torch.nn.functional.affine_grid(theta, list(pixels.shape), align_corners=False)
    cropped = torch.nn.functional.grid_sample(pixels, grid, padding_mode="border", align_corners=False)
    return cropped.clamp(0, 1)
