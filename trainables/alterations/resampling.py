"""Blurring, resizing and moving pixels, the same to the last bit in any batch.

Everything is a sum, in a fixed order, of moved and weighted images, without convolutions, matrix products or
transcendental functions of pixels: how those are rounded depends on the size of the batch and on the device.
So it does, on some devices, in a division by a number.
"""

from __future__ import annotations

import itertools
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from trainables.pixels import to_device

if TYPE_CHECKING:
    from numpy.typing import NDArray

Matrix: TypeAlias = "NDArray[np.floating[Any]]"


def separable(pixels: Tensor, *maps: tuple[Matrix, Matrix]) -> Tensor:
    """(B, C, M, N) of (B, C, H, W): the sum of linear maps, each by a matrix (M, H) for the H values of every
    column and one (N, W) for the W values of every row. Fast where the rows of the matrices are sparse."""
    image = pixels.permute(2, 3, 0, 1).contiguous()  # so that a row, or a column, is one piece of memory
    total = sum(along(along(image, rows, 0), columns, 1) for rows, columns in maps)
    assert isinstance(total, Tensor)
    return total.permute(2, 3, 0, 1).contiguous()


def along(image: Tensor, matrix: Matrix, dim: Literal[0, 1]) -> Tensor:
    """A linear map (M, N) of the N values along a dimension of four."""
    taps = max(1, int((matrix != 0).sum(1).max()))
    sources = np.argsort(matrix == 0, axis=1, kind="stable")[:, :taps]
    weights = np.take_along_axis(matrix, sources, 1).astype(np.float32)
    indices = to_device(np.ascontiguousarray(sources.T), image.device)
    factors = to_device(weights.T.reshape(taps, *(1,) * dim, -1, *(1,) * (3 - dim)), image.device)
    result = image.index_select(dim, indices[0]) * factors[0]
    for index, factor in zip(indices[1:], factors[1:], strict=True):
        result += image.index_select(dim, index).mul_(factor)
    return result


@cache
def gaussian(size: int, sigma: float, truncate: float, border: Literal["edge", "symmetric"]) -> Matrix:
    """(size, size) Gaussian blur, cut off at `truncate` sigmas; none for a sigma of 0. Beyond the border,
    `edge` repeats the last value and `symmetric` reflects all."""
    radius = int(truncate * sigma + 0.5)
    weights = np.exp(-0.5 * (np.arange(-radius, radius + 1) / max(sigma, 1e-9)) ** 2)
    sources = np.pad(np.arange(size), radius, mode=border)
    rows = np.eye(size)
    shifts = (weight * rows[sources[k : k + size]] for k, weight in enumerate(weights / weights.sum()))
    return np.sum(list(shifts), axis=0)


def blurred(
    pixels: Tensor, sigma: float, truncate: float = 4, border: Literal["edge", "symmetric"] = "edge"
) -> Tensor:
    rows, columns = (gaussian(size, sigma, truncate, border) for size in pixels.shape[-2:])
    return separable(pixels, (rows, columns))


@cache
def zoom(size: int, factor: float) -> Matrix:
    """(size, size) enlargement about the centre, bilinear; nothing lies beyond the border."""
    centre = (size - 1) / 2
    positions = centre + (np.arange(size) - centre) / factor
    return np.clip(1 - np.abs(positions[:, None] - np.arange(size)), 0, None)


def zoomed(pixels: Tensor, *factors: float) -> Tensor:
    """Enlarged about the centre, or made smaller, on black; the sum, if by several factors."""
    height, width = pixels.shape[-2:]
    return separable(pixels, *((zoom(height, factor), zoom(width, factor)) for factor in factors))


@cache
def blocks(size: int, count: int) -> Matrix:
    """(size, size) means of `count` blocks, each repeated: Pillow's box filter there and back. A pixel
    belongs to the block in which its centre lies."""
    scale = size / count
    bounds = np.floor(np.arange(count + 1) * scale + 0.5).astype(int)
    down = np.zeros((count, size))
    for block, (start, end) in enumerate(itertools.pairwise(bounds)):
        down[block, start:end] = 1 / (end - start)
    return down[((np.arange(size) + 0.5) / scale).astype(int)]


def moved(pixels: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Pixels (B, C, H, W) from the integer places (B, H, W), or from the nearest that exist."""
    height, width = pixels.shape[-2:]
    places = rows.clamp(0, height - 1) * width + columns.clamp(0, width - 1)
    index = places[:, None].expand(*pixels.shape[:2], *places.shape[1:])
    return pixels.flatten(2).gather(2, index.flatten(2)).view(index.shape)


def sampled(pixels: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Pixels (B, C, H, W) from real places (B, H, W) by bilinear interpolation; beyond the border lies the
    last value."""
    above, left = rows.floor(), columns.floor()
    down, right = (rows - above)[:, None], (columns - left)[:, None]
    row, column = above.long(), left.long()
    upper = moved(pixels, row, column) * (1 - right) + moved(pixels, row, column + 1) * right
    lower = moved(pixels, row + 1, column) * (1 - right) + moved(pixels, row + 1, column + 1) * right
    return upper * (1 - down) + lower * down


def places(pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Rows (H, 1) and columns (W,) of all pixels, 0 to H - 1 and to W - 1."""
    height, width = pixels.shape[-2:]
    return (
        torch.arange(height, device=pixels.device)[:, None],
        torch.arange(width, device=pixels.device),
    )


def turned(pixels: Tensor, degrees: NDArray[np.float64]) -> Tensor:
    """Rotated counter-clockwise about the centre by (B,) `degrees`, on black; bilinear."""
    height, width = pixels.shape[-2:]
    rows, columns = places(pixels)
    down, right = rows - (height - 1) / 2, columns - (width - 1) / 2
    turn = np.stack([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))]).astype(np.float32)
    cos, sin = to_device(turn[..., None, None], pixels.device)
    bordered = functional.pad(pixels, (1, 1, 1, 1))
    return sampled(
        bordered,
        right * sin + down * cos + (height + 1) / 2,
        right * cos - down * sin + (width + 1) / 2,
    )


def trail(radius: int, sigma: float) -> NDArray[np.float64]:
    """(2 radius + 1,) weights of a half Gaussian: ImageMagick's kernel of a motion blur."""
    weights = np.exp(-0.5 * (np.arange(2 * radius + 1) / sigma) ** 2)
    return weights / weights.sum()


def trailed(pixels: Tensor, radius: int, sigma: float, degrees: NDArray[np.float64]) -> Tensor:
    """Each pixel the mean of a `trail` of whole pixels that leaves it at (B,) `degrees` clockwise from the
    right; beyond the border lies the last value."""
    rows, columns = places(pixels)
    steps = np.arange(2 * radius + 1)[:, None]
    angles = np.radians(degrees)
    offsets = np.stack([np.rint(steps * np.sin(angles)), np.rint(steps * np.cos(angles))], 1)
    shifts = to_device(offsets.astype(np.int64)[..., None, None], pixels.device)  # (steps, 2, B, 1, 1)
    result = torch.zeros_like(pixels)
    for weight, (down, right) in zip(trail(radius, sigma), shifts, strict=True):
        result += moved(pixels, rows + down, columns + right).mul_(float(weight))
    return result


@cache
def disk(radius: float, sigma: float) -> Matrix:
    """(K, K) weights of a disk whose edge is softened by a Gaussian of 3 taps, 5 for radii above 8."""
    soft = 1 if radius <= 8 else 2
    reach = int(radius) + soft
    squares = np.arange(-reach, reach + 1) ** 2
    hard = (squares[:, None] + squares <= radius**2).astype(float)
    taps = np.exp(-0.5 * (np.arange(-soft, soft + 1) / sigma) ** 2)
    edge = sum(tap * np.eye(len(hard), k=k) for tap, k in zip(taps, range(-soft, soft + 1), strict=True))
    kernel = edge @ hard @ edge
    return kernel / kernel.sum()


def filtered(pixels: Tensor, kernel: Matrix) -> Tensor:
    """Correlated with a (K, K) kernel, K odd; reflected at the border without repeating the last value."""
    height, width = pixels.shape[-2:]
    reach = len(kernel) // 2
    padded = functional.pad(pixels, (reach, reach, reach, reach), mode="reflect")
    result = torch.zeros_like(pixels)
    for row, column in np.argwhere(kernel):
        result += padded[..., row : row + height, column : column + width] * float(kernel[row, column])
    return result
