"""What an attack computes, counted on the way: its cost, and whether it had a gradient to follow."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from trainables.metrics.names import ZERO_GRADIENTS


class Monitor:
    """Counts forward passes and exactly-zero gradients; hand it to an attack and read it afterwards.

    Counting happens on the gradients' device and waits for nothing; `zero_gradients` waits.
    """

    def __init__(self) -> None:
        self.image_passes = 0
        """Forward passes so far, one for each image of each batch."""
        self._elements = 0
        self._nonzero: Tensor | None = None

    def add_pass(self, images: Tensor) -> None:
        self.image_passes += len(images)

    def add_gradient(self, gradient: Tensor) -> None:
        self._elements += gradient.numel()
        nonzero = torch.count_nonzero(gradient)
        self._nonzero = nonzero if self._nonzero is None else self._nonzero + nonzero

    @property
    def zero_gradients(self) -> float:
        """The share, in [0, 1], of all elements of all input gradients that were exactly zero."""
        return 0.0 if self._nonzero is None else 1 - int(self._nonzero) / self._elements

    def warn(self, attack: str) -> None:
        """One warning if more than 1 % of what `attack` should have followed was exactly zero."""
        share = self.zero_gradients
        if share > ZERO_GRADIENTS:
            warnings.warn(
                f"{attack}: {share:.1%} of the input gradient is exactly zero, so those pixels were not "
                "attacked and robustness is overstated; compute in float32, look for saturated or "
                "rounding layers, and compare with a black-box attack such as Square",
                stacklevel=3,  # whoever called the attack
            )
