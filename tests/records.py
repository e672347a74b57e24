"""Records of an evaluation that never took place, for tests of what is computed from records."""

from __future__ import annotations

import numpy as np
import pandas as pd

from trainables.metrics.names import UNCERTAINTIES

VERSIONS = ("clean", "robust", "confidence_up", "confidence_down")


def records(seed: int, images: dict[str, int], *, skill: float = 0.6, first: int = 0) -> pd.DataFrame:
    """Random records of the given number of images of each set. skill: the mean share of right predictions.

    first: the number of the first image. Confidences are rounded, so that some are equal."""
    r = np.random.default_rng(seed)
    tables = []
    for name, n in images.items():
        columns = {
            "set": name,
            "split": "validation",
            "index": first + np.arange(n),
            "label": r.integers(0, 3, n),
        }
        columns["broken_by"] = np.where(r.random(n) < skill / 2, "", "PGD-2")
        columns |= {"temperature": 1.25, "own_temperature": 1.25, "zero_gradients": r.random(n) / 100}
        for version in VERSIONS:
            confidence = np.round(0.34 + 0.66 * r.random(n), 2)
            columns[f"{version}_correct"] = r.random(n) < skill * (0.5 + confidence / 2)
            columns[f"{version}_confidence"] = confidence
            columns[f"{version}_scaled_confidence"] = np.sqrt(confidence)
            for column in ("nll", "brier", "scaled_nll"):
                columns[f"{version}_{column}"] = r.exponential(size=n)
            for column in UNCERTAINTIES:
                columns[f"{version}_{column}"] = np.round(r.random(n), 2)
        columns |= {"own_temperature": 1.5, "own_scaled_nll": columns["clean_scaled_nll"] - r.random(n) / 100}
        tables.append(pd.DataFrame(columns))
    return pd.concat(tables, ignore_index=True)


def class_bins(images: dict[str, int]) -> pd.DataFrame:
    """A class-bins table that goes with them, and says nothing."""
    rows = [(name, version, 0, 0, n, 0.0, 0) for name, n in images.items() for version in VERSIONS]
    return pd.DataFrame(
        rows, columns=["set", "version", "class", "bin", "images", "probability", "frequency"]
    )
