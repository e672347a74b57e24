"""A sweep over learning curves instead of trainings, see `sweeper.curves`: thousands of trials in seconds.

The search and the early stopping are the very objects of a real sweep, `Search` and `Halving`; the
simulator takes the place of Ray and of the clock.
"""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from sweeper import kept
from sweeper.curves import Curve, Curves
from sweeper.errors import UserError
from sweeper.halving import Halving, Unfinished, ending, stopped
from sweeper.search import Search, Suggestion
from sweeper.spec import SweepSpec
from sweeper.trial import Decision, Metrics, Status, TrialRecord


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
    """What is asked for trials, told what they reach and how they ended: `Search`, or a peer of it."""

    next: int

    def ask(self) -> Suggestion | None: ...

    def report(self, trial: int, epoch: int, metrics: Metrics) -> None: ...

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
        self.search.report(trial.number, epoch, metrics)
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
