"""A sweep without Ray: its searcher, early stopping, display and run folder, and made-up workers in one
process."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

from ray.tune.experiment import Trial

from benchmarks.made_up import SWEEP, MadeUp
from sweeper import halving, spec
from sweeper.budget import Clock
from sweeper.display import Display
from sweeper.jobs import Jobs
from sweeper.run import Run
from sweeper.search import of_run
from sweeper.tune import Scheduler, Searcher, Watcher


class WithoutSession(Trial):
    """Of no running Ray, where its errors would lie."""

    error_file = None


class Drive:
    """What Ray Tune does in a sweep: `side` workers take jobs and report in turn.

    display: told as Tune would tell it.  notify: called whenever something is new in the run folder.
    """

    def __init__(
        self, run: Run, side: int, display: Display | None = None, notify: Callable[[], None] = lambda: None
    ) -> None:
        self.side = side
        stopping, asked = halving.of_run(run), of_run(run, side)
        self.display = display or Display(run, side, Clock(run), quiet=True)
        self.searcher = Searcher(run, asked, Jobs(run, 1, side), self.display.clock, stopping)
        self.scheduler = Scheduler(run, stopping) if stopping else None
        self.watcher = Watcher(run, self.display, notify, asked.ended)
        self.running: deque[tuple[Trial, MadeUp]] = deque()
        self.started = 0

    def go(self, reports: int | None = None) -> None:
        """To the end of the sweep, or for so many reports; others then run."""
        left = itertools.count() if reports is None else range(reports)
        for _ in left:
            self._start()
            if not self.running:
                break
            trial, job = self.running.popleft()
            self._report(trial, job)
            self.watcher.on_step_end(0, [])
        self._start()
        if not self.running:
            self.searcher.search.finish()

    def _start(self) -> None:
        while len(self.running) < self.side:
            name = str(self.started)
            job = self.searcher.suggest(name)
            if not isinstance(job, dict):
                return
            trial = WithoutSession("worker", config=job, trial_id=name, stub=True)
            self.watcher.on_trial_start(0, [], trial)
            worker = object.__new__(MadeUp)
            worker.setup(job)
            self.running.append((trial, worker))
            self.started += 1

    def _report(self, trial: Trial, worker: MadeUp) -> None:
        """As Tune does: the scheduler is asked unless the trial is done by itself."""
        report = worker.step()
        goes_on = not report["done"]
        if goes_on and self.scheduler:
            goes_on = self.scheduler.on_trial_result(None, trial, report) == self.scheduler.CONTINUE
        if goes_on:
            self.searcher.on_trial_result(trial.trial_id, report)
            self.watcher.on_trial_result(0, [], trial, report)
            self.running.append((trial, worker))
            return
        if self.scheduler:
            self.scheduler.on_trial_complete(None, trial, report)
        self.searcher.on_trial_complete(trial.trial_id, report)
        self.watcher.on_trial_complete(0, [], trial)


def new_run(root: Path, trials: int, overrides: Sequence[str] = ()) -> Run:
    """The folder of a made-up sweep that has not begun."""
    given = [f"search.trials={trials}", *overrides]
    return Run.create(
        root, spec.from_text(SWEEP, "made-up.yaml", None, given), {"seed": 0, "directory": str(root)}
    )


def finished_run(root: Path, trials: int, overrides: Sequence[str] = ()) -> Run:
    """The folder of a made-up sweep that is finished, the random search's unless overridden."""
    run = new_run(root, trials, ["search.sampler=random", *overrides])
    Drive(run, side=8).go()
    return run
