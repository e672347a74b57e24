"""Mistakes that no single key of a sweep file shows: what does not fit together, a line for each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from sweeper import space
from sweeper.constraints import parse_constraint
from sweeper.errors import SpecError, suggestion
from sweeper.mistakes import at
from sweeper.tree import Node, Place, Range

if TYPE_CHECKING:
    from sweeper.spec import SweepFile, SweepSpec


def metrics(file: SweepFile, known: Sequence[str], places: dict[space.Path, Place]) -> Iterator[str]:
    """A line for every metric that no trial reports, and every constraint that can't be read."""
    for direction, names in (("maximize", file.pareto.maximize), ("minimize", file.pareto.minimize)):
        for index, name in enumerate(names):
            place = at(places, ("pareto", direction, index))
            if name not in known:
                yield f"{place}: pareto.{direction}: unknown metric {name!r}{metric_hint(name, known)}"
            elif file.pareto.metrics.count(name) > 1:
                yield f"{place}: pareto.{direction}: {name!r} is listed twice; keep it once"
    if not file.pareto.metrics:
        yield f"{at(places, ('pareto',))}: pareto: no metric to maximize or minimize; name at least one"
    for name, text in file.pareto.subject_to.items():
        place = at(places, ("pareto", "subject_to", name))
        if name not in known:
            yield f"{place}: pareto.subject_to: unknown metric {name!r}{metric_hint(name, known)}"
        try:
            parse_constraint(name, text)
        except ValueError as error:
            yield f"{place}: pareto.subject_to.{name}: {error}"
    stopping = file.search.early_stopping
    for index, name in enumerate((stopping and stopping.metrics) or ()):
        if name not in file.pareto.metrics:
            place = at(places, ("search", "early_stopping", "metrics", index))
            hint = suggestion(name, file.pareto.metrics)
            yield f"{place}: search.early_stopping.metrics: {name!r} is no metric of `pareto`{hint}"


def final(
    file: SweepFile,
    known: Sequence[str],
    measured: Sequence[str],
    places: dict[space.Path, Place],
) -> Iterator[str]:
    """A line for every metric that decides and that only the search measures."""
    for name in file.pareto.deciding:
        if name in known and name not in measured:
            yield (
                f"{at(places, ('final',))}: final: does not measure {name!r}, which trials are judged by; "
                "give it what `evaluation` has for it"
            )


def budget(file: SweepFile, places: dict[space.Path, Place]) -> Iterator[str]:
    """A line for GPU-hours of trials that take no GPU, which would never be used up."""
    if file.search.budget.gpu_hours is not None and file.resources.gpus == 0:
        yield (
            f"{at(places, ('search', 'budget', 'gpu_hours'))}: search.budget.gpu_hours: trials take no GPU "
            "(resources.gpus is 0); give hours or epochs"
        )


def deterministic(file: SweepFile, places: dict[space.Path, Place]) -> Iterator[str]:
    """A line for every budget of time: how much is done in it, no two sweeps have in common."""
    for name in file.search.budget.given() if file.search.deterministic else ():
        if name != "epochs":
            yield (
                f"{at(places, ('search', 'budget', name))}: search.budget.{name}: how far a sweep gets in it "
                "depends on timing, and search.deterministic is true; give epochs, or deterministic: false"
            )


def warm_start(file: SweepFile, places: dict[space.Path, Place]) -> Iterator[str]:
    """A line for a sampler to which earlier results say nothing; NSGA-II breeds from its own generations."""
    if file.search.warm_start and file.search.sampler not in ("forest", "tpe", "gp"):
        yield (
            f"{at(places, ('search', 'warm_start'))}: search.warm_start: {file.search.sampler} does not "
            "learn from earlier runs; use forest, tpe or gp"
        )


def rungs(file: SweepFile, longest: int, places: dict[space.Path, Place]) -> Iterator[str]:
    """A line if early stopping has no rung to decide at, or a bracket that has none."""
    stopping = file.search.early_stopping
    if stopping is None:
        return
    rungs, key = stopping.rungs(longest), ("search", "early_stopping")
    if not rungs:
        yield (
            f"{at(places, (*key, 'grace_epochs'))}: search.early_stopping.grace_epochs: "
            f"{stopping.grace_epochs} leaves nothing to stop of the {longest} epochs of the longest trial; "
            "give fewer"
        )
    elif stopping.brackets > len(rungs):
        yield (
            f"{at(places, (*key, 'brackets'))}: search.early_stopping.brackets: {stopping.brackets} is more "
            f"than there are rungs (after epochs {', '.join(map(str, rungs))}); give fewer"
        )


def times(
    file: SweepFile,
    longest: int,
    metrics: Sequence[str],
    epochs: Sequence[int],
    places: dict[space.Path, Place],
) -> Iterator[str]:
    """A line if early stopping would decide by a metric after an epoch that it is not measured after.

    metrics: those that are measured after `epochs` and the last one alone.
    """
    stopping = file.search.early_stopping
    deciding = [name for name in file.pareto.deciding if name in metrics]
    missing = [epoch for epoch in (stopping.rungs(longest) if stopping else ()) if epoch not in epochs]
    if deciding and missing:
        place, when = at(places, ("evaluation", "suite_epochs")), ", ".join(map(str, missing))
        yield (
            f"{place}: evaluation.suite_epochs: early stopping decides by {deciding[0]} after epochs {when}, "
            "too; add them, or change search.early_stopping"
        )


def metric_hint(name: str, known: Sequence[str]) -> str:
    hint = suggestion(name, known)
    return (
        hint
        if "did you mean" in hint
        else f"; metrics are {', '.join(known[:4])}, ... (`sweeper plan` lists all)"
    )


def known(node: Node, file: SweepFile, places: dict[space.Path, Place]) -> Iterator[str]:
    """A line for every value of a known point that the space does not hold, and for a misplaced grid."""
    try:
        space.grid(node)
    except SpecError as error:
        yield from error.lines
    parameters = space.distributions(node)
    for index, point in enumerate(file.search.known):
        for name, value in point.items():
            path = ("search", "known", index, name)
            line = f"{at(places, path)}: search.known.{index}: "
            if name not in parameters:
                yield f"{line}{name!r} is no parameter of the space{suggestion(name, parameters)}"
                continue
            try:
                space.canonical(value, parameters[name])
            except ValueError as error:
                yield f"{line}{name}: {error}"
            for choice, label in space.condition(name, parameters).items():
                if str(point.get(choice)) != label:
                    yield f"{line}{name} is there only with {choice}: {label}; give that too"


def finite(node: Node, file: SweepFile, places: dict[space.Path, Place]) -> Iterator[str]:
    """A line if the sampler `grid` is given infinitely many configurations, or fewer than trials."""
    if file.search.sampler != "grid":
        return
    size = space.count(node)
    for name, distribution in space.distributions(node).items():
        if isinstance(distribution, Range) and not distribution.integer:
            yield (
                f"{distribution.place}: trial.{name}: {space.describe(distribution)} is infinitely many "
                "values, and sampler grid runs them all; use !choice or !int here, or another sampler"
            )
    if size is not None and file.search.trials > size:
        yield (
            f"{at(places, ('search', 'trials'))}: search.trials: {file.search.trials} trials, and the space "
            f"has {size} configurations, which sampler grid runs once each; give at most {size}"
        )


def trials(sweep: SweepSpec, places: dict[space.Path, Place]) -> Iterator[str]:
    """A line if there are too few trials for the known points and every combination of the grid."""
    trials, known, combinations = sweep.file.search.trials, len(sweep.known), len(space.grid(sweep.space))
    gridded = combinations > 1 and sweep.file.search.sampler != "grid"  # that one takes any part of the space
    least = known + combinations if gridded else known
    if trials < least:
        points = f"the {known} known points" if known else ""
        grid = f"the {combinations} combinations of !grid values" if gridded else ""
        yield (
            f"{at(places, ('search', 'trials'))}: search.trials: {trials} trials can't cover "
            f"{' and '.join(filter(None, (points, grid)))}; give at least {least}"
        )
