"""A sweep over learning curves instead of trainings: thousands of trials in seconds.

The search and the early stopping are the very objects of a real sweep, `Search` and `Halving`; the
simulator takes the place of Ray and of the clock. Learning curves are a table, kept as Parquet, with a
row for every epoch of every configuration:

    config    string   names the configuration
    drawn     string   what was drawn for it, as a JSON object: {"optimizer.learning_rate": 0.001}
    epoch     int64    1, 2, ... to the last
    seconds   float64  what the epoch took, its evaluation included
    METRIC    float64  a column for every metric, on validation images; NaN where training diverged

and a row for the untrained model: config "baseline", drawn {}, epoch 0, seconds 0.
"""

from __future__ import annotations

import heapq
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd

from sweeper import kept
from sweeper.errors import UserError
from sweeper.halving import Halving, Unfinished, ending, stopped
from sweeper.run import Run
from sweeper.search import Search, Suggestion
from sweeper.spec import SweepSpec
from sweeper.trial import BASELINE, Decision, Metrics, Status, TrialRecord

KEYS = ["config", "drawn", "epoch", "seconds"]


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
            raise UserError(f"learning curves: no {what}; see the head of sweeper/simulator.py")
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
        distance = np.zeros(len(self.curves))
        for name, parameter in self.drawn.items():
            distance += parameter.distance(drawn.get(name))
        return self.curves[int(distance.argmin())]


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

    def distance(self, value: Any) -> np.ndarray:
        """(n,) in [0, 1]."""
        if value is None:
            return np.where(self.absent, 0.0, 1.0)
        if not self.numbers:
            return np.where(self.values == value, 0.0, 1.0)
        place = np.linspace(0, 1, len(self.known))
        offset = np.interp(self.values, self.known, place) - np.interp(value, self.known, place)
        return np.where(self.absent, 1.0, offset**2)


@dataclass
class Simulation:
    """What became of a simulated sweep.

    trials: as a run folder would hold them, without files.  decisions: of early stopping, in their order.
    trace: (trial, epoch) in the order in which they were reported.  times: when each of the trace was.
    ends: when each trial ended.  All times are in seconds from the start of the sweep.
    """

    trials: list[TrialRecord] = field(default_factory=list)
    decisions: list[Decision] = field(default_factory=list)
    trace: list[tuple[int, int]] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    ends: dict[int, float] = field(default_factory=dict)


class Asked(Protocol):
    """What is asked for trials and told how they ended: `Search`, or a peer of it."""

    next: int

    def ask(self) -> Suggestion | None: ...

    def end(self, trial: TrialRecord) -> None: ...

    def finish(self) -> None: ...


class Stopping(Protocol):
    """What is asked whether a trial goes on: `Halving`, or a peer of it."""

    def record(self, trial: int, epoch: int, metrics: Metrics, *, last: bool = False) -> bool | None: ...


def simulate(
    sweep: SweepSpec,
    curves: Curves,
    *,
    workers: int,
    search: Asked | None = None,
    stopping: Stopping | None = None,
    seconds: float = math.inf,
) -> Simulation:
    """A whole sweep on `workers` workers, on which an epoch takes the time that it took when recorded.

    search, stopping: peers that take the place of the sweep's own.  seconds: after which it is broken off.

    Raises UserError if the curves lack a metric that the sweep is judged by, or epochs.
    """
    simulator = Simulator(sweep, curves, workers, search, stopping)
    simulator.run(seconds)
    return simulator.done


class Simulator:
    """The clock, the workers and what is reported next; see `simulate`."""

    def __init__(
        self,
        sweep: SweepSpec,
        curves: Curves,
        workers: int,
        search: Asked | None = None,
        stopping: Stopping | None = None,
    ) -> None:
        lacking = [name for name in sweep.file.pareto.deciding if name not in curves.names]
        if lacking:
            raise UserError(f"learning curves: no metric {lacking[0]!r}, which the sweep is judged by")
        self.sweep, self.curves, self.workers = sweep, curves, workers
        self.done = Simulation()
        # the untrained model is known from the start, and the lag is that of a real sweep if it has one
        baseline = curves.baseline
        self.search = search or Search(sweep, None, name="simulation", lag=2 * workers, baseline=baseline)
        self.halving: Halving | None = None
        if stopping is None and sweep.file.search.early_stopping:
            self.halving = Halving(sweep, baseline=baseline, log=self.done.decisions.append)
        self.stopping: Stopping | None = stopping or self.halving
        self.now = 0.0
        self.curve: dict[int, Curve] = {}
        self.unfinished = Unfinished(self.halving)
        # a heap, with the next report of each trial that has a worker: when, in which order, of which trial
        self.reports: list[tuple[float, int, int]] = []
        self.scheduled = 0

    def run(self, seconds: float = math.inf) -> None:
        self._start_trials()
        while self.reports and self.reports[0][0] <= seconds:
            self.now, _, number = heapq.heappop(self.reports)
            self._report(self.done.trials[number])
            self._start_trials()
        self.search.finish()

    def _start_trials(self) -> None:
        for trial in self.unfinished.stopped():
            self._end(trial, *stopped(trial, self.sweep.file.pareto))
        while len(self.reports) < self.workers and (started := self.unfinished.take() or self._new_trial()):
            self._schedule(started)

    def _new_trial(self) -> TrialRecord | None:
        if self.search.next >= self.sweep.file.search.trials:
            return None
        new = self.search.ask()
        if new is None:
            return None
        trial = TrialRecord(new.number, Path(f"t{new.number:03d}"), new.config, new.drawn, new.seed)
        curve = self.curves.nearest(new.drawn)
        if len(curve.metrics) < trial.config["epochs"]:
            raise UserError(
                f"learning curves: {curve.config} has {len(curve.metrics)} epochs, and the sweep trains "
                f"{trial.config['epochs']}; set trial.epochs to what was recorded"
            )
        self.done.trials.append(trial)
        self.curve[trial.number] = curve
        return trial

    def _schedule(self, trial: TrialRecord) -> None:
        heapq.heappush(self.reports, (self.now + self.seconds(trial), self.scheduled, trial.number))
        self.scheduled += 1

    def seconds(self, trial: TrialRecord) -> float:
        """What the trial's next epoch takes."""
        return self.curve[trial.number].seconds[len(trial.epochs)]

    def _report(self, trial: TrialRecord) -> None:
        """A trial has finished an epoch."""
        metrics = self.curve[trial.number].metrics[len(trial.epochs)]
        epoch = len(trial.epochs) + 1
        trial.epochs = [*trial.epochs, {"epoch": epoch, "metrics": metrics}]
        trial.kept = kept.chosen(
            self.sweep, [point.report for point in (*trial.points, trial.point(epoch))], self.curves.baseline
        )
        self.done.trace.append((trial.number, epoch))
        self.done.times.append(self.now)
        last = epoch == trial.config["epochs"]
        goes_on = self.stopping is None or self.stopping.record(trial.number, epoch, metrics, last=last)
        if goes_on is None:
            self.unfinished.add(trial)
        elif goes_on and not last:
            self._schedule(trial)
        else:
            report = {**metrics, "epoch": epoch, "failed": None}
            self._end(trial, *ending(trial, report, self.sweep.file.pareto))

    def _end(self, trial: TrialRecord, status: Status, reason: str | None) -> None:
        trial.status, trial.reason = status, reason
        self.done.ends[trial.number] = self.now
        self.search.end(trial)
        if self.halving:
            self.halving.end(trial.number)
