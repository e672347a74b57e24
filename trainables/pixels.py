"""From stored images to the pixels that models see: floats in [0, 1] on the device."""

from __future__ import annotations

import math
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

    from trainables.data.images import ImageSet

Which = TypeVar("Which", slice, "NDArray[np.int64]")

ALTERATION_SEED = 0
AHEAD = 2
"""Batches that are read before they are wanted."""


def to_device(array: NDArray[Any], device: torch.device) -> Tensor:
    """A tensor of a numpy array on `device`; on CUDA the copy does not wait for what runs there."""
    tensor = torch.from_numpy(np.array(array))  # a copy: a memory map is read-only
    if device.type == "cuda":
        tensor = tensor.pin_memory().to(device, non_blocking=True)
    return tensor


def to_pixels(images: NDArray[np.uint8], device: torch.device) -> Tensor:
    """(B, 3, H, W) float pixels in [0, 1] on `device` of (B, H, W, 3) uint8 images."""
    return to_device(images, device).permute(0, 3, 1, 2).float().div_(255)


def batches(images: ImageSet, size: int, device: torch.device) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Rows of the set, pixels and labels of each batch, in order, on `device`."""
    for rows, stored in prefetched(images, (slice(i, i + size) for i in range(0, len(images), size))):
        yield rows, shown(images, rows, stored, device), to_device(images.labels[rows], device)


def batch(images: ImageSet, rows: slice, device: torch.device) -> tuple[Tensor, Tensor]:
    """Pixels and labels of some rows of the set, on `device`."""
    return shown(images, rows, images.pixels(rows), device), to_device(images.labels[rows], device)


def shown(images: ImageSet, rows: slice, stored: NDArray[np.uint8], device: torch.device) -> Tensor:
    """Pixels of some rows of the set, altered if they are to be. An altered set is a fixed one, as a set on
    disk would be: what is random about its images depends on their numbers alone."""
    pixels = to_pixels(stored, device)
    if images.altered is None:
        return pixels
    from trainables.alterations.alter import alter  # which draws with `to_device`

    name, severity = images.altered
    return alter(pixels, name, severity, seed=ALTERATION_SEED, numbers=images.numbers[rows])


def prefetched(images: ImageSet, batches: Iterable[Which]) -> Iterator[tuple[Which, NDArray[np.uint8]]]:
    """Each batch of rows with its (B, H, W, 3) images, which are read, or decoded, while the batch before
    them is worked on."""
    with ThreadPoolExecutor(1, "images") as reader:
        waiting: deque[tuple[Which, Future[NDArray[np.uint8]]]] = deque()
        for rows in batches:
            waiting.append((rows, reader.submit(images.pixels, rows)))
            if len(waiting) > AHEAD:
                ready, stored = waiting.popleft()
                yield ready, stored.result()
        while waiting:
            ready, stored = waiting.popleft()
            yield ready, stored.result()


def augment(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """RandomResizedCrop(0.9, 1), per image: 0.9 to 1 of the area at an aspect of 3/4 to 4/3.

    A side that would be longer than the image's is cut to it, where torchvision draws again.
    """
    count = len(pixels)

    def random(low: float, high: float) -> Tensor:
        draw = torch.rand(count, generator=generator, device=pixels.device)
        return low + (high - low) * draw

    area, log_aspect = random(0.9, 1.0), random(-math.log(4 / 3), math.log(4 / 3))
    width = (area * log_aspect.exp()).sqrt().clamp(max=1)
    height = (area / log_aspect.exp()).sqrt().clamp(max=1)
    theta = torch.zeros(count, 2, 3, device=pixels.device)
    theta[:, 0, 0], theta[:, 1, 1] = width, height
    theta[:, 0, 2], theta[:, 1, 2] = random(-1, 1) * (1 - width), random(-1, 1) * (1 - height)
    grid = torch.nn.functional.affine_grid(theta, list(pixels.shape), align_corners=False)
    cropped = torch.nn.functional.grid_sample(
        pixels, grid, mode="bicubic", padding_mode="border", align_corners=False
    )
    return cropped.clamp(0, 1)
