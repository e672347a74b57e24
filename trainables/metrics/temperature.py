"""Temperature scaling: one number that all logits are divided by, fitted on held-out images."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import brentq

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

LOWEST, HIGHEST = 1e-3, 1e3
"""Bounds of a fitted temperature."""
CHUNK = 2**22
"""Logits worked on at a time."""


def scaled(logits: ArrayLike, temperature: float) -> NDArray[np.float64]:
    """(N, K) softmax of logits / temperature, in float64. logits: (N, K); temperature: above 0.

    The largest probability stays where it was. Guo et al., ICML 2017, arXiv 1706.04599, equation 9.
    """
    shifted = _shifted(np.asarray(logits)) / temperature
    weights = np.exp(shifted)
    return weights / weights.sum(axis=-1, keepdims=True)


def fit_temperature(logits: ArrayLike, labels: ArrayLike) -> float:
    """The temperature of lowest mean NLL, in [1e-3, 1e3].

    logits: (N, K), finite.  labels: (N,) in 0..K-1; N at least 1.  To be fitted on clean images of the
    training distribution that were not trained on.

    The NLL is convex in 1/T (Guo et al. 2017, section 4.2), so its one minimum is where its slope
    mean(E[logit] - logit of the label), the expectation over the scaled softmax, changes its sign.
    Where it never does the nearer bound is returned: 1e-3 if all labels have the largest logit (the NLL
    falls for ever as T goes to 0), 1e3 if the logits are worse than none, 1 if all logits are equal.
    """
    logits, labels = np.asarray(logits), np.asarray(labels, dtype=np.int64)
    rows = max(1, CHUNK // logits.shape[1])
    chunks = [slice(start, start + rows) for start in range(0, len(logits), rows)]

    def slope(log_inverse: float) -> float:
        return sum(_slope(logits[chunk], labels[chunk], math.exp(log_inverse)) for chunk in chunks)

    coldest, hottest = -math.log(LOWEST), -math.log(HIGHEST)
    if slope(coldest) <= 0:
        return LOWEST if np.ptp(logits, axis=1).any() else 1.0
    if slope(hottest) >= 0:
        return HIGHEST
    return math.exp(-brentq(slope, hottest, coldest, xtol=1e-12))


def _slope(logits: NDArray, labels: NDArray[np.int64], inverse: float) -> float:
    """Derivative of the summed NLL with respect to 1/T."""
    shifted = _shifted(logits)
    weights = np.exp(shifted * inverse)
    expected = (weights * shifted).sum(axis=-1) / weights.sum(axis=-1)
    return float((expected - shifted[np.arange(len(labels)), labels]).sum())


def _shifted(logits: NDArray) -> NDArray[np.float64]:
    logits = logits.astype(np.float64)
    return logits - logits.max(axis=-1, keepdims=True)
