"""The fifteen common corruptions of Hendrycks & Dietterich, ICLR 2019, arXiv 1903.12261.

Their constants are those of ImageNet-C, and for images below 64 pixels those of CIFAR-10-C, as published in
hendrycks/robustness, ImageNet-C/create_c/make_imagenet_c.py and make_cifar_c.py. Lengths are in pixels, which
were 224 and 32 a side there. What differs: frost is drawn, nothing is rounded to 8 bits between steps or
saved as JPEG in the end, and what is told below.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from scipy.special import ndtr
from torch import Tensor

from trainables.alterations.draws import Draws
from trainables.alterations.jpeg import compressed
from trainables.alterations.registry import alteration
from trainables.alterations.resampling import (
    blocks,
    blurred,
    disk,
    filtered,
    moved,
    places,
    sampled,
    separable,
    trailed,
    zoomed,
)
from trainables.alterations.textures import clouds, ice

# Noise


@alteration("gaussian-noise", large=(0.08, 0.12, 0.18, 0.26, 0.38), small=(0.04, 0.06, 0.08, 0.09, 0.10))
def gaussian_noise(pixels: Tensor, draws: Draws, deviation: float) -> Tensor:
    return pixels + draws.tensor(draws.normal(*pixels.shape[1:])) * deviation


@alteration("shot-noise", large=(60, 25, 12, 5, 3), small=(500, 250, 100, 75, 50))
def shot_noise(pixels: Tensor, draws: Draws, photons: float) -> Tensor:
    """photons: that a value of 1 stands for."""
    normal = draws.normal(*pixels.shape[1:])
    return poisson(pixels * photons, draws.tensor(ndtr(normal)), draws.tensor(normal)) * (1 / photons)


FEW, TERMS = 6, 24
"""Below the first, Poisson distributions are summed up, and reach the second with a probability of 1e-8."""


def poisson(rate: Tensor, uniform: Tensor, normal: Tensor) -> Tensor:
    """Quantiles of Poisson distributions, at the probability `uniform` = Phi(`normal`).

    For rates below 6 by their definition, above by Cornish and Fisher's expansion, rounded. Its variance is
    less by the 1/12 which rounding adds.
    """
    few, many = rate.clamp(max=FEW), rate.clamp(min=FEW)
    *_, whole = series(few)  # exp(rate), without exp
    below = uniform * whole
    count = torch.zeros_like(rate)
    for partial in series(few):
        count += partial < below
    deviation = (many - 1 / 12).sqrt()
    squared = normal * normal
    expanded = many + deviation * normal + (squared - 1) * (1 / 6) + normal * (1 - squared) / (deviation * 72)
    return count.where(rate < FEW, expanded.round())


def series(rate: Tensor) -> Iterator[Tensor]:
    """Partial sums of the series of exp(rate); each is changed into the next."""
    term, partial = torch.ones_like(rate), torch.ones_like(rate)
    yield partial
    for n in range(1, TERMS):
        term = term.mul_(rate).mul_(1 / n)
        yield partial.add_(term)


@alteration("impulse-noise", large=(0.03, 0.06, 0.09, 0.17, 0.27), small=(0.01, 0.02, 0.03, 0.05, 0.07))
def impulse_noise(pixels: Tensor, draws: Draws, share: float) -> Tensor:
    drawn = draws.tensor(draws.field(*pixels.shape[1:]))
    return pixels.where(drawn >= share, (drawn < share / 2).float())


# Blur


@alteration(
    "defocus-blur",
    large=((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)),
    small=((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)),
)
def defocus_blur(pixels: Tensor, _: Draws, size: tuple[float, float]) -> Tensor:
    """size: radius, and sigma of the disk's edge."""
    return filtered(pixels, disk(*size))


@alteration(
    "glass-blur",
    large=((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)),
    small=((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)),
)
def glass_blur(pixels: Tensor, draws: Draws, size: tuple[float, int, int]) -> Tensor:
    """size: sigma, how far a pixel is taken from, and how often.

    All pixels move at once. In the original they do so one after the other, and some are carried further.
    """
    sigma, reach, times = size
    pixels = blurred(pixels, sigma)
    rows, columns = places(pixels)
    for _ in range(times):
        drawn = draws.tensor(draws.field(2, *pixels.shape[-2:]))
        down, right = ((drawn * (2 * reach)).floor() - reach).long().unbind(1)
        pixels = moved(pixels, rows + down, columns + right)
    return blurred(pixels, sigma)


@alteration(
    "motion-blur",
    large=((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)),
    small=((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)),
)
def motion_blur(pixels: Tensor, draws: Draws, size: tuple[int, float]) -> Tensor:
    """size: radius and sigma of the trail."""
    return trailed(pixels, *size, draws.uniform(-45, 45))


@alteration(
    "zoom-blur",
    large=((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03)),
    small=((1.06, 0.01), (1.11, 0.01), (1.16, 0.01), (1.21, 0.01), (1.26, 0.01)),
)
def zoom_blur(pixels: Tensor, _: Draws, zooms: tuple[float, float]) -> Tensor:
    """zooms: end and step of the enlargements, about the exact centre; the original crops whole pixels."""
    factors = np.arange(1, *zooms)
    return (pixels + zoomed(pixels, *factors)) * (1 / (len(factors) + 1))


# Weather


@alteration(
    "snow",
    large=(
        (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
        (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
        (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
        (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
        (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
    ),
    small=(
        (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
        (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
        (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
        (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
        (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
    ),
)
def snow(pixels: Tensor, draws: Draws, kind: tuple[float, float, float, float, int, float, float]) -> Tensor:
    """kind: mean and deviation of the noise that flakes come from, its enlargement, the least that is a
    flake, radius and sigma of its trail, and how much of the image keeps its colour."""
    mean, deviation, size, least, radius, sigma, kept = kind
    noise = draws.tensor(draws.normal(1, *pixels.shape[-2:])) * deviation + mean
    flakes = zoomed(noise, size)
    flakes = flakes.where(flakes >= least, 0).clamp(0, 1)
    flakes = trailed(flakes, radius, sigma, draws.uniform(-135, -45))
    white = (gray(pixels) * 1.5 + 0.5).maximum(pixels)
    return pixels * kept + white * (1 - kept) + flakes + flakes.flip((2, 3))


def gray(pixels: Tensor) -> Tensor:
    """(B, 1, H, W) luma, ITU-R BT.601."""
    red, green, blue = pixels.split(1, 1)
    return red * 0.299 + green * 0.587 + blue * 0.114


@alteration(
    "frost",
    large=((1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75)),
    small=((1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45)),
)
def frost(pixels: Tensor, draws: Draws, shares: tuple[float, float]) -> Tensor:
    """shares: of the image and of the ice, which in the original is from photographs."""
    of_image, of_ice = shares
    height, width = pixels.shape[-2:]
    return pixels * of_image + ice(draws, height, width) * of_ice


@alteration(
    "fog",
    large=((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)),
    small=((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)),
)
def fog(pixels: Tensor, draws: Draws, kind: tuple[float, float]) -> Tensor:
    """kind: how thick, and how smooth."""
    thick, decay = kind
    height, width = pixels.shape[-2:]
    brightest = pixels.amax((1, 2, 3), keepdim=True)
    foggy = pixels + clouds(draws, height, width, decay) * thick
    return foggy * (brightest / (brightest + thick))


# Digital


@alteration("brightness", large=(0.1, 0.2, 0.3, 0.4, 0.5), small=(0.05, 0.1, 0.15, 0.2, 0.3))
def brightness(pixels: Tensor, _: Draws, more: float) -> Tensor:
    """HSV's value is the largest channel, and with hue and saturation kept all channels scale with it."""
    value = pixels.amax(1, keepdim=True)
    brighter = (value + more).clamp(max=1)
    return (pixels * (brighter / value)).where(value > 0, brighter)


@alteration("contrast", large=(0.4, 0.3, 0.2, 0.1, 0.05), small=(0.75, 0.5, 0.4, 0.3, 0.15))
def contrast(pixels: Tensor, _: Draws, kept: float) -> Tensor:
    # summed as double, the mean is the same float however a device orders its sums
    mean = pixels.mean((2, 3), keepdim=True, dtype=torch.float64).float()
    return (pixels - mean) * kept + mean


WIDER = 244 / 224
"""The original takes the side of images of 224 for 244."""


@alteration(
    "elastic",
    large=(
        (WIDER * 2, WIDER * 0.7, WIDER * 0.1),
        (WIDER * 2, WIDER * 0.08, WIDER * 0.2),
        (WIDER * 0.05, WIDER * 0.01, WIDER * 0.02),
        (WIDER * 0.07, WIDER * 0.01, WIDER * 0.02),
        (WIDER * 0.12, WIDER * 0.01, WIDER * 0.02),
    ),
    small=((0, 0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05), (0.1, 0.03, 0.03)),
)
def elastic(pixels: Tensor, draws: Draws, shares: tuple[float, float, float]) -> Tensor:
    """shares, of the shorter side: how far pixels move, over how far they move together, and how far three
    points of the whole image do. Both are one resampling, in the original two."""
    height, width = pixels.shape[-2:]
    side = min(height, width)
    far, together, whole = (side * share for share in shares)
    corners = np.array([[1, 1], [1, -1], [-1, -1]]) * (side // 3) + np.array([width // 2, height // 2])
    moved_to = corners + draws.uniform(-whole, whole, 3, 2)
    ones = np.ones((*moved_to.shape[:2], 1))
    back = draws.tensor(np.linalg.solve(np.concatenate([moved_to, ones], 2), corners))[..., None, None]
    noise = draws.tensor(2 * draws.field(2, height, width) - 1)
    down, right = (blurred(noise, together, truncate=3, border="symmetric") * far).unbind(1)
    rows, columns = places(pixels)
    row, column = rows + down, columns + right
    column, row = (column * back[:, 0, i] + row * back[:, 1, i] + back[:, 2, i] for i in (0, 1))
    return sampled(pixels, reflected(row, height), reflected(column, width))


def reflected(positions: Tensor, size: int) -> Tensor:
    """Positions less than `size` beyond the border, reflected into 0 to size - 1."""
    return (size - 1) - ((size - 1) - positions.abs()).abs()


@alteration("pixelate", large=(0.6, 0.5, 0.4, 0.3, 0.25), small=(0.95, 0.9, 0.85, 0.75, 0.65))
def pixelate(pixels: Tensor, _: Draws, share: float) -> Tensor:
    rows, columns = (blocks(size, int(size * share)) for size in pixels.shape[-2:])
    return separable(pixels, (rows, columns))


@alteration("jpeg", large=(25, 18, 15, 10, 7), small=(80, 65, 58, 50, 40))
def jpeg(pixels: Tensor, _: Draws, quality: int) -> Tensor:
    return compressed(pixels, quality)
