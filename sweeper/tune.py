"""Where Ray Tune meets the run folder: the searcher it asks for work, the scheduler it asks whether a
trial goes on, the callback it tells."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray.tune import Callback, Stopper
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher as RaySearcher

from sweeper import budget, kept, pages
from sweeper.budget import Clock
from sweeper.errors import Obstacle, UserError
from sweeper.halving import Halving, Report, Unfinished, ending, stopped
from sweeper.jobs import Job, Jobs
from sweeper.limits import no_space
from sweeper.run import Run
from sweeper.search import Search
from sweeper.trial import Status, TrialRecord, read_trial

if TYPE_CHECKING:
    from sweeper.display import Display


MAX_RESTARTS = 3


def trial_name(trial: Any) -> str:
    """Tune's name for a job: the id we know it by."""
    return str(trial.config["id"])


@cache
def shared(resources: Any) -> Any:
    """The first of those that are equal: Tune makes them anew for every trial, two kilobytes each."""
    return resources


def forget(trial: Any) -> None:
    """Empties Tune's object of a trial that has ended: Tune keeps all of them to the end of a sweep, each
    with its configuration, its last report and statistics of every metric. The run folder has it all."""
    trial.config.clear()
    trial.evaluated_params = {}
    trial.experiment_tag = ""
    known = trial.run_metadata
    known.last_result, known.metric_analysis, known.metric_n_steps = {}, {}, {}
    trial._default_result_or_future = None  # holds an object of Ray
    trial.placement_group_factory = shared(trial.placement_group_factory)


def user_error(error: BaseException | None) -> UserError | None:
    """The error of ours that made Tune raise another one, if any did: Tune wraps what its callbacks raise."""
    while error is not None and not isinstance(error, UserError):
        error = error.__cause__ or error.__context__
    return error


class Stateless:
    """Ray pickles what it is given beside its own state; there is nothing of ours to be kept there."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class Searcher(Stateless, RaySearcher):
    """Hands out all the work of a sweep that is left, to workers that stay: the untrained model's
    measurement, the trials that an earlier driver left unfinished, new trials, and when all have
    ended, what makes sure of the front (see `Jobs.following`).

    A trial that has to wait for others, see `sweeper.halving`, gives its worker back. For Tune it has ended,
    and it is handed out once more as one that was left unfinished: its folder is its memory. So is a job
    that has lost its worker. Tune's own restarts would give it one that it keeps for reuse on a lost node.
    """

    def __init__(
        self, run: Run, search: Search, jobs: Jobs, clock: Clock, halving: Halving | None = None
    ) -> None:
        super().__init__()
        self.run, self.search, self.jobs, self.clock, self.halving = run, search, jobs, clock, halving
        self.unfinished = Unfinished(halving, (t for t in run.trials() if t.status == "unfinished"))
        self.spent = budget.Ended()
        self.limited = bool(budget.limits(run))
        for trial in search.ended.values() if self.limited else ():
            self.spent.add(trial)
        self.trials: dict[str, TrialRecord] = {}
        self.others: dict[str, Job] = {}  # what runs and is no trial of the search
        self.waiting = [] if run.baseline() else [jobs.measurement(None, "validation")]
        self.searched = False  # whether the search has ended
        self.finished = False  # whether there is nothing left to do
        self.broken: Exception | None = None  # why the sweep can't be finished
        self.lost: dict[str, tuple[int, int]] = {}  # by job: epochs it had, how often it was lost since
        self._plan()

    def suggest(self, trial_id: str) -> Job | str | None:
        """The next job; None if there is none yet, FINISHED if there will be none."""
        self._end_stopped()
        self._plan()  # a budget may have run out since a trial ended
        if self.finished or self.broken:
            return str(self.FINISHED)
        if self.waiting:
            self.others[trial_id] = self.waiting.pop(0)
            return self.others[trial_id]
        record = self.unfinished.take() or self._new_trial()
        if record is None:
            return None
        self.trials[trial_id] = record
        return self.jobs.trial(record)

    def on_trial_result(self, trial_id: str, result: Report) -> None:
        job = self.others.get(trial_id)
        folder = Path(job["folder"]) if job else self.trials[trial_id].folder
        if job is None:
            self.search.report(self.trials[trial_id].number, result["epoch"], result)
        kept.tidy(self.run, read_trial(folder), self.search.baseline)

    def on_trial_complete(self, trial_id: str, result: Report | None = None, error: bool = False) -> None:
        report = None if error else result
        if report and report.get("full"):
            self.broken = self.broken or no_space(self.run, report["failed"])
        if self.broken:  # what runs stays unfinished
            return
        if trial_id in self.trials:
            self._ended(self.trials.pop(trial_id), report, error)
        else:
            self._other_ended(self.others.pop(trial_id), report, error)
        self._end_stopped()
        self._plan()

    def _ended(self, record: TrialRecord, report: Report | None, error: bool) -> None:
        if error:
            self.run.storage.look(record.folder)  # for epochs that were not reported
        waits = self.halving is not None and self.halving.waits(record.number)
        if waits or (error and self._goes_on_elsewhere(record.id, self.run.trial(record.number))):
            self.unfinished.add(self.run.trial(record.number))
        else:
            self._end(record, *ending(record, report, self.run.spec.file.pareto))

    def _other_ended(self, job: Job, report: Report | None, error: bool) -> None:
        twin = None if "measure" in job else read_trial(Path(job["folder"]))
        if error and self._goes_on_elsewhere(job["id"], twin):
            self.waiting.insert(0, job)
        elif twin is None:
            self._measured(job["id"], report)
        else:
            self._close(twin, *ending(twin, report, self.run.spec.file.pareto))

    def _goes_on_elsewhere(self, job: str, training: TrialRecord | None) -> bool:
        """Whether a job that has lost its worker is given another one: unless it was lost more than
        MAX_RESTARTS times without coming further. Nodes may be lost all the time."""
        epochs = len(training.epochs) if training else 0
        before, times = self.lost.get(job, (epochs, 0))
        times = 1 if epochs > before else times + 1
        self.lost[job] = epochs, times
        return times <= MAX_RESTARTS

    def _end(self, trial: TrialRecord, status: Status, reason: str | None) -> None:
        """A trial of the search has ended: so it is noted, and those are told who wait for it."""
        outline = self.run.outline(self._close(trial, status, reason))
        self.search.end(outline)
        if self.limited:
            self.spent.add(outline)
        if self.halving:
            self.halving.end(trial.number)

    def _close(self, trial: TrialRecord, status: Status, reason: str | None) -> TrialRecord:
        """Notes how a training ended, and takes away what is not needed of it any more."""
        return kept.tidy(self.run, self.run.end_trial(trial, status, reason), self.search.baseline)

    def _end_stopped(self) -> None:
        """Ends the waiting trials on which it was decided that they do not go on."""
        for trial in self.unfinished.stopped():
            self._end(trial, *stopped(trial, self.run.spec.file.pareto))

    def _measured(self, job: str, report: Report | None) -> None:
        reason = f"see {self.run.path / 'error.txt'}" if report is None else report["failed"]
        if reason:
            self.broken = UserError(f"{job} could not be measured: {reason}", pages.FAILURES)
        if self.search.baseline is None:
            self.search.baseline = self.run.baseline()
            self._tidy_ended()

    def _tidy_ended(self) -> None:
        """What could not be judged before the untrained model was known, see `kept.tidy`."""
        for number in self.search.ended if self.run.spec.file.pareto.constraints else ():
            trial = kept.tidy(self.run, self.run.trial(number), self.search.baseline)
            self.search.ended[number] = self.run.outline(trial)

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
        return budget.used_up(self.run, running, self.clock.seconds, self.spent)

    def _plan(self) -> None:
        """Queues what comes after the search, a stage at a time, each when the one before is done."""
        busy = self.waiting or self.others or self.trials or self.unfinished.trials
        if busy or self.broken or self.finished or not self._all_started():
            return
        if not self.searched:
            self.clock.write()  # what follows takes no part of a budget
        self.searched = True
        ended = self.search.ended
        self.waiting = self.jobs.following([ended[number] for number in sorted(ended)])
        self.finished = not self.waiting

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the run folder has it all."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: see `save`."""


class Breaker(Stateless, Callback):
    """Ends a sweep that can't be finished. Tune takes what is raised anywhere else for a trial's failure."""

    def __init__(self, searcher: Searcher) -> None:
        self.searcher = searcher

    def guard(self, part: Any) -> Any:
        """The part. If it fails where it is told of a trial's end, as on a full disk, that is no failure of
        the trial: the sweep ends, and until it has no guarded part is told of another end."""
        tell = part.on_trial_complete

        def told(*arguments: Any, **named: Any) -> None:
            if self.searcher.broken is None:
                try:
                    tell(*arguments, **named)
                except Exception as error:
                    self.searcher.broken = error

        part.on_trial_complete = told
        return part

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        if self.searcher.broken:
            raise self.searcher.broken


class Scheduler(Stateless, FIFOScheduler):
    """Asks `halving` after each epoch; starts trials first come, first served.

    It names no metric to Tune, which would abort a sweep at a report that lacks it, and can't hold several.
    """

    _supports_buffered_results = False  # the next epoch waits for the decision

    def __init__(self, run: Run, halving: Halving) -> None:
        super().__init__()
        self.run, self.halving = run, halving

    def on_trial_result(self, controller: Any, trial: Any, result: Report) -> str:
        goes_on = "number" not in trial.config or self._goes_on(trial, result)
        return str(self.CONTINUE if goes_on else self.STOP)

    def on_trial_complete(self, controller: Any, trial: Any, result: Report) -> None:
        """Tune comes here with a last report that it did not ask about, and with those that were stopped or
        wait."""
        if "measure" in trial.config:
            self.halving.baseline = self.run.baseline()
        elif "number" in trial.config and not result["failed"]:
            self._goes_on(trial, result, last=True)

    def _goes_on(self, trial: Any, result: Report, last: bool = False) -> bool | None:
        """Of a worker that was lost, an epoch may be in the trial's folder that was never reported."""
        number = trial.config["number"]
        goes_on = self.halving.follow(self.run.trial(number))
        return goes_on and self.halving.record(number, result["epoch"], result, last=last)


class Arrival(Stateless, Stopper):
    """Makes sure that what a worker reports to have written is seen here. Tune asks its stopper before it
    tells anybody else. This one stops nothing. Raises StorageError, and Obstacle in the name of a worker that
    could not do its job, or not store what it wrote."""

    def __init__(self, run: Run) -> None:
        self.run = run

    def __call__(self, trial_id: str, result: Report) -> bool:
        if "refused" in result:
            raise Obstacle(result["refused"])
        self.run.storage.reported(result.get("wrote", ()))
        return False

    def stop_all(self) -> bool:
        return False


class Lookout(Stateless, Callback):
    """Says so when the cluster has lost every node that can hold a trial, and when there is one again.

    lacking: a line on what is missing; empty while nothing is.
    """

    SECONDS = 15

    def __init__(self, lacking: Callable[[], str], say: Callable[[str], None]) -> None:
        self.lacking, self.say, self.missing, self.looked = lacking, say, "", time.monotonic()

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        if time.monotonic() - self.looked < self.SECONDS:
            return
        self.looked = time.monotonic()
        missing = self.lacking()
        if bool(missing) != bool(self.missing):
            self.say(f"{missing}; the sweep waits" if missing else "there is a node for trials again")
        self.missing = missing


class Watcher(Stateless, Callback):
    """Tells the display and the tracker that something has happened. ended: the trials that have."""

    def __init__(
        self, run: Run, display: Display, notify: Callable[[], None], ended: Mapping[int, TrialRecord]
    ) -> None:
        self.run, self.display, self.notify, self.ended = run, display, notify, ended

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.display.begin(trial.config)
        self._refresh(trial)

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: Report, **info: Any
    ) -> None:
        self._refresh(trial)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.display.end(trial.config)
        self._refresh(trial)
        forget(trial)

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        with suppress(Exception):  # no sweep ends for the sake of what it shows
            self.display.tick()

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        if trial.error_file:
            self.run.keep_error(trial.config.get("folder"), trial.error_file)
        self.display.end(trial.config, lost=True)
        self._refresh(trial)
        forget(trial)

    def _refresh(self, trial: Any) -> None:
        if "number" in trial.config:
            self.display.clock.write()
            number = trial.config["number"]
            self.display.update(self.ended.get(number) or self.run.outline(self.run.trial(number)))
        self.notify()
