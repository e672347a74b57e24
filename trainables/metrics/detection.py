"""How well a score tells two kinds of images apart: area under the ROC curve with its interval.

The area is the probability that a positive image scores higher than a negative one, ties counting half.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from scipy import special
from scipy.stats import rankdata

from trainables.metrics.estimate import UNDEFINED, Estimate, Z
from trainables.metrics.intervals import wilson

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


def auroc(score: ArrayLike, positive: ArrayLike) -> Estimate:
    """Area under the ROC curve, in [0, 1], with DeLong's interval on the logit scale.

    score: (N,), not NaN, larger for positives.  positive: (N,) of bool.  Undefined (NaN) if one of the
    kinds is absent. For errors against correct predictions, score is an uncertainty. Variance: DeLong,
    DeLong and Clarke-Pearson, Biometrics 44 (1988) 837, equation 5. Where it is 0, as at a perfect
    separation, the interval is Wilson's of a share of as many images as the rarer kind has.
    """
    score, positive = np.asarray(score, dtype=np.float64), np.asarray(positive, dtype=bool)
    high, low = score[positive], score[~positive]
    if len(high) == 0 or len(low) == 0:
        return UNDEFINED
    of_high, of_low = _placements(high, low)
    variance = _variance_of_mean(of_high) + _variance_of_mean(of_low)
    return _with_interval(float(of_high.mean()), variance, min(len(high), len(low)))


def auroc_of_pairs(negative: ArrayLike, positive: ArrayLike) -> Estimate:
    """`auroc` where each image appears twice, as a negative (clean) and as a positive (attacked).

    negative, positive: (N,) scores of the same images in the same order. The value is that of `auroc`
    on all 2N scores; the interval takes the images as the independent units, which are the clusters of
    Obuchowski, Biometrics 53 (1997) 567: the two placements of an image are summed before their variance
    is taken. Undefined (NaN) without images.
    """
    negative, positive = np.asarray(negative, dtype=np.float64), np.asarray(positive, dtype=np.float64)
    if len(negative) == 0:
        return UNDEFINED
    of_positive, of_negative = _placements(positive, negative)
    variance = _variance_of_mean(of_positive + of_negative)
    return _with_interval(float(of_positive.mean()), variance, len(negative))


def _placements(
    high: NDArray[np.float64], low: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Of each positive the share of negatives below it, of each negative that of positives above it."""
    together = rankdata(np.concatenate([high, low]))
    of_high = (together[: len(high)] - rankdata(high)) / len(low)
    of_low = 1 - (together[len(high) :] - rankdata(low)) / len(high)
    return of_high, of_low


def _variance_of_mean(values: NDArray[np.float64]) -> float:
    return float(values.var(ddof=1)) / len(values) if len(values) > 1 else math.nan


def _with_interval(area: float, variance: float, images: int) -> Estimate:
    if math.isnan(variance):  # a single positive or negative image
        return Estimate(area, math.nan, math.nan)
    if variance < 1e-18 or not 0 < area < 1:
        return wilson(area * images, images)
    half = Z * math.sqrt(variance) / (area * (1 - area))
    centre = special.logit(area)
    return Estimate(area, float(special.expit(centre - half)), float(special.expit(centre + half)))
