"""Which models are on the front: points, a trial after an epoch each, chosen on validation images.

Candidates are non-dominated as the search measured them. They are measured once more, as `final` says:
by a stronger attack, on more images. The Pareto set is what is non-dominated among them then.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sweeper.pareto import as_costs, non_dominated
from sweeper.run import Run
from sweeper.spec import SweepSpec
from sweeper.trial import Metrics, Point, TrialRecord

Array = NDArray[np.float64]


def points(trials: Sequence[TrialRecord]) -> list[Point]:
    """What may stand on the front: all epochs that were kept, of trials that were completed or stopped
    early. The latter's are models as good as others; only the configuration may have had more to give."""
    return [point for trial in trials if trial.status in ("completed", "stopped") for point in trial.points]


def candidates(sweep: SweepSpec, trials: Sequence[TrialRecord], baseline: Metrics) -> list[Point]:
    """The points that no other dominates on the validation images, as the search sees them, and that
    satisfy the constraints. baseline: the untrained model's metrics."""
    known = points(trials)
    member = best(sweep, [point.metrics for point in known], baseline)
    return [known[index] for index in member]


def members(run: Run, found: Sequence[Point]) -> list[Point]:
    """Those of the candidates that are Pareto-optimal by what `final` measured; all as long as it has not
    measured all."""
    baseline = run.baseline("final")
    measured = [run.measured(point, "final") for point in found]
    metrics = [result["metrics"] for result in measured if result is not None]
    if baseline is None or len(metrics) < len(found):
        return list(found)
    return [found[index] for index in best(run.spec, metrics, baseline)]


def best(sweep: SweepSpec, metrics: Sequence[Metrics], baseline: Metrics) -> list[int]:
    """The indices of those that are non-dominated and satisfy the constraints, ascending."""
    return [int(index) for index in np.flatnonzero(non_dominated(*judged(sweep, metrics, baseline)))]


def judged(sweep: SweepSpec, metrics: Sequence[Metrics], baseline: Metrics | None) -> tuple[Array, Array]:
    """(n, m) costs, smaller is better, and (n,) by how much constraints are broken: 0 as long as the
    untrained model, which they may be relative to, is not known."""
    pareto = sweep.file.pareto
    costs = as_costs([[each[name] for name in pareto.metrics] for each in metrics], pareto.directions)
    violation = [total_violation(sweep, each, baseline) if baseline else 0.0 for each in metrics]
    return costs, np.array(violation)


def total_violation(sweep: SweepSpec, metrics: Metrics, baseline: Metrics) -> float:
    """By how much all constraints together are broken; 0 where they hold."""
    return sum(c.violation(metrics[c.metric], baseline[c.metric]) for c in sweep.file.pareto.constraints)
