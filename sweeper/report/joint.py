"""The figures of a comparison of runs: their joint front, and what each contributes to it."""

from __future__ import annotations

import itertools
import math
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from sweeper.compare import spread
from sweeper.pareto import as_costs, non_dominated
from sweeper.report.chart import INK, Axis, Chart, Cloud, Lines, Look, Mark, Panel, Points, Scene, Style
from sweeper.report.prepare import HOVER_WIDTH, words
from sweeper.result import objectives
from sweeper.table import ARROW, interval, number, percent, settings
from sweeper.terminal import amount

Content = Mapping[str, Any]
"""What `sweeper.compare.compare` returns."""
Row = dict[str, Any]

NAMED = 20
"""Models of the joint front of which the names are written beside their points."""
LARGE, SMALL = 10.0, 6.0
FAINT = 0.55
PARTS = {0.0: "0 %", 0.25: "25 %", 0.5: "50 %", 0.75: "75 %", 1.0: "100 %"}


def charts(content: Content) -> list[Chart]:
    """Those that there are numbers for."""
    solid = [joint_front_3d(content)] if len(objectives(content)) > 2 else []
    return [joint_front(content), *solid, contributions(content)]


def joint_front(content: Content) -> Chart:
    """A panel for each two objectives."""
    names = objectives(content)
    pairs = list(itertools.combinations(names, 2)) or [(names[0], names[0])]
    panels = [
        Panel(
            [*(legend(content) if not place else ()), *flat(content, pair, labelled=not place)],
            Axis(labels(content)[pair[1]]),
            Axis(labels(content)[pair[0]]),
        )
        for place, pair in enumerate(pairs)
    ]
    joined = sum(row["joint"] for row in content["models"])
    return Chart(
        "joint-front",
        f"Joint front: {joined} of {amount(len(content['models']), 'model')} of {len(content['runs'])} runs",
        "The models on the front of each run, after the letter of the run. Those on the joint front, which "
        "no model of any run dominates, are outlined, and have their 95 % intervals"
        f"{'; a dotted line is what a run attains by itself' if len(names) == 2 else ''}. "
        f"Measured on {content['protocol']}.",
        panels,
        columns=min(3, len(panels)),
        width=760 if len(panels) == 1 else 1060,
        height=400 if len(panels) == 1 else 300,
    )


def joint_front_3d(content: Content) -> Chart:
    """By the first three objectives, to be turned; on paper as `joint_front`."""
    flat_chart = joint_front(content)
    first, second, third = objectives(content)[:3]
    shown = labels(content)
    return replace(
        flat_chart,
        name="joint-front-3d",
        title="The joint front in three dimensions",
        caption=f"The points of the figure before. Measured on {content['protocol']}.",
        scene=Scene(
            [cloud(content, group, style, label) for group, style, label in groups(content)],
            (shown[second], shown[third], shown[first]),
        ),
    )


def cloud(content: Content, group: Sequence[Row], style: Style, label: str) -> Cloud:
    z, x, y = (values(group, name) for name in objectives(content)[:3])
    joint = group[0]["joint"]
    return Cloud(
        x,
        y,
        z,
        replace(style, edge_width=2 if joint else 0.5),
        label,
        models=[],
        hover=[hover(content, row) for row in group],
        sizes=[0.7 * style.size] * len(group),
        names=[name_of(row) for row in group] if joint and few(content) else (),
    )


def contributions(content: Content) -> Chart:
    """A row for each run and method."""
    methods = content["methods"] if len(content["methods"]) > 1 else []
    rows = [(row["letter"], row) for row in content["runs"]] + [(row["method"], row) for row in methods]
    heights = {float(len(rows) - 1 - place): name for place, (name, _) in enumerate(rows)}
    titles = {"hypervolume_share": "hypervolume by itself", "gained_share": "hypervolume gained"}
    panels = [
        Panel(
            [share(content, name, row, key, at) for at, (name, row) in zip(heights, rows, strict=True)],
            Axis("of the joint front's", low=-0.04, high=1.06, ticks=PARTS),
            Axis(
                low=-0.6,
                high=len(rows) - 0.4,
                ticks=heights if key == "hypervolume_share" else {},
                grid=False,
            ),
            title=title,
        )
        for key, title in titles.items()
    ]
    return Chart(
        "contributions",
        "Who contributes what",
        "The hypervolume of each run, and of each method's models of all runs, as a part of the joint "
        "front's; and what would be lost without it. Whiskers: 95 % intervals on resampled images, the same "
        "for all. "
        f"Measured on {content['protocol']}.",
        panels,
        columns=2,
        height=34.0 * len(rows) + 20,
    )


def share(content: Content, name: str, row: Row, key: str, at: float) -> Points:
    of = row[key]
    ends = () if of["low"] is None else [(of["low"], of["high"])]
    style = look(content).styles.get(name, Style(INK, "|"))
    return Points(
        [of["value"]], [at], replace(style, size=LARGE), hover=[f"{name}: {spread(of)}"], x_intervals=ends
    )


def look(content: Content) -> Look:
    """Of runs, by their letters."""
    return Look.of(row["letter"] for row in content["runs"])


def labels(content: Content) -> dict[str, str]:
    return {name: f"{words(name)} {ARROW[way]}" for way in ARROW for name in content[way]}


def legend(content: Content) -> Iterator[Points]:
    """Points that lie nowhere."""
    for row in content["runs"]:
        yield Points([math.nan], [math.nan], replace(look(content)[row["letter"]], size=LARGE), label_of(row))
    yield Points([math.nan], [math.nan], Style(INK, size=9, open=True), "on the joint front")


def label_of(row: Row) -> str:
    return f"{row['letter']} {row['run']}"


def groups(content: Content) -> Iterator[tuple[list[Row], Style, str]]:
    """Models that look alike, their style and run; those on the joint front last, so that they lie on top."""
    for joint, run in itertools.product((False, True), content["runs"]):
        letter = run["letter"]
        group = [row for row in content["models"] if (row["run"], row["joint"]) == (letter, joint)]
        style = look(content)[letter]
        if joint:
            style = replace(style, size=LARGE, edge=INK, edge_width=1.8)
        else:
            style = replace(style, size=SMALL, opacity=FAINT)
        if group:
            yield group, style, label_of(run)


def flat(content: Content, pair: tuple[str, str], *, labelled: bool) -> Iterator[Mark]:
    up, right = pair
    if len(objectives(content)) == 2:
        yield from staircases(content, pair)
    for group, style, label in groups(content):
        joint = group[0]["joint"]
        yield Points(
            values(group, right),
            values(group, up),
            style,
            label if labelled else "",
            hover=[hover(content, row) for row in group],
            x_intervals=[ends(row, right) for row in group] if joint else (),
            y_intervals=[ends(row, up) for row in group] if joint else (),
            names=[name_of(row) for row in group] if joint and few(content) else (),
        )


def staircases(content: Content, pair: tuple[str, str]) -> Iterator[Lines]:
    """What each run attains by itself."""
    up, right = pair
    ways = [way for name in pair for way in ARROW if name in content[way]]
    for run in content["runs"]:
        own = [row for row in content["models"] if row["run"] == run["letter"] and row["holds"]]
        points = list(zip(values(own, up), values(own, right), strict=True))
        front = non_dominated(as_costs(points, ways))
        corners = sorted((x, y) for (y, x), inside in zip(points, front, strict=True) if inside)
        if right in content["maximize"]:  # the better end is on the right: it is attained from there on
            corners.reverse()
        if len(corners) > 1:
            x, y = zip(*corners, strict=True)
            colour = look(content)[run["letter"]].colour
            yield Lines([(x, y)], Style(colour, width=1, dash="dot"), steps=True)


def few(content: Content) -> bool:
    return sum(row["joint"] for row in content["models"]) <= NAMED


def values(group: Sequence[Row], name: str) -> list[float]:
    return [row["metrics"][name] for row in group]


def ends(row: Row, name: str) -> tuple[float, float]:
    """The 95 % interval; without any, the value twice."""
    low, high = row["intervals"].get(name) or [row["metrics"][name]] * 2
    return float(low), float(high)


def name_of(row: Row) -> str:
    return f"{row['run']} {row['id']}"


def hover(content: Content, row: Row) -> str:
    told = [f"{name_of(row)} {row['method']}{', on the joint front' if row['joint'] else ''}"]
    for name, label in labels(content).items():
        told.append(f"{label}: {number(row['metrics'], name)} {interval(row['intervals'], name)}".rstrip())
    if row["probability"] is not None:
        told.append(f"P(joint): {percent(row['probability'])}")
    if row["same"]:
        told.append(f"the same configuration: {', '.join(row['same'])}")
    return "\n".join([*told, *textwrap.wrap(settings(row["drawn"]), HOVER_WIDTH)])
