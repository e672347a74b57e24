"""How probable it is that a model is Pareto-optimal, from per-image records. See `sweeper.membership`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sweeper import front, membership, seeds
from sweeper.pareto import as_costs, fronts
from sweeper.run import Run
from sweeper.spec import ParetoConfig, SweepSpec
from sweeper.trainable import Resampled
from sweeper.trial import Metrics, Point, TrialRecord

Array = NDArray[np.float64]

DRAWS = 1000
"""Samples of the images for P(optimal), whose standard error they make at most 1.6 points."""
COMPARED = 300
"""Points that are compared, of more those on the first fronts; the others have no chance."""


@dataclass(frozen=True)
class Optimality:
    """Probability of being Pareto-optimal by point; `text` says what it is, or why it is not known."""

    probability: dict[str, float]
    text: str | None


def optimality(run: Run, trials: Sequence[TrialRecord]) -> Optimality:
    """For the points whose validation records are there, if there are the untrained model's, to which
    constraints may be relative. Points of equal configuration and epoch, and the same trained again with
    other seeds, are one configuration, and share its probability."""
    known = [point for point in front.points(trials) if point.records.is_file()]
    baseline = run.records(None, "validation")
    if not known or not baseline.is_file():
        return Optimality({}, None)
    groups: dict[str, list[Point]] = {}
    for point in foremost(run.spec, known, run.baseline() or {}):
        configuration = json.dumps([point.trial.config, point.epoch], sort_keys=True)
        groups.setdefault(configuration, []).append(point)
    pareto, seed = run.spec.file.pareto, run.spec.file.search.seed
    names = pareto.deciding
    files = [[run.storage.fetch(baseline)], *(trainings(run, group) for group in groups.values())]
    try:
        measured = run.spec.trainable.resample(files, names, draws=DRAWS, seed=seed)
    except run.spec.trainable.errors as error:
        return Optimality({}, f"P(optimal) is not known: {error}.")
    shares = optimal_shares(pareto, names, measured, seed)
    return Optimality(
        {point.id: float(p) for group, p in zip(groups.values(), shares, strict=True) for point in group},
        f"P(optimal): the probability that the true values are Pareto-optimal among those of {len(groups)} "
        f"models (trials after an epoch), by {DRAWS} paired samples of the validation images (seed {seed}).",
    )


def trainings(run: Run, group: Sequence[Point]) -> list[Path]:
    """The records of a configuration after an epoch, a file for each seed that it was trained with."""
    again = [twin for point in group for twin in seeds.twins(point, run.seeds(point.trial))]
    by_seed = {point.trial.seed: point.records for point in (*again, *group) if point.records.is_file()}
    return [run.storage.fetch(file) for file in by_seed.values()]


def foremost(sweep: SweepSpec, known: Sequence[Point], baseline: Metrics) -> list[Point]:
    """The `COMPARED` points on the first fronts, in the order given."""
    judged = front.judged(sweep, [point.metrics for point in known], baseline)
    order = np.argsort(fronts(*judged, enough=COMPARED), kind="stable")
    return [known[index] for index in sorted(order[:COMPARED])]


def optimal_shares(pareto: ParetoConfig, names: list[str], measured: Resampled, seed: int) -> Array:
    """(C,) probabilities. measured: the metrics `names` of the untrained model and C configurations."""
    untrained = membership.centred(measured.estimates[:1], measured.draws[:, :1])
    values = membership.true_values(measured.estimates[1:], measured.draws[:, 1:], seed=seed)
    draws, count, _ = values.shape
    objectives = values[:, :, [names.index(name) for name in pareto.metrics]]
    costs = as_costs(objectives, pareto.directions).reshape(draws, count, -1)
    violation = np.zeros((draws, count))
    for constraint in pareto.constraints:
        of = names.index(constraint.metric)
        violation += np.maximum(constraint.excess(values[:, :, of], untrained[:, :, of]), 0)
    return membership.probability(costs, violation)
