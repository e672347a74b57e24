"""Syne Tune's MOASHA as released, answering on standard input and output; see benchmarks/peers.py.

Runs in an environment of its own, which needs nothing but `syne-tune`. Every line is a JSON object:

    {"new": {"space", "metrics", "epochs", "seed"}}     a new scheduler; no answer
    {"suggest": number}                                 -> {"config": {...}}
    {"trial", "epoch", "metrics", "last"}               -> {"goes_on": bool}

space: {parameter: list of options, or {"low", "high", "log", "integer"}}. Metrics are all minimised.
"""

from __future__ import annotations

import json
import sys
from datetime import datetime
from typing import Any

import numpy as np
from syne_tune import config_space
from syne_tune.backend.trial_status import Trial
from syne_tune.optimizer.schedulers.multiobjective.moasha import MOASHA


def domain(values: Any) -> Any:
    if isinstance(values, list):
        return config_space.choice(values)
    kind = ("log" if values["log"] else "") + ("randint" if values["integer"] else "uniform")
    return getattr(config_space, kind)(values["low"], values["high"])


class Peer:
    """One run of the scheduler."""

    def __init__(self, space: dict[str, Any], metrics: list[str], epochs: int, seed: int) -> None:
        np.random.seed(seed)  # it draws configurations and brackets from the global generator
        self.scheduler = MOASHA(
            {name: domain(values) for name, values in space.items()},
            metrics=metrics,
            time_attr="epoch",
            max_t=epochs,
            random_seed=seed,
        )
        self.trials: dict[int, Trial] = {}

    def suggest(self, number: int) -> dict[str, Any]:
        suggestion = self.scheduler.suggest()
        self.trials[number] = Trial(number, suggestion.config, datetime.now())
        self.scheduler.on_trial_add(self.trials[number])
        return {"config": suggestion.config}

    def report(self, number: int, epoch: int, metrics: dict[str, float], last: bool) -> dict[str, Any]:
        result = {**metrics, "epoch": epoch}
        if last:
            self.scheduler.on_trial_complete(self.trials[number], result)
            return {"goes_on": False}
        decision = self.scheduler.on_trial_result(self.trials[number], result)
        if decision != "CONTINUE":
            self.scheduler.on_trial_remove(self.trials[number])
        return {"goes_on": decision == "CONTINUE"}


def main() -> None:
    peer: Any = None
    for line in sys.stdin:
        message = json.loads(line)
        if "new" in message:
            peer = Peer(**message["new"])
            continue
        if "suggest" in message:
            answer = peer.suggest(message["suggest"])
        else:
            answer = peer.report(message["trial"], message["epoch"], message["metrics"], message["last"])
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
