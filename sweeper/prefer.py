"""Which model of a front to take: what a user prefers, in words that stand for one pick."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, Union

import numpy as np
from numpy.typing import NDArray

from sweeper.constraints import parse_constraint
from sweeper.errors import UserError, near, suggestion
from sweeper.pareto import Direction, as_costs, knee, lexicographic, weighted
from sweeper.trial import Metrics

Prefer = Union[str, Sequence[str], Mapping[str, float]]
Tolerance = Union[float, Mapping[str, float]]
Directed = dict[str, Direction]
"""Metrics, and whether more or less of each is better."""
ChosenBy = Literal["validation", "final"]

KNEE = "knee"
WAYS: tuple[Direction, ...] = ("maximize", "minimize")


def objectives_of(content: Mapping[str, Any]) -> Directed:
    """Of a pareto.json."""
    return {name: way for way in WAYS for name in content[way]}


def directed(names: Iterable[str], objectives: Directed) -> Directed:
    """names: each an objective, or any metric after its direction: `minimize transfer.clean_nll`. Raises
    UserError."""
    found: Directed = {}
    for text in names:
        way, _, name = text.strip().rpartition(" ")
        direction = next((each for each in WAYS if each == way.strip()), objectives.get(text.strip()))
        if direction is None:
            raise UserError(
                f"{text!r} is no objective{suggestion(text, objectives)}; of another metric say "
                f"'maximize {name}' or 'minimize {name}'"
            )
        found[name] = direction
    return found


def best(
    content: Mapping[str, Any],
    prefer: Prefer = KNEE,
    *,
    tolerance: Tolerance = 0.0,
    subject_to: Mapping[str, str] | None = None,
    stage: ChosenBy | None = None,
) -> dict[str, Any]:
    """The row of the Pareto set in a pareto.json that is preferred, see `Results.best`. Raises UserError."""
    if stage not in (None, "validation", "final"):
        raise UserError(
            f"stage {stage!r}: choose by 'validation' or 'final'; test images are for the chosen model"
        )
    rows = [row for row in content["candidates"] if row["pareto"]]
    if not rows:
        raise UserError(
            f"{content['run']} has no Pareto set to choose from; `sweeper resume` goes on with it"
        )
    by = stage or ("final" if all(row["final"] for row in rows) else "validation")
    if any(row[by] is None for row in rows):
        raise UserError(f"{content['run']} is not measured as `final` says yet; choose by stage='validation'")
    broken = violations(rows, content["baseline"], by, subject_to or {})
    objectives = objectives_of(content)
    chosen = pick([row[by] for row in rows], objectives, prefer, tolerance, broken)
    if chosen is None:
        wanted = ", ".join(f"{name} {text}" for name, text in (subject_to or {}).items())
        raise UserError(
            f"no model of the Pareto set of {content['run']} has {wanted or 'finite metrics'} ({by})"
        )
    return rows[chosen]


def pick(
    metrics: Sequence[Metrics],
    objectives: Directed,
    prefer: Prefer,
    tolerance: Tolerance = 0.0,
    violation: Sequence[float] | None = None,
) -> int | None:
    """The place of the preferred model, None if none holds the constraints."""
    if prefer == KNEE:
        return knee(costs_of(metrics, objectives), violation)
    if isinstance(prefer, Mapping):
        weights = list(prefer.values())
        if not weights or min(weights) < 0 or not max(weights) > 0:
            raise UserError(f"prefer={dict(prefer)}: weights are at least 0, and one is above")
        return weighted(costs_of(metrics, directed(prefer, objectives)), weights, violation)
    ways = directed([prefer] if isinstance(prefer, str) else prefer, objectives)
    if not ways:
        raise UserError("prefer=[]: name a metric, or 'knee'")
    if isinstance(tolerance, Mapping):
        if unknown := [name for name in tolerance if name not in ways]:
            raise UserError(f"tolerance: {unknown[0]!r} is not in prefer{suggestion(unknown[0], ways)}")
        tolerances = [float(tolerance.get(name, 0)) for name in ways]
    else:
        tolerances = [float(tolerance)] * len(ways)
    if min(tolerances) < 0:
        raise UserError(f"tolerance={tolerance}: at least 0, in the metric's unit")
    ties = {name: way for name, way in objectives.items() if name not in ways}
    all_of = costs_of(metrics, {**ways, **ties})
    return lexicographic(all_of, [*tolerances, *([0.0] * len(ties))], violation)


def costs_of(metrics: Sequence[Metrics], ways: Directed) -> NDArray[np.float64]:
    """(n, m) costs. Raises UserError for a metric that is not there."""
    return as_costs(table(metrics, list(ways)), list(ways.values()))


def table(metrics: Sequence[Metrics], names: Sequence[str]) -> NDArray[np.float64]:
    """(n, k) values. Raises UserError for a metric that was not measured of all."""
    known = set.intersection(*(set(each) for each in metrics))
    for name in names:
        if name not in known:
            raise UserError(f"no metric {name!r} was measured of all these models{near(name, known)}")
    return np.array([[each[name] for name in names] for each in metrics], dtype=np.float64)


def violations(
    rows: Sequence[Mapping[str, Any]], baseline: Mapping[str, Any], stage: str, subject_to: Mapping[str, str]
) -> list[float]:
    """By how much each row breaks constraints as a sweep file has them. Raises UserError."""
    total = [0.0] * len(rows)
    for metric, text in subject_to.items():
        try:
            constraint = parse_constraint(metric, text)
        except ValueError as error:
            raise UserError(f"subject_to: {metric}: {error}") from None
        table([row[stage] for row in rows], [metric])  # that it is there
        untrained = (baseline[stage] or {}).get(metric, 0.0)
        total = [
            before + constraint.violation(row[stage][metric], untrained)
            for before, row in zip(total, rows, strict=True)
        ]
    return total
