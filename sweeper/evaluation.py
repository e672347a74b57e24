"""One trial of a run measured again: by other attacks, at another epsilon, on more images."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from sweeper import spec
from sweeper.errors import UserError, suggestion
from sweeper.result import protocol
from sweeper.run import BASELINE, Intervals, Metrics, Run, Split, read_json
from sweeper.table import interval, missing_gradients, number


class Remeasurement:
    """A trial, or the untrained model as `baseline`, and how it is measured on a split.

    overrides: KEY=VALUE of the sweep's `evaluation` (validation images) or `final` (test images).
    attacks: names of further attacks, in place of the sweep's own.
    Raises SpecError or UserError with one line per mistake.
    """

    def __init__(
        self, run: Run, trial: str, split: Split, overrides: Sequence[str] = (), attacks: Sequence[str] = ()
    ) -> None:
        self.run, self.trial, self.split = run, trial, split
        section = "final" if split == "test" else "evaluation"
        given = [f"final={json.dumps(run.spec.final)}", *(f"{section}.{each}" for each in overrides)]
        if attacks:
            given.append(f"{section}.further_attacks={json.dumps(list(attacks))}")
        self.sweep = spec.load(run.path / "sweep.yaml", overrides=given)
        self.evaluation = self.sweep.final if split == "test" else self.sweep.evaluation
        self.config, self.checkpoint = self._find()
        self.sweep.trainable.check(self.config, [self.evaluation])

    def _find(self) -> tuple[dict[str, Any], str | None]:
        if self.trial == BASELINE:
            return self.sweep.base_trial(), None
        trials = {trial.id: trial for trial in self.run.trials() if trial.epochs}
        if self.trial not in trials:
            known = suggestion(self.trial, [BASELINE, *trials])
            raise UserError(f"{self.run.id} has no trial {self.trial!r} with a finished epoch{known}")
        return trials[self.trial].config, str(trials[self.trial].folder)

    @property
    def _arguments(self) -> dict[str, Any]:
        return {
            "trial": self.config,
            "evaluation": self.evaluation,
            "split": self.split,
            "checkpoint": self.checkpoint,
            "threads": os.cpu_count() or 1,
        }

    def measure(self) -> Path:
        """Measures, and returns the JSON file in the run folder that the result was written to."""
        stamp = datetime.now().strftime("%Y%m%d-%H%M%S-%f")
        target = self.run.path / "evaluations" / f"{self.trial}-{self.split}-{stamp}.json"
        where = {"target": str(target), "cache": str(self.run.cache)}
        self._translated(self.sweep.trainable.measure, **where, **self._arguments)
        return target

    def sanity(self) -> list[tuple[str, bool | None, str]]:
        """Name, verdict and numbers of each check whether the robustness is to be believed."""
        findings: list[tuple[str, bool | None, str]] = self._translated(
            self.sweep.trainable.sanity, **self._arguments
        )
        return findings

    def _translated(self, function: Any, **arguments: Any) -> Any:
        expected: tuple[type[Exception], ...] = (FileNotFoundError, *self.sweep.trainable.errors)
        try:
            return function(**arguments)
        except expected as error:
            raise UserError(f"{self.trial}: {' '.join(str(error).split())}") from error

    def table(self, file: Path) -> RenderableType:
        """The result as a table: a row per quantity, a column per version of the images."""
        result = read_json(file)
        metrics, intervals = result["metrics"], result["intervals"]
        own = [name for name in metrics if "." not in name]
        suffix = "_calibration_l2"  # of every version, and of nothing else
        versions = [name.removesuffix(suffix) for name in own if name.endswith(suffix)]
        quantities = dict.fromkeys(
            n.removeprefix(f"{v}_") for v in versions for n in own if n.startswith(f"{v}_")
        )
        table = Table(title=f"{self.trial} of {self.run.id}", title_justify="left", box=None)
        table.add_column("", no_wrap=True)
        for version in versions:
            table.add_column(version.replace("_", " "), justify="right")
        for quantity in quantities:
            cells = [cell(metrics, intervals, f"{version}_{quantity}") for version in versions]
            table.add_row(quantity, *cells)
        for name in own:
            if not any(name.startswith(f"{version}_") for version in versions):
                table.add_row(name, cell(metrics, intervals, name))
        row = {"id": self.trial, "method": "", "validation": metrics, "test": metrics}
        notes = [
            protocol(self.sweep, self.split)["text"],
            *(f"{name}: {counted(counts)}" for name, counts in result["broken_by"].items()),
            "Below a number: its 95 % interval. Quantities are explained in trainables/metrics/names.py.",
            *missing_gradients([row]),
            f"written to {file}",
        ]
        return Group(table, Text(), *(Text(note, "dim") for note in notes))


def cell(metrics: Metrics, intervals: Intervals, name: str) -> str:
    value = metrics.get(name)
    tiny = value is not None and 0 < abs(value) < 1e-3  # epistemic uncertainty at the published scale
    return f"{value:.1e}" if tiny else f"{number(metrics, name)}\n{interval(intervals, name)}".rstrip()


def counted(broken_by: dict[str, int]) -> str:
    """`41 withstood everything; broken by: clean 20, PGD-10 at epsilon 8/255 39`."""
    broken = ", ".join(f"{name} {count}" for name, count in broken_by.items() if name)
    return f"{broken_by.get('', 0)} images withstood everything; broken by: {broken or 'nothing'}"
