"""Suites of `sweeper evaluate`: what is measured for them, and tables of what they say."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import yaml
from rich.console import Group
from rich.table import Table
from rich.text import Text

from sweeper import pages
from sweeper.errors import UserError
from sweeper.evaluation import Measurement, cell
from sweeper.files import read_json
from sweeper.result import described
from sweeper.standing import WIDTH
from sweeper.trainable import Trainable


class Make(Protocol):
    def __call__(self, *, own: Mapping[str, Any]) -> Measurement:
        """A measurement. own: what is set of its evaluation, whatever else was asked for."""


ROWS = 20
"""Sets that a table shows all of; of more it shows the worst."""
WORST = 5


def given(names: Sequence[str]) -> list[Any]:
    """What a command line names: suites, or files of them. Raises UserError for a file that is none."""
    return [read(Path(name)) if name.endswith((".yaml", ".yml")) else name for name in names]


def read(file: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"--suite {file}: {' '.join(str(error).split())}", pages.SUITES) from error
    if not isinstance(content, dict):
        raise UserError(f"--suite {file}: expected keys such as `sets`, found none", pages.SUITES)
    return {"name": file.stem, **content}


def planned(trainable: Trainable, suites: Sequence[Any], make: Make) -> list[Measurement]:
    """The measurements that it takes. Raises UserError or SpecError."""
    return [make(own=own) for own in trainable.suites(suites)]


def within(suites: Sequence[Any], trainable: Trainable) -> list[Any]:
    """The in-distribution set of suites that a model is measured by which belongs to no run. Raises UserError
    if they are of several."""
    found = {
        str(suite.get("within")): suite["within"]
        for own in trainable.suites(suites)
        for suite in own["suites"]
        if suite.get("within") is not None
    }
    if len(found) != 1:
        known = f"these suites are within {' and '.join(found)}" if found else "these suites name none"
        raise UserError(f"--data NAME says what the in-distribution set is: {known}", pages.SUITES)
    return list(found.values())


def tables(measurement: Measurement, file: Path) -> Group:
    """A table for each suite: a row for each of its sets, and for the in-distribution one.

    file: what the measurement wrote.
    """
    result = read_json(file)
    evaluation = measurement.content["evaluation"]
    made = [table for suite in evaluation["suites"] for table in tables_of(suite, result)]
    parts = [part for table in made for part in (table, Text())]
    notes = [
        described(measurement.trainable, evaluation, measurement.split),
        "In-distribution first. Below a number: its 95 % interval. Quantities: docs/metrics.md.",
        f"written to {file}",
    ]
    return Group(Text(measurement.title, "bold"), *parts, *(Text(note, "dim") for note in notes))


def tables_of(suite: Mapping[str, Any], result: Mapping[str, Any]) -> Iterator[Table]:
    """As many as its metrics take, of which `WIDTH` stand side by side."""
    name, metrics, intervals = suite["name"], result["metrics"], result["intervals"]
    (first, *_), members = result["sets"], [of["set"] for of in result["sets"] if name in of["groups"]]
    shown = suite["show"] or [metric for metric in metrics if metric.startswith("clean_")]
    by = shown[0]
    title = f"{name}: {suite['about']}".rstrip(": ")
    chosen = members
    if len(members) > ROWS:
        having = [of for of in members if f"{of}.{by}" in metrics]
        chosen = sorted(having, key=lambda of: metrics[f"{of}.{by}"])[:WORST]
        title += f" Of {len(members)} sets the {len(chosen)} of smallest {by.replace('_', ' ')}."
    rows = {first["set"]: "", **{of: f"{of}." for of in chosen}}
    rows |= {"mean": f"{name}.", "worst": f"{name}.worst_"} if len(members) > 1 else {}
    for start in range(0, len(shown), WIDTH):
        part = shown[start : start + WIDTH]
        cells = [[cell(metrics, intervals, f"{of}{metric}") for metric in part] for of in rows.values()]
        above = f"{name}, continued" if start else title
        made = Table(title=above, title_justify="left", box=None, pad_edge=False)
        made.add_column("", overflow="fold")
        for metric, column in zip(part, zip(*cells, strict=True), strict=True):
            head = metric.replace("_", " ")
            width = max(map(len, " ".join([head, *column]).split()))  # no digit is left out
            made.add_column(head, justify="right", width=width, overflow="fold")
        for row, values in zip(rows, cells, strict=True):
            made.add_row(row, *values)
        yield made
