"""JPEG's losses as libjpeg makes them: baseline, colour at half the resolution. ITU-T T.81."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from trainables.alterations.resampling import Matrix, separable
from trainables.pixels import to_device

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Table = NDArray[np.int64]

LUMINANCE = np.array(
    [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ]
)
"""Quantisation steps at quality 50, T.81 table K.1."""

CHROMINANCE = np.full((8, 8), 99)
CHROMINANCE[:4, :4] = [[17, 18, 24, 47], [18, 21, 26, 66], [24, 26, 56, 99], [47, 66, 99, 99]]
"""Table K.2."""


def compressed(pixels: Tensor, quality: int) -> Tensor:
    """Compressed at libjpeg's `quality`, 1 to 100, and read again."""
    height, width = pixels.shape[-2:]
    border = (0, -width % 16, 0, height % 2)  # as libjpeg, which repeats the last row after halving alone
    luma, chroma = split(functional.pad((pixels * 255).round(), border, mode="replicate"))
    luma = coded(luma, steps(LUMINANCE, quality))
    chroma = coded(halved(chroma), steps(CHROMINANCE, quality))
    chroma = doubled(chroma[..., : (width + 1) // 2])
    return merged(luma[..., :height, :width], chroma[..., :height, :width]).round().clamp(0, 255) * (1 / 255)


def split(levels: Tensor) -> tuple[Tensor, Tensor]:
    """Luma (B, 1, H, W) and the two chromas (B, 2, H, W) of RGB, all 0 to 255 in whole numbers. JFIF."""
    red, green, blue = levels.split(1, 1)
    luma = red * 0.299 + green * 0.587 + blue * 0.114
    chroma = torch.cat([(blue - luma) * (1 / 1.772), (red - luma) * (1 / 1.402)], 1)
    return luma.round(), (chroma + 128).round()


def merged(luma: Tensor, chroma: Tensor) -> Tensor:
    """RGB again, neither rounded nor cut off."""
    blue, red = (chroma - 128).split(1, 1)
    green = luma - red * (0.299 * 1.402 / 0.587) - blue * (0.114 * 1.772 / 0.587)
    return torch.cat([luma + red * 1.402, green, luma + blue * 1.772], 1)


def steps(table: Table, quality: int) -> Table:
    """(8, 8) quantisation steps at a quality, scaled as libjpeg does."""
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    return np.clip((table * scale + 50) // 100, 1, 255)


def coded(levels: Tensor, steps: Table) -> Tensor:
    """(B, C, H, W) of 0 to 255, W a multiple of 8, with their cosine coefficients quantised."""
    height, width = levels.shape[-2:]
    levels = functional.pad(levels, (0, 0, 0, -height % 8), mode="replicate")
    rows, columns = cosines(levels.shape[-2]), cosines(width)
    tiled = np.tile(steps, (len(rows) // 8, len(columns) // 8)).astype(np.float32)
    step = to_device(tiled, levels.device)
    coefficients = (separable(levels - 128, (rows, columns)) / step).round() * step
    back = separable(coefficients, (rows.T, columns.T))[..., :height, :]
    return (back + 128).round().clamp(0, 255)


@cache
def cosines(size: int) -> Matrix:
    """(size, size) orthonormal cosine transform (DCT-II) of each 8 values."""
    at = np.arange(8)
    transform = np.cos(np.pi / 8 * at[:, None] * (at + 0.5)) / 2
    transform[0] /= np.sqrt(2)
    return np.kron(np.eye(size // 8), transform)


def halved(chroma: Tensor) -> Tensor:
    """The mean of each 2 x 2 values; a half is rounded down in even columns and up in odd ones."""
    rows, columns = (np.repeat(np.eye(size // 2), 2, axis=1) / 2 for size in chroma.shape[-2:])
    up = torch.arange(len(columns), device=chroma.device) % 2
    return (separable(chroma, (rows, columns)) + (up + 1) * 0.25).floor()


def doubled(chroma: Tensor) -> Tensor:
    """Each value a quarter of the way to its neighbour, which libjpeg calls fancy upsampling."""
    rows, columns = (between(size) for size in chroma.shape[-2:])
    return separable(chroma, (rows, columns)).round()


@cache
def between(size: int) -> Matrix:
    """(2 size, size) three quarters of the nearest value and one of the next."""
    at = np.arange(2 * size)
    neighbour = np.clip(at // 2 + np.where(at % 2, 1, -1), 0, size - 1)
    return 0.75 * np.eye(size)[at // 2] + 0.25 * np.eye(size)[neighbour]
