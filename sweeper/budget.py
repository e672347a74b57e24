"""What a sweep may spend on its search, and what it has spent, told from the run folder.

Once a budget is used up no trial is started; those that run are finished, as a half-trained one is no
member of the front and what was spent on it would be lost. So hours and GPU-hours are exceeded by what is
left of the running trials; of epochs, what these are still going to train counts as spent from their start,
and the excess is less than one trial. The untrained model's measurement takes no part of GPU-hours and
epochs; what follows the search (other seeds, the final attack, test images) takes no part of any budget.

A budget of epochs does not depend on timing: what counts as spent by the trials before another only becomes
less as these end, down to what they trained. So it is started, at the latest when all have ended, if that is
less than the budget, and otherwise never.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from sweeper.run import Run
from sweeper.spec import Budget
from sweeper.trial import TrialRecord

UNITS = {"hours": "hours", "gpu_hours": "GPU-hours", "epochs": "epochs"}


class Clock:
    """Counts the seconds during which a run was driven, by all its drivers; made as one starts. Of a driver
    that was killed counts what it did up to its last `write`."""

    def __init__(self, run: Run) -> None:
        self.run, self.before, self.started = run, run.driven_seconds(), time.monotonic()

    @property
    def seconds(self) -> float:
        return self.before + time.monotonic() - self.started

    def write(self) -> None:
        self.run.write_driven_seconds(self.seconds)


def limits(run: Run) -> dict[str, float]:
    """What the sweep file sets, by the names of `UNITS`."""
    return run.spec.file.search.budget.given()


def busy(trial: TrialRecord) -> float:
    """The seconds of its finished epochs."""
    return sum(epoch["training_seconds"] + epoch["evaluation_seconds"] for epoch in trial.epochs)


@dataclass
class Ended:
    """What the trials that have ended have spent together; each is added once."""

    epochs: int = 0
    seconds: float = 0.0

    def add(self, trial: TrialRecord) -> None:
        self.epochs += len(trial.epochs)
        self.seconds += busy(trial)


NOTHING = Ended()


def spent(
    run: Run, trials: Sequence[TrialRecord], seconds: float, before: Ended = NOTHING
) -> dict[str, float]:
    """Of each thing that is limited. seconds: the clock's.  before: trials that are not among `trials`."""
    gpus = run.spec.file.resources.gpus
    known: dict[str, Callable[[], float]] = {
        "hours": lambda: seconds / 3600,
        "gpu_hours": lambda: (before.seconds + sum(map(busy, trials))) * gpus / 3600,
        "epochs": lambda: before.epochs + sum(len(trial.epochs) for trial in trials),
    }
    return {name: known[name]() for name in limits(run)}  # what is not limited is not read


def used_up(run: Run, trials: Iterable[TrialRecord], seconds: float, before: Ended = NOTHING) -> bool:
    """Whether no more trial is to be started. trials: not looked at where there is no budget.  before: of
    trials that have ended and are not among them."""
    limit = limits(run)
    if not limit:
        return False
    known = list(trials)
    gone = spent(run, known, seconds, before)
    if "epochs" in limit:
        running = [trial for trial in known if trial.status == "unfinished"]
        gone["epochs"] += sum(trial.config["epochs"] - len(trial.epochs) for trial in running)
    return any(gone[name] >= limit[name] for name in limit)


def left(run: Run, trials: Sequence[TrialRecord], seconds: float) -> str:
    """As `1.2 of 12 hours, 3.5 of 40 GPU-hours left`; empty without a budget."""
    limit = limits(run)
    gone = spent(run, trials, seconds)
    parts = [
        f"{round(max(limit[name] - gone[name], 0), 2):g} of {limit[name]:g} {UNITS[name]}" for name in limit
    ]
    return f"{', '.join(parts)} left" if parts else ""


def planned(run: Run, trials: Sequence[TrialRecord]) -> int:
    """How many trials there are to be: those there are if a budget is used up, else what the file says."""
    done = used_up(run, trials, run.driven_seconds())
    return len(trials) if done else int(run.spec.file.search.trials)


def bounds(budget: Budget) -> str:
    """As `12 hours, 40 GPU-hours`; empty without a budget."""
    return ", ".join(f"{value:g} {UNITS[name]}" for name, value in budget.given().items())
