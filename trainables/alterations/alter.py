"""Altered images, by the name of the alteration."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trainables.alterations import corruptions, factors  # noqa: F401
from trainables.alterations.draws import Draws
from trainables.alterations.registry import REGISTERED

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

__all__ = ["alter"]


def alter(pixels: Tensor, name: str, severity: int, *, seed: int, numbers: NDArray[np.int64]) -> Tensor:
    """(B, 3, H, W) pixels in [0, 1] under an alteration of `names.ALTERATIONS` at severity 1 to 5.

    What is random about an image depends on seed, name and its number alone, and all severities have it in
    common.  numbers: (B,) the images' numbers in their set.
    """
    draws = Draws(seed, name, numbers, pixels.device)
    return REGISTERED[name](pixels, severity, draws)
