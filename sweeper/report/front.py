"""The front: every trial that has ended, by its objectives."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

from sweeper.report.chart import (
    FAINT,
    GREY,
    INK,
    PAPER,
    UNTRAINED,
    Absent,
    Axis,
    Chart,
    Cloud,
    Lines,
    Mark,
    Panel,
    Points,
    Scale,
    Scene,
    Style,
)
from sweeper.report.prepare import Material, Model
from sweeper.table import models_of

NAMED = 20
"""Members of which the names are written beside their points; of more only a pointer tells."""
SMALLEST, LARGEST = 7.0, 14.0
"""A point's size by its probability of being optimal."""
OUTLINED = 1.8
NO_POINTS = "No trial has ended yet."
SUBSTITUTES = "open diamonds, squares and circles stand for triangles and stars, which 3D does not have"


def front(of: Material) -> Chart | Absent:
    """The first objective upwards, the second to the right, the third as colour."""
    title = "Pareto set"
    shown = [model for model in of.models if model.measured(of.stage, of.names)]
    if not shown:
        return Absent("front", title, NO_POINTS)
    untrained = [of.untrained] if of.untrained and of.untrained.measured(of.stage, of.names) else []
    scale = shading(of, [*shown, *untrained])
    y, *others = (of.labels[name] for name in of.names)
    marks: list[Mark] = [*legend(of, [*shown, *untrained], shaded=scale is not None), *staircase(of)]
    marks += [points(of, group, scale) for group in groups([*shown, *untrained])]
    members = [model for model in shown if model.member]
    return Chart(
        "front",
        f"{title}: {models_of(members, of.content)}",
        "Every trial that was completed or stopped early, after its last epoch, and every candidate of the "
        "front, trial@epoch. Members of the Pareto set are outlined and have their 95 % "
        f"intervals{interval_note(of)}; a point is the larger the more probably it is optimal, "
        f"P(optimal); stopped trials are faint. {'Colour is ' + others[1] + '. ' if scale else ''}The star "
        f"is the untrained model. {of.said}.",
        [Panel(marks, Axis(others[0] if others else "trial"), Axis(y), scale=scale)],
        height=420,
    )


def shading(of: Material, shown: Sequence[Model]) -> Scale | None:
    """By the third objective, if there is one."""
    if len(of.names) < 3:
        return None
    values = [model.value(of.stage, of.names[2]) for model in shown]
    return Scale(of.labels[of.names[2]], min(values), max(values))


def interval_note(of: Material) -> str:
    """Which objectives have no interval."""
    known = {name for model in of.models for name in (model.intervals.get(of.stage) or {})}
    missing = [of.labels[name][:-2] for name in of.names[:2] if name not in known]
    return f" (none of {' and '.join(missing)})" if missing else ""


def legend(of: Material, shown: Sequence[Model], *, shaded: bool) -> Iterator[Points]:
    """What markers and outlines mean: points that lie nowhere."""

    def entry(style: Style, label: str) -> Points:
        return Points([math.nan], [math.nan], style, label)

    for method in sorted({model.method for model in shown} - {UNTRAINED}):
        yield entry(of.look.grey(method) if shaded else of.look[method], method)
    if any(model.method == UNTRAINED for model in shown):
        yield entry(replace(of.look[UNTRAINED], size=12), UNTRAINED)
    if any(model.member for model in shown):
        yield entry(Style(INK, size=9, open=True), "Pareto set")
    if any(model.status == "stopped" for model in shown):
        yield entry(Style(GREY, opacity=FAINT), "stopped early")


def groups(shown: Sequence[Model]) -> list[list[Model]]:
    """Models that look alike, members last, so that they lie on top."""
    found: dict[tuple[bool, bool, str, str], list[Model]] = {}
    for model in shown:
        known = model.probability is not None
        key = (model.member, model.method == UNTRAINED, model.method, f"{model.status} {known}")
        found.setdefault(key, []).append(model)
    return [found[key] for key in sorted(found)]


def look(of: Material, model: Model) -> Style:
    """Of the group of a model."""
    style = of.look[model.method]
    if model.method == UNTRAINED:
        return replace(style, size=17, edge=INK, edge_width=1)
    if model.member:
        return replace(style, edge=INK, edge_width=OUTLINED)
    return replace(style, opacity=FAINT if model.status == "stopped" else 1, edge=PAPER)


def size(model: Model) -> float:
    if model.method == UNTRAINED:
        return 17
    return SMALLEST + (LARGEST - SMALLEST) * (model.probability or 0)


def named(of: Material, group: Sequence[Model]) -> bool:
    """Whether names are written beside these points."""
    return group[0].member and len(of.members) <= NAMED


def points(of: Material, group: Sequence[Model], scale: Scale | None) -> Points:
    stage, first = of.stage, group[0]
    values = [[model.value(stage, name) for model in group] for name in of.names]
    second = of.names[1] if len(of.names) > 1 else None
    intervals = first.member or first.method == UNTRAINED
    return Points(
        values[1] if second else [float(model.number) for model in group],
        values[0],
        look(of, first),
        first.method,
        models=[model.id for model in group],
        hover=[of.hover(model) for model in group],
        x_intervals=[model.ends(stage, second) for model in group] if intervals and second else (),
        y_intervals=[model.ends(stage, of.names[0]) for model in group] if intervals else (),
        sizes=[size(model) for model in group],
        shades=values[2] if scale else (),
        names=[model.id for model in group] if named(of, group) else (),
    )


def staircase(of: Material) -> Iterator[Lines]:
    """What the members of a front of two objectives attain."""
    if len(of.names) != 2:
        return
    members = [model for model in of.models if model.member and model.measured(of.stage, of.names)]
    ends = sorted(
        (model.value(of.stage, of.names[1]), model.value(of.stage, of.names[0])) for model in members
    )
    if of.names[1] in of.content["maximize"]:  # the better end is on the right: it is attained from there on
        ends.reverse()
    if len(ends) > 1:
        x, y = zip(*ends, strict=True)
        yield Lines([(x, y)], Style(GREY, width=1, dash="dot"), steps=True)


def front_3d(of: Material) -> Chart | Absent:
    """The first three objectives, to be turned; on paper, the projections on each two of all objectives."""
    title = "The front in three dimensions"
    if len(of.names) < 3:
        return Absent(
            "front-3d", title, "The sweep has less than three objectives, and its front lies in a plane."
        )
    everything = [*of.models, *([of.untrained] if of.untrained else [])]
    shown = [model for model in everything if model.measured(of.stage, of.names)]
    if all(model.method == UNTRAINED for model in shown):
        return Absent("front-3d", title, NO_POINTS)
    pairs = list(itertools.combinations(of.names, 2))
    return Chart(
        "front-3d",
        title,
        "The points of the figure before, by the first three objectives; members of the Pareto set are "
        f"outlined and larger, and {SUBSTITUTES}. On paper: its projections on each two of the objectives. "
        f"{of.said}.",
        [
            Panel(
                [*(legend(of, shown, shaded=False) if not index else ()), *flat_points(of, shown, pair)],
                Axis(of.labels[pair[0]]),
                Axis(of.labels[pair[1]]),
            )
            for index, pair in enumerate(pairs)
        ],
        columns=min(3, len(pairs)),
        height=230,
        scene=Scene([cloud(of, group) for group in groups(shown)], scene_titles(of)),
    )


def flat_points(of: Material, shown: Sequence[Model], pair: tuple[str, str]) -> Iterator[Points]:
    for group in groups(shown):
        x, y = ([model.value(of.stage, name) for model in group] for name in pair)
        sizes = [0.7 * size(model) for model in group]
        yield Points(x, y, look(of, group[0]), group[0].method, sizes=sizes)


def scene_titles(of: Material) -> tuple[str, str, str]:
    first, second, third = (of.labels[name] for name in of.names[:3])
    return second, third, first


def cloud(of: Material, group: Sequence[Model]) -> Cloud:
    z, x, y = ([model.value(of.stage, name) for model in group] for name in of.names[:3])
    style = look(of, group[0])
    return Cloud(
        x,
        y,
        z,
        replace(style, edge_width=0.5 if style.edge == PAPER else 2),
        group[0].method,
        models=[model.id for model in group],
        hover=[of.hover(model) for model in group],
        sizes=[0.6 * size(model) + (2 if model.member else 0) for model in group],
        names=[model.id for model in group] if named(of, group) else (),
    )
