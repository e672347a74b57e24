"""Early stopping: multi-objective asynchronous successive halving (arXiv 2106.12639). No Ray in here.

Rungs are at the epochs grace, grace * eta, grace * eta², ... before the last. A trial that reaches a rung
is compared at once with the n trials that are there, itself included, and goes on if it is one of the
first n / eta, rounded up, in the order of `sweeper.ranking`. It goes on in any case

* while there are fewer than eta trials;
* while there are fewer than `protect` trials, if none of them dominates it;
* while there are constraints and the untrained model, which they may be relative to, has not been
  measured: the trial is recorded, and those that come after the measurement are compared with it.

By default no first front is protected: of few points of several objectives most are non-dominated, and a
search that trains them all on is later at the front (docs/searching.md).

Nobody is called back: a trial that was stopped stays so. What is decided depends on the order in which
trials arrive, on their metrics and on the sweep's seed; the past decisions, in their order, and which trials
have ended, are all the state there is.

With `search.deterministic` the order is that of the trials' numbers, whatever the timing. A trial that comes
to a rung waits until every trial of its bracket with a lower number has been decided on there, or has ended
without coming to it; with constraints, also until the untrained model is measured. A waiting trial has no
worker, and is given one again once it goes on, before any new trial is started. All waiting comes to an end:
of the trials that have not ended, the one with the lowest number waits for no other, and is the next to be
given a worker unless it has one; every worker is free again after finitely many epochs; and the untrained
model's measurement, the first job of a sweep, waits for nobody. So each trial ends in its turn, however fast
the others are and whatever ends them. The trials that are waited for were all drawn before, as numbers are
given in the order of drawing.
"""

from __future__ import annotations

import math
from bisect import insort
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sweeper.front import total_violation
from sweeper.limits import was_stuck
from sweeper.pareto import as_costs
from sweeper.ranking import Fronts
from sweeper.run import Run
from sweeper.spec import EarlyStopping, ParetoConfig, SweepSpec
from sweeper.trial import Decision, Metrics, Status, TrialRecord

Report = dict[str, Any]
"""What a trial reports after an epoch: its metrics, `epoch`, and `failed`, the reason if it has."""


@dataclass(frozen=True)
class Arrival:
    """A trial at a rung where it was not decided on yet. place: bracket and epoch.  last: the trial ends
    there, so that only others wait for it."""

    place: tuple[int, int]
    metrics: Metrics
    last: bool


@dataclass
class Rung:
    """The trials that reached it, in order of arrival; those of them that were compared are in `fronts`."""

    fronts: Fronts
    metrics: list[Metrics] = field(default_factory=list)


class Halving:
    """Decides which trials of a sweep with `early_stopping` go on.

    baseline: the untrained model's metrics, to be set once they are known.
    past: the decisions of earlier drivers; they stand, and count.  log: is given each new decision before
    it takes effect.  A trial that ends has to be told with `end`, by whatever it ended.
    """

    def __init__(
        self,
        sweep: SweepSpec,
        *,
        baseline: Metrics | None = None,
        past: Iterable[Decision] = (),
        log: Callable[[Decision], None] = lambda _: None,
    ) -> None:
        self.sweep, self.log = sweep, log
        self._baseline = baseline
        self.pareto: ParetoConfig = sweep.file.pareto
        assert sweep.file.search.early_stopping is not None
        self.stopping: EarlyStopping = sweep.file.search.early_stopping
        self.objectives = self.stopping.metrics or self.pareto.metrics
        self.epochs = sweep.rungs()
        self.rungs: dict[tuple[int, int], Rung] = {}
        self.decided: dict[tuple[int, int], bool] = {}
        self.waiting: dict[int, Arrival] = {}
        self.ended: set[int] = set()
        self.lowest = 0  # all trials before it have ended
        for decision in past:
            self._arrive(decision.trial, decision.epoch, decision.metrics)
            self.decided[decision.trial, decision.epoch] = decision.goes_on

    @property
    def baseline(self) -> Metrics | None:
        return self._baseline

    @baseline.setter
    def baseline(self, metrics: Metrics | None) -> None:
        self._baseline = metrics
        self._settle()

    def record(self, trial: int, epoch: int, metrics: Metrics, *, last: bool = False) -> bool | None:
        """Whether a trial goes on after an epoch; None if it has to wait for others, in a deterministic
        sweep only. Asked again, it answers the same, except that waiting comes to an end.

        last: the trial ends by itself; it is recorded for others to be compared with.  A trial with a
        metric that is not finite does not go on and is not recorded: it has failed.
        """
        if not_finite(self.pareto, metrics):
            return False
        if (trial, epoch) in self.decided:
            return self.decided[trial, epoch]
        bracket = self.bracket(trial)
        if epoch not in self.epochs[bracket:]:
            return True
        known = {name: metrics[name] for name in self.pareto.deciding}
        arrival = self.waiting.setdefault(trial, Arrival((bracket, epoch), known, last))
        self._settle()
        return self.decided.get((trial, epoch), True if arrival.last else None)

    def follow(self, trial: TrialRecord) -> bool | None:
        """As `record`, for each epoch in the trial's record until it does not go on: True before the first.
        What is recorded was not always reported, as a worker or a driver may have been lost in between."""
        for epoch in trial.epochs:
            last = epoch["epoch"] >= trial.config["epochs"]
            goes_on = self.record(trial.number, epoch["epoch"], epoch["metrics"], last=last)
            if not goes_on:
                return goes_on
        return True

    def end(self, trial: int) -> None:
        """The trial has ended; nobody waits for what it did not come to."""
        self.ended.add(trial)
        while self.lowest in self.ended:
            self.lowest += 1
        self._settle()

    def waits(self, trial: int) -> bool:
        """Whether the trial goes on only once others have been decided on."""
        return trial in self.waiting and not self.waiting[trial].last

    def _settle(self) -> None:
        """Decides on all trials whose turn it is, lowest number first: one that waits keeps all those after
        it waiting at that rung, of which those before `lowest` are no longer looked at one by one."""
        blocked = set()
        for trial in sorted(self.waiting):
            arrival = self.waiting[trial]
            if arrival.place not in blocked and self._has_its_turn(trial, *arrival.place):
                del self.waiting[trial]
                self._decide(trial, arrival)
            else:
                blocked.add(arrival.place)

    def _has_its_turn(self, trial: int, bracket: int, epoch: int) -> bool:
        if not self.sweep.file.search.deterministic:
            return True
        if self.pareto.constraints and self.baseline is None:
            return False
        return all(
            (number, epoch) in self.decided
            or (number in self.ended and number not in self.waiting)
            or self.bracket(number) != bracket
            for number in range(self.lowest, trial)
        )

    def _decide(self, trial: int, arrival: Arrival) -> None:
        bracket, epoch = arrival.place
        rung = self._arrive(trial, epoch, arrival.metrics)
        generator = np.random.default_rng([self.seed, bracket, epoch, len(rung.metrics)])
        goes_on = arrival.last or self.newest_goes_on(rung, generator)
        self.log(Decision(trial, epoch, arrival.metrics, goes_on))
        self.decided[trial, epoch] = goes_on

    @property
    def seed(self) -> int:
        return int(self.sweep.file.search.seed)

    def bracket(self, trial: int) -> int:
        """How many rungs a trial is spared. Each bracket takes one in eta as many trials as the one
        before it, as its trials take up to eta times as long; drawn by the trial's number, so that it has
        nothing to do with the trial's configuration."""
        shares = self.stopping.reduction_factor ** -np.arange(self.stopping.brackets, dtype=np.float64)
        generator = np.random.default_rng([self.seed, trial])
        return int(generator.choice(len(shares), p=shares / shares.sum()))

    def newest_goes_on(self, rung: Rung, generator: np.random.Generator) -> bool:
        """The rule at the head of this file, for the trial that arrived last."""
        count, eta = len(rung.metrics), self.stopping.reduction_factor
        if count < eta or (self.pareto.constraints and self.baseline is None):
            return True
        self._compare(rung)
        if count < self.stopping.protect and rung.fronts.front[-1] == 0:
            return True
        room = math.ceil(count / eta)
        return rung.fronts.among_first(count - 1, room, self.stopping.within, generator)

    def costs(self, metrics: Metrics) -> list[float]:
        """The objectives with the sign of maximised ones turned, so that smaller is better."""
        of = dict(zip(self.pareto.metrics, self.pareto.directions, strict=True))
        directions = [of[name] for name in self.objectives]
        return list(as_costs([metrics[name] for name in self.objectives], directions)[0])

    def _arrive(self, trial: int, epoch: int, metrics: Metrics) -> Rung:
        place = self.bracket(trial), epoch
        rung = self.rungs.setdefault(place, Rung(Fronts(len(self.objectives))))
        rung.metrics.append(metrics)
        return rung

    def _compare(self, rung: Rung) -> None:
        """Brings the fronts up to date with all that arrived."""
        for metrics in rung.metrics[len(rung.fronts) :]:
            violation = total_violation(self.sweep, metrics, self.baseline or {})
            rung.fronts.add(self.costs(metrics), violation)


class Unfinished:
    """The trials that were begun and have no worker, lowest number first: those that wait for others, and
    those that an earlier driver left."""

    def __init__(self, halving: Halving | None, trials: Iterable[TrialRecord] = ()) -> None:
        self.halving, self.trials = halving, sorted(trials, key=lambda trial: trial.number)

    def add(self, trial: TrialRecord) -> None:
        insort(self.trials, trial, key=lambda each: each.number)

    def take(self) -> TrialRecord | None:
        """The first that goes on, which is given a worker; None if there is none."""
        for trial in self.trials:
            if self._goes_on(trial):
                self.trials.remove(trial)
                return trial
        return None

    def stopped(self) -> Iterator[TrialRecord]:
        """Those that do not go on. Each is to be ended before the next is asked for: it may depend on it."""
        for trial in self.trials.copy():
            if self._goes_on(trial) is False:
                self.trials.remove(trial)
                yield trial

    def _goes_on(self, trial: TrialRecord) -> bool | None:
        return True if self.halving is None else self.halving.follow(trial)


def not_finite(pareto: ParetoConfig, metrics: Metrics) -> list[str]:
    """The metrics for whose sake a trial has failed; some are not measured after each epoch."""
    return [name for name in pareto.deciding if not math.isfinite(metrics.get(name, 0.0))]


def ending(record: TrialRecord, result: Report | None, pareto: ParetoConfig) -> tuple[Status, str | None]:
    """How a trial ended, from its last report; None if its worker was lost for good."""
    if result is None and was_stuck(record.stuck_file):
        return "failed", "an epoch took longer than resources.epoch_minutes, again and again; see stuck.txt"
    if result is None:
        return "failed", "the worker failed more often than a trial is restarted; see error.txt"
    if result["failed"]:
        return "failed", str(result["failed"])
    if broken := not_finite(pareto, result):
        return "failed", f"{broken[0]} is {result[broken[0]]} after epoch {result['epoch']}"
    if result["epoch"] < record.last_epoch:
        return "stopped", f"stopped early after epoch {result['epoch']}"
    return "completed", None


def stopped(record: TrialRecord, pareto: ParetoConfig) -> tuple[Status, str | None]:
    """How a trial that has no worker ended when it was decided that it does not go on."""
    last = record.epochs[-1]
    return ending(record, {**last["metrics"], "epoch": last["epoch"], "failed": None}, pareto)


def of_run(run: Run) -> Halving | None:
    """The early stopping of a run as its earlier drivers left it; None if it has none.

    What they decided and did not carry out, and what was reported and not decided on (trials in the order
    of their numbers), is made good: a trial that has to end has ended after this, and takes no worker.
    Those that wait for others still do.
    """
    if run.spec.file.search.early_stopping is None:
        return None
    halving = Halving(run.spec, baseline=run.baseline(), past=run.decisions(), log=run.add_decision)
    for trial in run.trials():
        goes_on = halving.follow(trial) if trial.status in ("unfinished", "completed") else False
        if trial.status == "unfinished" and goes_on is False:
            run.end_trial(trial, *stopped(trial, run.spec.file.pareto))
        if trial.status != "unfinished" or goes_on is False:
            halving.end(trial.number)
    return halving
