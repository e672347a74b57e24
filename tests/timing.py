"""Sweeps in which epochs take what a test likes: in the simulator, and with Tune's part played by chance."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from sweeper import halving
from sweeper.budget import Clock
from sweeper.curves import Curves
from sweeper.files import write_json
from sweeper.jobs import Jobs
from sweeper.run import Run
from sweeper.search import of_run
from sweeper.simulator import Simulation, Simulator
from sweeper.spec import SweepSpec
from sweeper.trial import Decision, TrialRecord, epoch_file
from sweeper.tune import Scheduler, Searcher
from tests.curves import BASELINE

Outcome = tuple[list[tuple[Any, ...]], dict[tuple[int, int], list[Decision]]]


def timed(
    sweep: SweepSpec, table: Curves, workers: int, seconds: Callable[[TrialRecord], float]
) -> tuple[Simulation, int]:
    """A simulated sweep whose epochs take `seconds`, and how often a trial had to wait."""
    simulator = Timed(sweep, table, workers)
    simulator.take = seconds
    simulator.run()
    return simulator.done, simulator.waits


class Timed(Simulator):
    take: Callable[[TrialRecord], float]
    waits = 0

    def seconds(self, trial: TrialRecord) -> float:
        return self.take(trial)

    def _report(self, trial: TrialRecord) -> None:
        super()._report(trial)
        self.waits += trial in self.unfinished.trials


def chance(seed: int) -> Callable[[TrialRecord], float]:
    """Epochs that take anything from nothing to very long."""
    rng = random.Random(seed)
    return lambda _: rng.choice([0.01, 1.0, 1.0, 3.0, 100.0]) * rng.random()


def outcome(made: SweepSpec, trials: list[TrialRecord], decisions: list[Decision]) -> Outcome:
    """What must not depend on timing: trials, and the decisions at each rung of each bracket, in order."""
    bracket = halving.Halving(made).bracket
    rungs: dict[tuple[int, int], list[Decision]] = {}
    for decision in decisions:
        rungs.setdefault((bracket(decision.trial), decision.epoch), []).append(decision)
    return [(trial.number, trial.status, trial.drawn, trial.seed) for trial in trials], rungs


class Killed(Exception):
    """The driver's end."""


class Tune:
    """Asks and tells a run's searcher and scheduler as Tune does; which worker reports next is chance.

    A worker is lost with probability `lost` after it has written an epoch and before that is reported, and
    the driver is killed with probability `killed` at each thing it does.  failing: trials whose worker is
    lost whenever they have one.
    """

    def __init__(
        self,
        run: Run,
        table: Curves,
        workers: int,
        rng: random.Random,
        *,
        lost: float = 0,
        killed: float = 0,
        failing: tuple[int, ...] = (),
    ) -> None:
        self.run, self.table, self.workers, self.rng = run, table, workers, rng
        self.lost, self.killed, self.failing = lost, killed, failing
        stopping = halving.of_run(run)
        assert stopping is not None
        stopping.log = lambda decision: (run.add_decision(decision), self._maybe_die())  # type: ignore[assignment, func-returns-value, return-value]
        jobs = Jobs(run, threads=1, concurrent=workers)
        self.searcher = Searcher(run, of_run(run, workers), jobs, Clock(run), stopping)
        self.scheduler = Scheduler(run, stopping)
        self.jobs: dict[str, dict[str, Any]] = {}
        self.started = 0

    def go(self) -> None:
        """To the end of the sweep. Raises Killed."""
        while not self.searcher.finished:
            while len(self.jobs) < self.workers:
                job = self.searcher.suggest(str(self.started))
                if not isinstance(job, dict):
                    break
                self.jobs[str(self.started)] = job
                self.started += 1
            assert self.jobs, "everything waits"
            self._step(self.rng.choice(sorted(self.jobs)))
            self._maybe_die()
        self.searcher.search.finish()

    def _maybe_die(self) -> None:
        if self.rng.random() < self.killed:
            raise Killed

    def _step(self, name: str) -> None:
        """A worker ends an epoch or a measurement."""
        job, trial = self.jobs[name], SimpleNamespace(config=self.jobs[name])
        if "measure" in job:
            write_json(Path(job["measure"]["target"]), {"metrics": BASELINE})
            report: dict[str, Any] = {"done": True, "failed": None}
        else:
            if job["number"] in self.failing:
                self._lose(name)
                return
            report = self._epoch(self.run.trial(job["number"]))
            self._maybe_die()
            if self.rng.random() < self.lost:
                self._lose(name)
                return
        if report["done"] or self.scheduler.on_trial_result(None, trial, report) == self.scheduler.STOP:
            del self.jobs[name]
            self.scheduler.on_trial_complete(None, trial, report)
            self.searcher.on_trial_complete(name, report)

    def _lose(self, name: str) -> None:
        del self.jobs[name]
        self.searcher.on_trial_complete(name, error=True)

    def _epoch(self, trial: TrialRecord) -> dict[str, Any]:
        epoch = min(len(trial.epochs) + 1, trial.config["epochs"])  # the last one is reported again
        metrics = self.table.nearest(trial.drawn).metrics[epoch - 1]
        if not halving.not_finite(self.run.spec.file.pareto, metrics):
            write_json(epoch_file(trial.folder, epoch, "json"), {"epoch": epoch, "metrics": metrics})
            epoch_file(trial.folder, epoch, "safetensors").touch()
        return {**metrics, "epoch": epoch, "failed": None, "done": epoch == trial.config["epochs"]}
