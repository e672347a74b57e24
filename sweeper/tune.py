"""Where Ray Tune meets the run folder: the searcher it asks for work, the scheduler it asks whether a
trial goes on, the callback it tells."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from typing import TYPE_CHECKING, Any

from ray.tune import Callback
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher as RaySearcher

from sweeper import budget, result
from sweeper.budget import Clock
from sweeper.halving import Halving, Report, Unfinished, ending, stopped
from sweeper.run import BASELINE, Run, Split, Status, TrialRecord
from sweeper.search import Search

if TYPE_CHECKING:
    from sweeper.display import Display

Job = dict[str, Any]


def trial_name(trial: Any) -> str:
    """Tune's name for a job: the id we know it by."""
    return str(trial.config["id"])


class Stateless:
    """Ray pickles what it is given beside its own state; there is nothing of ours to be kept there."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class Searcher(Stateless, RaySearcher):
    """Hands out all the work of a sweep that is left, to workers that stay: the untrained model's
    measurement, the trials that an earlier driver left unfinished, new trials, and when all have
    ended, the measurement of the Pareto set and of the untrained model on the test images.

    A trial that has to wait for others, see `sweeper.halving`, gives its worker back. For Tune it has ended,
    and it is handed out once more as one that was left unfinished: its folder is its memory.
    """

    def __init__(
        self,
        run: Run,
        search: Search,
        threads: int,
        concurrent: int,
        clock: Clock,
        *,
        halving: Halving | None = None,
    ) -> None:
        super().__init__()
        self.run, self.search, self.clock, self.halving = run, search, clock, halving
        self.threads, self.concurrent = threads, concurrent
        self.unfinished = Unfinished(halving, (t for t in run.trials() if t.status == "unfinished"))
        self.trials: dict[str, TrialRecord] = {}
        self.waiting = [] if run.baseline() else [self._measurement(None, "validation")]
        self.measuring: dict[str, str] = {}
        self.final = False
        self.broken: str | None = None  # why the sweep can't be finished
        self._plan_final()

    @property
    def finished(self) -> bool:
        """Whether there is nothing left to do."""
        return self.final and not self.waiting and not self.measuring

    def suggest(self, trial_id: str) -> Job | str | None:
        """The next job; None if there is none yet, FINISHED if there will be none."""
        self._end_stopped()
        self._plan_final()  # a budget may have run out since a trial ended
        if self.waiting and not self.broken:
            job = self.waiting.pop(0)
            self.measuring[trial_id] = job["id"]
            return job
        if self.finished or self.broken:
            return str(self.FINISHED)
        record = self.unfinished.take() or self._new_trial()
        if record is None:
            return None
        self.trials[trial_id] = record
        return {
            "trainable": self.run.spec.trainable.name,
            "id": record.id,
            "number": record.number,
            "trial": record.config,
            "evaluation": self.run.spec.evaluation,
            "seed": record.seed,
            "folder": str(record.folder),
            "threads": self.threads,
            "cache": str(self.run.cache),
            "cpus": self.run.spec.file.resources.cpus,
            "gpus": self.run.spec.file.resources.gpus,
            "concurrent": self.concurrent,
        }

    def on_trial_complete(self, trial_id: str, result: Report | None = None, error: bool = False) -> None:
        if trial_id in self.measuring:
            job = self.measuring.pop(trial_id)
            reason = f"see {self.run.path / 'error.txt'}" if error or result is None else result["failed"]
            if reason:
                self.broken = f"{job} could not be measured: {reason}"
            self.search.baseline = self.run.baseline()
        else:
            record = self.trials.pop(trial_id)
            if self.halving and self.halving.waits(record.number):
                self.unfinished.add(self.run.trial(record.number))
            else:
                self._end(record, *ending(record, None if error else result, self.run.spec.file.pareto))
        self._end_stopped()
        self._plan_final()

    def _end(self, record: TrialRecord, status: Status, reason: str | None) -> None:
        self.run.end_trial(record.number, status, reason)
        self.search.end(self.run.trial(record.number))
        if self.halving:
            self.halving.end(record.number)

    def _end_stopped(self) -> None:
        """Ends the waiting trials on which it was decided that they do not go on."""
        for trial in self.unfinished.stopped():
            self._end(trial, *stopped(trial, self.run.spec.file.pareto))

    def _new_trial(self) -> TrialRecord | None:
        if self._all_started():
            return None
        suggestion = self.search.ask()
        return None if suggestion is None else self.run.add_trial(suggestion)

    def _all_started(self) -> bool:
        """Whether no trial will be started any more."""
        if self.search.next >= self.run.spec.file.search.trials:
            return True
        running = (self.run.trial(trial.number) for trial in (*self.trials.values(), *self.unfinished.trials))
        trials = chain(self.search.ended.values(), running)
        return budget.used_up(self.run, trials, self.clock.seconds)

    def _plan_final(self) -> None:
        """Queues the measurements on test images, once all trials and the baseline are there."""
        if self.final or self.trials or self.unfinished.trials or not self._all_started():
            return
        baseline = self.run.baseline()
        if baseline is None:
            return
        self.final = True
        self.clock.write()
        members = result.front(self.run.spec, self.run.trials(), baseline)
        self.waiting = [
            self._measurement(trial, "test")
            for trial in (None, *members)
            if not self.run.final_file(trial.id if trial else BASELINE).exists()
        ]

    def _measurement(self, trial: TrialRecord | None, split: Split) -> Job:
        """The job that measures a trial, or the untrained model for None, on a split."""
        sweep, name = self.run.spec, trial.id if trial else BASELINE
        config = trial.config if trial else sweep.base_trial()
        target = self.run.final_file(name) if split == "test" else self.run.baseline_file
        return {
            "trainable": sweep.trainable.name,
            "id": f"{name}-{split}",
            "measure": {
                "model": config["model"],
                "data": config["data"],
                "evaluation": sweep.final if split == "test" else sweep.evaluation,
                "split": split,
                "target": str(target),
                "checkpoint": str(trial.folder) if trial else None,
                "threads": self.threads,
                "cache": str(self.run.cache),
            },
        }

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the run folder has it all."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: see `save`."""


class Scheduler(Stateless, FIFOScheduler):
    """Asks `halving` after each epoch; starts trials first come, first served.

    It names no metric to Tune, which would abort a sweep at a report that lacks it, and can't hold several.
    """

    _supports_buffered_results = False  # the next epoch waits for the decision

    def __init__(self, run: Run, halving: Halving) -> None:
        super().__init__()
        self.run, self.halving = run, halving

    def on_trial_result(self, controller: Any, trial: Any, result: Report) -> str:
        return str(self.CONTINUE if self._goes_on(trial, result) else self.STOP)

    def on_trial_complete(self, controller: Any, trial: Any, result: Report) -> None:
        """Tune comes here with a last report that it did not ask about, and with those that were stopped or
        wait."""
        if "measure" in trial.config:
            self.halving.baseline = self.run.baseline()
        elif not result["failed"]:
            self._goes_on(trial, result, last=True)

    def _goes_on(self, trial: Any, result: Report, last: bool = False) -> bool | None:
        """Of a worker that was lost, an epoch may be in the trial's folder that was never reported."""
        number = trial.config["number"]
        goes_on = self.halving.follow(self.run.trial(number))
        return goes_on and self.halving.record(number, result["epoch"], result, last=last)


class Watcher(Stateless, Callback):
    """Tells the display and the tracker that something has happened."""

    def __init__(self, run: Run, display: Display, notify: Callable[[], None]) -> None:
        self.run, self.display, self.notify = run, display, notify

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        if "measure" not in trial.config:
            self.display.stage("searching")
        elif trial.config["measure"]["split"] == "test":
            self.display.stage("measuring the Pareto set on test images")
        self._refresh(trial)

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: Report, **info: Any
    ) -> None:
        self._refresh(trial)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._refresh(trial)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        if trial.error_file:
            self.run.keep_error(trial.config.get("number"), trial.error_file)
        self._refresh(trial)

    def _refresh(self, trial: Any) -> None:
        if "measure" not in trial.config:
            self.display.clock.write()
            self.display.update(self.run.trial(trial.config["number"]))
        self.notify()
