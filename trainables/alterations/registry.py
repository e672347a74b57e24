"""What an alteration is, and all that there are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from torch import Tensor

from trainables.alterations.draws import Draws
from trainables.alterations.names import SEVERITIES

SMALL = 64
"""Images with a shorter side get the constants that were chosen for 32 pixels."""

C = TypeVar("C")
Function = Callable[[Tensor, Draws, C], Tensor]


@dataclass(frozen=True)
class Alteration:
    """function: (B, 3, H, W) pixels in [0, 1], what is random of them and the severity's constants, to
    pixels.  large, small: the constants of severities 1 to 5, by the size of the images."""

    function: Function[Any]
    large: tuple[Any, ...]
    small: tuple[Any, ...]

    def __call__(self, pixels: Tensor, severity: int, draws: Draws) -> Tensor:
        table = self.small if min(pixels.shape[-2:]) < SMALL else self.large
        return self.function(pixels, draws, table[SEVERITIES.index(severity)]).clamp(0, 1)


REGISTERED: dict[str, Alteration] = {}


def alteration(
    name: str, large: tuple[C, ...], small: tuple[C, ...] | None = None
) -> Callable[[Function[C]], Function[C]]:
    """Registers a function; what is given for large images goes for `small` ones too by default."""

    def register(function: Function[C]) -> Function[C]:
        REGISTERED[name] = Alteration(function, large, small or large)
        return function

    return register
