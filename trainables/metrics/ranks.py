"""Ranks, by pandas, which every process has anyway: importing scipy.stats takes a worker a second or two."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from numpy.typing import NDArray


def mean_ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N,) ranks in [1, N]; equal values share the mean of theirs. values: (N,)"""
    return np.asarray(pd.Series(values).rank(), dtype=np.float64)
