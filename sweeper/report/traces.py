"""The marks of a chart as plotly's traces, and values as plotly takes them.

`customdata` of a point is the model that a click shows.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Sequence
from functools import singledispatch
from typing import Any

from sweeper.report.chart import (
    GREY,
    INK,
    Boxes,
    Cloud,
    Heat,
    Lines,
    Mark,
    Notes,
    Numbers,
    Points,
    Rule,
    Style,
)

SYMBOLS = {
    "o": "circle",
    "s": "square",
    "^": "triangle-up",
    "D": "diamond",
    "v": "triangle-down",
    "P": "cross",
    "X": "x",
    "h": "hexagon",
    "*": "star",
    "|": "line-ns",
}
IN_SPACE = {
    "^": "diamond-open",
    "D": "diamond",
    "P": "cross",
    "X": "x",
    "s": "square",
    "v": "square-open",
    "*": "circle-open",
}
"""Markers that plotly has in 3D, or what stands for them; of the others a circle."""
SIDES = {"left": "middle right", "center": "middle center", "right": "middle left"}
CLEAR = "rgba(0,0,0,0)"
PLACES = 7
"""Significant digits of what is drawn."""

Drawn = dict[str, Any]


@singledispatch
def traced(mark: Mark) -> Drawn:
    raise TypeError(mark)


@traced.register
def _(mark: Points) -> Drawn:
    trace: Drawn = {
        "type": "scatter",
        "mode": "markers+text" if mark.names else "markers",
        "x": numbers(mark.x),
        "y": numbers(mark.y),
        "marker": marker(mark.style, mark.sizes, mark.shades),
        **pointed(mark.models, mark.hover),
    }
    if mark.names:
        trace |= {"text": [plain(name) for name in mark.names], "textposition": "top center"}
        trace["textfont"] = {"size": 11}
    for direction, values, ends in (("x", mark.x, mark.x_intervals), ("y", mark.y, mark.y_intervals)):
        if ends:
            trace[f"error_{direction}"] = whiskers(values, ends)
    return trace


def marker(style: Style, sizes: Sequence[float] = (), shades: Sequence[float] = ()) -> Drawn:
    shown: Drawn = {
        "symbol": SYMBOLS[style.marker] + ("-open" if style.open or style.marker == "|" else ""),
        "size": numbers(sizes) if sizes else style.size,
        "color": numbers(shades) if shades else style.colour,
        "opacity": style.opacity,
    }
    width = 1.5 if style.open else style.edge_width
    shown["line"] = {"width": width} | ({} if style.open else {"color": style.edge})
    return shown


def whiskers(values: Numbers, ends: Sequence[tuple[float, float]]) -> Drawn:
    return {
        "type": "data",
        "symmetric": False,
        "array": numbers(high - value for value, (_, high) in zip(values, ends, strict=True)),
        "arrayminus": numbers(value - low for value, (low, _) in zip(values, ends, strict=True)),
        "color": GREY,
        "thickness": 1,
        "width": 0,
    }


@traced.register
def _(mark: Lines) -> Drawn:
    x: list[Any] = []
    y: list[Any] = []
    models: list[str] = []
    hover: list[str] = []
    for index, (across, up) in enumerate(mark.paths):
        x += [*numbers(across), None]
        y += [*numbers(up), None]
        models += [mark.models[index] if mark.models else ""] * len(across) + [""]
        hover += [*(mark.hover[index] if mark.hover else [""] * len(across)), ""]
    if not mark.paths:  # in the legend alone
        x, y = [None], [None]
    style = mark.style
    line = {"color": style.colour, "dash": style.dash, "width": style.width}
    line["shape"] = "hv" if mark.steps else "linear"
    trace: Drawn = {"type": "scatter", "mode": "lines+markers" if mark.marked else "lines", "x": x, "y": y}
    trace |= {"line": line, "opacity": style.opacity, "connectgaps": False}
    if mark.marked:
        trace["marker"] = marker(style)
    return trace | pointed(models if mark.models else (), hover if mark.hover else ())


@traced.register
def _(mark: Boxes) -> Drawn:
    style = mark.style
    colour: Drawn = {"color": CLEAR if style.open else style.colour, "opacity": style.opacity}
    colour["line"] = {"color": style.edge, "width": style.edge_width}
    if style.hatch:
        colour["pattern"] = {
            "shape": "/",
            "fgcolor": style.colour,
            "bgcolor": CLEAR,
            "size": 6,
            "solidity": 0.2,
        }
        colour["pattern"]["fillmode"] = "overlay"
        colour["color"] = CLEAR
    sides = list(zip(mark.left, mark.right, strict=True)), list(zip(mark.bottom, mark.top, strict=True))
    inside = {"textposition": "inside", "insidetextanchor": "middle", "textangle": 0}
    return {
        "type": "bar",
        "x": numbers((low + high) / 2 for low, high in sides[0]),
        "width": numbers(high - low for low, high in sides[0]),
        "base": numbers(mark.bottom),
        "y": numbers(high - low for low, high in sides[1]),
        "marker": colour,
        **({"text": [plain(name) for name in mark.names], **inside} if mark.names else {}),
        **pointed(mark.models, mark.hover),
    }


@traced.register
def _(mark: Heat) -> Drawn:
    trace: Drawn = {"type": "heatmap", "x": numbers(mark.x), "y": numbers(mark.y)}
    trace["z"] = [numbers(row) for row in mark.values]
    trace |= {"hovertext": [[lines(text) for text in row] for row in mark.hover], "hoverinfo": "text"}
    return trace


@traced.register
def _(mark: Rule) -> Drawn:
    """For the legend alone."""
    line = {"color": mark.style.colour, "dash": mark.style.dash, "width": mark.style.width}
    return {"type": "scatter", "mode": "lines", "x": [None], "y": [None], "line": line}


@traced.register
def _(mark: Notes) -> Drawn:
    return {
        "type": "scatter",
        "mode": "text",
        "x": numbers(mark.x),
        "y": numbers(mark.y),
        "text": [lines(text) for text in mark.text],
        "textposition": SIDES[mark.align],
        "textfont": {"color": mark.style.colour, "size": 11},
        "hoverinfo": "skip",
        "cliponaxis": False,
    }


def pointed(models: Sequence[str], hover: Sequence[str]) -> Drawn:
    """What a pointer shows, and a click."""
    shown: Drawn = {"hoverinfo": "text", "hovertext": [lines(text) for text in hover]} if hover else {}
    if not hover and not models:
        shown = {"hoverinfo": "skip"}
    return shown | ({"customdata": list(models)} if models else {})


def in_space(cloud: Cloud) -> Drawn:
    look = marker(cloud.style, cloud.sizes, cloud.shades)
    look["symbol"] = IN_SPACE.get(cloud.style.marker, "circle")
    return {
        "type": "scatter3d",
        "mode": "markers+text" if cloud.names else "markers",
        "x": numbers(cloud.x),
        "y": numbers(cloud.y),
        "z": numbers(cloud.z),
        "text": [plain(name) for name in cloud.names],
        "textfont": {"size": 11, "color": INK},
        "marker": look,
        "name": plain(cloud.label),
        **pointed(cloud.models, cloud.hover),
    }


# values


def numbers(values: Iterable[float]) -> list[float | None]:
    """As JSON has them: NaN as null, digits that nobody sees left out."""
    return [float(f"{value:.{PLACES}g}") if math.isfinite(value) else None for value in values]


def plain(text: str) -> str:
    """Words that plotly, which reads some HTML, shows as they are."""
    return html.escape(text, quote=False)


def lines(text: str) -> str:
    return plain(text).replace("\n", "<br>")
