"""The epochs of a trial that may stand on the front: their weights are kept, those of others are not.

Robust accuracy and calibration peak at different epochs, so a trial is not its last epoch alone. Of the
epochs that no other epoch of the trial dominates at most `pareto.epochs` are kept, those that spread best
over the objectives. What is kept is decided after every epoch, among those kept before and the new one; so a
trial never has more than one file beyond the bound.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from sweeper.front import judged
from sweeper.ranking import Fronts
from sweeper.run import Run
from sweeper.spec import SweepSpec
from sweeper.trial import Metrics, TrialRecord


def chosen(sweep: SweepSpec, epochs: Sequence[dict[str, Any]], baseline: Metrics | None) -> list[int]:
    """The epochs to keep of those given, ascending.

    epochs: `epoch` and `metrics` of each.  baseline: the untrained model's; constraints do not count as
    long as it is not known. Deterministic, and of equal epochs the first is kept.
    """
    pareto, fronts = sweep.file.pareto, Fronts(len(sweep.file.pareto.metrics))
    distinct = list({tuple(e["metrics"][n] for n in pareto.metrics): e for e in reversed(epochs)}.values())
    for costs, violation in zip(*judged(sweep, [e["metrics"] for e in distinct], baseline), strict=True):
        fronts.add(costs, violation)
    if not distinct:
        return []
    order = fronts.members(0, "epsilon_net", np.random.default_rng(0))
    return sorted(distinct[index]["epoch"] for index in order[: pareto.epochs])


def tidy(run: Run, trial: TrialRecord, baseline: Metrics | None) -> TrialRecord:
    """Takes away the weights of epochs that are not to be kept; of a trial that has ended, also what its
    training would have gone on from. Returns what the trial is then. Where there are constraints nothing is
    taken away before the untrained model is known, to which they may be relative."""
    if baseline is None and run.spec.file.pareto.constraints:
        return trial
    keep = trial.wanted or followed(run.spec, trial, baseline)
    gone = [point.weights for point in trial.points if point.epoch not in keep]
    if trial.status != "unfinished" and trial.kept:
        gone += trial.checkpoints
    run.storage.remove(*gone)
    return replace(trial, kept=[epoch for epoch in trial.kept if epoch in keep])


def followed(sweep: SweepSpec, trial: TrialRecord, baseline: Metrics | None) -> list[int]:
    """The epochs to keep if they are looked at one by one, as they came: of a worker that was lost, two may
    be new at once."""
    held: list[int] = []
    for point in trial.points:
        held = chosen(sweep, [trial.point(epoch).report for epoch in (*held, point.epoch)], baseline)
    return held


def bound(sweep: SweepSpec) -> str:
    """How many files of weights a sweep can leave on disk, and has at most while it runs."""
    search, each = sweep.file.search, min(sweep.file.pareto.epochs, sweep.max_epochs())
    again = f", and of each further training of those on the front ({search.seeds - 1} for a trial)"
    return (
        f"on disk: weights of at most {each} epochs of each trial{again if search.seeds > 1 else ''}, "
        f"{search.trials * search.seeds * each} files in all; while a trial runs, one more and twice "
        "what its training goes on from, with the optimiser's state"
    )
