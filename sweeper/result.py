"""The result of a run: all numbers that a table, a report or a script needs, and what they are."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from typing import Any

from sweeper import budget, front, seeds
from sweeper.optimality import optimality
from sweeper.run import Run
from sweeper.spec import SweepSpec
from sweeper.trainable import Trainable
from sweeper.trial import BASELINE, SPLIT, STAGES, Point, Stage, TrialRecord


def result(run: Run) -> dict[str, Any]:
    """The content of pareto.json.

    `trials` has every trial with its validation metrics after the last epoch, and the highest probability
    that one of its kept epochs is Pareto-optimal; `candidates` the points of the
    front, a trial after an epoch each, with their metrics in each stage (`validation`, `final`, `test`), of
    which those with `pareto` are the Pareto set; `baseline` the untrained model; and it says what all the
    numbers are.
    """
    sweep, trials = run.spec, run.trials()
    baseline = run.baseline()
    candidates = front.candidates(sweep, trials, baseline) if baseline else []
    members = front.members(run, candidates)
    optimal = optimality(run, trials)
    return {
        "run": run.name,
        "maximize": sweep.file.pareto.maximize,
        "minimize": sweep.file.pareto.minimize,
        "subject_to": [str(constraint) for constraint in sweep.file.pareto.constraints],
        **{stage: protocol(sweep, stage) for stage in STAGES},
        "data": {stage: run.sets(stage) for stage in STAGES},
        "probability": optimal.text,
        "seed": sweep.file.search.seed,
        "trials_planned": budget.planned(run, trials),
        "baseline": {"id": BASELINE, **stages(run, None)},
        "candidates": [
            {
                **row(run, point),
                "pareto": point in members,
                "probability": optimal.probability.get(point.id),
            }
            for point in candidates
        ],
        "trials": [
            {
                **about(trial),
                "status": trial.status,
                "reason": trial.reason,
                "pareto": any(point.trial is trial for point in members),
                "epochs": len(trial.epochs),
                "kept": trial.kept,
                "probability": max(
                    (optimal.probability[p.id] for p in trial.points if p.id in optimal.probability),
                    default=None,
                ),
                "validation": trial.metrics,
                "intervals": {"validation": trial.point().intervals if trial.epochs else None},
            }
            for trial in trials
        ],
    }


def about(trial: TrialRecord) -> dict[str, Any]:
    """What a trial is, whatever came of it."""
    return {
        "id": trial.id,
        "method": trial.method,
        "seed": trial.seed,
        "drawn": trial.drawn,
        "config": trial.config,
    }


def row(run: Run, point: Point) -> dict[str, Any]:
    """All that is known of a point, but for how it compares with others."""
    return {
        **about(point.trial),
        "id": point.id,
        "trial": point.trial.id,
        "epoch": point.epoch,
        "status": point.trial.status,
        **stages(run, point),
        "fall": fall(run, point),
        "seeds": seeds.spread(run, point),
    }


def stages(run: Run, point: Point | None) -> dict[str, Any]:
    """The metrics of a point, or of the untrained model, in each stage, and their 95 % intervals."""
    found = {stage: run.measured(point, stage) or {} for stage in STAGES}
    return {
        **{stage: of.get("metrics") for stage, of in found.items()},
        "intervals": {stage: of.get("intervals") for stage, of in found.items()},
    }


def fall(run: Run, point: Point) -> dict[str, float] | None:
    """How far the final attack brings the robust accuracy down, on the images that the search's saw, too."""
    after = run.records(point, "final")
    if not after.is_file() or not point.records.is_file():
        return None
    rulers = {"evaluation": run.spec.evaluation, "final": run.spec.final}
    before, after = run.storage.fetch(point.records), run.storage.fetch(after)
    return run.spec.trainable.fall(before=str(before), after=str(after), **rulers)


def objectives(content: Mapping[str, Any]) -> list[str]:
    return [*content["maximize"], *content["minimize"]]


def ranked(content: Mapping[str, Any], rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of `candidates` with the best in the first objective, on validation images, first."""
    first = objectives(content)[0]
    sign = -1 if first in content["maximize"] else 1
    return sorted(rows, key=lambda row: sign * (row["final"] or row["validation"])[first])


def ranked_members(content: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The Pareto set, the best in the first objective first."""
    return ranked(content, (row for row in content["candidates"] if row["pareto"]))


def protocol(sweep: SweepSpec, stage: Stage) -> dict[str, Any]:
    """What a number of this stage is: attack, images, calibration bins, seed; `text` says it in a line."""
    evaluation, split = sweep.evaluation if stage == "validation" else sweep.final, SPLIT[stage]
    text = described(sweep.trainable, evaluation, split)
    return {"split": split, **evaluation, "ece": "top label, 15 equal-width bins, pooled", "text": text}


def described(trainable: Trainable, evaluation: dict[str, Any], split: str) -> str:
    """What a number measured so is, in a line."""
    return f"{split} images {trainable.describe(evaluation)}"


def to_csv(content: dict[str, Any]) -> str:
    """The Pareto set and the untrained model as CSV, full precision, one column per number."""
    members = [row for row in content["candidates"] if row["pareto"]]
    names = list(dict.fromkeys(name for trial in content["trials"] for name in trial["drawn"]))
    untrained = content["baseline"] | {"method": "untrained", "drawn": {}}
    rows = [flat(row) for row in (untrained, *members)]
    columns = sorted(dict.fromkeys(column for row in rows for column in row), key=order)
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["id", "method_name", *names, *columns])
    for row, numbers in zip((untrained, *members), rows, strict=True):
        settings = (row["drawn"].get(name) for name in names)
        writer.writerow([row["id"], row["method"], *settings, *(numbers.get(column) for column in columns)])
    return buffer.getvalue()


def flat(row: Mapping[str, Any]) -> dict[str, float]:
    """All numbers of a row: `validation.robust_accuracy`, `seeds.test.robust_accuracy.sd`, ..."""
    found = {f"{stage}.{name}": value for stage in STAGES for name, value in (row[stage] or {}).items()}
    again = row.get("seeds") or {}
    found |= {
        f"seeds.{stage}.{metric}.{name}": value
        for stage in STAGES
        for metric, numbers in (again.get(stage) or {}).items()
        for name, value in numbers.items()
    }
    return found | ({"seeds.count": again["count"]} if again else {})


def order(column: str) -> int:
    """Stages in their order, seeds last; within a stage columns keep theirs."""
    return [*STAGES, "seeds"].index(column.partition(".")[0])
