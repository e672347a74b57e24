"""Means over seeds and differences, with intervals that account for seeds and for images.

`Values` are (1 + D, k): a metric of k seeds, first as measured, then on D samples of the images, the same
images for all configurations. With five seeds a bootstrap of seeds is too sure: it has normal quantiles where
Student's are called for. So the two sources are kept apart. The variance over samples of the mean over seeds
and the variance of the seeds over k are added, and the quantile is Student's with the degrees of freedom of
Satterthwaite (Biometrics Bulletin 2 (1946) 110), where that of the images counts as known. What a seed does
to single images is in both, so that intervals are rather too wide. Seeds of two configurations are taken as
independent.

An ECE is larger on fewer images. Its interval is for as many other images, not for all that there are; for
these there is `squared_l2`. In simulations of both, with one seed and five, at least 97 % of the intervals
held the true value and the true difference.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from trainables.metrics.estimate import LEVEL, Estimate, Z
from trainables.metrics.resampling import resample

Values = NDArray[np.float64]
DRAWS = 1000


def values_of(files: Mapping[str, Sequence[Path]], metrics: Sequence[str]) -> dict[str, dict[str, Values]]:
    """Of each configuration, for which `files` has the records of its seeds, the values of each metric."""
    found = resample([[file] for of in files.values() for file in of], metrics, draws=DRAWS)
    both = np.concatenate([found.estimates[None], found.draws])
    ends = np.cumsum([len(of) for of in files.values()])
    parts = dict(zip(files, np.split(both, ends[:-1], axis=1), strict=True))
    return {name: {m: part[:, :, i] for i, m in enumerate(metrics)} for name, part in parts.items()}


def mean(values: Values) -> Estimate:
    return _estimate(values.mean(axis=1), [values])


def difference(values: Values, less: Values) -> Estimate:
    return _estimate(values.mean(axis=1) - less.mean(axis=1), [values, less])


def _estimate(means: NDArray[np.float64], parts: Sequence[Values]) -> Estimate:
    """means: (1 + D,), of which the first is the estimate.  parts: what it is made of."""
    several = [part[0] for part in parts if part.shape[1] > 1]
    of_seeds = [float(seeds.var(ddof=1)) / len(seeds) for seeds in several]
    total = float(means[1:].var(ddof=1)) + sum(of_seeds)
    uncertain = sum(v**2 / (len(seeds) - 1) for v, seeds in zip(of_seeds, several, strict=True))
    quantile = float(stdtrit(total**2 / uncertain, (1 + LEVEL) / 2)) if uncertain else Z
    half, value = quantile * math.sqrt(total), float(means[0])
    return Estimate(value, value - half, value + half)


def at_accuracy(accuracies: Sequence[Values], errors: Sequence[Values], accuracy: float) -> Values:
    """A calibration error where a seed's training first reaches an accuracy: linear between its epochs, of
    which `accuracies` and `errors` are in order. A seed that is above it after its first epoch has the error
    of that, and one that never gets there that of its most accurate epoch."""
    curve, error = np.stack(accuracies, axis=-1), np.stack(errors, axis=-1)
    reached = curve >= accuracy
    after = np.where(reached.any(axis=-1), reached.argmax(axis=-1), curve.argmax(axis=-1))
    before = np.where(reached.any(axis=-1), np.maximum(after - 1, 0), after)

    def at(values: NDArray[np.float64], epoch: NDArray[np.int64]) -> Values:
        return np.take_along_axis(values, epoch[..., None], axis=-1)[..., 0]

    rise = at(curve, after) - at(curve, before)
    share = np.where(rise > 0, (accuracy - at(curve, before)) / np.where(rise > 0, rise, 1), 0)
    return np.asarray(at(error, before) + share.clip(0, 1) * (at(error, after) - at(error, before)))


def common_accuracy(*curves: Sequence[Values]) -> float | None:
    """The largest accuracy that every seed of all reaches; None where one of them is above it on average
    after its first epoch."""
    at = min(float(np.max([epoch[0] for epoch in curve], axis=0).min()) for curve in curves)
    return at if all(float(curve[0][0].mean()) <= at for curve in curves) else None
