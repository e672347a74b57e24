"""The second stage of a sweep: the configurations on the front are trained again with other seeds.

`search.seeds: k` makes k trainings of each, the search's own included. They have the trial's
configuration, no early stopping, and end after the last epoch that is a candidate.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from sweeper.hashes import trial_seed
from sweeper.run import Run
from sweeper.trial import Metrics, Point, Stage, TrialRecord


def unfinished(run: Run, candidates: Sequence[Point]) -> Iterator[TrialRecord]:
    """What is still to be trained for these points; added to the run folder where it is not there."""
    wanted: dict[str, list[int]] = {}
    for point in candidates:
        wanted.setdefault(point.trial.id, []).append(point.epoch)
    trials = {point.trial.id: point.trial for point in candidates}
    for name, epochs in wanted.items():
        trial, known = trials[name], run.seeds(trials[name])
        for index in range(1, run.spec.file.search.seeds):
            twin = known[index - 1] if index <= len(known) else None
            if twin is None or not set(epochs) <= set(twin.wanted):
                seed = trial_seed(run.spec.file.search.seed, trial.config, index)
                twin = run.add_seed(trial, index, seed, sorted({*epochs, *(twin.wanted if twin else ())}))
            if twin.status == "unfinished":
                yield twin


def twins(point: Point, trainings: Sequence[TrialRecord]) -> list[Point]:
    """The point in those of the trial's trainings with other seeds, see `Run.seeds`, that came so far; those
    that failed are left out."""
    return [
        twin.point(point.epoch)
        for twin in trainings
        if twin.status == "completed" and len(twin.epochs) >= point.epoch
    ]


def spread(run: Run, point: Point) -> dict[str, Any] | None:
    """Of a point over all seeds that it was trained with: `count`, `failed`, and by stage and metric `mean`
    and `sd`, the standard deviation of a single seed (n - 1 degrees of freedom). None with a single seed."""
    others = run.seeds(point.trial)
    if not others:
        return None
    trainings = [point, *twins(point, others)]
    found: dict[str, Any] = {
        "count": len(trainings),
        "failed": sum(twin.status == "failed" for twin in others),
    }
    stages: tuple[Stage, Stage] = ("validation", "test")
    for stage in stages:
        values = [run.measured(each, stage) for each in trainings]
        known = [measured["metrics"] for measured in values if measured is not None]
        found[stage] = statistics(run.spec.file.pareto.deciding, known) if len(known) > 1 else None
    return found


def statistics(names: Sequence[str], seeds: Sequence[Metrics]) -> dict[str, dict[str, float]]:
    table = {name: [metrics[name] for metrics in seeds] for name in names}
    return {
        name: {"mean": float(np.mean(values)), "sd": float(np.std(values, ddof=1))}
        for name, values in table.items()
    }
