"""95 % intervals of shares and of means of per-image values."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from scipy import special

from trainables.metrics.estimate import LEVEL, UNDEFINED, Estimate, Z

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


def share(correct: ArrayLike) -> Estimate:
    """Share of true values, such as the accuracy, with Wilson's score interval, all in [0, 1].

    correct: (N,) of bool. Undefined (NaN) without images. The interval is never empty, even where all
    or none are correct. Wilson, J. Am. Stat. Assoc. 22 (1927) 209; Brown, Cai and DasGupta, Stat.
    Sci. 16 (2001) 101, equation 4.
    """
    correct = np.asarray(correct, dtype=bool)
    return UNDEFINED if len(correct) == 0 else wilson(float(correct.sum()), len(correct))


def wilson(successes: float, trials: int) -> Estimate:
    """Share `successes / trials` with Wilson's interval; trials at least 1."""
    value = successes / trials
    centre = (value + Z**2 / (2 * trials)) / (1 + Z**2 / trials)
    half = Z / (1 + Z**2 / trials) * math.sqrt(value * (1 - value) / trials + Z**2 / (4 * trials**2))
    return Estimate(value, min(max(centre - half, 0.0), value), max(min(centre + half, 1.0), value))


def exact(successes: float, trials: int) -> Estimate:
    """Share `successes / trials` with Clopper and Pearson's interval, which holds in at least 95 % at any
    share, as Wilson's doesn't near 0 and 1. Biometrika 26 (1934) 404; successes need not be whole."""
    failures = trials - successes
    low = special.betaincinv(successes, failures + 1, (1 - LEVEL) / 2) if successes > 0 else 0.0
    high = special.betaincinv(successes + 1, failures, (1 + LEVEL) / 2) if failures > 0 else 1.0
    return Estimate(successes / trials, float(low), float(high))


def mean(values: ArrayLike) -> Estimate:
    """Mean of per-image values, such as the NLL, the Brier score or the confidence.

    values: (N,), finite. The interval is Student's t with its skewness removed by Hall's monotone
    cubic transformation, so it leans to the side of the long tail: an NLL is mostly about 0 and now
    and then 10. Undefined (NaN) without values; with a single one, only its ends are.
    Hall, J. R. Stat. Soc. B 54 (1992) 221, the transformation g of his section 2.
    """
    values = np.asarray(values, dtype=np.float64)
    n = len(values)
    if n == 0:
        return UNDEFINED
    value = float(values.mean())
    if n == 1:
        return Estimate(value, math.nan, math.nan)
    deviation = float(values.std(ddof=1))
    if deviation <= 1e-14 * abs(value):
        return Estimate(value, value, value)
    skewness = float((((values - value) / deviation) ** 3).mean())
    quantile = float(special.stdtrit(n - 1, (1 + LEVEL) / 2))
    error = deviation / math.sqrt(n)
    return Estimate(
        value,
        value - error * _unskewed(quantile, skewness, n),
        value - error * _unskewed(-quantile, skewness, n),
    )


def _unskewed(quantile: float, skewness: float, n: int) -> float:
    """The studentised mean t at which t + a t^2 + a^2 t^3 / 3 + a / 2 is `quantile`, for a = skewness /
    (3 sqrt n)."""
    a = skewness / (3 * math.sqrt(n))
    if abs(a) < 1e-9:
        return quantile
    return float(np.cbrt(1 + 3 * a * (quantile - a / 2)) - 1) / a
