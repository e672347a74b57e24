"""What the per-image records of models show: reliability, confidence, uncertainty under attack.

Bins and errors are those of `trainables.metrics`, so that a figure shows the very numbers of the metrics;
those modules are numpy alone, and no torch comes in with them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sweeper.report.chart import (
    GREY,
    INK,
    VERMILION,
    Absent,
    Axis,
    Boxes,
    Chart,
    Lines,
    Mark,
    Notes,
    Panel,
    Points,
    Rule,
    Style,
)
from sweeper.report.prepare import Material, Model
from sweeper.report.settings import round_numbers
from trainables.metrics.calibration import (
    BINS,
    equal_width_index,
    expected_calibration_error,
    reliability,
)
from trainables.metrics.comparison import shift
from trainables.metrics.names import UNCERTAINTIES

if TYPE_CHECKING:
    from sweeper.storage import Storage

VERSIONS = {"clean": "clean", "robust": "attacked"}
"""What the columns of the records begin with, and the word for it."""
CONFIDENCES = {"": "confidence", "scaled": "scaled_confidence"}
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
EDGES = np.arange(BINS + 1) / BINS
UNIT = Axis(low=0, high=1, ticks={0: "0", 0.5: "0.5", 1: "1"}, grid=False)

Array = NDArray[np.float64]
Columns = Mapping[str, NDArray[Any]]
"""Of the images of a set, by name; see `trainables.metrics.summary`."""


def read(storage: Storage, file: Path, names: Sequence[str]) -> Columns | None:
    """Those of the columns that a file of records has, of its first set, which is the in-distribution one;
    and the set's name. None without a file."""
    from pyarrow.parquet import ParquetFile

    if not file.is_file():
        return None
    with ParquetFile(storage.fetch(file)) as records:
        known = [name for name in ("set", *names) if name in records.schema_arrow.names]
        table = records.read(columns=known)
    sets = table.column("set").to_numpy()
    own = sets == sets[0]
    columns = {name: table.column(name).to_numpy()[own] for name in known if name != "set"}
    return columns | {"set": sets[:1]}


def columns_of(of: Material, model: Model, names: Sequence[str]) -> Columns | None:
    """Of a model in the stage shown."""
    return read(of.run.storage, of.run.records(of.point(model), of.stage), names)


# reliability


@dataclass(frozen=True)
class Reliability:
    """A reliability diagram: images, mean confidence and accuracy of each bin."""

    count: NDArray[np.int64]
    confidence: Array
    accuracy: Array
    ece: float

    @property
    def shares(self) -> Array:
        """The part of all images that is in each bin."""
        return self.count / max(self.count.sum(), 1)


def reliability_of(columns: Columns, version: str, scaled: str = "") -> Reliability | None:
    """version: as `clean`.  scaled: "scaled" for confidences after temperature scaling. None without."""
    names = f"{version}_{CONFIDENCES[scaled]}", f"{version}_correct"
    if any(name not in columns for name in names):
        return None
    confidence, correct = (columns[name] for name in names)
    return Reliability(*reliability(confidence, correct), expected_calibration_error(confidence, correct))


def diagrams(columns: Columns) -> dict[str, Reliability]:
    """Clean and attacked, before and after temperature scaling, by what each is."""
    temperature = columns.get("temperature")
    after = "" if temperature is None else f", T = {float(temperature[0]):.2f}"
    found = {}
    for scaled in CONFIDENCES:
        for version, word in VERSIONS.items():
            diagram = reliability_of(columns, version, scaled)
            if diagram is not None:
                found[f"{word}{after if scaled else ''}"] = diagram
    return found


RELIABILITY = [f"{v}_{c}" for v in VERSIONS for c in ("correct", *CONFIDENCES.values())] + ["temperature"]


def reliability_chart(of: Material) -> Chart | Absent:
    """A row for each model: clean, attacked, and both after temperature scaling."""
    title = "Reliability"
    read_ones = [(model, columns_of(of, model, RELIABILITY)) for model in of.side_by_side]
    rows = [(model, columns, diagrams(columns)) for model, columns in read_ones if columns]
    rows = [row for row in rows if row[2]]
    if not rows:
        return Absent("reliability", title, "There are no per-image records of a model in this stage.")
    panels = [
        reliability_panel(of, model, what, diagram, first=not index)
        for model, _, shown in rows
        for index, (what, diagram) in enumerate(shown.items())
    ]
    return Chart(
        "reliability",
        f"{title} on {rows[0][1]['set'][0]}",
        f"Bars: accuracy in each of {BINS} equal-width bins of confidence. Hatched: the gap to mean "
        "confidence; ECE is its mean over images, and is biased upwards where they are few. The broken "
        "line is perfect calibration. T: after temperature scaling by T, fitted on clean validation "
        f"images. {of.which}{of.said}.",
        panels,
        columns=max(len(shown) for _, _, shown in rows),
        height=150,
    )


def reliability_panel(of: Material, model: Model, what: str, shown: Reliability, *, first: bool) -> Panel:
    count = int(shown.count.sum())
    axis = replace(UNIT, title="accuracy") if first else replace(UNIT, ticks={})
    title = f"{model.name if first else ''}\n{what}\nECE {shown.ece:.4f}, n = {count}"
    return Panel(reliability_marks(of, model, shown), replace(UNIT, title="confidence"), axis, title)


def reliability_marks(of: Material, model: Model, shown: Reliability) -> list[Mark]:
    filled = np.flatnonzero(shown.count)
    left, right = EDGES[filled], EDGES[filled + 1]
    accuracy, confidence = shown.accuracy[filled], shown.confidence[filled]
    told = [
        f"{count} images of confidence {low:.3f} to {high:.3f}\naccuracy {a:.4f}, mean confidence {c:.4f}"
        for count, low, high, a, c in zip(shown.count[filled], left, right, accuracy, confidence, strict=True)
    ]
    colour = of.look[model.method].colour
    low, high = np.minimum(accuracy, confidence), np.maximum(accuracy, confidence)
    return [
        Boxes(left, right, np.zeros(len(filled)), accuracy, Style(colour, opacity=0.8), hover=told),
        Boxes(left, right, low, high, Style(VERMILION, hatch=True, edge=VERMILION)),
        Lines([([0, 1], [0, 1])], Style(INK, dash="dash", width=1)),
    ]


# confidence


def confidence_chart(of: Material) -> Chart | Absent:
    """A row for each model: how confident it is where it is right, and where it is wrong."""
    title = "Confidence of right and wrong predictions"
    wanted = [f"{version}_{name}" for version in VERSIONS for name in ("correct", "confidence")]
    read_ones = [(model, columns_of(of, model, wanted)) for model in of.side_by_side]
    rows = [(model, columns) for model, columns in read_ones if columns and all(n in columns for n in wanted)]
    if not rows:
        return Absent("confidence", title, "There are no per-image records of a model in this stage.")
    panels = [
        confidence_panel(of, model, columns, version, first=not index)
        for model, columns in rows
        for index, version in enumerate(VERSIONS)
    ]
    low, high = min(panel.y.low or 0 for panel in panels), max(panel.y.high or 0 for panel in panels)
    ticks = {value: f"{abs(value):.0%}" for value in round_numbers(low, high)}
    panels = [replace(panel, y=replace(panel.y, low=low, high=high, ticks=ticks)) for panel in panels]
    return Chart(
        "confidence",
        f"{title} on {rows[0][1]['set'][0]}",
        f"Share of all images in each of {BINS} equal-width bins of confidence: upwards those that the "
        "model classifies correctly, downwards, hatched, the others. The line is the mean confidence, the "
        "broken one the accuracy: where it is the lower of the two, the model is too confident. "
        f"{of.which}{of.said}.",
        panels,
        columns=len(VERSIONS),
        height=110,
    )


def confidence_panel(of: Material, model: Model, columns: Columns, version: str, *, first: bool) -> Panel:
    confidence, correct = columns[f"{version}_confidence"], columns[f"{version}_correct"].astype(bool)
    right, wrong = (binned(confidence[which]) / len(correct) for which in (correct, ~correct))
    accuracy, mean = float(correct.mean()), float(confidence.mean())
    zeros, colour = np.zeros(BINS), of.look[model.method].colour
    marks: list[Mark] = [
        Boxes(EDGES[:-1], EDGES[1:], zeros, right, Style(colour, opacity=0.8), hover=shares(right, "right")),
        Boxes(
            EDGES[:-1],
            EDGES[1:],
            -wrong,
            zeros,
            Style(VERMILION, hatch=True, edge=VERMILION),
            hover=shares(wrong, "wrong"),
        ),
        Rule("y", 0, Style(GREY, width=1)),
        Rule("x", mean, Style(INK, width=1.5), "mean confidence"),
        Rule("x", accuracy, Style(INK, dash="dash", width=1.5), "accuracy"),
    ]
    numbers = f"accuracy {accuracy:.4f}, mean confidence {mean:.4f}, n = {len(correct)}"
    up = Axis("share of images" if first else "", -float(wrong.max()), float(right.max()))
    return Panel(
        marks,
        replace(UNIT, title="confidence"),
        replace(up, grid=False),
        f"{model.name}, {VERSIONS[version]}\n{numbers}",
    )


def binned(confidence: Array) -> NDArray[np.int64]:
    """(BINS,) how many are in each bin."""
    return np.bincount(equal_width_index(confidence), minlength=BINS)


def shares(values: Array, what: str) -> list[str]:
    return [
        f"{value:.1%} of all images are {what}\nwith a confidence of {low:.3f} to {high:.3f}"
        for value, low, high in zip(values, EDGES[:-1], EDGES[1:], strict=True)
    ]


# uncertainty


def uncertainty_chart(of: Material) -> Chart | Absent:
    """How each uncertainty is distributed, clean and attacked, and by how much its mean is shifted."""
    title = "Uncertainty under attack"
    wanted = [f"{version}_{name}" for name in UNCERTAINTIES for version in VERSIONS]
    read_ones = [(model, columns_of(of, model, wanted)) for model in of.side_by_side]
    rows = [(model, columns) for model, columns in read_ones if columns and all(n in columns for n in wanted)]
    if not rows:
        return Absent("uncertainty", title, "There are no per-image records of uncertainties in this stage.")
    heights = {float(len(rows) - 1 - index): model.name for index, (model, _) in enumerate(rows)}
    places = Axis(low=-0.6, high=len(rows) - 0.3, ticks=heights, grid=False)
    panels = []
    for index, name in enumerate(UNCERTAINTIES):
        marks = [
            mark for at, row in zip(heights, rows, strict=True) for mark in shift_marks(of, name, at, *row)
        ]
        axis = places if not index else replace(places, ticks={})
        most = max(
            float(np.quantile(columns[f"{v}_{name}"], QUANTILES[-1])) for _, columns in rows for v in VERSIONS
        )
        panels.append(Panel(marks, Axis(name, 0, 1.06 * most or 1.0), axis))
    count = len(next(iter(rows[0][1].values())))
    return Chart(
        "uncertainty",
        f"{title} on {rows[0][1]['set'][0]}",
        "Boxes hold the middle half of the images, lines the middle nine tenths, the mark is the median; "
        "filled: clean, hatched: attacked. Beside them: the mean under attack less that on the same clean "
        f"images, with its 95 % interval, n = {count}. Uncertainty that falls under attack makes a wrong "
        "answer look sure. Entropy is over ln K; aleatoric and epistemic are the Dirichlet ones at κ = "
        f"1/0.07. {of.which}{of.said}.",
        panels,
        columns=len(UNCERTAINTIES),
        height=30 + 52 * len(rows),
    )


def shift_marks(of: Material, name: str, at: float, model: Model, columns: Columns) -> list[Mark]:
    clean, attacked = (np.asarray(columns[f"{version}_{name}"], float) for version in VERSIONS)
    colour, marks = of.look[model.method].colour, list[Mark]()
    for values, middle, word in ((clean, at + 0.17, "clean"), (attacked, at - 0.11, "attacked")):
        low, first, median, third, high = (float(end) for end in np.quantile(values, QUANTILES))
        style = Style(colour, opacity=0.8) if word == "clean" else Style(colour, hatch=True, edge=colour)
        told = [f"{model.name}, {word}: mean {name} {values.mean():.4g}, median {median:.4g}"]
        marks += [
            Lines([([low, high], [middle, middle])], Style(GREY, width=1)),
            Boxes([first], [third], [middle - 0.1], [middle + 0.1], style, hover=told),
            Points([median], [middle], Style(INK, "|", size=9), hover=told),
        ]
    moved = shift(clean, attacked)
    text = f"{moved.value:+.2g} ({moved.low:+.2g} to {moved.high:+.2g})"
    return [*marks, Notes([0], [at - 0.36], [f" {text}"], style=Style(GREY))]
