"""The record of each image, as a table: which columns a set has depends on what was done with its images.

See `metrics.summary` for the columns. In a table of several sets, what a set does not have is missing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from trainables.data.role import TRANSFER
from trainables.metrics.names import CONFIDENCE_VERSIONS, UNCERTAINTIES, VERSIONS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


def together(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Tables of sets in one, in columns of pandas' types that know missing values where one is missing."""
    columns = set(tables[0].columns)
    if any(set(table.columns) != columns for table in tables):
        tables = [table.convert_dtypes(convert_string=False, convert_floating=False) for table in tables]
    return pd.concat(tables, ignore_index=True)


def by_set(records: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The records of each set, in order, with the columns that it has."""
    return {str(name): own(rows) for name, rows in records.groupby("set", sort=False)}


def own(rows: pd.DataFrame) -> pd.DataFrame:
    """Without the columns of which nothing is known, and in NumPy's types."""
    known = rows.dropna(axis=1, how="all").infer_objects()
    extended = {pd.BooleanDtype(): np.bool_, pd.Int64Dtype(): np.int64}
    return known.astype({name: extended[kind] for name, kind in known.dtypes.items() if kind in extended})


def is_outside(own: pd.DataFrame) -> bool:
    """Whether a set's images are of no class of the in-distribution set. own: its records."""
    return "clean_correct" not in own


def versions_of(own: pd.DataFrame) -> list[str]:
    """Versions of a set's images that were measured. own: its records."""
    return [name for name in (*VERSIONS, *CONFIDENCE_VERSIONS) if f"{name}_confidence" in own]


def groups_of(own: pd.DataFrame) -> tuple[str, ...]:
    """Groups of a set that is not the first. own: its records, which earlier versions wrote without."""
    return tuple(own["groups"].iloc[0].split()) if "groups" in own else (TRANSFER,)


def certainty(own: pd.DataFrame, score: str) -> NDArray[np.float64]:
    """(N,) one of `names.SCORES` of each clean image, larger the more it seems to be in-distribution."""
    values = own[f"clean_{score}"].to_numpy(np.float64)
    return -values if score in UNCERTAINTIES else values
