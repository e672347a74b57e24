"""The epochs of a trial that may stand on the front: their weights are kept, those of others are not.

Robust accuracy and calibration peak at different epochs, so a trial is not its last epoch alone. Of the
epochs that no other epoch of the trial dominates at most `pareto.epochs` are kept, those that spread best
over the objectives. What is kept is decided after every epoch, among those kept before and the new one; so a
trial never has more than one file beyond the bound.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sweeper.front import total_violation
from sweeper.pareto import as_costs
from sweeper.ranking import Fronts
from sweeper.run import Metrics, Run, TrialRecord
from sweeper.spec import SweepSpec


def chosen(sweep: SweepSpec, epochs: Sequence[dict[str, Any]], baseline: Metrics | None) -> list[int]:
    """The epochs to keep of those given, ascending.

    epochs: `epoch` and `metrics` of each.  baseline: the untrained model's; constraints do not count as
    long as it is not known. Deterministic, and of equal epochs the first is kept.
    """
    pareto, fronts = sweep.file.pareto, Fronts(len(sweep.file.pareto.metrics))
    distinct = list({tuple(e["metrics"][n] for n in pareto.metrics): e for e in reversed(epochs)}.values())
    for epoch in distinct:
        values = [epoch["metrics"][name] for name in pareto.metrics]
        violation = total_violation(sweep, epoch["metrics"], baseline) if baseline else 0.0
        fronts.add(as_costs(values, pareto.directions)[0], violation)
    if not distinct:
        return []
    order = fronts.members(0, "epsilon_net", np.random.default_rng(0))
    return sorted(distinct[index]["epoch"] for index in order[: pareto.epochs])


def tidy(run: Run, trial: TrialRecord, baseline: Metrics | None) -> None:
    """Takes away the weights of epochs that are not to be kept; of a trial that has ended, also what its
    training would have gone on from."""
    keep = trial.wanted or chosen(run.spec, [point.report for point in trial.points], baseline)
    for point in trial.points:
        if point.epoch not in keep:
            point.weights.unlink(missing_ok=True)
    if trial.status != "unfinished":
        checkpoint(trial.folder).unlink(missing_ok=True)


def checkpoint(folder: Path) -> Path:
    return folder / "checkpoint.safetensors"


def bound(sweep: SweepSpec) -> str:
    """How many files of weights a sweep can leave on disk, and has at most while it runs."""
    trials, pareto = sweep.file.search.trials, sweep.file.pareto
    each = min(pareto.epochs, sweep.max_epochs())
    return (
        f"on disk: weights of at most {each} epochs of each trial, {trials * each} files in all; while a "
        "trial runs, one more and what its training goes on from, with the optimiser's state"
    )
