"""The result of a run: which trials are non-dominated, how sure that is, and all numbers a table needs."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sweeper import budget, membership
from sweeper.pareto import as_costs, non_dominated
from sweeper.run import BASELINE, Metrics, Run, Split, TrialRecord
from sweeper.spec import ParetoConfig, SweepSpec
from sweeper.trainable import Resampled, Trainable

Array = NDArray[np.float64]
SPLITS: tuple[Split, Split] = ("validation", "test")
DRAWS = 1000
"""Samples of the images for P(optimal), whose standard error they make at most 1.6 points."""


def front(sweep: SweepSpec, trials: Sequence[TrialRecord], baseline: Metrics) -> list[TrialRecord]:
    """The completed trials that no other dominates on the validation images and that satisfy the
    constraints. A trial stopped early is not one of them: an under-trained model has a low ECE."""
    completed = [trial for trial in trials if trial.status == "completed" and trial.metrics]
    if not completed:
        return []
    metrics = [trial.metrics or {} for trial in completed]
    values = [[m[name] for name in sweep.file.pareto.metrics] for m in metrics]
    costs = as_costs(values, sweep.file.pareto.directions)
    violations = [total_violation(sweep, m, baseline) for m in metrics]
    member = non_dominated(costs, violations)
    return [completed[i] for i in np.flatnonzero(member)]


def total_violation(sweep: SweepSpec, metrics: Metrics, baseline: Metrics) -> float:
    return sum(c.violation(metrics[c.metric], baseline[c.metric]) for c in sweep.file.pareto.constraints)


@dataclass(frozen=True)
class Optimality:
    """Probability of being Pareto-optimal by trial; `text` says what it is, or why it is not known."""

    probability: dict[str, float]
    text: str | None


def optimality(run: Run, trials: Sequence[TrialRecord]) -> Optimality:
    """For the completed trials whose validation records are there, and the untrained model's, to which
    constraints may be relative. Trials of equal configuration are seeds of one, and share its probability."""
    completed = [t for t in trials if t.status == "completed" and t.metrics and t.records.is_file()]
    baseline = run.baseline_file.with_suffix(".parquet")
    if not completed or not baseline.is_file():
        return Optimality({}, None)
    groups: dict[str, list[TrialRecord]] = {}
    for trial in completed:
        groups.setdefault(json.dumps(trial.config, sort_keys=True), []).append(trial)
    pareto, seed = run.spec.file.pareto, run.spec.file.search.seed
    names = list(dict.fromkeys([*pareto.metrics, *(c.metric for c in pareto.constraints)]))
    files = [[baseline], *([trial.records for trial in group] for group in groups.values())]
    try:
        measured = run.spec.trainable.resample(files, names, draws=DRAWS, seed=seed)
    except run.spec.trainable.errors as error:
        return Optimality({}, f"P(optimal) is not known: {error}.")
    shares = optimal_shares(pareto, names, measured, seed)
    return Optimality(
        {trial.id: float(p) for group, p in zip(groups.values(), shares, strict=True) for trial in group},
        f"P(optimal): the probability that the true values are Pareto-optimal among those of {len(groups)} "
        f"completed configurations, by {DRAWS} paired samples of the validation images (seed {seed}).",
    )


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


def result(run: Run) -> dict[str, Any]:
    """The content of pareto.json: every trial with its validation metrics, the Pareto set and the
    untrained model with their test metrics, and what all the numbers are."""
    sweep, trials = run.spec, run.trials()
    baseline = run.baseline()
    members = {trial.id for trial in front(sweep, trials, baseline)} if baseline else set()
    optimal = optimality(run, trials)
    return {
        "run": run.id,
        "maximize": sweep.file.pareto.maximize,
        "minimize": sweep.file.pareto.minimize,
        "subject_to": [str(constraint) for constraint in sweep.file.pareto.constraints],
        "validation": protocol(sweep, "validation"),
        "test": protocol(sweep, "test"),
        "data": {split: run.sets(split) for split in SPLITS},
        "probability": optimal.text,
        "seed": sweep.file.search.seed,
        "trials_planned": budget.planned(run, trials),
        "baseline": {
            "id": BASELINE,
            "validation": baseline,
            "test": run.baseline("test"),
            "intervals": {split: run.baseline_intervals(split) for split in SPLITS},
        },
        "trials": [
            {
                "id": trial.id,
                "method": trial.method,
                "status": trial.status,
                "reason": trial.reason,
                "pareto": trial.id in members,
                "probability": optimal.probability.get(trial.id),
                "epochs": len(trial.epochs),
                "seed": trial.seed,
                "validation": trial.metrics,
                "test": trial.final,
                "intervals": {"validation": trial.intervals, "test": trial.final_intervals},
                "drawn": trial.drawn,
                "config": trial.config,
            }
            for trial in trials
        ],
    }


def objectives(content: Mapping[str, Any]) -> list[str]:
    return [*content["maximize"], *content["minimize"]]


def ranked_members(content: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The Pareto set, the best in the first objective first."""
    first = objectives(content)[0]
    sign = -1 if first in content["maximize"] else 1
    members = [row for row in content["trials"] if row["pareto"]]
    return sorted(members, key=lambda row: sign * row["validation"][first])


def protocol(sweep: SweepSpec, split: str) -> dict[str, Any]:
    """What a number on this split is: attack, images, calibration bins, seed; `text` says it in a line."""
    evaluation = sweep.final if split == "test" else sweep.evaluation
    text = described(sweep.trainable, evaluation, split)
    return {"split": split, **evaluation, "ece": "top label, 15 equal-width bins, pooled", "text": text}


def described(trainable: Trainable, evaluation: dict[str, Any], split: str) -> str:
    """What a number measured so is, in a line."""
    return f"{split} images {trainable.describe(evaluation)}"


def to_csv(content: dict[str, Any]) -> str:
    """The Pareto set and the untrained model as CSV, full precision, one column per number."""
    members = [trial for trial in content["trials"] if trial["pareto"]]
    names = list(dict.fromkeys(name for trial in content["trials"] for name in trial["drawn"]))
    rows = [content["baseline"], *members]
    metrics = list(dict.fromkeys(m for row in rows for split in SPLITS for m in row[split] or ()))
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    columns = [f"{split}.{metric}" for split in SPLITS for metric in metrics]
    writer.writerow(["id", "method_name", *names, *columns])
    for row in [content["baseline"] | {"method": "untrained", "drawn": {}}, *members]:
        values = [(row[split] or {}).get(metric) for split in SPLITS for metric in metrics]
        writer.writerow([row["id"], row["method"], *(row["drawn"].get(name) for name in names), *values])
    return buffer.getvalue()
