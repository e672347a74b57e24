"""MLflow's page with our columns, filters and charts.

MLflow shows no metric as a column until a user chooses it, and keeps the choice in his browser; but a view
that is saved with the experiment, as a tag of it, is offered to everybody under `Views`. Each sweep has two:
its trials, and its front.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from sweeper import space
from sweeper.run import Run
from sweeper.tracking.ledger import SWEEP
from sweeper.tracking.metrics import PROBABILITY, path
from sweeper.tree import walk
from sweeper.trial import Stage

VIEW = "mlflow.sharedViewState."
"""Before a view's name, in an experiment's tag."""
CHARTS = 3
"""Pairs of objectives that are drawn against each other."""


@dataclass(frozen=True)
class View:
    """A table of runs, and charts of them. columns: in their order, as MLflow names them."""

    name: str
    filter: str
    columns: Sequence[str]
    parameters: Sequence[str]
    metrics: Sequence[str]

    def tag(self, created: int) -> str:
        """As MLflow saves it. created: in milliseconds."""
        state = json.dumps(self._state(), separators=(",", ":"))
        packed = base64.b64encode(zlib.compress(state.encode())).decode("ascii")
        return json.dumps({"name": self.name, "createdAt": created, "state": f"deflate;{packed}"})

    def _state(self) -> dict[str, Any]:
        return {
            "searchFilter": self.filter,
            "orderByKey": of("metrics", self.metrics[0]),
            "orderByAsc": False,
            "selectedColumns": self.columns,
            "columnOrder": [of("attributes", "Run Name"), *self.columns],
            "columnWidths": {name: width(name) for name in self.columns},
            "runsHiddenMode": "SHOW_ALL",
            "isAccordionReordered": True,
            "compareRunSections": [
                section("searched", "What was searched, and what came of it", shown=True, columns=1),
                section("objectives", "Objectives", shown=True),
                section("rest", "Model metrics"),
            ],
            "compareRunCharts": [*self._charts()],
        }

    def _charts(self) -> Iterable[dict[str, Any]]:
        own = {"deleted": False, "isGenerated": False, "runsCountToCompare": 1000}
        if self.parameters:
            yield own | {
                "uuid": "parallel",
                "metricSectionId": "searched",
                "type": "PARALLEL",
                "selectedParams": self.parameters,
                "selectedMetrics": self.metrics,
                "showAllRuns": False,
            }
        for x, y in [*combinations(self.metrics, 2)][:CHARTS]:
            axes = {"xaxis": {"key": x, "type": "METRIC"}, "yaxis": {"key": y, "type": "METRIC"}}
            yield own | axes | {"uuid": f"{x} {y}", "metricSectionId": "objectives", "type": "SCATTER"}


def of(kind: str, name: str) -> str:
    """A column, as MLflow names it."""
    return f"{kind}.`{name}`"


def width(column: str) -> int:
    """In pixels, for its head."""
    return max(80, 30 + 7 * len(column.partition(".")[2]))


def section(identity: str, name: str, *, shown: bool = False, columns: int = 3) -> dict[str, Any]:
    fixed = {"isReordered": True, "deleted": False, "isGenerated": False}
    return fixed | {"uuid": identity, "name": name, "display": shown, "columns": columns, "cardHeight": 360}


def trials(run: Run) -> View:
    own, always = searched(run)
    metrics = objectives(run, "validation")
    columns = [
        *(of("metrics", name) for name in (*metrics, PROBABILITY)),
        *(of("tags", name) for name in ("pareto", "status", "stopped_at")),
        *(of("params", name) for name in own),
        *(of("attributes", name) for name in ("Models", "Dataset")),
    ]
    return View(f"Trials of {run.name}", f"tags.{SWEEP} = '{run.id}'", columns, always, metrics)


def front(run: Run) -> View:
    own, always = searched(run)
    metrics = objectives(run, "test")
    columns = [
        *(of("metrics", name) for name in (*metrics, PROBABILITY, *objectives(run, "validation"))),
        of("tags", "pareto_epochs"),
        *(of("params", name) for name in own),
        *(of("attributes", name) for name in ("Models", "Dataset")),
    ]
    members = f"tags.pareto = 'true' and tags.{SWEEP} = '{run.id}'"
    return View(f"Front of {run.name}", members, columns, always, metrics)


def objectives(run: Run, stage: Stage) -> list[str]:
    return [path(stage, name) for name in run.spec.file.pareto.metrics]


def searched(run: Run) -> tuple[list[str], list[str]]:
    """The parameters of MLflow's runs that the space has distributions for, and those that each trial has."""
    found = [
        [known for name in probe.drawn if (known := parameter(name, config)) is not None]
        for probe in space.probes(run.spec.space)
        for config in [walk(run.spec.trial(probe.value))]
    ]
    every = list(dict.fromkeys(name for names in found for name in names))
    return every, [name for name in every if all(name in names for names in found)]


def parameter(drawn: str, config: Mapping[str, Any]) -> str | None:
    """The parameter that says what was drawn: of a choice of methods its name."""
    return next((name for name in (drawn, f"{drawn}.name") if name in config), None)


def tags(run: Run, created: int) -> dict[str, str]:
    """The views of a sweep as tags of its experiment. created: when, in milliseconds."""
    return {
        f"{VIEW}{run.id}": trials(run).tag(created),
        f"{VIEW}{run.id}-front": front(run).tag(created),
    }
