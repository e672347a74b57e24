"""Ways to tell the sampler of stopped trials that `Search` does not have, for benchmarks/search.py."""

from __future__ import annotations

from dataclasses import replace

import optuna
from optuna.trial import TrialState

from sweeper.pareto import as_costs, non_dominated
from sweeper.search import Search
from sweeper.trial import TrialRecord


class LeftOut(Search):
    """A stopped trial says nothing: Optuna leaves failed trials out."""

    def _tell(self, optuna_number: int, record: TrialRecord) -> None:
        if record.status == "stopped":
            self.study.tell(optuna_number, state=TrialState.FAIL)
        else:
            super()._tell(optuna_number, record)


class OwnFronts(Search):
    """Every trial, stopped or not, is told as the non-dominated of its epochs, each a point of its own."""

    def _tell(self, optuna_number: int, record: TrialRecord) -> None:
        pareto = self.sweep.file.pareto
        values = [[epoch["metrics"][name] for name in pareto.metrics] for epoch in record.epochs]
        if not values:  # it has failed
            super()._tell(optuna_number, record)
            return
        member = non_dominated(as_costs(values, pareto.directions))
        points = [epoch for epoch, inside in zip(record.epochs, member, strict=True) if inside]
        for epoch in points[1:]:
            asked = self.study.get_trials(deepcopy=False)[optuna_number]
            untrained, metrics = self.baseline or {}, epoch["metrics"]
            self.study.add_trial(
                optuna.trial.create_trial(
                    values=[metrics[name] for name in pareto.metrics],
                    params=asked.params,
                    distributions=asked.distributions,
                    constraints={
                        str(c): c.violation(metrics[c.metric], untrained[c.metric])
                        for c in pareto.constraints
                    },
                )
            )
        for epoch in points[:1]:
            super()._tell(optuna_number, replace(record, epochs=[epoch], status="completed"))
