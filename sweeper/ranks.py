"""Ranks with what the sample of images leaves open of them. Array code.

The differences of all pairs of models get simultaneous 95 % intervals: each as wide as a common multiple of
its standard error, the multiple being the 95 % quantile over resampled images of the largest studentised
deviation of any pair. What has an interval on one side of zero differs beyond noise, and the rank of a model
is in [1 + how many are better beyond noise, n - how many are worse beyond noise]. With probability 95 % all
ranks of a column are in theirs: Mogstad, Romano, Shaikh and Wilhelm, Rev. Econ. Stud. 91 (2024) 476, their
simultaneous confidence sets, without the steps down. Pairs are paired: draws take the same images of both.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

LEVEL = 0.95
ROUNDING = 1e-6
"""What arithmetic in single precision can make two metrics differ by: of one model on two machines, say."""


def rank_intervals(costs: ArrayLike, draws: ArrayLike) -> NDArray[np.int64]:
    """(n, 2) first and last rank of each model, from 1.

    costs: (n,) as measured, smaller is better.  draws: (D, n) the same on resampled images.
    """
    costs, draws = np.asarray(costs, dtype=np.float64), np.asarray(draws, dtype=np.float64)
    noise = draws - draws.mean(axis=0)  # as some metrics are larger on resampled images
    largest = np.zeros(len(draws))
    errors = np.zeros((len(costs), len(costs)))
    for model, own in enumerate(noise.T):
        deviations = own[:, None] - noise
        errors[model] = deviations.std(axis=0)
        varies = errors[model] > ROUNDING
        studentised = np.abs(deviations[:, varies]) / errors[model, varies]
        largest = np.maximum(largest, studentised.max(axis=1, initial=0))
    behind = costs[:, None] - costs > np.maximum(np.quantile(largest, LEVEL) * errors, ROUNDING)
    return np.stack([1 + behind.sum(axis=1), len(costs) - behind.sum(axis=0)], axis=1)
