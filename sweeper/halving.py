"""Early stopping: multi-objective asynchronous successive halving (arXiv 2106.12639). No Ray in here.

Rungs are at the epochs grace, grace * eta, grace * eta², ... before the last. A trial that reaches a rung
is compared at once with the n trials that are there, itself included, and goes on if it is one of the
first n / eta, rounded up, in the order of `sweeper.ranking`. It goes on in any case

* while there are fewer than eta trials;
* as a member of the first front that keeps the constraints, while n < eta ** m for m objectives. Of so
  many points of independent objectives about as many are non-dominated as may go on (for eta 3, 2.8 of 9,
  8.4 of 27, 25 of 81), and of fewer points more than may go on. With one objective it is the rule above;
* while there are constraints and the untrained model, which they may be relative to, has not been
  measured: the trial is recorded, and those that come after the measurement are compared with it.

Nobody is called back: a trial that was stopped stays so. What is decided depends on the order in which
trials arrive, on their metrics and on the sweep's seed; the past decisions, in their order, are all the
state there is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sweeper.front import total_violation
from sweeper.pareto import as_costs
from sweeper.ranking import Fronts
from sweeper.run import Decision, Metrics, Run, Status, TrialRecord
from sweeper.spec import EarlyStopping, ParetoConfig, SweepSpec

Report = dict[str, Any]
"""What a trial reports after an epoch: its metrics, `epoch`, and `failed`, the reason if it has."""


@dataclass
class Rung:
    """The trials that reached it, in order of arrival; those of them that were compared are in `fronts`."""

    fronts: Fronts
    metrics: list[Metrics] = field(default_factory=list)


class Halving:
    """Decides which trials of a sweep with `early_stopping` go on.

    baseline: the untrained model's metrics, to be set once they are known.
    past: the decisions of earlier drivers; they stand, and count.  log: is given each new decision before
    it takes effect.
    """

    def __init__(
        self,
        sweep: SweepSpec,
        *,
        baseline: Metrics | None = None,
        past: Iterable[Decision] = (),
        log: Callable[[Decision], None] = lambda _: None,
    ) -> None:
        self.sweep, self.baseline, self.log = sweep, baseline, log
        self.pareto: ParetoConfig = sweep.file.pareto
        assert sweep.file.search.early_stopping is not None
        self.stopping: EarlyStopping = sweep.file.search.early_stopping
        self.objectives = self.stopping.metrics or self.pareto.metrics
        self.epochs = sweep.rungs()
        self.rungs: dict[tuple[int, int], Rung] = {}
        self.decided: dict[tuple[int, int], bool] = {}
        for decision in past:
            self._arrive(decision.trial, decision.epoch, decision.metrics)
            self.decided[decision.trial, decision.epoch] = decision.goes_on

    def record(self, trial: int, epoch: int, metrics: Metrics, *, last: bool = False) -> bool:
        """Whether a trial goes on after an epoch. Asked again, it answers the same.

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
        rung = self._arrive(trial, epoch, known)
        generator = np.random.default_rng([self.seed, bracket, epoch, len(rung.metrics)])
        goes_on = last or self.newest_goes_on(rung, generator)
        self.log(Decision(trial, epoch, known, goes_on))
        self.decided[trial, epoch] = goes_on
        return goes_on

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
        fronts, newest = rung.fronts, count - 1
        first = fronts.front[newest] == 0 and fronts.violation[newest] == 0
        if first and count < eta ** len(self.objectives):
            return True
        return fronts.among_first(newest, math.ceil(count / eta), self.stopping.within, generator)

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


def not_finite(pareto: ParetoConfig, metrics: Metrics) -> list[str]:
    """The metrics for whose sake a trial has failed."""
    return [name for name in pareto.deciding if not math.isfinite(metrics[name])]


def ending(record: TrialRecord, result: Report | None, pareto: ParetoConfig) -> tuple[Status, str | None]:
    """How a trial ended, from its last report; None if its worker was lost for good."""
    if result is None:
        return "failed", "the worker failed more often than a trial is restarted; see error.txt"
    if result["failed"]:
        return "failed", str(result["failed"])
    if broken := not_finite(pareto, result):
        return "failed", f"{broken[0]} is {result[broken[0]]} after epoch {result['epoch']}"
    if result["epoch"] < record.last_epoch:
        return "stopped", f"stopped early after epoch {result['epoch']}"
    return "completed", None


def of_run(run: Run) -> Halving | None:
    """The early stopping of a run as its earlier drivers left it; None if it has none.

    What they decided and did not carry out, and what was reported and not decided on (trials in the order
    of their numbers), is made good: a trial that has to end has ended after this, and takes no worker.
    """
    if run.spec.file.search.early_stopping is None:
        return None
    halving = Halving(run.spec, baseline=run.baseline(), past=run.decisions(), log=run.add_decision)
    for trial in run.trials():
        for epoch in trial.epochs if trial.status == "unfinished" else ():
            last = epoch["epoch"] >= trial.config["epochs"]
            if not halving.record(trial.number, epoch["epoch"], epoch["metrics"], last=last):
                report = {**epoch["metrics"], "epoch": epoch["epoch"], "failed": None}
                run.end_trial(trial, *ending(trial, report, run.spec.file.pareto))
                break
    return halving
