"""Where Ray Tune meets the run folder: the searcher it asks, the callback it tells."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ray.tune import Callback
from ray.tune.search import Searcher as RaySearcher

from sweeper.run import Run, Status, TrialRecord
from sweeper.search import Search

if TYPE_CHECKING:
    from sweeper.display import Display

Report = dict[str, Any]


def trial_name(trial: Any) -> str:
    """Tune's name for a trial: the id we know it by."""
    return str(trial.config["id"])


class Stateless:
    """Ray pickles what it is given beside its own state; there is nothing of ours to be kept there."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class Searcher(Stateless, RaySearcher):
    """Hands out the trials that an earlier driver left unfinished, then new ones.

    Its state is the run folder; Ray's own snapshots of it are empty.
    """

    def __init__(self, run: Run, search: Search, threads: int) -> None:
        super().__init__()
        self.run, self.search, self.threads = run, search, threads
        self.unfinished = [t for t in run.trials() if t.status == "unfinished"]
        self.running: dict[str, TrialRecord] = {}

    @property
    def left(self) -> int:
        """Trials of the sweep that have not ended."""
        return int(self.run.spec.file.search.trials) - len(self.search.ended)

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        """The configuration of the next trial's worker; None if there is nothing to run yet."""
        record = self.unfinished.pop(0) if self.unfinished else self._new_trial()
        if record is None:
            return None
        self.running[trial_id] = record
        return {
            "trainable": self.run.spec.trainable.name,
            "id": record.id,
            "number": record.number,
            "trial": record.config,
            "evaluation": self.run.spec.evaluation,
            "seed": record.seed,
            "folder": str(record.folder),
            "threads": self.threads,
        }

    def _new_trial(self) -> TrialRecord | None:
        if self.search.next >= self.run.spec.file.search.trials:
            return None
        suggestion = self.search.ask()
        if suggestion is None:
            return None
        return self.run.add_trial(suggestion)

    def on_trial_complete(self, trial_id: str, result: Report | None = None, error: bool = False) -> None:
        record = self.running.pop(trial_id)
        status, reason = ending(record, result, error)
        self.run.end_trial(record.number, status, reason)
        self.search.end(self.run.trial(record.number))

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the run folder has it all."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: see `save`."""


def ending(record: TrialRecord, result: Report | None, error: bool) -> tuple[Status, str | None]:
    """How a trial ended, from its last report."""
    if error or result is None:
        return "failed", "the worker failed more often than a trial is restarted; see error.txt"
    if result["failed"]:
        return "failed", str(result["failed"])
    if result["epoch"] < record.config["epochs"]:
        return "stopped", f"stopped early after epoch {result['epoch']}"
    return "completed", None


class Watcher(Stateless, Callback):
    """Tells the display and the tracker that something has happened."""

    def __init__(self, run: Run, display: Display, notify: Callable[[], None]) -> None:
        self.run, self.display, self.notify = run, display, notify

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._refresh(trial)

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: Report, **info: Any
    ) -> None:
        self._refresh(trial)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._refresh(trial)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        if trial.error_file:
            self.run.keep_error(trial.config["number"], trial.error_file)
        self._refresh(trial)

    def _refresh(self, trial: Any) -> None:
        self.display.update(self.run.trial(trial.config["number"]))
        self.notify()
