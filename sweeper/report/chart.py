"""A figure as numbers: what is drawn where, and what it is. Drawn by interactive.py for the page and for
notebooks, and by static.py for papers, so that both show the same.

Lengths are in pixels of a page at 96 to the inch. NaN is a gap. A `model` is what a click shows: the id of a
trial, or of a trial after an epoch; "" for nothing. Colours are those of Okabe and Ito (2008), which the
colour-blind tell apart; in grey, methods differ by marker and dash.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache

import numpy as np
from numpy.typing import NDArray

Numbers = Sequence[float] | NDArray[np.float64]

INK, GREY, PALE, PAPER = "#1d2125", "#6b7580", "#cfd4d9", "#ffffff"
DARK = {INK: "#e4e7ea", GREY: "#9aa4ae", PALE: "#434b53", PAPER: "#16191c"}
"""What stands for these on a dark page."""
BLUE, SKY, VERMILION = "#0072B2", "#56B4E9", "#D55E00"
OKABE_ITO = (BLUE, "#E69F00", "#009E73", "#CC79A7", SKY, VERMILION, INK)
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "h")
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
UNTRAINED = "untrained"
FAINT = 0.45

LINE, TITLE_LINE = 17.0, 16.0
"""How high a line is, of text and of a panel's title."""
TEXT = 12.0
"""The size of ticks and of the legend on the page; on paper they are a little smaller."""


@dataclass(frozen=True)
class Style:
    """How a mark looks. size: diameter.  open: without filling.  edge: colour of the outline."""

    colour: str = INK
    marker: str = "o"
    dash: str = "solid"
    width: float = 1.5
    size: float = 7
    opacity: float = 1
    open: bool = False
    edge: str = PAPER
    edge_width: float = 0.7
    hatch: bool = False


@dataclass(frozen=True)
class Points:
    """Points with, where they are given, intervals (low, high), a size, a value for the colour scale, a name
    written beside and lines that a pointer shows, each (N,)."""

    x: Numbers
    y: Numbers
    style: Style = Style()
    label: str = ""
    models: Sequence[str] = ()
    hover: Sequence[str] = ()
    x_intervals: Sequence[tuple[float, float]] = ()
    y_intervals: Sequence[tuple[float, float]] = ()
    sizes: Sequence[float] = ()
    shades: Sequence[float] = ()
    names: Sequence[str] = ()


@dataclass(frozen=True)
class Lines:
    """Polylines of one style, each with its model and what a pointer shows at each of its corners.

    marked: with a marker at each corner.  steps: level up to the next corner.
    """

    paths: Sequence[tuple[Numbers, Numbers]]
    style: Style = Style()
    label: str = ""
    models: Sequence[str] = ()
    hover: Sequence[Sequence[str]] = ()
    marked: bool = False
    steps: bool = False


@dataclass(frozen=True)
class Boxes:
    """Rectangles, each side (N,), with, where they are given, names (N,), each written inside if it fits."""

    left: Numbers
    right: Numbers
    bottom: Numbers
    top: Numbers
    style: Style = Style()
    label: str = ""
    models: Sequence[str] = ()
    hover: Sequence[str] = ()
    names: Sequence[str] = ()


@dataclass(frozen=True)
class Heat:
    """Values (len(y), len(x)) at the crossings of x and y, on the chart's colour scale."""

    x: Sequence[float]
    y: Sequence[float]
    values: Sequence[Sequence[float]]
    hover: Sequence[Sequence[str]] = ()


@dataclass(frozen=True)
class Rule:
    """A line across the panel: `x` through all (at, y), `y` through all (x, at)."""

    axis: str
    at: float
    style: Style = Style()
    label: str = ""


@dataclass(frozen=True)
class Notes:
    """Words at points. align: where the point is, `left`, `center` or `right` of the words."""

    x: Sequence[float]
    y: Sequence[float]
    text: Sequence[str]
    align: str = "left"
    style: Style = Style()


Mark = Points | Lines | Boxes | Heat | Rule | Notes


@dataclass(frozen=True)
class Axis:
    """low, high: its ends, as far as they are given; high may be below low.  ticks: labels by their place."""

    title: str = ""
    low: float | None = None
    high: float | None = None
    log: bool = False
    ticks: Mapping[float, str] | None = None
    grid: bool = True
    whole: bool = False
    """Whether ticks stand at whole numbers only."""
    shown: bool = True


@dataclass(frozen=True)
class Panel:
    marks: Sequence[Mark]
    x: Axis = Axis()
    y: Axis = Axis()
    title: str = ""
    scale: Scale | None = None
    """Of `shades` and of heat, drawn on its right."""


@dataclass(frozen=True)
class Scale:
    """A colour scale: viridis, which gets lighter from low to high."""

    title: str
    low: float
    high: float


@dataclass(frozen=True)
class Cloud:
    """Points in three dimensions, as `Points`. A line from each to the ends of an interval in z is left out:
    bars in all three directions hide what they say."""

    x: Sequence[float]
    y: Sequence[float]
    z: Sequence[float]
    style: Style
    label: str
    models: Sequence[str]
    hover: Sequence[str]
    sizes: Sequence[float] = ()
    shades: Sequence[float] = ()
    names: Sequence[str] = ()


@dataclass(frozen=True)
class Scene:
    """What can be turned on a screen, in place of the panels."""

    clouds: Sequence[Cloud]
    titles: tuple[str, str, str]
    height: float = 620


@dataclass(frozen=True)
class Chart:
    """A figure. caption: what is to be seen, and what the numbers are.

    height: of a panel's drawing area.  right: room for words on the right of the last column.
    """

    name: str
    title: str
    caption: str
    panels: Sequence[Panel]
    columns: int = 1
    width: float = 760
    height: float = 300
    right: float = 12
    scene: Scene | None = None

    @property
    def rows(self) -> int:
        return -(-len(self.panels) // self.columns)

    def legend(self) -> list[tuple[str, Mark]]:
        """The labels in their order, each with the first mark that has it."""
        marks = [mark for panel in self.panels for mark in panel.marks]
        found: dict[str, Mark] = {}
        for mark in marks:
            label = getattr(mark, "label", "")
            if label:
                found.setdefault(label, mark)
        return list(found.items())


@dataclass(frozen=True)
class Absent:
    """A figure for which there are no numbers. reason: why, as a sentence."""

    name: str
    title: str
    reason: str


@dataclass(frozen=True)
class Frame:
    """Where the panels of a chart lie: (left, bottom, width, height) of each drawing area from the lower left
    corner of the whole, and the margins that the outermost leave."""

    width: float
    height: float
    areas: list[tuple[float, float, float, float]]
    left: float
    right: float
    top: float
    bottom: float
    legend_rows: int


SCALE_ROOM = 76.0
NUMBER = "−0.00"
"""As wide as ticks are that are not given."""


def frame(chart: Chart) -> Frame:
    """The places of panels, from how much room their labels need."""
    grid = [(index // chart.columns, index % chart.columns) for index in range(len(chart.panels))]

    def most(rooms: Iterable[tuple[int, float]], count: int) -> list[float]:
        largest = [0.0] * count
        for at, room in rooms:
            largest[at] = max(largest[at], room)
        return largest

    panels = list(zip(grid, chart.panels, strict=True))
    columns = min(chart.columns, len(chart.panels))
    lefts = most(((c, left_room(panel.y)) for (_, c), panel in panels), columns)
    rights = most(((c, SCALE_ROOM if panel.scale else 12.0) for (_, c), panel in panels), columns)
    rights[-1] = max(rights[-1], chart.right)
    tops = most(((r, title_room(panel)) for (r, _), panel in panels), chart.rows)
    bottoms = most(((r, bottom_room(panel.x)) for (r, _), panel in panels), chart.rows)
    legend_rows = rows_of_legend(chart)
    each = (chart.width - sum(lefts) - sum(rights)) / columns
    legend = 10 + 22.0 * legend_rows
    height = legend + sum(tops) + sum(bottoms) + chart.height * chart.rows
    areas = []
    for (row, column), _ in panels:
        left = sum(lefts[: column + 1]) + sum(rights[:column]) + each * column
        above = legend + sum(tops[: row + 1]) + sum(bottoms[:row]) + chart.height * row
        areas.append((left, height - above - chart.height, each, chart.height))
    return Frame(chart.width, height, areas, lefts[0], rights[-1], legend + tops[0], bottoms[-1], legend_rows)


def left_room(axis: Axis) -> float:
    texts = [line for text in (axis.ticks or {}).values() for line in text.split("\n")]
    longest = max(map(wide, texts or [NUMBER]))
    return (12 + longest if axis.shown else 6) + (22 if axis.title else 0)


@cache
def wide(text: str) -> float:
    """How wide a line is in DejaVu Sans, matplotlib's own font, than which few that pages are set in are
    wider."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    return float(text_to_path.get_text_width_height_descent(text, FontProperties(size=TEXT), False)[0])


def bottom_room(axis: Axis) -> float:
    lines = max((text.count("\n") + 1 for text in (axis.ticks or {}).values()), default=1)
    return (12 + LINE * lines if axis.shown else 4) + (20 if axis.title else 0)


def title_room(panel: Panel) -> float:
    return 10 + (TITLE_LINE * (panel.title.count("\n") + 1) if panel.title else 0)


def rows_of_legend(chart: Chart) -> int:
    """As many as its entries fill, one behind the other."""
    rows, used = 0, chart.width
    for label, _ in chart.legend():
        needed = 44 + wide(label)
        if used + needed > chart.width:
            rows, used = rows + 1, 0.0
        used += needed
    return rows


@dataclass(frozen=True)
class Look:
    """How each method looks, the same in all figures of a run."""

    styles: dict[str, Style] = field(default_factory=dict)

    @classmethod
    def of(cls, methods: Iterable[str]) -> Look:
        """In the order of their names."""
        looks = {}
        for index, method in enumerate(sorted(set(methods))):
            looks[method] = Style(
                OKABE_ITO[index % len(OKABE_ITO)],
                MARKERS[index % len(MARKERS)],
                DASHES[index % len(DASHES)],
            )
        return cls(looks | {UNTRAINED: Style(GREY, "*", "dash")})

    def __getitem__(self, method: str) -> Style:
        return self.styles[method]

    def grey(self, method: str) -> Style:
        """Told apart by marker alone."""
        return replace(self.styles[method], colour=GREY)
