"""What of a search is compared: what it has by a cost, what reaching a target costs, and how sure that is."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
DRAWS = 10_000


class Interval(NamedTuple):
    """An estimate with its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"


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


def median(costs: ArrayLike, generator: np.random.Generator) -> Interval:
    """The median of (n,) costs, of which some may be infinite, by the percentile bootstrap."""
    costs = np.asarray(costs, dtype=np.float64)
    return _interval(_median(costs), _median(_resampled(costs, generator)))


def ratio(first: ArrayLike, second: ArrayLike, generator: np.random.Generator) -> Interval:
    """The ratio of the medians of (n,) and (m,) costs, of independent runs, by the percentile bootstrap.

    Where the second alone is infinite the ratio is 0: no more is known than that the first is lower. Where
    both are, it is nan, and may be anything: the interval takes it for 0 below and for infinity above.
    """
    first, second = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    with np.errstate(invalid="ignore"):  # infinite by infinite
        draws = _median(_resampled(first, generator)) / _median(_resampled(second, generator))
        value = _median(first) / _median(second)
    low, high = (np.where(np.isnan(draws), either, draws) for either in (0.0, np.inf))
    return Interval(float(value), _interval(value, low).low, _interval(value, high).high)


def _median(costs: Array) -> Array:
    """Over the last axis; the upper of two middle values, as between a number and infinity there is none."""
    return np.asarray(np.sort(costs, axis=-1)[..., costs.shape[-1] // 2])


def _resampled(costs: Array, generator: np.random.Generator) -> Array:
    return costs[generator.integers(len(costs), size=(DRAWS, len(costs)))]


def _interval(value: Array, draws: Array) -> Interval:
    low, high = np.quantile(draws, [0.025, 0.975], method="inverted_cdf")
    return Interval(float(value), float(low), float(high))
