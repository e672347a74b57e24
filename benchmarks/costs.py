"""What of a search is compared: what it has by a cost, what reaching a target costs, and how sure that is."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
DRAWS = 10_000


class Estimate(NamedTuple):
    """A value with its 95 % interval. Of costs that were not seen to their end the value is one between
    `least` and `most`."""

    least: float
    most: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value} [{self.low:.2f}, {self.high:.2f}]"

    @property
    def value(self) -> str:
        if self.least == self.most:
            return f"{self.most:.2f}"
        if self.least == 0 and self.most == math.inf:
            return "unknown"
        return f"> {self.least:.2f}" if self.most == math.inf else f"< {self.most:.2f}"


def value_at(costs: ArrayLike, values: ArrayLike, grid: ArrayLike) -> Array:
    """(g,) the value reached by each cost of the grid; 0 before the first.

    costs: (n,) ascending.  values: (n,), what is reached from each of them on.
    """
    index = np.searchsorted(np.asarray(costs), np.asarray(grid), side="right")
    return np.concatenate([[0.0], np.asarray(values, dtype=np.float64)])[index]


def cost_to_reach(costs: ArrayLike, values: ArrayLike, target: float) -> float:
    """The first cost by which the value is at least the target; infinite if it never is. See `value_at`."""
    reached = np.flatnonzero(np.asarray(values) >= target)
    return float(np.asarray(costs)[reached[0]]) if len(reached) else float("inf")


def mean(values: ArrayLike, axis: int = 0) -> tuple[Array, Array]:
    """The mean over an axis, and the half width of its 95 % interval by Student's t. At least 2 values."""
    from scipy.stats import t

    values = np.asarray(values, dtype=np.float64)
    count = values.shape[axis]
    error = values.std(axis=axis, ddof=1) / np.sqrt(count)
    return values.mean(axis=axis), error * t.ppf(0.975, count - 1)


def median(costs: ArrayLike, limit: float, generator: np.random.Generator) -> Estimate:
    """The median of (n,) costs, by the percentile bootstrap. Infinite ones are those of runs that were broken
    off at `limit`."""
    least, most = _ends(costs, limit)
    at = _drawn(len(least), generator)
    return _estimate(_median(least), _median(most), _median(least[at]), _median(most[at]))


def ratio(
    first: ArrayLike, second: ArrayLike, limits: tuple[float, float], generator: np.random.Generator
) -> Estimate:
    """The ratio of the medians of two series of (n,) costs, by the percentile bootstrap. See `median`.

    They are paired, one by one: runs of one seed begin with the same configurations.
    """
    (least, most), (others, at_most) = _ends(first, limits[0]), _ends(second, limits[1])
    at = _drawn(len(least), generator)
    return _estimate(
        _median(least) / _median(at_most),
        _median(most) / _median(others),
        _median(least[at]) / _median(at_most[at]),
        _median(most[at]) / _median(others[at]),
    )


def _ends(costs: ArrayLike, limit: float) -> tuple[Array, Array]:
    """(n,) each, between which the costs lie."""
    costs = np.asarray(costs, dtype=np.float64)
    return np.where(np.isfinite(costs), costs, limit), costs


def _median(costs: Array) -> Array:
    """Over the last axis; the upper of two middle values, as between a number and infinity there is none."""
    return np.asarray(np.sort(costs, axis=-1)[..., costs.shape[-1] // 2])


def _drawn(count: int, generator: np.random.Generator) -> NDArray[np.intp]:
    """(DRAWS, count) indices."""
    return generator.integers(count, size=(DRAWS, count))


def _estimate(least: Array, most: Array, least_draws: Array, most_draws: Array) -> Estimate:
    low = np.quantile(least_draws, 0.025, method="inverted_cdf")
    high = np.quantile(most_draws, 0.975, method="inverted_cdf")
    return Estimate(float(least), float(most), float(low), float(high))
