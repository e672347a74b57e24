"""Results of earlier runs, which the sampler knows from the start. They are no trials of the run.

A completed trial is taken if it is a point of the present space, everything that is not searched included,
and was measured in the same way: its objectives are then what this run would find there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from sweeper import space
from sweeper.halving import not_finite
from sweeper.run import Run
from sweeper.spec import SweepSpec
from sweeper.tree import first_difference
from sweeper.trial import Metrics, TrialRecord


def collect(sweep: SweepSpec, earlier: Sequence[Run]) -> dict[str, Any]:
    """The content of warm_start.json. `lines` says of each run how many trials were taken and why others
    were not; `trials` has of each that was its point, by the names of parameters, its metrics and the
    untrained model's."""
    trials, lines = [], []
    for run in earlier:
        why: Counter[str] = Counter()
        records = run.trials()
        for record in records:
            try:
                trials.append({"from": f"{run.name}/{record.id}", **taken(sweep, run, record)})
            except ValueError as error:
                why[str(error)] += 1
        reasons = "".join(f"; {count} not: {reason}" for reason, count in why.most_common())
        lines.append(
            f"warm start from {run.name}: {len(records) - why.total()} of {len(records)} trials{reasons}"
        )
    return {"lines": lines, "trials": trials}


def taken(sweep: SweepSpec, run: Run, record: TrialRecord) -> dict[str, Any]:
    """Raises ValueError with the reason why the trial can't be used."""
    names, baseline = sweep.file.pareto.deciding, run.baseline()
    if record.status != "completed" or record.metrics is None:
        raise ValueError("not completed")
    if run.spec.evaluation != sweep.evaluation:
        changed = difference(run.spec.evaluation, sweep.evaluation, "evaluation")
        raise ValueError(f"measured otherwise, {changed}")
    missing = [name for name in names if name not in record.metrics or name not in (baseline or {})]
    if missing or baseline is None:
        raise ValueError(f"no {' or '.join(missing) or 'untrained model'} measured")
    if not_finite(sweep.file.pareto, record.metrics):
        raise ValueError("objectives are not finite")
    point = space.locate(sweep.space, record.config)
    here = sweep.trial(space.resolve(sweep.space, lambda name, _: point[name]).value)
    if here != record.config:
        raise ValueError(difference(record.config, here))
    return {"point": point, "metrics": chosen(record.metrics, names), "baseline": chosen(baseline, names)}


def chosen(metrics: Metrics, names: Sequence[str]) -> Metrics:
    return {name: metrics[name] for name in names}


def difference(there: Any, here: Any, key: str = "") -> str:
    """The first value that differs: `epochs is 2, here 3`."""
    name, one, other = first_difference(there, here, key)
    return f"{name} is {one}, here {other}"
