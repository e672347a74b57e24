"""Random clouds, ice and stripes, one for each image."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from trainables.alterations.draws import Draws

NEEDLES = 80
LENGTHS = (0.1, 0.4)
"""Of frost: how many ice needles lie side by side in an image, at most, and the bounds of half their lengths,
of the shorter side."""


def clouds(draws: Draws, height: int, width: int, decay: float) -> Tensor:
    """(B, 1, H, W) fractal noise by diamonds and squares, on a torus of the next power of two.

    From each grid to one twice as fine the noise falls to 1 / decay^2, as in ImageNet-C. On the torus each
    image ranges from 0 to 1.
    """
    step = side = 1 << (max(height, width) - 1).bit_length()
    noise = draws.tensor(2 * draws.field(side, side) - 1)
    heights, scale = torch.zeros_like(noise), 1.0
    while step > 1:
        half = step // 2
        old, new = slice(None, None, step), slice(half, None, step)
        corners = heights[:, old, old]
        across, down = corners + corners.roll(-1, 2), corners + corners.roll(-1, 1)
        centres = (across + across.roll(-1, 1)) / 4 + noise[:, new, new] * scale
        heights[:, new, new] = centres
        heights[:, old, new] = (across + centres + centres.roll(1, 1)) / 4 + noise[:, old, new] * scale
        heights[:, new, old] = (down + centres + centres.roll(1, 2)) / 4 + noise[:, new, old] * scale
        step, scale = half, scale / decay**2
    low, high = heights.amin((1, 2), keepdim=True), heights.amax((1, 2), keepdim=True)
    return ((heights - low) / (high - low))[:, None, :height, :width]


def wave(distance: Tensor) -> Tensor:
    """A triangle between 0 at even numbers and 1 at odd ones."""
    return 1 - (distance.remainder(2) - 1).abs()


def directed(draws: Draws, *shape: int) -> Tensor:
    """(2, B, *shape) unit vectors."""
    angle = draws.uniform(0, 2 * np.pi, *shape)
    return draws.tensor(np.stack([np.cos(angle), np.sin(angle)]))


def ice(draws: Draws, height: int, width: int) -> Tensor:
    """(B, 3, H, W) bluish frost in [0, 1]: needles of random places, directions and lengths, which taper
    from their middle, on a haze; both as thick as clouds say."""
    side = min(height, width)
    thickness = max(1, side / NEEDLES)
    count = int(1.5 * side / thickness)
    row, column = draws.tensor(np.arange(height)[:, None]), draws.tensor(np.arange(width))
    middle = draws.tensor(draws.uniform(0, 1, count, 2, 1, 1) * np.array([height, width])[:, None, None])
    half = draws.tensor(draws.uniform(*LENGTHS, count, 1, 1) * side)
    right, down = directed(draws, count, 1, 1)
    thick = clouds(draws, height, width, decay=1.75)[:, 0]
    needles = torch.zeros_like(thick)
    for n in range(count):
        rows, columns = row - middle[:, n, 0], column - middle[:, n, 1]
        along = (columns * right[:, n] + rows * down[:, n]).abs()
        across = (columns * down[:, n] - rows * right[:, n]).abs()
        needles = needles.maximum(1 - along / half[:, n] - across * (1 / thickness))
    white = thick * 0.5 + needles * (thick + 0.3)
    return white.clamp(0, 1)[:, None] * draws.tensor(np.array([0.85, 0.95, 1])[:, None, None])
