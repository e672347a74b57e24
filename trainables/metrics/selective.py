"""What a confidence is worth: the risk when the least confident are left out, doubt where it is due."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from trainables.metrics import intervals

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from trainables.metrics.estimate import Estimate


def aurc(confidence: ArrayLike, correct: ArrayLike) -> float:
    """Area under the risk-coverage curve, in [0, 1]: mean over k = 1..N of the error rate of the k most
    confident images. NaN without images.

    Geifman, Uziel and El-Yaniv, ICLR 2019, arXiv 1805.08206, section 2, with coverages 1/N, 2/N, ..., 1.
    Images of equal confidence have no order: the value is the expectation over all their orders, in
    which each has the mean error of its equals.
    """
    confidence = np.asarray(confidence, dtype=np.float64)
    if len(confidence) == 0:
        return float("nan")
    wrong = 1 - np.asarray(correct, dtype=np.float64)
    group = np.unique(-confidence, return_inverse=True)[1]
    images = np.bincount(group)
    risk = np.repeat(np.bincount(group, weights=wrong) / images, images)
    return float((risk.cumsum() / np.arange(1, len(risk) + 1)).mean())


def confidence_when_wrong(confidence: ArrayLike, correct: ArrayLike) -> Estimate:
    """E[confidence | wrong], in [0, 1], lower is better. Undefined (NaN) if all are right; with a single
    wrong one, its interval is. confidence: (N,); correct: (N,) of bool."""
    confidence, correct = np.asarray(confidence, dtype=np.float64), np.asarray(correct, dtype=bool)
    return intervals.mean(confidence[~correct])


def doubt_when_right(confidence: ArrayLike, correct: ArrayLike) -> Estimate:
    """E[1 - confidence | right], in [0, 1], lower is better. Undefined (NaN) if all are wrong; with a
    single right one, its interval is. confidence: (N,); correct: (N,) of bool."""
    confidence, correct = np.asarray(confidence, dtype=np.float64), np.asarray(correct, dtype=bool)
    return intervals.mean(1 - confidence[correct])
