"""A number with its 95 % confidence interval, the form of every statistic that has one."""

from __future__ import annotations

from typing import NamedTuple

LEVEL = 0.95
Z = 1.959963984540054
"""The 97.5 % quantile of the standard normal distribution."""


class Estimate(NamedTuple):
    """A value and the ends of its 95 % interval, in the value's unit; NaN where undefined.

    benchmarks/coverage.py measures how often each interval holds the truth."""

    value: float
    low: float
    high: float


UNDEFINED = Estimate(float("nan"), float("nan"), float("nan"))
