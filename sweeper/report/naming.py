"""Where names are written beside points, so that they cover little. Lengths are in pixels, upwards."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from sweeper.report.chart import wide

Array = NDArray[np.float64]
Offset = tuple[float, float]
"""From a point to the middle of its name."""

RADIUS, HEIGHT = 6.0, 14.0
"""What a point takes, and a name."""


def settled(
    points: Array,
    named: Iterable[tuple[Sequence[float], str]],
    area: Sequence[float],
    offsets: Callable[[float], Sequence[Offset]],
) -> list[int]:
    """For each name that of its offsets at which it covers least, the first of equals.

    points: (n, 2), all that there are, from the lower left corner of an area of this width and height.
    named: a point and its name.  offsets: of a name of this width.
    """
    taken, chosen = [boxes(points, 2 * RADIUS, 2 * RADIUS)], list[int]()
    for point, name in named:
        width = wide(name)
        tried = boxes(np.asarray(point) + np.array(offsets(width)), width, HEIGHT)
        own, others = tried[:, None], np.concatenate(taken)
        covers = (own[..., :2] < others[:, 2:]) & (own[..., 2:] > others[:, :2])
        outside = (tried[:, :2] < 0).sum(1) + (tried[:, 2:] > area).sum(1)
        best = int(np.argmin(covers.all(2).sum(1) + outside))
        taken.append(tried[best : best + 1])
        chosen.append(best)
    return chosen


def boxes(middles: Array, width: float, height: float) -> Array:
    """(n, 4): left, bottom, right, top."""
    half = np.array([width, height]) / 2
    return np.hstack([middles - half, middles + half])
