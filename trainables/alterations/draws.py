"""What is random about altered images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from trainables.pixels import to_device

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray
    from torch import Tensor


class Draws:
    """Random numbers for each image of a batch, which depend on a seed, a name and its number alone.

    So an altered image does not depend on its batch, on the order in it or on the device.
    numbers: (B,) the images' numbers in their set.
    """

    def __init__(self, seed: int, name: str, numbers: NDArray[np.int64], device: torch.device) -> None:
        stream = tuple(name.encode())
        self._generators = [
            np.random.default_rng(np.random.SeedSequence((seed, int(number)), spawn_key=stream))
            for number in numbers
        ]
        self._device = device

    def uniform(self, low: float, high: float, *shape: int) -> NDArray[np.float64]:
        """(B, *shape) in [low, high)."""
        drawn = np.array([generator.uniform(low, high, shape) for generator in self._generators])
        return drawn.reshape(-1, *shape)

    def field(self, *shape: int) -> NDArray[np.float32]:
        """(B, *shape) in [0, 1), for many of them."""
        drawn = np.empty((len(self._generators), *shape), np.float32)
        for generator, row in zip(self._generators, drawn, strict=True):
            generator.random(out=row, dtype=np.float32)
        return drawn

    def normal(self, *shape: int) -> NDArray[np.float32]:
        """(B, *shape) of the standard normal distribution."""
        drawn = np.empty((len(self._generators), *shape), np.float32)
        for generator, row in zip(self._generators, drawn, strict=True):
            generator.standard_normal(out=row, dtype=np.float32)
        return drawn

    def tensor(self, array: NDArray[Any]) -> Tensor:
        """On the images' device, as float32."""
        return to_device(array.astype(np.float32), self._device)
