"""Runs side by side: which metrics they can be compared by, because all of them measured these alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from string import ascii_uppercase
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sweeper.constraints import Constraint
from sweeper.errors import UserError
from sweeper.pareto import as_costs
from sweeper.prefer import Directed, directed, objectives_of, table
from sweeper.run import Run
from sweeper.table import LABEL
from sweeper.tree import first_difference
from sweeper.trial import Stage
from trainables.metrics.names import OUTSIDE, WORST, depends_on

Array = NDArray[np.float64]
Row = dict[str, Any]

ALIKE = ("images", "classes", "size", "digest", "altered")
"""What has to be the same of a set of images. Templates are a model's own."""


@dataclass(frozen=True)
class Side:
    """One of the runs, under a letter. content: of its pareto.json."""

    letter: str
    run: Run
    content: Mapping[str, Any]

    def rows(self, stage: Stage) -> list[Row]:
        """The candidates of its front that were measured in the stage."""
        return [row for row in self.content["candidates"] if row[stage] is not None]

    def records(self, row: Row, stage: Stage) -> Path:
        """Where the per-image records of a candidate, or of the untrained model, are, if there are any."""
        return self.run.records(self.run.point(row["id"]), stage)

    def measured_by(self, metric: str, stage: Stage) -> dict[str, Any]:
        """All that a value of the metric depends on, but for the model."""
        by, section = self.run.spec.evaluation, "evaluation"
        if stage != "validation":
            by, section = self.run.spec.final, "final"
        return measured_by(metric, self.run.sets(stage), {section: by})


def measured_by(
    metric: str, measured: Sequence[Mapping[str, Any]], by: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """All that a value of the metric depends on, but for the model. measured: the sets of the measurement.
    by: its evaluation, under the name that messages have for it."""
    sets = sets_of_metric(metric, measured)
    if not sets or metric.rpartition(".")[2].removeprefix(WORST) in OUTSIDE:  # told from the first's images
        sets = [*measured[:1], *sets]
    return {
        "data": ", ".join(of["set"] for of in sets),
        "images": {of["set"]: {key: of.get(key) for key in ALIKE} for of in sets},
        **{name: {key: of.get(key) for key in depends_on(metric)} for name, of in by.items()},
    }


def sets_of_metric(metric: str, measured: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Those that what stands in front of a metric names; none where it is of the in-distribution set."""
    prefix = metric.rpartition(".")[0]
    return [of for of in measured[1:] if prefix in (of["set"], *of.get("groups", ("transfer",)))]


@dataclass(frozen=True)
class Ruler:
    """What models of several runs are compared by."""

    stage: Stage
    objectives: Directed
    constraints: list[Constraint]

    @cached_property
    def needed(self) -> list[str]:
        """The metrics of both."""
        return list(dict.fromkeys([*self.objectives, *(each.metric for each in self.constraints)]))

    def table(self, rows: Sequence[Row]) -> Array:
        """(n, k) values of `needed`. Raises UserError if one was not measured."""
        return table([row[self.stage] or {} for row in rows], self.needed)

    def costs(self, values: Array) -> Array:
        """(..., m) from (..., k) values of `needed`; smaller is better."""
        columns = values[..., [self.needed.index(name) for name in self.objectives]]
        return as_costs(columns, list(self.objectives.values())).reshape(columns.shape)

    def violation(self, values: Array, untrained: Array) -> Array:
        """(...) by how much constraints are broken. untrained: (..., k) of the run that each model is of."""
        broken = np.zeros(values.shape[:-1])
        for each in self.constraints:
            of = self.needed.index(each.metric)
            broken += np.maximum(each.excess(values[..., of], untrained[..., of]), 0)
        return broken


def letter(place: int) -> str:
    """A, B, ..., Z, AA, BB, ..."""
    return ascii_uppercase[place % 26] * (1 + place // 26)


def sides_of(runs: Sequence[Run]) -> list[Side]:
    """Raises UserError if there are no two runs, one is there twice, or has no front yet."""
    if len(runs) < 2:
        raise UserError("a comparison needs two runs or more; `sweeper status` lists them")
    known: dict[str, Run] = {}
    for run in runs:
        if run.id in known:
            raise UserError(f"{known[run.id]} and {run} are the same run; name another one")
        known[run.id] = run
    sides = [Side(letter(place), run, run.pareto()) for place, run in enumerate(runs)]
    for side in sides:
        if not side.content["candidates"]:
            raise UserError(f"{side.run} has no front yet; go on with it: sweeper resume {side.run}")
    return sides


def ruler_of(sides: Sequence[Side], metrics: Sequence[str] = (), stage: Stage | None = None) -> Ruler:
    """metrics: as `directed` reads them; the objectives by default, which must be the same then.
    stage: `final` by default if all candidates were measured so, else `validation`. Raises UserError."""
    own = [objectives_of(side.content) for side in sides]
    for side, theirs in zip(sides, own, strict=True):
        if not metrics and theirs != own[0]:
            common = [name for name in own[0] if all(each.get(name) == own[0][name] for each in own)]
            raise UserError(
                f"{sides[0].run.name} has the objectives {listed(own[0])}, {side.run.name} {listed(theirs)}; "
                f"choose with --metrics {','.join(common) or 'NAME,NAME'}"
            )
    known: Directed = {}
    for each in own:
        known |= each
    for name, way in known.items():
        if name in metrics and any(each.get(name, way) != way for each in own):
            raise UserError(f"some of these runs minimize {name}, others maximize it; say '{way} {name}'")
    if stage is None:
        measured = (row["final"] is not None for side in sides for row in side.content["candidates"])
        stage = "final" if all(measured) else "validation"
    for side in sides:
        if not side.rows(stage):
            raise UserError(
                f"{side.run.name} has no model that was measured in the stage {LABEL[stage]!r} yet; go on "
                f"with it: sweeper resume {side.run}"
            )
    constraints = [each for side in sides for each in side.run.spec.file.pareto.constraints]
    return Ruler(stage, directed(metrics, known) if metrics else own[0], list(dict.fromkeys(constraints)))


def listed(objectives: Directed) -> str:
    return ", ".join(f"{way} {name}" for name, way in objectives.items())


def check(sides: Sequence[Side], ruler: Ruler) -> None:
    """Raises UserError that names the first difference, and what can be compared all the same."""
    first, *others = sides
    for other in others:
        for metric in ruler.needed:
            here, there = (side.measured_by(metric, ruler.stage) for side in (first, other))
            key, one, two = first_difference(here, there)
            if one != two:
                raise UserError(
                    f"{metric} was not measured alike: {key} is {one} in {first.run.name} and {two} in "
                    f"{other.run.name}; {advice(sides, ruler)}"
                )


def advice(sides: Sequence[Side], ruler: Ruler) -> str:
    """What these runs can be compared by, or how models are measured alike."""

    def alike(metric: str, stage: Stage) -> bool:
        one, *others = [side.measured_by(metric, stage) for side in sides]
        return all(each == one for each in others)

    bounds = {each.metric for each in ruler.constraints}
    left = [name for name in ruler.objectives if alike(name, ruler.stage)]
    if left and all(alike(name, ruler.stage) for name in bounds):
        return f"compare by --metrics {','.join(left)}"
    if ruler.stage != "validation" and all(alike(name, "validation") for name in ruler.needed):
        return f"compare by --stage {LABEL['validation']}"
    return "`sweeper evaluate MODEL RUN --set KEY=VALUE` measures a model of one as those of the other are"
