"""Differences between two models, or clean and attacked images, measured on the same images.

Always a less b. A positive correlation of the two makes the intervals narrower than those of each.

There is no interval of an ECE difference: the ECEs of the two are biased upwards by different amounts,
so the percentile bootstrap misses the true difference (benchmarks/coverage.py shows how often).
`squared_calibration_difference` compares their calibration instead.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from trainables.metrics import intervals
from trainables.metrics.calibration import BINS, equal_width_index
from trainables.metrics.debiased import bin_statistics, squared_error
from trainables.metrics.estimate import UNDEFINED, Estimate, Z

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import ArrayLike

Columns = Mapping[str, NDArray]
Statistic = Callable[[Columns, NDArray[np.float64]], NDArray[np.float64]]
"""(D,) values from per-image columns, each (N,), and (D, N) weights: how often each image was drawn."""

CHUNK = 2**22
"""Weights held at a time."""


def shift(clean: ArrayLike, attacked: ArrayLike) -> Estimate:
    """Mean of attacked - clean over the images, such as the shift of an uncertainty, with `intervals.mean`'s
    interval. clean, attacked: (N,) of the same images in the same order. Undefined (NaN) without images."""
    return intervals.mean(np.asarray(attacked, dtype=np.float64) - np.asarray(clean, dtype=np.float64))


def mean_of(column: str) -> Statistic:
    """The mean of a per-image column: `correct`, `nll`, `brier`, `confidence`, ..."""

    def statistic(columns: Columns, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        return weights @ np.asarray(columns[column], dtype=np.float64) / weights.sum(axis=1)

    return statistic


def mean_where(column: str, condition: str) -> Statistic:
    """The mean of a column over the images whose boolean column `condition` holds; NaN if none is drawn."""

    def statistic(columns: Columns, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        holds = np.asarray(columns[condition], dtype=np.float64)
        with np.errstate(invalid="ignore"):
            return weights @ (holds * np.asarray(columns[column])) / (weights @ holds)

    return statistic


def paired_difference(
    statistic: Statistic,
    a: Columns | pd.DataFrame,
    b: Columns | pd.DataFrame,
    *,
    draws: int = 2000,
    seed: int = 0,
) -> Estimate:
    """Statistic of `a` less that of `b`, with the percentile interval of the paired bootstrap.

    a, b: columns (N,) of the same images in the same order; each draw takes the same images of both.
    Efron and Tibshirani, An Introduction to the Bootstrap (1993), section 13.3. Only for smooth
    statistics that are as good as unbiased at N, such as `mean_of` and `mean_where`: not for a
    calibration error. Where a and b agree on every image the interval has no width, which says little if
    they could differ on one in a thousand. Undefined (NaN) without images. Deterministic in `seed`.
    """
    columns_a, columns_b = _columns(a), _columns(b)
    n = len(next(iter(columns_a.values())))
    if n == 0:
        return UNDEFINED

    def difference(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        return statistic(columns_a, weights) - statistic(columns_b, weights)

    generator = np.random.default_rng(seed)
    step = max(1, CHUNK // n)
    sizes = [min(step, draws - start) for start in range(0, draws, step)]
    values = np.concatenate([difference(resampled(generator, size, n)) for size in sizes])
    low, high = np.nanquantile(values, [0.025, 0.975])
    return Estimate(float(difference(np.ones((1, n)))[0]), float(low), float(high))


def _columns(table: Columns | pd.DataFrame) -> Columns:
    return {str(name): np.asarray(values) for name, values in table.items()}


def resampled(generator: np.random.Generator, draws: int, n: int) -> NDArray[np.float64]:
    """(draws, n) how often each image is drawn in n draws with replacement."""
    drawn = generator.integers(0, n, (draws, n)) + n * np.arange(draws)[:, None]
    return np.bincount(drawn.ravel(), minlength=draws * n).reshape(draws, n).astype(np.float64)


def squared_calibration_difference(
    confidence_a: ArrayLike,
    correct_a: ArrayLike,
    confidence_b: ArrayLike,
    correct_b: ArrayLike,
    bins: int = BINS,
) -> Estimate:
    """Squared L2 calibration error of a less that of b, in [-1, 1], negative where a is better calibrated.

    All (N,), of the same images in the same order. Undefined (NaN) for less than two images.
    Squared, because squares have unbiased estimates (Sun et al., arXiv 2408.08998) that a root would
    bias. Their difference is normal unless both are calibrated, and then nearly so, being symmetric.
    Its variance is that of the linear part, from the per-image influence 2 gap u - gap^2, u = correct -
    confidence, and that of the degenerate part, which remains where both are calibrated and by which
    the first is overestimated; both respect that the images are the same.
    """
    a, b = np.asarray(confidence_a, dtype=np.float64), np.asarray(confidence_b, dtype=np.float64)
    n = len(a)
    if n < 2:
        return UNDEFINED
    value = squared_error(bin_statistics(a, correct_a, bins)) - squared_error(
        bin_statistics(b, correct_b, bins)
    )
    of_a, of_b = _Part(a, correct_a, bins), _Part(b, correct_b, bins)
    linear = float((of_a.influence - of_b.influence).var(ddof=1)) / n
    pairs = ((of_a, of_a, 1), (of_b, of_b, 1), (of_a, of_b, -2))
    degenerate = sum(factor * x.degenerate_with(y) for x, y, factor in pairs)
    half = Z * math.sqrt(max(linear - degenerate, degenerate, 0.0))
    return Estimate(value, max(value - half, -1.0), min(value + half, 1.0))


class _Part:
    """One model's part in the variance of the difference."""

    def __init__(self, confidence: NDArray[np.float64], correct: ArrayLike, bins: int) -> None:
        self.bins, self.index = bins, equal_width_index(confidence, bins)
        difference = np.asarray(correct, dtype=np.float64) - confidence
        images = np.bincount(self.index, minlength=bins)
        self.degrees = np.maximum(images - 1, 1)
        sums = np.bincount(self.index, weights=difference, minlength=bins)
        gap = sums[self.index] / images[self.index]
        self.residual = difference - gap
        self.influence = gap * (2 * difference - gap)

    def degenerate_with(self, other: _Part) -> float:
        """2 sum_bc (sum of residual products of the images in b of self and c of other)^2 / n_b n_c / N^2;
        with itself, 2 sum_b s_b^4 / N^2."""
        cell = self.index * self.bins + other.index
        products = np.bincount(cell, weights=self.residual * other.residual, minlength=self.bins**2)
        covariance = products.reshape(self.bins, self.bins) ** 2 / np.outer(self.degrees, other.degrees)
        return float(2 * covariance.sum()) / len(self.index) ** 2
