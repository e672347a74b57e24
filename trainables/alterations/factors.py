"""Visual factors: what may differ between two images of one class, drawn from the image itself.

They are made for grey objects on black, as those of the embedded sets. On photographs they are approximate:
"the object" is everything that is not near-black, and what comes into view from beyond the border is black.
At the last severities `larger` and `partial-view` can hide what tells two digits apart.
"""

from __future__ import annotations

import numpy as np
from torch import Tensor

from trainables.alterations.draws import Draws
from trainables.alterations.registry import alteration
from trainables.alterations.resampling import places, turned, zoomed
from trainables.alterations.textures import clouds, directed, wave

NEAR_BLACK = 0.04
STRENGTHS = (0.2, 0.4, 0.6, 0.8, 1.0)


def on_object(pixels: Tensor) -> Tensor:
    """(B, 1, H, W) where an image is not near-black."""
    return pixels.amax(1, keepdim=True) > NEAR_BLACK


def hues(draws: Draws) -> Tensor:
    """(B, 3, 1, 1) pure colours, uniform in HSV's hue."""
    sixths = draws.uniform(0, 6, 1) + np.array([0, 4, 2])
    return draws.tensor(np.clip(np.abs(sixths % 6 - 3) - 1, 0, 1)[..., None, None])


def tinted(pixels: Tensor, draws: Draws, strength: Tensor | float) -> Tensor:
    """The object on its way, as far as `strength`, to one pure colour of the same value in HSV."""
    coloured = pixels.amax(1, keepdim=True) * hues(draws)
    return (pixels + (coloured - pixels) * strength).where(on_object(pixels), pixels)


# Place


@alteration("pose", (10, 20, 30, 40, 50))
def pose(pixels: Tensor, draws: Draws, degrees: float) -> Tensor:
    side = np.sign(draws.uniform(-1, 1))
    return turned(pixels, side * degrees * draws.uniform(0.8, 1.2))


@alteration("smaller", (0.9, 0.8, 0.7, 0.6, 0.5))
def smaller(pixels: Tensor, _: Draws, size: float) -> Tensor:
    return zoomed(pixels, size)


@alteration("larger", (1.1, 1.2, 1.3, 1.45, 1.6))
def larger(pixels: Tensor, _: Draws, size: float) -> Tensor:
    return zoomed(pixels, size)


@alteration("partial-view", (0.08, 0.16, 0.24, 0.32, 0.4))
def partial_view(pixels: Tensor, draws: Draws, share: float) -> Tensor:
    """share: of the object's extent along a random direction, from its edge."""
    rows, columns = places(pixels)
    right, down = directed(draws, 1, 1, 1)
    along = rows * down + columns * right
    seen = on_object(pixels)
    first = along.where(seen, np.inf).amin((2, 3), keepdim=True)
    last = along.where(seen, -np.inf).amax((2, 3), keepdim=True)
    return pixels.where(along >= first + (last - first) * share, 0)


# Surface


@alteration("background", STRENGTHS)
def background(pixels: Tensor, draws: Draws, strength: float) -> Tensor:
    height, width = pixels.shape[-2:]
    first, second = draws.tensor(draws.uniform(0, 1, 2, 3, 1, 1)).unbind(1)
    texture = first + (second - first) * clouds(draws, height, width, decay=1.75)
    return pixels.where(on_object(pixels), texture * strength)


@alteration("pattern", STRENGTHS)
def pattern(pixels: Tensor, draws: Draws, strength: float) -> Tensor:
    """Tinted in stripes with soft edges, 4 to 8 across the shorter side."""
    rows, columns = places(pixels)
    side = min(pixels.shape[-2:])
    right, down = directed(draws, 1, 1, 1) * draws.tensor(draws.uniform(8, 16, 1, 1, 1) / side)
    stripes = (wave(rows * down + columns * right) * 3 - 1).clamp(0, 1)
    return tinted(pixels, draws, stripes * strength)


@alteration("color", STRENGTHS)
def color(pixels: Tensor, draws: Draws, strength: float) -> Tensor:
    return tinted(pixels, draws, strength)


# Light


@alteration("brighter", (1.3, 1.7, 2.4, 3.5, 5.0))
def brighter(pixels: Tensor, _: Draws, light: float) -> Tensor:
    """As many times the light where it is dark, and less towards white, so that bright parts still differ."""
    return pixels * light / (pixels * (light - 1) + 1)


@alteration("darker", (0.8, 0.6, 0.45, 0.3, 0.2))
def darker(pixels: Tensor, _: Draws, light: float) -> Tensor:
    return pixels * light
