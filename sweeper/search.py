"""The search: asks for configurations, tells what became of them, and keeps both in an Optuna study on disk.

The sampler is the forest, see `sweeper.forest`, or one of Optuna's. It knows the result of every trial that
has ended. Of those that run, the forest knows the epochs that they have reported; TPE and the Gaussian
process keep off their points; NSGA-II breeds from ended trials alone. Its random numbers come from the
sweep's seed and the trial's number.

With `search.deterministic` what is drawn does not depend on timing either. Trial n is drawn when trials 0 to
n - lag have ended, and the sampler knows the results of exactly these, told in order. So the same sweep gives
the same configurations on any number of interruptions, as long as `concurrent` (the lag) stays the same and
trials give the same results.
"""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, Trial, TrialState

from sweeper import space
from sweeper.files import drop_torn_line
from sweeper.forest import Forest
from sweeper.hashes import stable_hash, trial_seed
from sweeper.run import Run
from sweeper.spec import SweepSpec
from sweeper.tree import Choice, Range
from sweeper.trial import Metrics, TrialRecord

optuna.logging.set_verbosity(optuna.logging.ERROR)
warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)

NUMBER = "number"
WARM = "from"
LEARNED_FROM = 1000
"""Trials that TPE and the Gaussian process look at, the latest: what they take for a draw grows with them."""


@dataclass(frozen=True)
class Suggestion:
    """A drawn trial: its number, resolved configuration, what of it was drawn, training seed."""

    number: int
    config: dict[str, Any]
    drawn: dict[str, Any]
    seed: int


class Search:
    """Ask and tell for one run. Everything is in the study on disk; opening it again goes on.

    journal: the study's file; None keeps it in memory.  lag: by how much the sampler's knowledge is older
    than what it draws in a deterministic sweep.  baseline: the untrained model's metrics, to be set once they
    are known; nothing is told before, as constraints may be relative to them.  known: the trials that the run
    folder already holds.  warm: trials of earlier runs, see `sweeper.warm`.
    """

    def __init__(
        self,
        sweep: SweepSpec,
        journal: Path | None,
        *,
        name: str,
        lag: int,
        baseline: Metrics | None,
        known: Sequence[TrialRecord] = (),
        warm: Sequence[dict[str, Any]] = (),
    ) -> None:
        self.sweep, self.lag, self.baseline = sweep, lag, baseline
        if journal is not None:
            mend(journal)
        self.study = optuna.create_study(
            study_name=name,
            storage=journal and JournalStorage(JournalFileBackend(str(journal))),
            directions=sweep.file.pareto.directions,
            load_if_exists=True,
        )
        self.study.set_metric_names(sweep.file.pareto.metrics)
        self.next = len(known)
        self.fixed = itertools.islice(sweep.fixed(), self.next, None)
        self.ended: dict[int, TrialRecord] = {t.number: t for t in known if t.status != "unfinished"}
        self._drop_torn_trials()
        self.warm = bool(warm)
        self._warm(warm)
        self.forest = Forest(sweep) if sweep.file.search.sampler == "forest" else None
        if self.forest:
            self._remember(self.forest, known, warm)

    def ask(self) -> Suggestion | None:
        """The next configuration. None if it has to wait for results of earlier trials, or for the untrained
        model's, without which these can't be told: in a deterministic sweep only."""
        number = self.next
        ready = number - 1
        if self.sweep.file.search.deterministic:
            ready = number - self.lag
            known = ready >= 0 or self.warm
            if (known and self.baseline is None) or any(n not in self.ended for n in range(ready + 1)):
                return None
            self._tell_up_to(ready)
        elif self.baseline is not None:
            self._tell_up_to(ready)
        self.study.sampler = self._sampler(number)
        fixed = next(self.fixed) or {}
        if self.forest:
            fixed = self.forest.draw(number, ready, self.baseline, fixed) or fixed
        if fixed:
            self.study.enqueue_trial(fixed, user_attrs={NUMBER: number})
        trial = self.study.ask()
        trial.set_user_attr(NUMBER, number)
        resolved = space.resolve(self.sweep.space, lambda name, d: suggest(trial, name, d))
        if self.forest:
            self.forest.add(number, trial.params)
        self.next += 1
        config = self.sweep.trial(resolved.value)
        return Suggestion(number, config, resolved.drawn, trial_seed(self.sweep.file.search.seed, config))

    def report(self, trial: int, epoch: int, metrics: Metrics) -> None:
        """Takes note of what a trial has reached after an epoch, which only the forest learns from."""
        if self.forest:
            self.forest.observe(trial, epoch, metrics)

    def end(self, trial: TrialRecord) -> None:
        """Takes note of how a trial ended; the sampler is told before it draws the next, or, in a
        deterministic sweep, when its turn comes."""
        self.ended[trial.number] = trial
        if self.forest:
            self.forest.end(trial)

    def finish(self) -> None:
        """Tells the sampler everything that is known."""
        self._tell_up_to(self.next - 1)

    def _warm(self, trials: Sequence[dict[str, Any]]) -> None:
        """Adds what of them the study lacks, before it is asked for the first trial."""
        parameters = space.distributions(self.sweep.space) if trials else {}
        pareto = self.sweep.file.pareto
        present = sum(WARM in trial.user_attrs for trial in self.study.get_trials(deepcopy=False))
        for trial in trials[present:]:
            metrics, untrained = trial["metrics"], trial["baseline"]
            self.study.add_trial(
                optuna.trial.create_trial(
                    values=[metrics[name] for name in pareto.metrics],
                    params=trial["point"],
                    distributions={name: optuna_distribution(parameters[name]) for name in trial["point"]},
                    constraints={
                        str(c): c.violation(metrics[c.metric], untrained[c.metric])
                        for c in pareto.constraints
                    },
                    user_attrs={WARM: trial["from"]},
                )
            )

    def _remember(self, forest: Forest, known: Sequence[TrialRecord], warm: Sequence[dict[str, Any]]) -> None:
        """What earlier drivers and earlier runs have seen. The latter's trials get numbers below 0."""
        for trial in self.study.get_trials(deepcopy=False):
            if trial.user_attrs.get(NUMBER, self.next) < self.next:
                forest.add(trial.user_attrs[NUMBER], trial.params)
        for record in known:
            forest.end(record)
        for index, earlier in enumerate(warm):
            forest.add(-1 - index, earlier["point"])
            forest.observe(-1 - index, forest.last(earlier["point"]), earlier["metrics"])

    def _tell_up_to(self, last: int) -> None:
        """In order of the trials' numbers."""
        waiting = {
            t.user_attrs[NUMBER]: t.number
            for t in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
            if NUMBER in t.user_attrs
        }
        for number in sorted(waiting):
            if number <= last and number in self.ended:
                self._tell(waiting[number], self.ended[number])

    def _tell(self, optuna_number: int, record: TrialRecord) -> None:
        if record.status != "completed" or record.metrics is None:
            # what was stopped early has no value at full training: telling one would mislead
            state = TrialState.PRUNED if record.status == "stopped" else TrialState.FAIL
            self.study.tell(optuna_number, state=state)
            return
        metrics = record.metrics
        trial_id = self.study._storage.get_trial_id_from_study_id_trial_number(
            self.study._study_id, optuna_number
        )
        for constraint in self.sweep.file.pareto.constraints:
            baseline = (self.baseline or {})[constraint.metric]
            violation = constraint.violation(metrics[constraint.metric], baseline)
            Trial(self.study, trial_id).set_constraint(str(constraint), violation)
        values = [metrics[name] for name in self.sweep.file.pareto.metrics]
        if all(math.isfinite(value) for value in values):
            self.study.tell(optuna_number, values)
        else:
            self.study.tell(optuna_number, state=TrialState.FAIL)

    def _drop_torn_trials(self) -> None:
        """Fails what was being drawn when an earlier driver died, before its trial was written."""
        for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING, TrialState.WAITING)):
            if trial.user_attrs.get(NUMBER, self.next) >= self.next:
                # tell() refuses a trial that is still waiting to be asked for
                self.study._storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)

    def _sampler(self, number: int) -> optuna.samplers.BaseSampler:
        search = self.sweep.file.search
        seed = stable_hash(search.seed, "sampler", number) % 2**32
        if search.sampler in ("forest", "random", "grid"):  # what is not fixed; of a grid, nothing
            return optuna.samplers.RandomSampler(seed=seed)
        if search.sampler == "nsga2":
            return optuna.samplers.NSGAIISampler(seed=seed, population_size=max(4, search.trials // 4))
        if search.sampler == "gp":
            gp = optuna.samplers.GPSampler(
                seed=seed, n_startup_trials=search.startup_trials, warn_independent_sampling=False
            )
            return Latest(gp)
        return Latest(
            optuna.samplers.TPESampler(
                seed=seed, n_startup_trials=search.startup_trials, multivariate=True, group=True
            )
        )


class Latest(optuna.samplers.BaseSampler):
    """A sampler that looks at the latest trials of a study, `LEARNED_FROM` of them. While there are no more,
    it draws what it would draw by itself."""

    def __init__(self, sampler: optuna.samplers.BaseSampler) -> None:
        self.sampler = sampler

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, Any]:
        return self.sampler.infer_relative_search_space(Recent(study), trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, Any]
    ) -> dict[str, Any]:
        return self.sampler.sample_relative(Recent(study), trial, search_space)

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: optuna.distributions.BaseDistribution,
    ) -> Any:
        return self.sampler.sample_independent(Recent(study), trial, param_name, param_distribution)


class Recent(optuna.Study):
    """A study, but with no trials before the latest `LEARNED_FROM`."""

    def __init__(self, study: optuna.Study) -> None:
        self.__dict__.update(study.__dict__)

    def _get_trials(self, *arguments: Any, **named: Any) -> list[FrozenTrial]:
        return super()._get_trials(*arguments, **named)[-LEARNED_FROM:]


def mend(journal: Path) -> None:
    """Takes away what a driver that died while it wrote has left: half a line, which no reader would get
    past once another one follows it, and the lock. Only one driver writes at a time."""
    journal.with_name(f"{journal.name}.lock").unlink(missing_ok=True)
    if journal.exists():
        drop_torn_line(journal)


def of_run(run: Run, concurrent: int) -> Search:
    """The search of a run as its earlier drivers left it. concurrent: trials side by side."""
    return Search(
        run.spec,
        run.journal,
        name=run.id,
        lag=2 * concurrent,  # so that trials of equal length wait for no other
        baseline=run.baseline(),
        known=run.outlines(),
        warm=run.warm_start()["trials"],
    )


def suggest(trial: Trial, name: str, distribution: Choice | Range) -> Any:
    """The sampler's value for one parameter: an option's label, or a number."""
    if isinstance(distribution, Choice):
        return trial.suggest_categorical(name, space.labels(distribution))
    if distribution.integer:
        return trial.suggest_int(name, int(distribution.low), int(distribution.high))
    return trial.suggest_float(name, distribution.low, distribution.high, log=distribution.log)


def optuna_distribution(distribution: Choice | Range) -> optuna.distributions.BaseDistribution:
    """What `suggest` draws from."""
    if isinstance(distribution, Choice):
        return optuna.distributions.CategoricalDistribution(space.labels(distribution))
    if distribution.integer:
        return optuna.distributions.IntDistribution(int(distribution.low), int(distribution.high))
    return optuna.distributions.FloatDistribution(distribution.low, distribution.high, log=distribution.log)
