"""The peers that benchmarks/search.py compares with, behind the two interfaces that the simulator drives."""

from __future__ import annotations

import json
import subprocess
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna

from sweeper import space
from sweeper.hashes import stable_hash, trial_seed
from sweeper.pareto import as_costs
from sweeper.search import Search, Suggestion
from sweeper.spec import SweepSpec
from sweeper.tree import Choice
from sweeper.trial import Metrics, TrialRecord

SERVER = Path(__file__).with_name("moasha.py")


class OptunaDefaults(Search):
    """Optuna's samplers with the settings that they have by default. `Search` tells them constraints."""

    def _sampler(self, number: int) -> optuna.samplers.BaseSampler:
        seed = stable_hash(self.sweep.file.search.seed, "sampler", number) % 2**32
        if self.sweep.file.search.sampler == "nsga2":
            return optuna.samplers.NSGAIISampler(seed=seed)
        return optuna.samplers.TPESampler(seed=seed)


class Asha:
    """Ray's own asynchronous successive halving, by one objective."""

    def __init__(self, sweep: SweepSpec, metric: str, reduction_factor: float) -> None:
        from ray.tune.schedulers import AsyncHyperBandScheduler

        self.scheduler = AsyncHyperBandScheduler(
            time_attr="epoch",
            metric=metric,
            mode="max",
            max_t=sweep.max_epochs(),
            reduction_factor=reduction_factor,
        )
        self.trials: dict[int, SimpleNamespace] = {}

    def record(self, trial: int, epoch: int, metrics: Metrics, *, last: bool = False) -> bool:
        """As `sweeper.halving.Halving.record`."""
        if trial not in self.trials:
            self.trials[trial] = SimpleNamespace(trial_id=str(trial))  # all of a trial that is looked at
            self.scheduler.on_trial_add(None, self.trials[trial])
        result = {**metrics, "epoch": epoch}
        if last:
            self.scheduler.on_trial_complete(None, self.trials[trial], result)
            return True
        goes_on = self.scheduler.on_trial_result(None, self.trials[trial], result) == "CONTINUE"
        if not goes_on:
            self.scheduler.on_trial_remove(None, self.trials[trial])
        return goes_on


class Moasha:
    """Syne Tune's MOASHA in its own environment: what it draws, and what it stops."""

    def __init__(self, sweep: SweepSpec, python: Path) -> None:
        self.sweep, self.next, self.server = sweep, 0, server(python)
        parameters = space.distributions(sweep.space)
        new = {
            "space": {name: plain(distribution) for name, distribution in parameters.items()},
            "metrics": sweep.file.pareto.metrics,
            "epochs": sweep.max_epochs(),
            "seed": sweep.file.search.seed,
        }
        self._send({"new": new})

    def ask(self) -> Suggestion:
        """As `Search.ask`. What a method does not have is drawn for it, too, and left out here."""
        number, self.next = self.next, self.next + 1
        drawn = self._answer({"suggest": number})["config"]
        resolved = space.resolve(self.sweep.space, lambda name, _: drawn[name])
        config = self.sweep.trial(resolved.value)
        return Suggestion(number, config, resolved.drawn, trial_seed(self.sweep.file.search.seed, config))

    def record(self, trial: int, epoch: int, metrics: Metrics, *, last: bool = False) -> bool:
        """As `sweeper.halving.Halving.record`."""
        pareto = self.sweep.file.pareto
        costs = as_costs([metrics[name] for name in pareto.metrics], pareto.directions)[0].tolist()
        signed = dict(zip(pareto.metrics, costs, strict=True))
        return bool(
            self._answer({"trial": trial, "epoch": epoch, "metrics": signed, "last": last})["goes_on"]
        )

    def report(self, trial: int, epoch: int, metrics: Metrics) -> None:
        """Nothing: see `record`."""

    def end(self, trial: TrialRecord) -> None:
        """Nothing: it has seen the trial's reports."""

    def finish(self) -> None:
        """Nothing: see `end`."""

    def _send(self, message: dict[str, Any]) -> None:
        assert self.server.stdin
        self.server.stdin.write(json.dumps(message) + "\n")
        self.server.stdin.flush()

    def _answer(self, message: dict[str, Any]) -> dict[str, Any]:
        self._send(message)
        assert self.server.stdout
        answer: dict[str, Any] = json.loads(self.server.stdout.readline())
        return answer


def plain(distribution: Any) -> Any:
    """As moasha.py takes it."""
    if isinstance(distribution, Choice):
        return space.labels(distribution)
    return {name: getattr(distribution, name) for name in ("low", "high", "log", "integer")}


@cache
def server(python: Path) -> subprocess.Popen[str]:
    """One process for all runs: importing Syne Tune takes longer than a run."""
    return subprocess.Popen(
        [str(python), str(SERVER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
