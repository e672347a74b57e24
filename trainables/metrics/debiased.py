"""L2 calibration error without the upward bias of few images, and its 95 % interval.

The error is sqrt(sum_b p_b g_b^2): p_b the share of images in bin b, g_b their expected accuracy less
their expected confidence, in the equal-width bins of the ECE. What cancels within a bin is not seen. It is
at least sum_b p_b |g_b| (Jensen), which is what the ECE estimates with a bias.

The plug-in Q = sum_b p_b (accuracy_b - confidence_b)^2 is a sum of squares: near calibration it is
distributed as a weighted sum of chi-squares and is of the order 1/n, away from it, it is normal with
a standard deviation of the order 1/sqrt(n): the two regimes of Sun et al., arXiv 2408.08998. Here one
test is inverted over all candidate values, so that the interval holds in between, too:

* A candidate has the observed gaps times a factor, as far as accuracies can give them: from "calibrated"
  (factor 0: each image is right with its confidence as probability) to "as observed" (factor 1: with the
  accuracy of its bin) and beyond.
* Mean and variance of Q at the candidate are those of squared means of Bernoulli variables in each
  bin; with the third cumulant, a scaled non-central chi-square is fitted to them (exact where all bins
  have the same variance), or Pearson's type III where none fits.
* The test's 5 % are split between the tails by a function of the candidate value ("tail functions":
  Puza and O'Neill, Can. J. Stat. 34 (2006) 299), all on the upper tail at value 0. So the interval is
  never empty, ends at 0 exactly where calibration is not rejected, and covers a zero error 95 % of the
  time, not 97.5 %.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy import special
from scipy.optimize import brentq

from trainables.metrics.calibration import BINS, equal_width_index
from trainables.metrics.estimate import LEVEL, UNDEFINED, Estimate

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import ArrayLike, NDArray

ALPHA = 1 - LEVEL


class Cumulants(NamedTuple):
    mean: float
    variance: float
    third: float


class Binned(NamedTuple):
    """Of each non-empty bin: images, mean and variance of the confidence, accuracy less confidence,
    and the unbiased variance of correct - confidence (NaN for a single image). All (B,)."""

    images: NDArray[np.float64]
    confidence: NDArray[np.float64]
    spread: NDArray[np.float64]
    gap: NDArray[np.float64]
    variance: NDArray[np.float64]

    @property
    def share(self) -> NDArray[np.float64]:
        return self.images / self.images.sum()

    @property
    def plug_in(self) -> float:
        return float((self.share * self.gap**2).sum())


def debiased_calibration_error(confidence: ArrayLike, correct: ArrayLike, bins: int = BINS) -> Estimate:
    """Debiased top-label L2 calibration error, the root, in [0, 1], with its 95 % interval.

    confidence: (N,) in [0, 1].  correct: (N,) of bool.  Undefined (NaN) without images.
    The value is sqrt(max(0, T)), T = sum_b p_b (gap_b^2 - s_b^2 / n_b), s_b^2 the unbiased variance of
    correct - confidence in the bin: the estimator of Sun et al., arXiv 2408.08998, which for constant
    confidences in a bin is that of Kumar et al., arXiv 1909.10155. A bin of one image adds 0 to T.
    """
    binned = bin_statistics(confidence, correct, bins)
    if len(binned.images) == 0:
        return UNDEFINED
    value = math.sqrt(max(squared_error(binned), 0.0))
    low, high = _interval(binned)
    return Estimate(value, min(low, value), max(high, value))


def bin_statistics(confidence: ArrayLike, correct: ArrayLike, bins: int = BINS) -> Binned:
    confidence = np.asarray(confidence, dtype=np.float64)
    difference = np.asarray(correct, dtype=np.float64) - confidence
    index = equal_width_index(confidence, bins)
    index = np.unique(index, return_inverse=True)[1]
    images = np.bincount(index).astype(np.float64)
    mean = np.bincount(index, weights=confidence) / images
    gap = np.bincount(index, weights=difference) / images
    spread = np.bincount(index, weights=(confidence - mean[index]) ** 2) / images
    squares = np.bincount(index, weights=(difference - gap[index]) ** 2)
    variance = np.where(images > 1, squares / np.maximum(images - 1, 1), np.nan)
    return Binned(images, mean, spread, gap, variance)


def squared_error(binned: Binned) -> float:
    """T, the unbiased estimate of the squared error; negative as often as not where that is 0."""
    terms = binned.share * (binned.gap**2 - binned.variance / binned.images)
    return float(np.nansum(terms))


def _interval(binned: Binned) -> tuple[float, float]:
    """Along the observed gaps, and where they may be noise (low is 0) along their opposite, too."""
    direction = binned.gap if binned.plug_in > 1e-24 else 0.5 - binned.confidence
    length = math.sqrt(float((binned.share * direction**2).sum()))
    if length == 0:
        return 0.0, 0.0
    low, high = _ends(binned, direction / length, length)
    return low, high if low > 0 else max(high, _ends(binned, -direction / length, length)[1])


def _ends(binned: Binned, direction: NDArray[np.float64], length: float) -> tuple[float, float]:
    """Smallest and largest value at which the plug-in is not rejected.

    direction: gaps of value 1; length: how many of them are "as observed"."""
    observed = binned.plug_in
    scale = math.sqrt(_cumulants(binned, direction * 0.0, 0.0).variance)

    def gaps(steps: float) -> NDArray[np.float64]:
        return np.clip(steps * direction, *_possible_gaps(binned))

    def value(steps: float) -> float:
        return math.sqrt(float((binned.share * gaps(steps) ** 2).sum()))

    def lower_tail(steps: float) -> float:
        """How much of the 5 % the lower tail has: none at value 0, half of it well above."""
        return ALPHA / 2 * -math.expm1(-(value(steps) ** 2) / scale) if scale else ALPHA / 2

    def probability(steps: float) -> float:
        return _distribution(observed, _cumulants(binned, gaps(steps), min(steps / length, 1.0)))

    low = _crossing(lambda steps: LEVEL + lower_tail(steps) - probability(steps), 0.0)
    high = _crossing(lambda steps: lower_tail(steps) - probability(steps), low)
    return value(low), value(high)


def _possible_gaps(binned: Binned) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Accuracy 0 and 1, less the expected confidence, which may be three standard errors off the mean."""
    error = 3 * np.sqrt(binned.spread / binned.images)
    return -binned.confidence - error, 1 - binned.confidence + error


def _crossing(function: Callable[[float], float], first: float, last: float = 100.0) -> float:
    """Where in [first, last] an increasing function becomes positive, or the end beyond which it does."""
    if function(first) >= 0:
        return first
    return float(brentq(function, first, last, xtol=1e-7)) if function(last) > 0 else last


def _cumulants(binned: Binned, gap: NDArray[np.float64], strength: float) -> Cumulants:
    """Of Q, if the bins have these gaps: (1 - strength) of an image's chance of being right is its own
    confidence, the rest the same for the whole bin.

    Of the mean of n_b variables with mean g, variance v, third central moment m and fourth cumulant k:
    E x^2 = g^2 + v/n_b, Var x^2 = 4 g^2 v/n_b + 4 g m/n_b^2 + 2 v^2/n_b^2 + k/n_b^3, and to leading
    orders its third cumulant is 8 v^3/n_b^3 + 24 g^2 v^2/n_b^2 + 8 g^3 m/n_b^2. To the variance comes
    that of the number of images in each bin.
    """
    n, images, share = binned.images.sum(), binned.images, binned.share
    probability = np.clip(binned.confidence + gap, 0, 1)
    bernoulli = probability * (1 - probability)
    # (1 - s)^2 of the spread is variance explained by the confidence, s^2 that of the confidence itself
    variance = np.maximum(bernoulli + (2 * strength - 1) * binned.spread, 0)
    third = bernoulli * (1 - 2 * probability)
    fourth = bernoulli * (1 - 6 * bernoulli)
    squared = float((share * gap**2).sum())
    of_counts = float((share * gap**4).sum()) - squared**2
    return Cumulants(
        squared + float(variance.sum() / n),
        max(
            of_counts / n
            + float((4 * share * gap**2 * variance).sum() / n)
            + float((4 * gap * third + 2 * variance**2 + fourth / images).sum() / n**2),
            0.0,
        ),
        float((8 * variance**3 / n + 24 * share * gap**2 * variance**2 + 8 * share * gap**3 * third).sum())
        / n**2,
    )


def _distribution(x: float, cumulants: Cumulants) -> float:
    """P(Q <= x) by the first three cumulants."""
    mean, variance, third = cumulants
    if variance < 1e-30:
        return float(x >= mean * (1 - 1e-12))
    deviation = math.sqrt(variance)
    skewness = third / deviation**3
    if abs(skewness) < 1e-3:
        return float(special.ndtr((x - mean) / deviation))
    root = variance**2 - mean * third / 2
    if third > 0 and root > 0:
        # a chi'^2(df, nc) has the cumulants a (df + nc), 2 a^2 (df + 2 nc), 8 a^3 (df + 3 nc)
        scale = (variance - math.sqrt(root)) / (2 * mean)
        noncentrality = (variance / (2 * scale) - mean) / scale
        degrees = mean / scale - noncentrality
        if degrees > 0.2 and noncentrality < 1e4:
            return float(special.chndtr(max(x, 0.0) / scale, degrees, noncentrality))
    return _pearson3((x - mean) / deviation, skewness)


def _pearson3(z: float, skewness: float) -> float:
    """P(Z <= z) of the gamma distribution shifted and scaled to mean 0 and variance 1, or its mirror."""
    shape = 4 / skewness**2
    below = float(special.gammainc(shape, max(shape + z * 2 / skewness, 0.0)))
    return below if skewness > 0 else 1 - below
