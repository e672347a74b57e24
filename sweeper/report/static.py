"""A chart as matplotlib draws it, for papers: PNG with its title and caption, PDF and SVG without, which a
paper has of its own. PDF is vectors, with TrueType fonts embedded."""

from __future__ import annotations

import importlib
import math
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from functools import singledispatch
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection, PatchCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FixedLocator, MaxNLocator, NullFormatter, ScalarFormatter
from numpy.typing import NDArray

from sweeper.report.chart import (
    GREY,
    INK,
    PALE,
    Boxes,
    Chart,
    Frame,
    Heat,
    Lines,
    Mark,
    Notes,
    Numbers,
    Panel,
    Points,
    Rule,
    Scale,
    Style,
    frame,
    wide,
)
from sweeper.report.naming import settled

INCH = 96
POINT = 0.75
"""Of a pixel."""
FORMATS = ("png", "pdf", "svg")
DASHES: dict[str, Any] = {
    "solid": "-",
    "dash": (0, (5, 2)),
    "dot": (0, (1.2, 1.8)),
    "dashdot": (0, (5, 2, 1.2, 2)),
    "longdash": (0, (9, 3)),
    "longdashdot": (0, (9, 2, 1.2, 2)),
}
SHADES = mpl.colormaps["viridis"]
STYLE: dict[Any, Any] = {
    "axes.axisbelow": True,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "font.family": "sans-serif",
    "font.size": 9,
    "grid.color": PALE,
    "grid.linestyle": ":",
    "grid.linewidth": 0.7,
    "hatch.linewidth": 0.6,
    "legend.frameon": False,
    "pdf.fonttype": 42,
    "svg.fonttype": "none",
    "svg.hashsalt": "clip-sweeper",  # the same file for the same numbers
    "text.color": INK,
    "text.parse_math": False,  # a name may hold a $
    "xtick.color": GREY,
    "xtick.labelcolor": INK,
    "xtick.labelsize": 8.5,
    "ytick.color": GREY,
    "ytick.labelcolor": INK,
    "ytick.labelsize": 8.5,
}
TICK = 50
"""A tick's share of a panel's width, in pixels."""
WORDS = 17.5
"""Characters of a caption to the inch."""


def save(chart: Chart, file: Path, dots: int = 150) -> None:
    """The chart as a file, in the format that its name ends with; its caption is in a PDF's and an SVG's
    description. dots: of a PNG, to the inch."""
    kind = file.suffix[1:]
    with mpl.rc_context(STYLE):
        if kind == "png":
            figure = drawn(chart, chart.caption)
            figure.savefig(file, dpi=dots)
            return
        described = {"Title": chart.title, ("Subject" if kind == "pdf" else "Description"): chart.caption}
        undated: dict[str, Any] = {"CreationDate": None} if kind == "pdf" else {"Date": None}
        drawn(chart).savefig(file, metadata=described | undated)


def drawn(chart: Chart, caption: str = "") -> Figure:
    """The figure; with a caption, under its title and above the caption."""
    placed = frame(chart)
    told = textwrap.wrap(caption, int(chart.width / INCH * WORDS)) if caption else []
    below, above = 13.0 * len(told) + (10 if told else 0), 24.0 if caption else 0.0
    height = placed.height + below + above
    if "IPython" in sys.modules:  # which MLflow may be importing in its thread, and matplotlib looks into
        importlib.import_module("IPython")
    figure = Figure(figsize=(placed.width / INCH, height / INCH))
    if caption:
        figure.text(8 / placed.width, 1 - 8 / height, chart.title, va="top", weight="bold", size=11)
        figure.text(8 / placed.width, 6 / height, "\n".join(told), va="bottom", size=7.5, color=GREY)
    for panel, (left, bottom, width, tall) in zip(chart.panels, placed.areas, strict=True):
        place = (left / placed.width, (bottom + below) / height, width / placed.width, tall / height)
        paint(figure.add_axes(place), panel, width)
    legend(figure, chart, placed, (above + 2) / height)
    return figure


def paint(axes: Axes, panel: Panel, width: float) -> None:
    prepare(axes, panel, width)
    canvas = Canvas(axes, Normalize(panel.scale.low, panel.scale.high) if panel.scale else None)
    for mark in panel.marks:
        draw(mark, canvas)
    set_ends(axes, panel)
    if panel.scale:
        colour_bar(axes, panel.scale)
    points = [mark for mark in panel.marks if isinstance(mark, Points)]
    if any(mark.names for mark in points):
        write_names(axes, points)
    for mark in panel.marks:
        if isinstance(mark, Boxes) and mark.names:
            write_inside(axes, mark)


def prepare(axes: Axes, panel: Panel, width: float) -> None:
    if panel.title:
        axes.set_title(panel.title, fontsize=9, pad=5)
    ticks = max(2, int(width / TICK))
    for side, of in (("x", panel.x), ("y", panel.y)):
        if of.log:
            getattr(axes, f"set_{side}scale")("log")
        along = getattr(axes, f"{side}axis")
        along.set_label_text(of.title)
        axes.grid(of.grid, axis=side)  # type: ignore[arg-type]
        if of.ticks is not None:
            along.set_major_locator(FixedLocator(list(of.ticks)))
            along.set_minor_formatter(NullFormatter())
            along.set_ticklabels(list(of.ticks.values()))
        elif of.whole:
            along.set_major_locator(MaxNLocator(ticks, integer=True, min_n_ticks=1))
        elif not of.log:
            along.set_major_locator(MaxNLocator(ticks if side == "x" else 5, steps=[1, 2, 2.5, 5, 10]))
        if type(along.get_major_formatter()) is ScalarFormatter:
            along.set_major_formatter(Powers())
            along.get_offset_text().set_parse_math(True)
        if not of.shown:
            along.set_visible(False)
            axes.spines["bottom" if side == "x" else "left"].set_visible(False)


class Powers(ScalarFormatter):
    """What ticks have in common as a power of ten, in place of 1e-11."""

    def get_offset(self) -> str:
        self.set_useMathText(True)
        common = super().get_offset()
        self.set_useMathText(False)  # else ticks would be, too
        return common


def set_ends(axes: Axes, panel: Panel) -> None:
    for of, ends in ((panel.x, axes.set_xlim), (panel.y, axes.set_ylim)):
        ends(of.low, of.high)  # None leaves what the marks need


def colour_bar(axes: Axes, scale: Scale) -> None:
    figure, place = axes.get_figure(root=True), axes.get_position()
    assert figure is not None
    width = figure.get_figwidth() * INCH
    bar = figure.add_axes((place.x1 + 8 / width, place.y0, 11 / width, place.height))
    shown = figure.colorbar(
        ScalarMappable(Normalize(scale.low, scale.high), SHADES), cax=bar, label=scale.title
    )
    shown.outline.set_visible(False)
    shown.locator = MaxNLocator(5)
    shown.update_ticks()


# marks


@dataclass(frozen=True)
class Canvas:
    """Axes, and what the colour scale makes of values."""

    axes: Axes
    norm: Normalize | None


@singledispatch
def draw(mark: Mark, on: Canvas) -> None:
    raise TypeError(mark, on)


@draw.register
def _(mark: Points, on: Canvas) -> None:
    x, y, style = np.asarray(mark.x), np.asarray(mark.y), mark.style
    for ends, values, name in ((mark.x_intervals, x, "xerr"), (mark.y_intervals, y, "yerr")):
        if ends:
            low, high = np.asarray(ends).T
            reach: dict[str, Any] = {name: np.maximum([values - low, high - values], 0)}
            on.axes.errorbar(x, y, fmt="none", ecolor=GREY, elinewidth=0.6, zorder=2.5, **reach)
    sizes = np.asarray(mark.sizes) if mark.sizes else style.size
    face: Any = style.colour
    if mark.shades and on.norm:
        face = SHADES(on.norm(np.asarray(mark.shades)))
    look: dict[str, Any] = {"facecolors": face, "edgecolors": style.edge, "linewidths": style.edge_width}
    if style.open:
        look = {"facecolors": "none", "edgecolors": style.colour, "linewidths": 1.2}
    if style.marker == "|":  # it has no filling
        look = {"color": style.colour, "linewidths": 1.5}
    area = (np.asarray(sizes) * POINT) ** 2
    on.axes.scatter(x, y, s=area, marker=style.marker, alpha=style.opacity, zorder=3, **look)


@draw.register
def _(mark: Lines, on: Canvas) -> None:
    style = mark.style
    look: dict[str, Any] = {"color": style.colour, "alpha": style.opacity}
    paths = [np.array(stairs(x, y) if mark.steps else (x, y), dtype=np.float64).T for x, y in mark.paths]
    strokes = LineCollection(paths, linewidths=style.width * POINT, linestyles=DASHES[style.dash], **look)
    on.axes.add_collection(strokes)
    on.axes.autoscale_view()
    if mark.marked and paths:
        x, y = np.concatenate(paths).T
        on.axes.scatter(x, y, s=(style.size * POINT) ** 2, marker=style.marker, linewidths=0, **look)


def stairs(x: Numbers, y: Numbers) -> tuple[Numbers, Numbers]:
    """Level up to the next corner."""
    return np.repeat(np.asarray(x), 2)[1:], np.repeat(np.asarray(y), 2)[:-1]


@draw.register
def _(mark: Boxes, on: Canvas) -> None:
    style = mark.style
    sides = zip(mark.left, mark.right, mark.bottom, mark.top, strict=True)
    boxes = [Rectangle((left, low), right - left, high - low) for left, right, low, high in sides]
    on.axes.add_collection(PatchCollection(boxes, **filling(style)))
    on.axes.autoscale_view()


def filling(style: Style) -> dict[str, Any]:
    if style.hatch:
        return {"facecolor": "none", "edgecolor": style.colour, "hatch": "/////", "linewidth": 0.7}
    face = "none" if style.open else style.colour
    return {"facecolor": face, "edgecolor": style.edge, "linewidth": style.edge_width, "alpha": style.opacity}


@draw.register
def _(mark: Heat, on: Canvas) -> None:
    look: dict[str, Any] = {"norm": on.norm, "cmap": SHADES, "shading": "nearest", "zorder": 0}
    on.axes.pcolormesh(mark.x, mark.y, mark.values, edgecolors="face", linewidth=0.2, **look)


@draw.register
def _(mark: Rule, on: Canvas) -> None:
    line = on.axes.axvline if mark.axis == "x" else on.axes.axhline
    line(mark.at, color=mark.style.colour, ls=DASHES[mark.style.dash], lw=mark.style.width * POINT)


@draw.register
def _(mark: Notes, on: Canvas) -> None:
    look: dict[str, Any] = {"ha": mark.align, "va": "center", "fontsize": 8, "zorder": 5}
    halo = [withStroke(linewidth=2, foreground="white")]
    for x, y, text in zip(mark.x, mark.y, mark.text, strict=True):
        on.axes.text(x, y, text, color=mark.style.colour, path_effects=halo, **look)


# legend


def legend(figure: Figure, chart: Chart, placed: Frame, below: float) -> None:
    entries = chart.legend()
    if entries:
        columns = -(-len(entries) // placed.legend_rows)
        place: dict[str, Any] = {"loc": "upper left", "bbox_to_anchor": (0, 1 - below), "borderaxespad": 0}
        handles = [handle(mark, label) for label, mark in entries]
        figure.legend(handles=handles, ncols=columns, columnspacing=1.4, handletextpad=0.5, **place)


def handle(mark: Mark, label: str) -> Any:
    style: Style = getattr(mark, "style", Style())
    if isinstance(mark, Boxes):
        return Patch(label=label, **filling(style))
    line = {
        "color": style.colour,
        "ls": DASHES[style.dash],
        "lw": style.width * POINT,
        "alpha": style.opacity,
    }
    if isinstance(mark, Lines | Rule):
        marked = style.marker if isinstance(mark, Lines) and mark.marked else ""
        return Line2D([], [], label=label, marker=marked, markersize=style.size * POINT, **line)
    face = GREY if isinstance(mark, Points) and mark.shades else style.colour
    look: dict[str, Any] = {"markerfacecolor": face, "markeredgecolor": style.edge, "alpha": style.opacity}
    look["markeredgewidth"] = style.edge_width
    if style.open:
        look |= {"markerfacecolor": "none", "markeredgecolor": style.colour, "markeredgewidth": 1.2}
    return Line2D(
        [], [], ls="", marker=style.marker, markersize=max(style.size, 8) * POINT, label=label, **look
    )


# names beside points, and in boxes

NAME = 8.0
"""Points of a name's size."""
AROUND = [
    (r * math.cos(angle), r * math.sin(angle))
    for r in (17, 27, 39, 51)
    for angle in map(math.radians, (90, 0, 180, 270, 45, 135, 225, 315))
]
"""From a point to the middle of its name, in pixels."""


def pixels(axes: Axes, x: Numbers, y: Numbers) -> NDArray[np.float64]:
    """(n, 2), from the lower left corner of the axes."""
    at = axes.transData.transform(np.column_stack([x, y])) - axes.bbox.min
    return np.asarray(at * unit(axes), dtype=np.float64)


def unit(axes: Axes) -> float:
    """Pixels of what the axes reckon in."""
    figure = axes.get_figure(root=True)
    assert figure is not None
    return INCH / figure.dpi


def write_names(axes: Axes, marks: Sequence[Points]) -> None:
    """Writes each name beside its point, where it covers no point and no other name if it can."""
    everything = np.concatenate([pixels(axes, mark.x, mark.y) for mark in marks])
    named = [each for mark in marks for each in zip(mark.x, mark.y, mark.names, strict=False) if each[2]]
    places = [(pixels(axes, [x], [y])[0], name) for x, y, name in named]
    area = axes.bbox.width * unit(axes), axes.bbox.height * unit(axes)
    found = settled(everything[np.isfinite(everything).all(1)], places, area, lambda _: AROUND)
    look: dict[str, Any] = {"textcoords": "offset points", "ha": "center", "va": "center", "fontsize": NAME}
    for (x, y, name), chosen in zip(named, found, strict=True):
        across, up = AROUND[chosen]
        axes.annotate(name, (x, y), (across * POINT, up * POINT), **look)


def write_inside(axes: Axes, mark: Boxes) -> None:
    """Writes each name into its box, if it fits."""
    left, right = (pixels(axes, ends, mark.bottom)[:, 0] for ends in (mark.left, mark.right))
    sides = (mark.left, mark.right), (mark.bottom, mark.top)
    middles = [(np.asarray(low) + np.asarray(high)) / 2 for low, high in sides]
    look: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": NAME, "zorder": 5}
    for name, x, y, room in zip(mark.names, *middles, right - left, strict=True):
        if wide(name) < room:
            axes.text(x, y, name, **look)
