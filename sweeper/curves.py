"""Learning curves that were recorded, for simulations to go over.

A table, kept as Parquet, with a row for every epoch of every configuration:

    config    string   names the configuration
    drawn     string   what was drawn for it, as a JSON object: {"optimizer.learning_rate": 0.001}
    epoch     int64    1, 2, ... to the last
    seconds   float64  what the epoch took, its evaluation included
    METRIC    float64  a column for every metric, on validation images; NaN where training diverged

and a row for the untrained model: config "baseline", drawn {}, epoch 0, seconds 0.

A configuration that was not recorded is given the curve of the nearest one. How much each parameter counts
is fitted to the curves: so that each would be predicted best by its nearest other one.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sweeper.errors import UserError
from sweeper.run import Run
from sweeper.trial import BASELINE, Metrics

Array = NDArray[np.float64]

KEYS = ["config", "drawn", "epoch", "seconds"]
LOOKED_AT = (0.0, 0.1, 0.3, 1.0)
"""Of a curve, to see what it is like."""
ROUNDS, FACTORS = 6, (1.0, 0.1, 0.3, 0.5, 2.0, 3.0, 10.0)
"""Of the descent; 1 comes first, as nothing is changed without need."""


def recorded(runs: Sequence[Run]) -> pd.DataFrame:
    """The table of all trials of these runs that were trained to their end, and of the first run's
    untrained model. The runs have the same metrics; stopped trials have no end to be replayed."""
    rows: list[dict[str, Any]] = []
    for run in runs:
        for trial in run.trials():
            for epoch in trial.epochs if trial.status == "completed" else ():
                seconds = epoch["training_seconds"] + epoch["evaluation_seconds"]
                about = (f"{run.name}/{trial.id}", json.dumps(trial.drawn), epoch["epoch"], seconds)
                rows.append(dict(zip(KEYS, about, strict=True)) | epoch["metrics"])
    baseline = dict(zip(KEYS, (BASELINE, "{}", 0, 0.0), strict=True)) | (runs[0].baseline() or {})
    return pd.DataFrame([baseline, *rows])


@dataclass(frozen=True)
class Curve:
    """One configuration's epochs: what each took, and its metrics."""

    config: str
    seconds: list[float]
    metrics: list[Metrics]


class Curves:
    """Learning curves, found by what was drawn. table: see the head of this file.

    Raises UserError if the table has no untrained model or lacks a key.
    """

    def __init__(self, table: pd.DataFrame) -> None:
        missing = [key for key in KEYS if key not in table]
        if missing or BASELINE not in set(table["config"]):
            what = f"column {missing[0]!r}" if missing else f"row of config {BASELINE!r}"
            raise UserError(f"learning curves: no {what}; see the head of sweeper/curves.py")
        untrained = table["config"] == BASELINE
        self.names = [name for name in table.columns if name not in KEYS]
        self.baseline = metrics_of(table.loc[untrained, self.names])[0]
        groups = table[~untrained].sort_values("epoch", kind="stable").groupby("config", sort=False)
        self.curves = [
            Curve(str(config), rows["seconds"].tolist(), metrics_of(rows[self.names]))
            for config, rows in groups
        ]
        drawn = pd.DataFrame([json.loads(text) for text in groups["drawn"].first()])
        self.drawn = {str(name): Parameter(values) for name, values in drawn.items()}

    @classmethod
    def load(cls, file: Path) -> Curves:
        return cls(pd.read_parquet(file))

    def nearest(self, drawn: dict[str, Any]) -> Curve:
        """The curve of the configuration that is the most like the one drawn."""
        return self.curves[int(self._distance(drawn).argmin())]

    def _distance(self, drawn: dict[str, Any]) -> Array:
        distance = np.zeros(len(self.curves))
        for name, parameter in self.drawn.items():
            distance += self.weights[name] * parameter.distance(drawn.get(name))
        return distance

    @cached_property
    def weights(self) -> dict[str, float]:
        """What each parameter counts, by coordinate descent from 1; see the head of this file."""
        apart = {name: parameter.apart for name, parameter in self.drawn.items()}
        ranks = self._ranks()

        def error(weights: dict[str, float]) -> float:
            distance = np.sum([weight * apart[name] for name, weight in weights.items()], axis=0)
            np.fill_diagonal(distance, np.inf)
            return float(np.square(ranks - ranks[distance.argmin(axis=1)]).mean())

        weights = dict.fromkeys(apart, 1.0)
        for _ in range(ROUNDS if len(self.curves) > 1 else 0):
            for name in weights:
                tried = [{**weights, name: weights[name] * factor} for factor in FACTORS]
                weights = min(tried, key=error)
        return weights

    def _ranks(self) -> Array:
        """(n, k) the rank of each curve by each metric at its beginning, in its middle, and at its end."""
        looks = [
            [curve.metrics[int(at * (len(curve.metrics) - 1))] for at in LOOKED_AT] for curve in self.curves
        ]
        table = pd.DataFrame([[metrics[name] for metrics in look for name in self.names] for look in looks])
        return np.asarray(table.rank(pct=True, na_option="bottom"))


class Unrepeated(Curves):
    """The same curves, each of which is given once before any is given again: a real search never trains with
    the same luck twice. For one simulation."""

    def __init__(self, curves: Curves) -> None:
        vars(self).update(vars(curves) | {"weights": curves.weights})  # fitted once for all
        self.used = np.zeros(len(curves.curves), dtype=np.intp)

    def nearest(self, drawn: dict[str, Any]) -> Curve:
        distance = self._distance(drawn)
        distance[self.used > self.used.min()] = np.inf
        nearest = int(distance.argmin())
        self.used[nearest] += 1
        return self.curves[nearest]


def metrics_of(rows: pd.DataFrame) -> list[Metrics]:
    return [dict(zip(rows.columns, map(float, values), strict=True)) for values in rows.to_numpy()]


class Parameter:
    """One parameter of all recorded configurations, and how far a value is from each.

    Numbers are compared by their place among the recorded ones, so that a logarithmic range needs no
    special care; another label, or a parameter that only one of two has, is as far off as can be, 1.
    """

    def __init__(self, values: pd.Series) -> None:
        self.absent = values.isna().to_numpy()
        self.numbers = pd.api.types.is_numeric_dtype(values)
        self.values = values.to_numpy()
        self.known = np.unique(self.values[~self.absent])

    @property
    def apart(self) -> Array:
        """(n, n) in [0, 1]."""
        values = [None if gone else value for value, gone in zip(self.values, self.absent, strict=True)]
        return np.array([self.distance(value) for value in values])

    def distance(self, value: Any) -> Array:
        """(n,) in [0, 1]."""
        if value is None:
            return np.where(self.absent, 0.0, 1.0)
        if not self.numbers:
            return np.where(self.values == value, 0.0, 1.0)
        place = np.linspace(0, 1, len(self.known))
        offset = np.interp(self.values, self.known, place) - np.interp(value, self.known, place)
        return np.where(self.absent, 1.0, offset**2)
