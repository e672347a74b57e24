"""The result of a run: which trials are non-dominated, and all numbers that a table needs."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sweeper.pareto import as_costs, non_dominated
from sweeper.run import BASELINE, Metrics, Run, Split, TrialRecord
from sweeper.spec import SweepSpec

SPLITS: tuple[Split, Split] = ("validation", "test")


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


def result(run: Run) -> dict[str, Any]:
    """The content of pareto.json: every trial with its validation metrics, the Pareto set and the
    untrained model with their test metrics, and what all the numbers are."""
    sweep, trials = run.spec, run.trials()
    baseline = run.baseline()
    members = {trial.id for trial in front(sweep, trials, baseline)} if baseline else set()
    return {
        "run": run.id,
        "maximize": sweep.file.pareto.maximize,
        "minimize": sweep.file.pareto.minimize,
        "subject_to": [str(constraint) for constraint in sweep.file.pareto.constraints],
        "validation": protocol(sweep, "validation"),
        "test": protocol(sweep, "test"),
        "data": {split: run.sets(split) for split in SPLITS},
        "seed": sweep.file.search.seed,
        "trials_planned": sweep.file.search.trials,
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
    text = f"{split} images {sweep.trainable.describe(evaluation)}"
    return {"split": split, **evaluation, "ece": "top label, 15 equal-width bins, pooled", "text": text}


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
