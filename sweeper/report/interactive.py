"""A chart as plotly draws it: a dictionary of traces and layout, which `plotly.graph_objects.Figure` takes.

A dictionary, because plotly checks each value of a figure, and a page of hundreds of trials has many.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from sweeper.report.chart import (
    GREY,
    INK,
    LINE,
    PALE,
    PAPER,
    Axis,
    Chart,
    Frame,
    Lines,
    Panel,
    Points,
    Rule,
    Scale,
    Scene,
    frame,
)
from sweeper.report.naming import settled
from sweeper.report.traces import CLEAR, Drawn, in_space, lines, plain, traced

FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "Liberation Sans", sans-serif'
FEW, HEAD = 10, 34
CHARACTER = 6.3
"""How wide one of a caption is on average, in pixels."""


def drawn(chart: Chart) -> Drawn:
    """`data` and `layout`."""
    return space(chart.scene) if chart.scene else flat(chart)


def alone(chart: Chart) -> Drawn:
    """As `drawn`, with its title above and its caption below: for where no page has them."""
    shown = drawn(chart)
    layout, told = shown["layout"], textwrap.wrap(chart.caption, int(chart.width / CHARACTER))
    below, margin = layout["margin"]["b"], layout["margin"]
    layout["height"] += HEAD + LINE * len(told)
    margin |= {"t": margin["t"] + HEAD, "b": below + LINE * len(told)}
    layout["title"] = {"text": f"<b>{plain(chart.title)}</b>", "font": {"size": 15}, "x": 0, "xref": "paper"}
    layout["title"] |= {"y": 1, "yref": "container", "yanchor": "top", "pad": {"t": 10}}
    layout["legend"] |= {"y": 1 - HEAD / layout["height"], "yref": "container"}
    place = {"x": 0, "xref": "paper", "xanchor": "left", "xshift": -margin["l"] + 8}
    place |= {"y": 0, "yref": "paper", "yanchor": "top", "yshift": -below}
    note = {"text": lines("\n".join(told)), "showarrow": False, "align": "left", **place}
    layout.setdefault("annotations", []).append(note | {"font": {"size": 11, "color": GREY}})
    return shown


def flat(chart: Chart) -> Drawn:
    placed = frame(chart)
    layout = base(placed.height)
    layout["margin"] = {"l": placed.left, "r": placed.right, "t": placed.top, "b": placed.bottom}
    layout["legend"] |= {"x": 0, "xanchor": "left", "xref": "paper", "y": 1, "yanchor": "top"}
    layout["legend"]["yref"] = "container"
    layout["annotations"], layout["shapes"] = [], []
    data: list[Drawn] = []
    named: set[str] = set()
    for index, panel in enumerate(chart.panels):
        number = str(index + 1) if index else ""
        layout |= axes(panel, placed, index, number)
        layout["annotations"] += title(panel, number)
        sides = beside(panel, placed.areas[index][2:])
        for mark in panel.marks:
            trace = traced(mark)
            if isinstance(mark, Points) and mark.names:
                trace["textposition"] = [next(sides) for _ in mark.names]
            if isinstance(mark, Rule):
                layout["shapes"].append(ruled(mark, number))
            label = getattr(mark, "label", "")
            trace |= {"xaxis": f"x{number}", "yaxis": f"y{number}"}
            trace |= {
                "name": plain(label),
                "legendgroup": label,
                "showlegend": bool(label) and label not in named,
            }
            named.add(label)
            if not isinstance(mark, Rule) or trace["showlegend"]:
                data.append(trace)
        if panel.scale:
            layout[f"coloraxis{number}"] = colours(panel.scale, placed, index)
            for trace in data:
                if trace["xaxis"] == f"x{number}":
                    shaded(trace, f"coloraxis{number}")
    return {"data": data, "layout": layout}


SIDES = {
    "top right": (1, 1),
    "top left": (-1, 1),
    "bottom right": (1, -1),
    "bottom left": (-1, -1),
    "top center": (0, 1),
    "bottom center": (0, -1),
    "middle right": (1, 0),
    "middle left": (-1, 0),
}
"""Where plotly can write a name, and in which direction from the point that is; off the intervals first."""


def beside(panel: Panel, area: Sequence[float]) -> Iterator[str]:
    """Where each name is written, in the order of the marks. Near to what is seen: the page may be of another
    width, and plotly sets the ends of axes."""
    marks = [mark for mark in panel.marks if isinstance(mark, Points)]
    if not any(mark.names for mark in marks):
        return iter(())
    places = [along(marks, name, length) for name, length in zip("xy", area, strict=True)]
    points = np.column_stack([np.concatenate(each) for each in places])
    names = [name for mark in marks for name in (mark.names or [""] * len(mark.x))]
    named = [(point, name) for point, name in zip(points, names, strict=True) if name]
    known = points[np.isfinite(points).all(1)]
    sides = list(SIDES)
    return (sides[at] for at in settled(known, named, area, around))


def along(marks: Sequence[Points], side: str, length: float) -> list[NDArray[np.float64]]:
    """How far along an axis the points of each mark are, if it ends where the marks do. length: in pixels."""
    values = [np.asarray(getattr(mark, side), dtype=np.float64) for mark in marks]
    reach = [np.ravel(getattr(mark, f"{side}_intervals")) for mark in marks]
    everything = np.concatenate([*values, *reach])
    low, high = np.nanmin(everything), np.nanmax(everything)
    return [(each - low) / ((high - low) or 1) * length for each in values]


def around(width: float) -> list[tuple[float, float]]:
    """Of a name of this width, the offsets of `SIDES`, in pixels."""
    return [(across * (10 + width / 2), 17.0 * up) for across, up in SIDES.values()]


def base(height: float) -> Drawn:
    return {
        "height": round(height),
        "paper_bgcolor": CLEAR,
        "plot_bgcolor": CLEAR,
        "font": {"family": FONT, "size": 12, "color": INK},
        "hovermode": "closest",
        "hoverlabel": {
            "bgcolor": PAPER,
            "bordercolor": GREY,
            "font": {"color": INK, "family": FONT, "size": 12},
            "align": "left",
        },
        "legend": {"orientation": "h", "font": {"size": 12}, "bgcolor": CLEAR, "itemsizing": "constant"},
        "dragmode": "zoom",
        "barmode": "overlay",
        "uniformtext": {"minsize": 9, "mode": "hide"},  # names in boxes that are too small for them
    }


def axes(panel: Panel, placed: Frame, index: int, number: str) -> Drawn:
    """The two axes of a panel, at its share of what the margins leave."""
    left, bottom, width, height = placed.areas[index]
    across = placed.width - placed.left - placed.right
    up = placed.height - placed.top - placed.bottom
    x = [(left - placed.left) / across, (left - placed.left + width) / across]
    y = [(bottom - placed.bottom) / up, (bottom - placed.bottom + height) / up]
    return {
        f"xaxis{number}": axis(panel.x, x) | whole(panel) | {"anchor": f"y{number}"},
        f"yaxis{number}": axis(panel.y, y) | {"anchor": f"x{number}"},
    }


def whole(panel: Panel) -> Drawn:
    """Ticks at whole numbers: plotly would set some between few of them."""
    corners = [x for mark in panel.marks if isinstance(mark, Lines) for path in mark.paths for x in path[0]]
    corners += [x for mark in panel.marks if isinstance(mark, Points) for x in mark.x if math.isfinite(x)]
    few = panel.x.whole and corners and max(corners) - min(corners) <= FEW
    return {"tick0": 0, "dtick": 1} if few else {}


def axis(of: Axis, domain: list[float]) -> Drawn:
    ends = [None if end is None else (math.log10(end) if of.log else end) for end in (of.low, of.high)]
    shown: Drawn = {
        "domain": [min(max(end, 0.0), 1.0) for end in domain],
        "title": {"text": plain(of.title), "standoff": 8},
        "type": "log" if of.log else "linear",
        "showgrid": of.grid,
        "gridcolor": PALE,
        "griddash": "dot",
        "zeroline": False,
        "linecolor": GREY,
        "showline": of.shown,
        "ticks": "outside" if of.shown else "",
        "ticklen": 4,
        "tickcolor": GREY,
        "showticklabels": of.shown,
        "exponentformat": "power",
    }
    if None not in ends:
        shown["range"] = ends
    elif ends != [None, None]:
        shown |= {"rangemode": "tozero"} if of.low == 0 else {"autorangeoptions": clipped(ends)}
    if of.ticks is not None:
        shown |= {"tickvals": list(of.ticks), "ticktext": [lines(text) for text in of.ticks.values()]}
    elif of.log:
        shown |= {"dtick": "D2"}
    if of.whole:
        shown |= {"tickformat": "d", "minor": {"ticks": ""}}
    return shown


def clipped(ends: Sequence[float | None]) -> Drawn:
    return {
        name: end for name, end in zip(("minallowed", "maxallowed"), ends, strict=True) if end is not None
    }


def title(panel: Panel, number: str) -> list[Drawn]:
    if not panel.title:
        return []
    place = {"x": 0, "xref": f"x{number} domain", "xanchor": "left"}
    place |= {"y": 1, "yref": f"y{number} domain", "yanchor": "bottom", "yshift": 5}
    return [{"text": lines(panel.title), "showarrow": False, "align": "left", "font": {"size": 12}, **place}]


def colours(scale: Scale, placed: Frame, index: int) -> Drawn:
    left, bottom, width, height = placed.areas[index]
    right = (left - placed.left + width) / (placed.width - placed.left - placed.right)
    middle = (bottom - placed.bottom + height / 2) / (placed.height - placed.top - placed.bottom)
    bar: Drawn = {"title": {"text": plain(scale.title), "side": "right"}, "thickness": 12, "outlinewidth": 0}
    bar |= {"x": right, "xpad": 8, "y": middle, "len": height, "lenmode": "pixels"}
    return {"colorscale": "Viridis", "cmin": scale.low, "cmax": scale.high, "colorbar": bar}


def shaded(trace: Drawn, name: str) -> None:
    if trace["type"] == "heatmap":
        trace["coloraxis"] = name
    elif isinstance(trace.get("marker", {}).get("color"), list):
        trace["marker"]["coloraxis"] = name


def ruled(rule: Rule, number: str) -> Drawn:
    line = {"color": rule.style.colour, "dash": rule.style.dash, "width": rule.style.width}
    along, at = ("y", "x") if rule.axis == "x" else ("x", "y")
    return {
        "type": "line",
        "line": line,
        f"{along}ref": f"{along}{number} domain",
        f"{along}0": 0,
        f"{along}1": 1,
        f"{at}ref": f"{at}{number}",
        f"{at}0": rule.at,
        f"{at}1": rule.at,
        "layer": "above",
    }


# three dimensions


def space(scene: Scene) -> Drawn:
    layout = base(scene.height) | {"margin": {"l": 0, "r": 0, "t": 30, "b": 0}, "dragmode": "turntable"}
    layout["legend"] |= {"x": 0, "xanchor": "left", "y": 1, "yanchor": "top"}
    look = {"gridcolor": PALE, "zeroline": False, "linecolor": GREY, "showbackground": False}
    layout["scene"] = {
        f"{name}axis": {"title": {"text": plain(text)}, **look}
        for name, text in zip("xyz", scene.titles, strict=True)
    }
    layout["scene"] |= {"camera": {"eye": {"x": 1.5, "y": 1.5, "z": 0.8}}, "aspectmode": "cube"}
    named: set[str] = set()
    data = []
    for cloud in scene.clouds:
        shown = {"legendgroup": cloud.label, "showlegend": cloud.label not in named}
        data.append(in_space(cloud) | shown)
        named.add(cloud.label)
    return {"data": data, "layout": layout}
