"""The balls that attacks stay in: distances, steepest steps and projections, for one norm or the other.

Distances are in [0, 1] pixels: the largest change of any channel value (`linf`), or the Euclidean
length of the change over all C * H * W values of one image (`l2`).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Norm = Literal["linf", "l2"]


def per_image(values: Tensor) -> Tensor:
    """(B, 1, 1, 1) of (B,), to multiply images with."""
    return values.view(-1, 1, 1, 1)


def lengths(perturbations: Tensor, norm: Norm) -> Tensor:
    """(B,) how far each of (B, C, H, W) perturbations goes."""
    flat = perturbations.flatten(1)
    return flat.abs().amax(1) if norm == "linf" else torch.linalg.vector_norm(flat, dim=1)


def steepest(gradient: Tensor, norm: Norm) -> Tensor:
    """The step of length one that a linear function with this gradient grows most along.

    The sign (`linf`) or the gradient over its length (`l2`), however small the gradient; zero where
    the gradient is zero.  gradient: (B, C, H, W), finite.
    """
    if norm == "linf":
        return gradient.sign()
    largest = lengths(gradient, "linf")
    scaled = gradient / per_image(torch.where(largest > 0, largest, 1))  # else small squares are zero
    return scaled / per_image(lengths(scaled, "l2").clamp_min(1))  # at least one, unless all is zero


def into_ball(points: Tensor, images: Tensor, epsilon: float, norm: Norm) -> Tensor:
    """`points` moved to within `epsilon` of `images` and into [0, 1]. All (B, C, H, W).

    First into the ball, then value by value into [0, 1]. As the images lie in [0, 1] themselves,
    the second never moves a value away from its image's, so the result lies in both sets.
    """
    change = points - images
    if norm == "linf":
        change = change.clamp(-epsilon, epsilon)
    else:
        change = change * per_image((epsilon / lengths(change, "l2").clamp_min(1e-30)).clamp(max=1))
    return (images + change).clamp(0, 1)
