"""Models beside each other, by suite: what was measured of each, and which rank it has up to noise.

A column is a metric of a suite, of the in-distribution set or of another, in images that were attacked in one
ball. What stands in a column was measured alike, or there is none: the same split, images and attack. Results
of others are the exception, being marked: of their images nothing is known.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sweeper import pages
from sweeper.alike import letter
from sweeper.errors import UserError, near, suggestion
from sweeper.measured import Found, Measured, Model
from sweeper.pareto import Direction
from sweeper.prefer import WAYS
from sweeper.ranks import rank_intervals
from sweeper.result import described
from sweeper.trainable import Trainable
from sweeper.tree import first_difference
from trainables.attacks.config import parse_fraction
from trainables.metrics.names import depends_on, limits, worse

Array = NDArray[np.float64]
Content = Mapping[str, Any]
Row = dict[str, Any]

DRAWS, SEED = 1000, 0
SHOWN = ("clean_accuracy", "robust_accuracy", "clean_ece", "robust_ece", "mcm_ood_auroc", "mcm_ood_fpr95")
"""Metrics that are shown, as far as there are any, where no suite says which."""
BETTER: dict[str | None, Direction | None] = {"smaller": "maximize", "larger": "minimize", None: None}
"""By which end of a metric is the worse one."""


@dataclass(frozen=True)
class Section:
    """A table: a suite, a group of sets or a set. prefix: in front of its metrics."""

    name: str
    prefix: str
    about: str = ""
    shown: tuple[str, ...] = ()

    def values(self, measured: Measured) -> Mapping[str, float]:
        """Metrics of it that a measurement has."""
        first = measured.sets[0]["set"]
        own = bool(self.prefix) or self.name == first or self.name in measured.suites
        return measured.metrics if own else {}


@dataclass(frozen=True)
class Column:
    """metric: with its prefix.  ball: in which images were attacked.  measured: by which measurement of each
    model, by its place; foreign models are not among them."""

    section: Section
    metric: str
    ball: str
    way: Direction | None
    measured: dict[int, Measured]

    @cached_property
    def sets(self) -> list[Mapping[str, Any]]:
        return next(
            (each.members(self.metric) for each in self.measured.values()), [{"set": self.section.name}]
        )

    def has_quantiles(self, of: Measured) -> bool:
        """Whether it is a mean over several sets whose interval resampled images give: of a metric of which
        each set has one, but not of calibration errors, which are no less biased on resampled images."""
        each_has = all(f"{each['set']}.{self.name}" in of.intervals for each in self.sets)
        return len(self.sets) > 1 and each_has and not self.name.endswith("calibration_l2")

    @property
    def name(self) -> str:
        return self.metric.removeprefix(self.section.prefix)

    def ranked(self) -> list[int]:
        """The models whose images are known one by one."""
        return [
            place for place, of in self.measured.items() if of.records is not None and of.records.is_file()
        ]


def leaderboard(found: Found, suites: Sequence[str] = (), metrics: Sequence[str] = ()) -> dict[str, Any]:
    """The tables as JSON values.

    suites: names of suites, groups or sets; all by default.  metrics: of each of them, or with one of these
    in front, `shifts.clean_nll`; those that the suite shows by default. `maximize NAME` says which way is
    better where a metric has none.
    Raises UserError where what was measured is not alike.

    `suites` has for each of them its `columns` and, in the order of the first of these, its `rows`: `model`,
    `method`, `run`, `foreign` (whose result it is) and `cells`, one for each column, null where there is
    nothing: `value`, `low` and `high` (its 95 % interval), `rank` (first and last, null for none), and
    whether no model is better beyond noise (`best`).
    """
    made = [column for section in sections(found, suites, metrics) for column in columns(found, section)]
    if not made:
        wanted = ", ".join((*suites, *metrics))
        raise UserError(f"nothing was measured of {wanted}{measured_hint(found, metrics)}", pages.LEADERBOARD)
    drawn = resampled(found.trainable, made)
    by_section: dict[Section, list[tuple[Column, Array | str]]] = {}
    for column, draws in zip(made, drawn, strict=True):
        by_section.setdefault(column.section, []).append((column, draws))
    tables = [table(found, section, own) for section, own in by_section.items()]
    tables = [each for each in tables if each["rows"]]
    return {
        "draws": DRAWS,
        "seed": SEED,
        "runs": letters(found),
        "suites": tables,
        "notes": [*found.notes, *left_out(found, made)],
    }


def measured_hint(found: Found, metrics: Sequence[str]) -> str:
    """A metric that may be meant, or all that there are, without the sets and suites in front of them."""
    known = {
        name.rpartition(".")[2] for model in found.models for of in model.measured for name in of.metrics
    }
    known |= {metric for model in found.models if model.record for _, metric, _ in model.record.values}
    asked = metrics[0].rpartition(" ")[2].rpartition(".")[2] if metrics else ""
    return suggestion(asked, known)


def letters(found: Found) -> dict[str, str]:
    """Of the runs, if there are several."""
    runs = list(dict.fromkeys(model.run for model in found.models if model.run))
    return {run: letter(place) for place, run in enumerate(runs)} if len(runs) > 1 else {}


# What there is


def sections(found: Found, suites: Sequence[str], metrics: Sequence[str]) -> list[Section]:
    """Those that were asked for. Raises UserError for what is none."""
    known = {section.name: section for section in known_sections(found)}
    wanted: dict[str, list[str]] = {name: [] for name in suites}
    every = [text for text in metrics if "." not in text]
    for text in metrics:
        way, _, metric = text.rpartition(" ")
        prefix, dot, name = metric.rpartition(".")
        if dot:
            wanted.setdefault(prefix, []).append(f"{way} {name}".strip())
    for name in wanted:
        if name not in known:
            groups = (of for of, section in known.items() if section.shown)
            raise UserError(
                f"nothing was measured of {name!r}{near(name, known)}; there is {', '.join(groups)}",
                pages.LEADERBOARD,
            )
    if not wanted or (every and not suites):
        wanted = {name: [] for name, section in known.items() if section.shown} | wanted
    return [
        Section(name, known[name].prefix, known[name].about, tuple(own) + tuple(every) or known[name].shown)
        for name, own in wanted.items()
    ]


def known_sections(found: Found) -> Iterator[Section]:
    """All that there are: in-distribution sets, suites and groups, and last single sets, which are shown
    where somebody asks for them."""
    made: dict[str, Section] = {}
    measured = [each for model in found.models for each in model.measured]
    for each in measured:
        made.setdefault(each.sets[0]["set"], Section(each.sets[0]["set"], "", "", SHOWN))
    for each in measured:
        groups = [group for of in each.sets[1:] for group in of.get("groups", ())]
        for name in dict.fromkeys((*each.suites, *groups)):
            suite = each.suites.get(name, {})
            prefix = f"{name}." if name in groups else ""
            made.setdefault(
                name, Section(name, prefix, suite.get("about", ""), tuple(suite.get("show") or SHOWN))
            )
    for each in measured:
        for of in each.sets[1:]:
            made.setdefault(of["set"], Section(of["set"], f"{of['set']}."))
    records = [model.record for model in found.models if model.record]
    for name in dict.fromkeys(name for record in records for name, *_ in record.values):
        made.setdefault(name, Section(name, f"{name}.", "", () if measured else SHOWN))
    yield from made.values()


def columns(found: Found, section: Section) -> Iterator[Column]:
    for text in section.shown:
        way, _, name = text.rpartition(" ")
        if way and way not in WAYS:
            raise UserError(f"--metric {text!r}: expected NAME, 'maximize NAME' or 'minimize NAME'")
        metric = section.prefix + name
        direction = next((each for each in WAYS if each == way), BETTER[worse(name)])
        for ball in balls(found, section, metric):
            yield Column(section, metric, ball, direction, alike(found, section, metric, ball))


def balls(found: Found, section: Section, metric: str) -> list[str]:
    """In which images were attacked for a metric, the smallest first."""
    measured = [each for model in found.models for each in model.measured]
    known = {each.ball(metric) for each in measured if metric in section.values(each)}
    if not measured:
        keys = (key for model in found.models if model.record for key in model.record.values)
        known = {at for name, of, at in keys if (name, section.prefix + of) == (section.name, metric)}

    def size(ball: str) -> tuple[str, float]:
        norm, _, epsilon = ball.partition(" ")
        return norm, float(parse_fraction(epsilon or 0))

    return sorted(known, key=size)


def alike(found: Found, section: Section, metric: str, ball: str) -> dict[int, Measured]:
    """Of each model the latest measurement of those that are as one of each other model is. Raises UserError
    where there is none."""
    options: dict[int, dict[str, Measured]] = {}
    for place, model in enumerate(found.models):
        for each in model.measured:
            if metric in section.values(each) and each.ball(metric) == ball:
                conditions = json.dumps(each.conditions(metric), sort_keys=True)
                options.setdefault(place, {}).setdefault(conditions, each)
    if not options:
        return {}
    place, first = next(iter(options.items()))
    common = [key for key in first if all(key in own for own in options.values())]
    if not common:
        latest = next(iter(first))
        other = next((at for at, own in options.items() if latest not in own))
        there = next(iter(options[other].values()))
        key, one, two = first_difference(first[latest].conditions(metric), there.conditions(metric))
        names = [label(found, found.models[at]) for at in (place, other)]
        raise UserError(
            f"{metric} was not measured alike: {key} is {one} in {names[0]} and {two} in {names[1]}; choose "
            "by --split, --suite or --metric, or measure one as the other with `sweeper evaluate`",
            pages.LEADERBOARD,
        )
    return {place: own[common[0]] for place, own in options.items()}


def label(found: Found, model: Model) -> str:
    """`t003@5`, with the letter of its run if there are several."""
    letter = letters(found).get(model.run)
    return f"{letter} {model.name}" if letter else model.name


# What it says


def resampled(trainable: Trainable, made: Sequence[Column]) -> list[Array | str]:
    """Of each column the metric on resampled images, (D, n) of its `ranked` models, or why there is none. The
    same record files are read once."""
    of_files: dict[tuple[str, ...], list[str]] = {}
    files = [tuple(str(column.measured[place].records) for place in column.ranked()) for column in made]
    for column, own in zip(made, files, strict=True):
        of_files.setdefault(own, []).append(column.metric)
    known = {own: draws_of(trainable, own, list(dict.fromkeys(of_files[own]))) for own in of_files}
    return [known[own][column.metric] for column, own in zip(made, files, strict=True)]


def draws_of(trainable: Trainable, files: Sequence[str], metrics: Sequence[str]) -> dict[str, Array | str]:
    if not files:
        return dict.fromkeys(metrics, "there are no records of its images")
    try:
        found = trainable.resample([[file] for file in files], metrics, draws=DRAWS, seed=SEED)
    except trainable.errors as error:
        if len(metrics) == 1:
            return {metrics[0]: str(error)}
        return {key: of for name in metrics for key, of in draws_of(trainable, files, [name]).items()}
    return {name: found.draws[:, :, place] for place, name in enumerate(metrics)}


def table(found: Found, section: Section, made: Sequence[tuple[Column, Array | str]]) -> Row:
    cells = [cells_of(found, column, draws) for column, draws in made]
    shown = [place for place in range(len(found.models)) if any(place in own for own in cells)]
    first = made[0][0]

    def order(place: int) -> tuple[bool, float]:
        value = cells[0][place]["value"] if place in cells[0] else 0.0
        return place not in cells[0], -value if first.way == "maximize" else value

    return {
        "suite": section.name,
        "about": section.about,
        "columns": [column_of(found.trainable, column, draws) for column, draws in made],
        "rows": [
            {
                "model": label(found, found.models[place]),
                "method": found.models[place].method,
                "run": found.models[place].run,
                **foreign_form(found.models[place]),
                "cells": [own.get(place) for own in cells],
            }
            for place in sorted(shown, key=order)
        ],
    }


def foreign_form(model: Model) -> dict[str, str | None]:
    known = model.record
    return {"foreign": known.form if known else None, "attacked_by": known.attacked_by if known else None}


def column_of(trainable: Trainable, column: Column, draws: Array | str) -> Row:
    known = next(iter(column.measured.values()), None)
    return {
        "metric": column.metric,
        "name": column.name,
        "better": column.way,
        "attack": column.ball or None,
        "split": known.split if known else None,
        "sets": {of["set"]: of.get("images") for of in column.sets},
        "text": what(trainable, column, known),
        "ranked": 0 if why_unranked(column, draws) else len(column.ranked()),
        "unranked": why_unranked(column, draws),
    }


def why_unranked(column: Column, draws: Array | str) -> str | None:
    if column.way is None:
        return "neither more nor less of it is better; `--metric 'minimize NAME'` says which"
    return draws if isinstance(draws, str) else None


def what(trainable: Trainable, column: Column, known: Measured | None) -> str:
    """What a number of this column is, in a line."""
    if known is None:
        return f"by others, on {column.section.name}"
    needed = depends_on(column.metric)
    unused: Row = {
        "attack": {**known.evaluation["attack"], "epsilon": 0},
        "further_attacks": [],
        "confidence_attack": None,
    }
    own = {key: value for key, value in unused.items() if key not in needed}
    apart = dict.fromkeys(("suites", "further_sets", "ood"), ())
    text = described(trainable, {**known.evaluation, **own, **apart}, known.split)
    images = sum(of["images"] for of in column.sets)
    names = ", ".join(of["set"] for of in column.sets[:3])
    sets = f"{names} and {len(column.sets) - 3} more sets" if len(column.sets) > 4 else names
    mean = "mean over " if len(column.sets) > 1 else ""
    return f"{mean}{sets}: {images} {text}"


def cells_of(found: Found, column: Column, draws: Array | str) -> dict[int, Row]:
    """By the place of the model."""
    cells = {
        place: {"value": of.metrics[column.metric], **ends(interval(column, of)), "rank": None, "best": False}
        for place, of in column.measured.items()
    }
    for place, model in enumerate(found.models):
        if model.record is not None and (cell := foreign_cell(column, model)) is not None:
            cells[place] = cell
    if isinstance(draws, str):
        return cells
    places, sign = column.ranked(), -1 if column.way == "maximize" else 1
    values = np.array([cells[place]["value"] for place in places])
    for place, own in zip(places, draws.T, strict=True):
        if column.has_quantiles(column.measured[place]):
            cells[place] |= ends(quantiles(cells[place]["value"], own, column.metric))
    if column.way is not None:
        for place, (first, last) in zip(places, rank_intervals(sign * values, sign * draws), strict=True):
            cells[place] |= {"rank": [int(first), int(last)], "best": bool(first == 1)}
    return cells


def interval(column: Column, of: Measured) -> Sequence[float] | None:
    """As it was measured; that of a mean over a single set is the set's."""
    names = [column.metric]
    if len(column.sets) == 1 and column.section.prefix:
        names.append(f"{column.sets[0]['set']}.{column.name}")
    return next((of.intervals[name] for name in names if name in of.intervals), None)


def quantiles(value: float, draws: Array, metric: str) -> list[float]:
    """95 % of what resampled images give, which is centred on the value, within the metric's limits."""
    moved = np.quantile(draws, [0.025, 0.975]) - draws.mean() + value
    return [float(end) for end in np.clip(moved, *limits(metric))]


def ends(interval: Sequence[float] | None) -> Row:
    low, high = interval or (None, None)
    return {"low": low, "high": high}


def foreign_cell(column: Column, model: Model) -> Row | None:
    """The mean over the column's sets, if all of them are there, in images attacked in the same ball."""
    values = model.record.values if model.record else {}
    keys = [(of["set"], column.name, column.ball) for of in column.sets]
    if not all(key in values for key in keys):
        return None
    known = [values[key] for key in keys]
    one = known[0].ends if len(known) == 1 else None
    return {"value": float(np.mean([of.value for of in known])), **ends(one), "rank": None, "best": False}


def left_out(found: Found, made: Iterable[Column]) -> Iterator[str]:
    """What of foreign results has no place."""
    made = list(made)
    for model in found.models:
        if model.record and not any(foreign_cell(column, model) for column in made):
            sets = ", ".join(dict.fromkeys(name for name, *_ in model.record.values))
            yield (
                f"{model.name} ({model.record.form}) is in no table: of {sets} it has no metric that was "
                "measured here in the same ball."
            )
