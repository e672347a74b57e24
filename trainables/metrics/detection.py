"""How well a score tells two kinds of images apart: area under the ROC curve with its interval.

The area is the probability that a positive image scores higher than a negative one, ties counting half.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from scipy import special

from trainables.metrics import intervals
from trainables.metrics.estimate import LEVEL, UNDEFINED, Estimate
from trainables.metrics.ranks import mean_ranks

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

FEWEST = 4
"""Images of the rarer kind below which there is no interval: it would cover 90 % instead of 95 %."""


def auroc(score: ArrayLike, positive: ArrayLike) -> Estimate:
    """Area under the ROC curve, in [0, 1], with an interval on the logit scale.

    score: (N,), not NaN, larger for positives.  positive: (N,) of bool.  Undefined (NaN) if one of the
    kinds is absent; with less than 4 of one, its interval is. For errors against correct predictions,
    score is an uncertainty. Variance: DeLong, DeLong and Clarke-Pearson, Biometrics 44 (1988) 837,
    equation 5; as its quantile is Student's, with the degrees of freedom of Brunner and Munzel, Biometrical
    J. 42 (2000) 17, it holds with few errors, too. Where the variance is 0, as at a perfect separation,
    the interval is Wilson's of a share of as many images as the rarer kind has.
    """
    score, positive = np.asarray(score, dtype=np.float64), np.asarray(positive, dtype=bool)
    high, low = score[positive], score[~positive]
    if len(high) == 0 or len(low) == 0:
        return UNDEFINED
    of_high, of_low = _placements(high, low)
    area, fewest = float(of_high.mean()), min(len(high), len(low))
    if fewest < FEWEST:
        return Estimate(area, math.nan, math.nan)
    parts = [float(values.var(ddof=1)) / len(values) for values in (of_high, of_low)]
    if sum(parts) < 1e-18 or not 0 < area < 1:
        return intervals.wilson(area * fewest, fewest)
    degrees = sum(parts) ** 2 / (parts[0] ** 2 / (len(high) - 1) + parts[1] ** 2 / (len(low) - 1))
    half = float(special.stdtrit(degrees, (1 + LEVEL) / 2)) * math.sqrt(sum(parts)) / (area * (1 - area))
    centre = float(special.logit(area))
    return Estimate(area, float(special.expit(centre - half)), float(special.expit(centre + half)))


def auroc_of_pairs(negative: ArrayLike, positive: ArrayLike) -> Estimate:
    """`auroc` where each image appears twice, as a negative (clean) and as a positive (attacked).

    negative, positive: (N,) scores of the same images in the same order. The value is that of `auroc`
    on all 2N scores. The interval takes the images as the independent units, as the clusters of
    Obuchowski, Biometrics 53 (1997) 567: the area is the mean of the images' summed placements, less
    itself, and has the interval of such a mean (`intervals.mean`), or `auroc`'s for a variance of 0.
    Undefined (NaN) without images; with less than 4, its interval is.
    """
    negative, positive = np.asarray(negative, dtype=np.float64), np.asarray(positive, dtype=np.float64)
    n = len(negative)
    if n == 0:
        return UNDEFINED
    of_positive, of_negative = _placements(positive, negative)
    area = float(of_positive.mean())
    if n < FEWEST:
        return Estimate(area, math.nan, math.nan)
    _, low, high = intervals.mean(of_positive + of_negative - area)
    if high - low < 1e-9 or not 0 < area < 1:
        return intervals.wilson(area * n, n)
    return Estimate(area, max(low, 0.0), min(high, 1.0))


def _placements(
    high: NDArray[np.float64], low: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Of each positive the share of negatives below it, of each negative that of positives above it."""
    together = mean_ranks(np.concatenate([high, low]))
    of_high = (together[: len(high)] - mean_ranks(high)) / len(low)
    of_low = 1 - (together[len(high) :] - mean_ranks(low)) / len(high)
    return of_high, of_low
