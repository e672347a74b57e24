"""The settings of all models and what came of them, as parallel coordinates."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np

from sweeper.report.chart import GREY, INK, PALE, Absent, Axis, Chart, Lines, Mark, Notes, Panel, Rule, Style
from sweeper.report.prepare import Material, Model, words
from sweeper.table import show

LOG_LIKE = 10
"""Positive numbers whose largest is so many times the smallest are shown on a logarithmic axis."""
APART = 0.05
"""Between names, of the height."""
TICKS = 5


@dataclass(frozen=True)
class Upright:
    """One upright of the parallel coordinates: heights in [0, 1], of each model and of each tick."""

    label: str
    heights: list[float]
    ticks: dict[str, float]
    texts: list[str]


def settings_chart(of: Material) -> Chart | Absent:
    """One line for each model of the Pareto set and each trial that has ended."""
    title = "Settings and what came of them"
    models = [model for model in of.models if model.measured("validation", of.names)]
    if not models:
        return Absent("settings", title, "No trial has ended yet.")
    uprights = parallel(of, models)
    marks: list[Mark] = [*strokes(of, models, uprights), *names(models, uprights)]
    for position, upright in enumerate(uprights):
        marks.append(Rule("x", position, Style(GREY, width=1)))
        x, texts = [position - 0.04] * len(upright.ticks), list(upright.ticks)
        marks.append(Notes(x, list(upright.ticks.values()), texts, "right", Style(INK)))
    labels = {float(position): upright.label for position, upright in enumerate(uprights)}
    return Chart(
        "settings",
        title,
        "Each line is a model of the Pareto set or a trial after its last epoch, through the settings that "
        "all trials drew and its metrics; members of the Pareto set are coloured by method, and every "
        f"metric has its better end on top. {of.says('validation')}.",
        [
            Panel(
                marks,
                Axis(low=-0.55, high=len(uprights) - 0.9, ticks=labels, grid=False),
                Axis(low=-0.03, high=1.03, shown=False, grid=False),
            )
        ],
        width=max(760, 112 * len(uprights)),
        height=360,
        right=64,
    )


def strokes(of: Material, models: Sequence[Model], uprights: Sequence[Upright]) -> list[Lines]:
    """Those of other trials below those of the Pareto set."""
    found: dict[str, list[int]] = {}
    for index, model in enumerate(models):
        found.setdefault(model.method if model.member else "", []).append(index)
    x = list(range(len(uprights)))
    return [
        Lines(
            [(x, [upright.heights[index] for upright in uprights]) for index in found[method]],
            replace(of.look[method], width=2.6) if method else Style(PALE, width=1),
            method or "not in the Pareto set",
            models=[models[index].id for index in found[method]],
            hover=[
                [f"{models[index].name}\n{upright.texts[index]}" for upright in uprights]
                for index in found[method]
            ],
        )
        for method in sorted(found)
    ]


def names(models: Sequence[Model], uprights: Sequence[Upright]) -> list[Notes]:
    """Of the Pareto set, behind the last upright, if there is room."""
    heights = uprights[-1].heights
    ends = {model.id: heights[index] for index, model in enumerate(models) if model.member}
    if not ends or len(ends) * APART > 1:
        return []
    placed = spread(ends, APART)
    return [Notes([len(uprights) - 0.96] * len(placed), list(placed.values()), list(placed))]


def spread(heights: Mapping[str, float], gap: float) -> dict[str, float]:
    """The heights, moved up where that is needed to keep them `gap` apart, and all down if the highest would
    be above 1."""
    placed: dict[str, float] = {}
    lowest = -math.inf
    for name, height in sorted(heights.items(), key=lambda item: item[1]):
        placed[name] = max(height, lowest)
        lowest = placed[name] + gap
    highest = 1.0
    for name in reversed(placed):
        placed[name] = min(placed[name], highest)
        highest = placed[name] - gap
    return placed


def parallel(of: Material, models: Sequence[Model]) -> list[Upright]:
    """The settings that every model drew, then the objectives, each with its better end on top."""
    common = [name for name in models[0].drawn if all(name in model.drawn for model in models)]
    uprights = [setting(name, [model.drawn[name] for model in models]) for name in common]
    for metric in of.names:
        values = [model.value("validation", metric) for model in models]
        downwards = metric in of.content["minimize"]
        label = words(metric).replace(" ", "\n", 1) + (" ↓" if downwards else " ↑")
        uprights.append(number_upright(label, values, downwards=downwards))
    return uprights


def setting(name: str, values: Sequence[Any]) -> Upright:
    label = name.replace("_", " ").replace(".", "\n")
    if any(isinstance(value, str) for value in values):
        return option_upright(label, [str(value) for value in values])
    return number_upright(label, values, log=min(values) > 0 and max(values) >= LOG_LIKE * min(values))


def option_upright(label: str, values: Sequence[str]) -> Upright:
    options = ordered(set(values))
    ticks = {option: (index + 0.5) / len(options) for index, option in enumerate(options)}
    return Upright(label, [ticks[value] for value in values], ticks, told(label, values))


def ordered(options: set[str]) -> list[str]:
    """By size if all are numbers (`8/255` is one), else by name."""
    try:
        return sorted(options, key=Fraction)
    except ValueError:
        return sorted(options)


def number_upright(
    label: str, values: Sequence[float], *, log: bool = False, downwards: bool = False
) -> Upright:
    low, high = min(values), max(values)

    def height(value: float) -> float:
        share = share_of(value, low, high, log=log)
        return 1 - share if downwards else share

    ticks = {f"{tick:.4g}": height(tick) for tick in round_numbers(low, high, log=log)}
    return Upright(label, [height(value) for value in values], ticks, told(label, values))


def told(label: str, values: Sequence[Any]) -> list[str]:
    name = label.replace("\n", " ")
    return [f"{name}: {show(value)}" for value in values]


def share_of(value: float, low: float, high: float, *, log: bool) -> float:
    """Where a value lies between two ends, from 0 to 1; 0.5 where these are equal."""
    if not low < high:
        return 0.5
    at, start, end = (math.log(each) for each in (value, low, high)) if log else (value, low, high)
    return (at - start) / (end - start)


def round_numbers(low: float, high: float, *, log: bool = False) -> list[float]:
    """Numbers of few digits between two ends, for ticks."""
    from matplotlib.ticker import LogLocator, MaxNLocator

    if not low < high:
        return [low]
    locator = LogLocator(subs=(1, 2, 5) if high < 100 * low else (1,)) if log else MaxNLocator(TICKS)
    return [float(tick) for tick in np.asarray(locator.tick_values(low, high)) if low <= tick <= high] or [
        low,
        high,
    ]
