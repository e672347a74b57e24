"""Calibration error of the top label, from per-image records.

All functions pool over the whole set, in float64; none averages over batches (but the one that says
so), because the mean of per-batch calibration errors is not a calibration error: a perfectly calibrated
model would score about 0.036 at 512 images a batch. Confidences are (N,) in [0, 1], `correct` is (N,)
of bool, and without images every error is 0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from trainables.metrics.ranks import mean_ranks

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

BINS = 15
CHUNK = 2**21
"""Random numbers held at a time."""


class Null(NamedTuple):
    """What a calibrated model with the same confidences would score, in [0, 1]."""

    mean: float
    quantile: float
    """The 95 % quantile: one in twenty calibrated models scores more."""


def reliability(
    confidence: ArrayLike, correct: ArrayLike, bins: int = BINS
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Images, mean confidence and accuracy of each of `bins` equal-width bins ((i/n, (i+1)/n]).

    confidence: (N,) in [0, 1].  correct: (N,) of bool.  Empty bins have means of 0.
    """
    confidence = np.asarray(confidence, dtype=np.float64)
    return _bin_means(equal_width_index(confidence, bins), confidence, correct, bins)


def equal_width_index(confidence: ArrayLike, bins: int = BINS) -> NDArray[np.int64]:
    """(N,) bin of each confidence: i for (i/n, (i+1)/n], and 0 for 0."""
    confidence = np.asarray(confidence, dtype=np.float64)
    return np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)


def equal_mass_index(confidence: ArrayLike, bins: int = BINS) -> NDArray[np.int64]:
    """(N,) bin of each confidence by its rank: bins differ by at most one image where none are equal.

    Equal confidences share the mean of their ranks, hence a bin, whatever the order of the images;
    bins may stay empty for it.
    """
    confidence = np.asarray(confidence, dtype=np.float64)
    middle = mean_ranks(confidence) - 0.5
    return np.floor(middle * bins / max(len(confidence), 1)).astype(np.int64)


def _bin_means(
    index: NDArray[np.int64], confidence: NDArray[np.float64], correct: ArrayLike, bins: int
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    count = np.bincount(index, minlength=bins)
    divisor = np.maximum(count, 1)
    mean_confidence = np.bincount(index, weights=confidence, minlength=bins) / divisor
    accuracy = np.bincount(index, weights=np.asarray(correct, dtype=np.float64), minlength=bins) / divisor
    return count, mean_confidence, accuracy


def expected_calibration_error(confidence: ArrayLike, correct: ArrayLike, bins: int = BINS) -> float:
    """Top-label ECE: mean over images of |accuracy - confidence| of their bin, in [0, 1].

    Guo et al., ICML 2017, arXiv 1706.04599, equation 3. Biased upwards on few images: a perfectly
    calibrated model measures about 0.037 with 15 bins on 1,000 images; `calibrated_null` says how much.
    """
    return _mean_gap(*reliability(confidence, correct, bins))


def equal_mass_calibration_error(confidence: ArrayLike, correct: ArrayLike, bins: int = BINS) -> float:
    """Top-label ECE over bins of equally many images, in [0, 1]; see `equal_mass_index` for ties.

    The adaptive binning of Nixon et al., CVPR workshops 2019, arXiv 1904.01685, for the top label.
    """
    confidence = np.asarray(confidence, dtype=np.float64)
    return _mean_gap(*_bin_means(equal_mass_index(confidence, bins), confidence, correct, bins))


def _mean_gap(
    count: NDArray[np.int64], mean_confidence: NDArray[np.float64], accuracy: NDArray[np.float64]
) -> float:
    return float((count * np.abs(accuracy - mean_confidence)).sum() / max(count.sum(), 1))


def ece_per_batch_10bin(confidence: ArrayLike, correct: ArrayLike, batch_size: int) -> float:
    """Mean over batches of the ECE with 10 bins of each, in [0, 1]: only to compare with numbers of CaRot
    (arXiv 2311.01723), whose code computes this. The last batch may be smaller and counts as the rest.

    Not a calibration error: it depends on the batch size and on the order of the images, and the
    smaller the batches, the larger it is, about 0.036 for a perfectly calibrated model at 512.
    """
    confidence, correct = np.asarray(confidence), np.asarray(correct)
    starts = range(0, len(confidence), batch_size)
    batches = [slice(start, start + batch_size) for start in starts]
    errors = [expected_calibration_error(confidence[batch], correct[batch], 10) for batch in batches]
    return float(np.mean(errors)) if errors else 0.0


def calibrated_null(confidence: ArrayLike, bins: int = BINS, *, draws: int = 1000, seed: int = 0) -> Null:
    """Mean and 95 % quantile of the ECE of a calibrated model with these confidences.

    Each of the `draws` makes each image right with its confidence as probability (in single precision,
    so to 6e-8), as in the consistency resampling of Broecker and Smith, Weather and Forecasting 22
    (2007) 651. Deterministic in `seed`, memory bounded, and a matter of 0.1 s for 10,000 images.
    """
    confidence = np.sort(np.asarray(confidence, dtype=np.float64))
    if len(confidence) == 0:
        return Null(0.0, 0.0)
    index = equal_width_index(confidence, bins)
    first = np.flatnonzero(np.diff(index, prepend=-1))
    expected = np.add.reduceat(confidence, first)
    single = confidence.astype(np.float32)
    generator = np.random.default_rng(seed)
    step = max(1, CHUNK // len(confidence))
    errors = []
    for start in range(0, draws, step):
        uniform = generator.random((min(step, draws - start), len(confidence)), dtype=np.float32)
        correct = np.add.reduceat((uniform < single).view(np.uint8), first, axis=1, dtype=np.int64)
        errors.append(np.abs(correct - expected).sum(axis=1) / len(confidence))
    error = np.concatenate(errors)
    return Null(float(error.mean()), float(np.quantile(error, 0.95)))
