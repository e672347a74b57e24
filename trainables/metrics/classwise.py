"""Class-wise calibration error from sums that add up over batches and fit in a small table.

The table has a row per class and non-empty bin, in that order: `class`, `bin`, `images` (how many have
a probability of that class in that bin), `probability` (the sum of those probabilities) and `frequency`
(how many of those images are of the class). All three are sums, so tables of batches merge by addition.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from trainables.metrics.calibration import BINS, equal_width_index

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike

KEYS = ["class", "bin"]
SUMS = ["images", "probability", "frequency"]


def class_bins(probabilities: ArrayLike, labels: ArrayLike, bins: int = BINS) -> pd.DataFrame:
    """Table of sums of one batch.  probabilities: (N, K) in [0, 1].  labels: (N,) in 0..K-1."""
    probabilities = np.asarray(probabilities, dtype=np.float64)
    labels = np.asarray(labels, dtype=np.int64)
    n, classes = probabilities.shape
    cell = equal_width_index(probabilities, bins) + bins * np.arange(classes)
    cells = bins * classes
    images = np.bincount(cell.ravel(), minlength=cells)
    of_label = cell[np.arange(n), labels]
    table = pd.DataFrame(
        {
            "class": np.repeat(np.arange(classes), bins),
            "bin": np.tile(np.arange(bins), classes),
            "images": images,
            "probability": np.bincount(cell.ravel(), weights=probabilities.ravel(), minlength=cells),
            "frequency": np.bincount(of_label, minlength=cells),
        }
    )
    return table[images > 0].reset_index(drop=True)


def merge_class_bins(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Table of all the images of several tables; at least one of them, all of the same `bins`."""
    return pd.concat(tables).groupby(KEYS, sort=True)[SUMS].sum().reset_index()


def class_wise_ece(table: pd.DataFrame) -> float:
    """Mean over classes of the calibration error of the class's probability, in [0, 1].

    (1/K) sum_k sum_b (n_kb / N) |frequency_kb - probability_kb|: classwise-ECE of Kull et al., NeurIPS
    2019, arXiv 1910.12656, section 2, and the static calibration error of Nixon et al., arXiv
    1904.01685. table: of `class_bins`; K is its number of classes. 0 without images. With many classes
    most probabilities are about 0 in their lowest bin, and the error is at most 2/K.
    """
    if table.empty:
        return 0.0
    gaps = (table["frequency"] - table["probability"]).abs()
    return float(gaps.sum() / table["images"].sum())  # every image is in one bin of each of the K classes
