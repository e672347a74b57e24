"""How far a sweep is at a moment: what the live view shows, `sweeper status` prints and a script reads.

The driver makes it of what it knows, everybody else of the run folder; see `sweeper.progress`.
"""

from __future__ import annotations

import math
import re
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from sweeper import budget
from sweeper.halving import Halving
from sweeper.jobs import SEARCHING
from sweeper.progress import At, Told
from sweeper.run import Run
from sweeper.spec import SweepSpec
from sweeper.terminal import duration
from sweeper.trainable import MEASURING, TRAINING
from sweeper.trial import BASELINE, Metrics, Point, TrialRecord

ENOUGH = 5
"""Trials that have ended, after which it is known how many epochs early stopping leaves one."""
RECENT = 50
"""Trials that say how long an epoch takes."""
JOB = re.compile(r"(t\d+)(-\d+)?(?:@\d+)?")
"""A trial, or one that was trained with another seed, perhaps after an epoch."""


@dataclass(frozen=True)
class Task:
    """A job that has a worker: a training, or a measurement, which has no epochs.

    rung, next_rung: the last epoch after which early stopping let it go on, and the next at which it decides;
    None where there is none.  metrics: after its last epoch.  doing, share: what its worker said last.
    """

    id: str
    method: str
    epoch: int | None = None
    epochs: int | None = None
    rung: int | None = None
    next_rung: int | None = None
    metrics: Metrics | None = None
    doing: str = ""
    share: float = 0.0

    @property
    def part(self) -> float:
        """The share of the present epoch, or of the measurement, that is done. Measuring is taken for a
        moment in a training."""
        if self.epochs is None:
            return self.share if self.doing == MEASURING else 0.0
        return {TRAINING: self.share, MEASURING: 1.0}.get(self.doing, 0.0)

    @property
    def done(self) -> float:
        """The share of all of it."""
        return self.part if self.epochs is None else ((self.epoch or 0) + self.part) / self.epochs


@dataclass(frozen=True)
class State:
    """A sweep at a moment.

    counts: trials by status.  waiting: trials without a worker, until others have come as far.
    done, total: jobs of the stage; total is 0 while searching.  front: of the trials that have ended, best in
    the first objective first.  images_per_second: trained by all workers together, in their last epochs.
    seconds_left: of the stage; None where it can't be told.
    """

    run: str
    stage: str
    planned: int
    counts: Mapping[str, int]
    waiting: int
    done: int
    total: int
    running: Sequence[Task]
    front: Sequence[Point]
    untrained: Metrics | None
    images_per_second: float | None
    trials_per_hour: float | None
    seconds_left: float | None
    budget: str

    @property
    def started(self) -> int:
        return sum(self.counts.values())

    @property
    def ended(self) -> int:
        return self.started - self.counts.get("unfinished", 0)

    @property
    def share(self) -> float:
        """How much of the stage is done."""
        if self.total == 0:
            return self.ended / self.planned if self.planned else 0.0
        return (self.done + sum(task.done for task in self.running)) / self.total


def state(
    run: Run,
    *,
    trials: Sequence[TrialRecord],
    twins: Mapping[str, TrialRecord],
    front: Sequence[Point],
    untrained: Metrics | None,
    what: At,
    told: Mapping[str, Told],
    seconds: float,
    rungs: Callable[[int], Sequence[int]],
) -> State:
    """trials: of the search; outlines will do.  twins: those that are trained with other seeds now, by id.
    seconds: for how long was searched.  rungs: see `rungs_of`."""
    known = {trial.id: trial for trial in trials} | dict(twins)
    tasks = [task(job, known, told.get(job), rungs) for job in what.running]
    counts = Counter(str(trial.status) for trial in trials)
    planned = int(run.spec.file.search.trials)
    ended = sum(counts.values()) - counts["unfinished"]
    searched = [each for each in tasks if each.id in known and each.id not in twins]
    rates = [known[each.id].epochs[-1].get("images_per_second", 0.0) for each in searched if each.epoch]
    searching = what.stage == SEARCHING
    left = search_left(run, trials, searched, seconds) if searching else stage_left(what, tasks)
    return State(
        run=run.name,
        stage=what.stage,
        planned=planned,
        counts=dict(counts),
        waiting=max(counts["unfinished"] - len(searched), 0),
        done=what.done,
        total=what.total,
        running=tasks,
        front=ranked(run.spec, front),
        untrained=untrained,
        images_per_second=sum(rates) or None,
        trials_per_hour=3600 * ended / seconds if searching and ended and seconds > 0 else None,
        seconds_left=left,
        budget=budget.left(run, trials, seconds),
    )


def task(
    job: str, known: Mapping[str, TrialRecord], told: Told | None, rungs: Callable[[int], Sequence[int]]
) -> Task:
    """job: its id, see `sweeper.jobs`."""
    doing: dict[str, Any] = {} if told is None else {"doing": told.doing, "share": told.share}
    if trial := known.get(job):
        epoch = len(trial.epochs)
        decided = rungs(trial.number) if not trial.wanted else ()
        return Task(
            id=job,
            method=trial.method,
            epoch=epoch,
            epochs=trial.last_epoch,
            rung=max((rung for rung in decided if rung <= epoch), default=None),
            next_rung=min((rung for rung in decided if rung > epoch), default=None),
            metrics=trial.metrics,
            **doing,
        )
    found = JOB.match(job)
    own = known.get(found[1]) if found else None
    name = found[0] if found else BASELINE
    return Task(id=name, method=own.method if own else "untrained", **doing)


def rungs_of(sweep: SweepSpec) -> Callable[[int], Sequence[int]]:
    """Of a trial, by its number, the epochs after which early stopping decides on it."""
    if sweep.file.search.early_stopping is None:
        return lambda _: ()
    halving = Halving(sweep)
    return lru_cache(maxsize=1024)(lambda number: halving.epochs[halving.bracket(number) :])


def search_left(
    run: Run, trials: Sequence[TrialRecord], running: Sequence[Task], seconds: float
) -> float | None:
    """Seconds until all trials have ended or a budget is used up, if epochs go on to take as long as those of
    the last trials, with as many trials side by side as now. None before the first epoch is done."""
    known = [epoch for trial in trials[-RECENT:] for epoch in trial.epochs if "training_seconds" in epoch]
    if not known or not running:
        return None
    each = sum(epoch["training_seconds"] + epoch["evaluation_seconds"] for epoch in known) / len(known)
    left = epochs_left(run, trials) - sum(task.part for task in running)
    limit, gone = budget.limits(run), budget.spent(run, trials, seconds)
    by_budget = [seconds * max(limit[name] / gone[name] - 1, 0) for name in limit if gone[name]]
    return min([each * max(left, 0) / len(running), *by_budget])


def epochs_left(run: Run, trials: Sequence[TrialRecord]) -> float:
    """A new trial is expected to have as many as those so far, as early stopping leaves of them."""
    search = run.spec.file.search
    ended = [len(trial.epochs) for trial in trials if trial.status != "unfinished"]
    known = search.early_stopping is not None and len(ended) >= ENOUGH
    each = ended if known else [int(trial.config["epochs"]) for trial in trials]
    begun = [trial for trial in trials if trial.status == "unfinished"]
    return sum(int(trial.config["epochs"]) - len(trial.epochs) for trial in begun) + sum(each) / len(
        each
    ) * max(search.trials - len(trials), 0)


def stage_left(what: At, running: Sequence[Task]) -> float | None:
    """Seconds, at the pace so far, until all jobs of the stage have ended."""
    done = what.done + sum(each.done for each in running)
    elapsed = time.time() - what.since
    return elapsed * max(what.total - done, 0) / done if what.total and done else None


def ranked(sweep: SweepSpec, points: Sequence[Point]) -> list[Point]:
    """The best in the first objective first."""
    pareto = sweep.file.pareto
    name, sign = pareto.metrics[0], -1 if pareto.directions[0] == "maximize" else 1
    return sorted(points, key=lambda point: sign * point.metrics[name])


def summary(of: State) -> str:
    """A line: `12 of 30 trials ended, 5 running, 1,234 images/s, 14.2 trials/h, about 34 min left`."""
    if of.total:
        begun = f"{math.floor(100 * of.share)} %, {of.done} of {of.total}"
        return ", ".join([begun, *pace(of)])
    words = [f"{of.ended} of {of.planned} trials ended", f"{of.started - of.ended - of.waiting} running"]
    words += [f"{of.waiting} waiting"] if of.waiting else []
    return ", ".join([*words, *pace(of)])


def pace(of: State) -> list[str]:
    """How fast it goes, in words; what can't be told is left out."""
    words = []
    if of.images_per_second:
        words.append(f"{of.images_per_second:,.0f} images/s")
    if of.trials_per_hour:
        words.append(f"{of.trials_per_hour:.3g} trials/h")
    if of.seconds_left is not None:
        words.append(f"about {duration(of.seconds_left)} left")
    return words
