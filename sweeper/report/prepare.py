"""What a report is made from: a run and its result, read as far as figures need them, and no further."""

from __future__ import annotations

import copy
import shlex
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from sweeper import result
from sweeper.report.chart import UNTRAINED, Look
from sweeper.result import objectives
from sweeper.table import ARROW, LABEL, interval, number, percent, settings
from sweeper.trial import BASELINE, STAGES

if TYPE_CHECKING:
    from sweeper.run import Run
    from sweeper.trial import Intervals, Metrics, Point, Stage, TrialRecord

T = TypeVar("T")
Content = Mapping[str, Any]
"""The content of pareto.json."""
Row = dict[str, Any]
"""One trial of it, or one model."""

SHOWN = 500
"""Trials that a report shows, at most, beside those of the Pareto set."""
SIDE_BY_SIDE = 5
"""Members of the front in figures that have a row for each model; more if there are more methods."""
CAPITALS = {"ece", "nll"}
HOVER_WIDTH = 64


def sample(trials: Sequence[Row]) -> list[Row]:
    """The trials that a report shows, in their order: those with a model in the Pareto set, and of the others
    `SHOWN`, evenly over the search, so that they are like all."""
    others = [row["id"] for row in trials if not row["pareto"]]
    step = max(1.0, len(others) / SHOWN)
    chosen = {others[int(index * step)] for index in range(min(SHOWN, len(others)))}
    return [row for row in trials if row["pareto"] or row["id"] in chosen]


def words(metric: str) -> str:
    """`robust_ece` as `robust ECE`."""
    return " ".join(word.upper() if word in CAPITALS else word for word in metric.split("_"))


@dataclass(frozen=True)
class Model:
    """A trial after an epoch, or the untrained model: what a point of the front is.

    member: of the Pareto set.  candidate: non-dominated as the search measured it.  probability: of being
    optimal; of a model that is no candidate the highest of its trial's epochs.
    """

    id: str
    trial: str
    epoch: int
    method: str
    status: str
    member: bool
    candidate: bool
    probability: float | None
    drawn: Mapping[str, Any]
    metrics: Mapping[str, Metrics | None]
    intervals: Mapping[str, Intervals | None]

    @property
    def number(self) -> int:
        """The trial's; -1 of the untrained model."""
        return int(self.trial[1:]) if self.trial else -1

    @property
    def name(self) -> str:
        return f"{self.id} {self.method}" if self.trial else self.method

    def measured(self, stage: Stage, names: Sequence[str]) -> bool:
        """Whether all of these were."""
        return all(name in (self.metrics.get(stage) or {}) for name in names)

    def value(self, stage: Stage, name: str) -> float:
        return float((self.metrics[stage] or {})[name])

    def ends(self, stage: Stage, name: str) -> tuple[float, float]:
        """The 95 % interval; without any, the value twice."""
        low, high = (self.intervals.get(stage) or {}).get(name) or [self.value(stage, name)] * 2
        return float(low), float(high)


def of_row(row: Row, **more: Any) -> Model:
    """From a row of the result."""
    known: Row = {"status": "completed", "probability": None, "drawn": {}} | row | more
    own = {name: known[name] for name in ("id", "method", "status", "probability", "drawn", "intervals")}
    rest = {"member": known.get("pareto", False), "candidate": known.get("candidate", False)}
    place = {"trial": known.get("trial", ""), "epoch": int(known.get("epoch", 0))}
    return Model(**own, **rest, **place, metrics={stage: known.get(stage) for stage in STAGES})


class Material:
    """A run and its result, for figures. Read once, whichever figures are drawn of it.

    stage: whose numbers figures of models show.  chosen: ids of the models that figures with a row for each
    model show; by default the untrained one and the foremost of the Pareto set.
    """

    def __init__(self, run: Run, content: Content) -> None:
        self.run, self.content = run, content
        self.stage: Stage = "validation"
        self.chosen: tuple[str, ...] = ()
        self.kept: dict[str, Any] = {}

    def once(self, name: str, compute: Callable[[], T]) -> T:
        """What several figures need and takes long."""
        if name not in self.kept:
            self.kept[name] = compute()
        result: T = self.kept[name]
        return result

    def at(self, stage: Stage, chosen: Sequence[str] = ()) -> Material:
        """The same for another stage or other models; what was read is shared."""
        other = copy.copy(self)
        other.stage, other.chosen = stage, tuple(chosen)
        return other

    @cached_property
    def names(self) -> list[str]:
        """The objectives' metrics."""
        return objectives(self.content)

    @cached_property
    def labels(self) -> dict[str, str]:
        """Each objective in words, with an arrow to its better end."""
        return {
            name: f"{words(name)} {ARROW[way]}"
            for way in ("maximize", "minimize")
            for name in self.content[way]
        }

    @cached_property
    def look(self) -> Look:
        return Look.of(row["method"] for row in self.content["trials"])

    @cached_property
    def rows(self) -> list[Row]:
        """The trials shown."""
        return sample(self.content["trials"])

    @cached_property
    def trials(self) -> dict[str, TrialRecord]:
        """Their records."""
        return {row["id"]: self.run.trial(int(str(row["id"])[1:])) for row in self.rows}

    def point(self, model: Model) -> Point | None:
        """Where its files lie; None for the untrained model. Names in a result name none by themselves."""
        if not model.trial:
            return None
        trial = self.trials.get(model.trial) or self.run.trial(model.number)
        return trial.point(model.epoch)

    @cached_property
    def untrained(self) -> Model | None:
        """None until it was measured."""
        row = self.content["baseline"]
        return of_row(row, id=BASELINE, method=UNTRAINED) if row["validation"] else None

    @cached_property
    def models(self) -> list[Model]:
        """The candidates, and what each trial shown that has ended was after its last epoch, if that is
        another model; but for the untrained one all that is known of."""
        found = [of_row(row, candidate=True) for row in self.content["candidates"]]
        known = {model.id for model in found}
        for row in self.rows:
            last = f"{row['id']}@{row['epochs']}"
            if row["status"] in ("completed", "stopped") and row["validation"] and last not in known:
                found.append(of_row(row, id=last, trial=row["id"], epoch=row["epochs"], pareto=False))
        return found

    @property
    def members(self) -> list[Model]:
        """The Pareto set, the best in the first objective first."""
        first = self.names[0]
        sign = -1 if first in self.content["maximize"] else 1
        return sorted(
            (model for model in self.models if model.member),
            key=lambda model: sign * ((model.metrics["final"] or model.metrics["validation"] or {})[first]),
        )

    @property
    def side_by_side(self) -> list[Model]:
        """The models that have a row each."""
        if self.chosen:
            return [self.model(id) for id in self.chosen]
        return [model for model in (self.untrained, *self.foremost()) if model]

    def model(self, id: str) -> Model:
        """One that there is: any epoch of any trial, or `baseline`."""
        for model in (self.untrained, *self.models):
            if model and model.id == id:
                return model
        trial, _, epoch = id.partition("@")
        return of_row(result.row(self.run, self.run.trial(int(trial[1:])).point(int(epoch))))

    def foremost(self) -> list[Model]:
        """Of the Pareto set the best model of each method in the first objective, and the best of other
        trials while there is room."""
        members, chosen = self.members, list[Model]()
        for key, room in (("method", len(members)), ("trial", SIDE_BY_SIDE)):
            for model in members:
                known = {getattr(each, key) for each in chosen}
                if getattr(model, key) not in known and len(chosen) < room:
                    chosen.append(model)
        return [model for model in members if model in chosen]

    @property
    def which(self) -> str:
        """Which members of the front have a row, where not all do."""
        shown, count = len(self.foremost()), len(self.members)
        if self.chosen or shown == count:
            return ""
        first = words(self.names[0])
        return f"Of {count} members of the Pareto set {shown}: the best of each method and trial in {first}. "

    @property
    def said(self) -> str:
        """What the numbers of the stage are, in a line."""
        return self.says(self.stage)

    def says(self, stage: Stage) -> str:
        return f"{LABEL[stage]}: {self.content[stage]['text']}"

    def hover(self, model: Model) -> str:
        """What a pointer shows of a model, a line each."""
        told = [f"{model.name}{', in the Pareto set' if model.member else ''}"]
        for name in self.names:
            shown = [
                f"{LABEL[stage]} {number(model.metrics[stage], name)} "
                f"{interval(model.intervals[stage], name)}"
                for stage in STAGES
                if model.measured(stage, [name])
            ]
            told.append(f"{self.labels[name]}: {', '.join(text.strip() for text in shown)}")
        if model.probability is not None:
            of = "P(optimal)" if model.candidate else "P(optimal) of the trial's best epoch"
            told.append(f"{of}: {percent(model.probability)}")
        if model.trial and model.status != "completed":
            told.append(f"trial {model.status}")
        told += textwrap.wrap(settings(dict(model.drawn)), HOVER_WIDTH)
        return "\n".join(told)

    @cached_property
    def place(self) -> str:
        """The run as a command names it: from where it was started, if it lies there."""
        where = str(self.run)
        start = self.run.about.get("directory")
        if start and Path(where).is_absolute() and Path(where).is_relative_to(start):
            where = str(Path(where).relative_to(start))
        return shlex.quote(where)

    def command(self, name: str, kind: str = "pdf") -> str:
        """What makes a figure once more."""
        told = f"sweeper report {self.place} --figure {name}"
        told += f" --stage {LABEL[self.stage]}" if self.stage != "validation" else ""
        told += "".join(f" --trial {shlex.quote(id)}" for id in self.chosen)
        return f"{told} --format {kind}"
