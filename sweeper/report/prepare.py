"""What the pictures of a report show, as numbers: drawn by plots.py, checked by tests.

Bins are those of `trainables.metrics.calibration`, so that a picture shows the very numbers of the
metrics; that module is numpy alone, and no torch comes in with it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.ticker import LogLocator, MaxNLocator

from sweeper.result import objectives
from trainables.metrics.calibration import expected_calibration_error, reliability

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

Content = Mapping[str, Any]
"""The content of pareto.json."""
Row = dict[str, Any]
"""One trial of it, or one model."""

VERSIONS = {"clean": "clean", "robust": "attacked"}
"""What the columns of the per-image records begin with, and the word for it."""

LOG_LIKE = 10
"""Positive numbers whose largest is so many times the smallest are shown on a logarithmic axis."""

CAPITALS = {"ece", "nll"}


SHOWN = 500
"""Trials that a report shows, at most, beside those of the Pareto set."""


def sample(trials: Sequence[Row]) -> list[Row]:
    """The trials that a report shows, in their order: those with a model in the Pareto set, and of the others
    `SHOWN`, evenly over the search, so that they are like all."""
    others = [row["id"] for row in trials if not row["pareto"]]
    step = max(1.0, len(others) / SHOWN)
    chosen = {others[int(index * step)] for index in range(min(SHOWN, len(others)))}
    return [row for row in trials if row["pareto"] or row["id"] in chosen]


def measured(content: Content) -> list[Row]:
    """Rows of the trials shown that have ended with metrics: completed ones and those stopped early."""
    return [
        row
        for row in sample(content["trials"])
        if row["status"] in ("completed", "stopped") and row["validation"]
    ]


def models(content: Content) -> list[Row]:
    """The Pareto set, and of each trial that has ended what it was after its last epoch, if that is another
    model."""
    members = [row for row in content["candidates"] if row["pareto"]]
    known = {row["id"] for row in members}
    last = [
        row | {"pareto": False} for row in measured(content) if f"{row['id']}@{row['epochs']}" not in known
    ]
    return [*members, *last]


def words(metric: str) -> str:
    """`robust_ece` as `robust ECE`."""
    return " ".join(word.upper() if word in CAPITALS else word for word in metric.split("_"))


@dataclass(frozen=True)
class Point:
    """A model in the picture of the front; `shade` is the third objective, where there is one."""

    x: float
    y: float
    shade: float | None


def point(content: Content, metrics: Mapping[str, float], number: int) -> Point:
    """The first objective upwards, the second to the right; the trial's number if there is no second."""
    values = [metrics[name] for name in objectives(content)]
    return Point(values[1] if len(values) > 1 else number, values[0], values[2] if len(values) > 2 else None)


@dataclass(frozen=True)
class Reliability:
    """A reliability diagram: images, mean confidence and accuracy of each bin."""

    count: NDArray[np.int64]
    confidence: NDArray[np.float64]
    accuracy: NDArray[np.float64]
    ece: float

    @property
    def shares(self) -> NDArray[np.float64]:
        """The part of all images that is in each bin."""
        return self.count / self.count.sum()


@dataclass(frozen=True)
class Diagrams:
    """The reliability of one model on one set, by version of the images."""

    name: str
    method: str
    set: str
    images: int
    versions: dict[str, Reliability]


def diagrams(name: str, method: str, records: Path) -> Diagrams:
    """From per-image records; of their sets the first, which is the in-distribution one."""
    columns = [f"{version}_{column}" for version in VERSIONS for column in ("confidence", "correct")]
    frame = pd.read_parquet(records, columns=["set", *columns])
    frame = frame[frame["set"] == frame["set"].iloc[0]]
    versions = {
        version: reliability_of(
            frame[f"{version}_confidence"].to_numpy(), frame[f"{version}_correct"].to_numpy()
        )
        for version in VERSIONS
    }
    return Diagrams(name, method, str(frame["set"].iloc[0]), len(frame), versions)


def reliability_of(confidence: NDArray[np.float64], correct: NDArray[np.bool_]) -> Reliability:
    return Reliability(*reliability(confidence, correct), ece=expected_calibration_error(confidence, correct))


@dataclass(frozen=True)
class Axis:
    """One upright of the parallel coordinates: heights in [0, 1], of each trial and of each tick."""

    label: str
    heights: list[float]
    ticks: dict[str, float]


def parallel_axes(content: Content, rows: Sequence[Row]) -> list[Axis]:
    """The settings that every trial drew, then the Pareto metrics, each with its better end on top."""
    common = [name for name in rows[0]["drawn"] if all(name in row["drawn"] for row in rows)]
    axes = [setting_axis(name, [row["drawn"][name] for row in rows]) for name in common]
    for metric in objectives(content):
        values = [row["validation"][metric] for row in rows]
        downwards = metric in content["minimize"]
        label = words(metric) + ("\n(least on top)" if downwards else "")
        axes.append(number_axis(label, values, downwards=downwards))
    return axes


def setting_axis(name: str, values: Sequence[Any]) -> Axis:
    label = name.replace("_", " ").replace(".", "\n")
    if any(isinstance(value, str) for value in values):
        return option_axis(label, [str(value) for value in values])
    return number_axis(label, values, log=min(values) > 0 and max(values) >= LOG_LIKE * min(values))


def option_axis(label: str, values: Sequence[str]) -> Axis:
    options = ordered(set(values))
    ticks = {option: (index + 0.5) / len(options) for index, option in enumerate(options)}
    return Axis(label, [ticks[value] for value in values], ticks)


def ordered(options: set[str]) -> list[str]:
    """By size if all are numbers (`8/255` is one), else by name."""
    try:
        return sorted(options, key=Fraction)
    except ValueError:
        return sorted(options)


def number_axis(label: str, values: Sequence[float], *, log: bool = False, downwards: bool = False) -> Axis:
    low, high = min(values), max(values)
    locator = LogLocator(subs=(1, 2, 5)) if log else MaxNLocator(5)
    ticks = (
        [float(tick) for tick in locator.tick_values(low, high) if low <= tick <= high]
        if low < high
        else [low]
    )
    scale = np.log if log else np.asarray

    def height(value: float) -> float:
        share = float((scale(value) - scale(low)) / (scale(high) - scale(low))) if low < high else 0.5
        return 1 - share if downwards else share

    return Axis(label, [height(value) for value in values], {f"{tick:.4g}": height(tick) for tick in ticks})
