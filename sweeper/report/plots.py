"""The pictures of a report, drawn with matplotlib: the front, the settings, reliability, learning."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, PercentFormatter
from matplotlib.transforms import Bbox

from sweeper.report.prepare import (
    VERSIONS,
    Axis,
    Content,
    Diagrams,
    Point,
    Reliability,
    Row,
    diagrams,
    models,
    parallel_axes,
    point,
    sample,
    words,
)
from sweeper.result import objectives, ranked_members
from sweeper.table import ARROW
from trainables.metrics.calibration import BINS

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from matplotlib.axes import Axes
    from matplotlib.text import Annotation
    from numpy.typing import NDArray

    from sweeper.run import Run
    from sweeper.trial import TrialRecord

SHOWN_MEMBERS = 6
"""Members of the front in the picture of all reliability diagrams."""

DRAWN_MEMBERS = 20
"""Members of the front that have a picture of their own."""

RELIABILITY = (
    f"Bars: accuracy in each of {BINS} equal-width bins of confidence. Hatched: the gap to mean confidence; "
    "ECE is its mean over images, and is biased upwards where they are few. Below: share of images per bin."
)
UNTRAINED = "untrained"
LEGEND_COLUMNS = 4
FAINT = 0.45
OKABE_ITO = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#F0E442")
GAP = "#D55E00"
INK, GREY, PALE = "#222222", "#6B6B6B", "#CFCFCF"
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "h")
SHADES = mpl.colormaps["viridis"]
STYLE: dict[Any, Any] = {
    "axes.axisbelow": True,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 9,
    "figure.constrained_layout.use": True,
    "font.size": 9,
    "grid.color": "#E8E8E8",
    "hatch.linewidth": 0.6,
    "legend.frameon": False,
    "savefig.dpi": 150,
    "text.color": INK,
    "text.parse_math": False,  # a name may hold a $
    "xtick.color": GREY,
    "xtick.labelcolor": INK,
    "ytick.color": GREY,
    "ytick.labelcolor": INK,
}


@dataclass(frozen=True)
class Picture:
    """A figure, the PNG file it becomes, and what it shows in a sentence."""

    file: str
    title: str
    caption: str
    figure: Figure


@dataclass(frozen=True)
class Look:
    """Colour and marker of each method, the same in all pictures of a run."""

    colour: dict[str, str]
    marker: dict[str, str]

    @classmethod
    def of(cls, content: Content) -> Look:
        methods = sorted({row["method"] for row in content["trials"]})
        colour = {method: OKABE_ITO[i % len(OKABE_ITO)] for i, method in enumerate(methods)}
        marker = {method: MARKERS[i % len(MARKERS)] for i, method in enumerate(methods)}
        return cls(colour | {UNTRAINED: GREY}, marker)

    def lines(self, methods: Collection[str]) -> list[Line2D]:
        """Legend entries of methods that are told apart by colour."""
        shown = [name for name in self.marker if name in methods]
        return [Line2D([], [], color=self.colour[name], lw=2, label=name) for name in shown]

    def markers(self) -> list[Line2D]:
        """Legend entries of all methods, told apart by marker."""
        return [marker_handle(marker, name, color=GREY) for name, marker in self.marker.items()]


def marker_handle(marker: str, label: str, **style: Any) -> Line2D:
    return Line2D([], [], linestyle="", **{"marker": marker, "label": label, "markersize": 7, **style})


def pictures(run: Run, content: Content) -> Iterator[Picture]:
    """Those of the whole run; one for which there are no numbers yet is left out."""
    look, ended = Look.of(content), models(content)
    trained = [run.trial(number(row)) for row in sample(content["trials"]) if row["epochs"]]
    with mpl.rc_context(STYLE):
        if ended:
            yield front_picture(content, ended, look)
            yield parallel_picture(content, ended, look)
        if content["baseline"]["validation"]:
            yield reliability_picture(run, content, look)
        if trained:
            yield curves_picture(content, trained, look)


def trial_pictures(run: Run, content: Content) -> Iterator[Picture]:
    """`<trial>@<epoch>-reliability.png` of the first `DRAWN_MEMBERS` members of the front."""
    look = Look.of(content)
    with mpl.rc_context(STYLE):
        for row in ranked_members(content)[:DRAWN_MEMBERS]:
            yield trial_picture(run, content, row, look)


def finish(
    content: Content, file: str, title: str, caption: str, figure: Figure, *, captioned: bool = False
) -> Picture:
    """The figure with its title, and with what its numbers are; `captioned` with its caption, too."""
    figure.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold")
    protocol = f"{content['run']}: {content['validation']['text']}"
    width = int(figure.get_figwidth() * 17)
    lines = [textwrap.fill(text, width) for text in ([caption] if captioned else []) + [protocol]]
    figure.supxlabel("\n".join(lines), x=0.01, ha="left", fontsize=7.5, color=GREY)
    return Picture(file, title, caption, figure)


def objective_labels(content: Content) -> list[str]:
    return [f"{words(name)} {ARROW[way]}" for way in ("maximize", "minimize") for name in content[way]]


# the front


def front_picture(content: Content, rows: Sequence[Row], look: Look) -> Picture:
    """The Pareto set, every trial that has ended, and the untrained model."""
    labels = objective_labels(content)
    points = [point(content, row["validation"], number(row)) for row in rows]
    baseline = content["baseline"]["validation"]
    untrained = [point(content, baseline, -1)] if baseline else []
    shades = [at.shade for at in (*points, *untrained) if at.shade is not None]
    norm = Normalize(min(shades), max(shades)) if shades else None
    figure = Figure(figsize=(7.8, 5.8))
    axes = figure.add_subplot()
    axes.grid(visible=True)
    axes.margins(0.08)
    axes.set(xlabel=labels[1] if len(labels) > 1 else "trial", ylabel=labels[0])
    for row, at in zip(rows, points, strict=True):
        colour, marker = shade(at, norm, look.colour[row["method"]]), look.marker[row["method"]]
        style: dict[str, Any] = {"s": 50, "edgecolors": "white", "linewidths": 0.6}
        if row["pareto"]:
            style = {"s": 110, "edgecolors": INK, "linewidths": 1.8, "zorder": 3}
        alpha = FAINT if row["status"] == "stopped" else 1
        axes.scatter(at.x, at.y, color=colour, marker=marker, alpha=alpha, **style)
    for at in untrained:
        colour = shade(at, norm, GREY)
        axes.scatter(at.x, at.y, s=260, color=colour, marker="*", edgecolors=INK, linewidths=0.8, zorder=4)
    if norm:
        figure.colorbar(ScalarMappable(norm, SHADES), ax=axes, label=labels[2], pad=0.02)
    handles = front_handles(rows, untrained, look)
    figure.legend(handles=handles, loc="outside upper right", ncols=LEGEND_COLUMNS)
    members = [(row["id"], at) for row, at in zip(rows, points, strict=True) if row["pareto"]]
    label_points(axes, members, [*points, *untrained])
    title = f"Pareto set: {len(members)} models from {len(content['trials'])} trials"
    caption = (
        "Every trial that was completed or stopped early, after its last epoch. The members of the Pareto "
        "set are outlined and named, trial@epoch, the star is the untrained model"
        f"{', and colour is ' + labels[2] if norm else ''}."
    )
    return finish(content, "front.png", title, caption, figure)


def number(row: Row) -> int:
    """The trial's."""
    return int(str(row.get("trial", row["id"]))[1:])


def shade(at: Point, norm: Normalize | None, otherwise: str) -> Any:
    """The colour of a point: its third objective, or its method if there is none."""
    return otherwise if norm is None or at.shade is None else SHADES(float(norm(at.shade)))


def front_handles(rows: Sequence[Row], untrained: Sequence[Point], look: Look) -> list[Line2D]:
    handles = look.markers()
    if any(row["pareto"] for row in rows):
        outlined = {"markerfacecolor": "white", "markeredgecolor": INK, "markeredgewidth": 1.8}
        handles.append(marker_handle("o", "Pareto set", markersize=9, **outlined))
    if any(row["status"] == "stopped" for row in rows):
        handles.append(marker_handle("o", "stopped early", color=GREY, alpha=FAINT))
    if untrained:
        handles.append(marker_handle("*", UNTRAINED, markersize=13, color=GREY, markeredgecolor=INK))
    return handles


def label_points(axes: Axes, labels: Sequence[tuple[str, Point]], points: Sequence[Point]) -> None:
    """Writes each label beside its point, where it covers no point and no other label if it can."""
    angles = np.radians([0, 180, 90, 270, 45, 135, 225, 315])
    offsets = [(r * np.cos(a), r * np.sin(a)) for r in (20, 29, 38) for a in angles]
    figure = axes.get_figure(root=True)
    assert figure is not None
    figure.draw_without_rendering()
    pixels = axes.transData.transform([(at.x, at.y) for at in points])
    taken = [Bbox.from_extents(x - 8, y - 8, x + 8, y + 8) for x, y in pixels]
    for text, at in labels:
        note = axes.annotate(
            text, (at.x, at.y), offsets[0], textcoords="offset points", ha="center", va="center", fontsize=8
        )
        note.set_in_layout(False)
        taken.append(place(note, offsets, taken, axes))


def place(note: Annotation, offsets: Sequence[tuple[float, float]], taken: Sequence[Any], axes: Axes) -> Any:
    """Moves the note to the offset at which it covers least, the first of equals; returns its box."""

    def cost(offset: tuple[float, float]) -> float:
        note.set_position(offset)
        box = note.get_window_extent()
        outside = sum(not axes.bbox.contains(x, y) for x, y in box.corners())
        return box.count_overlaps(taken) + outside

    note.set_position(min(offsets, key=cost))
    return note.get_window_extent()


# the settings


def parallel_picture(content: Content, rows: Sequence[Row], look: Look) -> Picture:
    """One line for each model of the Pareto set and each trial that has ended."""
    uprights = parallel_axes(content, rows)
    figure = Figure(figsize=(max(6.5, 1.6 * len(uprights)), 4.8))
    axes = figure.add_subplot()
    axes.axis("off")
    axes.set(xlim=(-0.5, len(uprights) - 0.6), ylim=(-0.05, 1.05))
    for position, upright in enumerate(uprights):
        draw_upright(axes, position, upright)
    ends = dict(zip((row["id"] for row in rows), uprights[-1].heights, strict=True))
    names = spread({row["id"]: ends[row["id"]] for row in rows if row["pareto"]}, 0.045)
    for index, row in enumerate(rows):
        x, y = smooth([upright.heights[index] for upright in uprights])
        if row["pareto"]:
            axes.plot(x, y, color=look.colour[row["method"]], lw=2.2, zorder=3)
            axes.text(x[-1] + 0.06, names[row["id"]], row["id"], fontsize=8, va="center")
        else:
            axes.plot(x, y, color=PALE, lw=1, zorder=1)
    others = Line2D([], [], color=PALE, label="not in the Pareto set")
    members = {row["method"] for row in rows if row["pareto"]}
    figure.legend(handles=[*look.lines(members), others], loc="outside upper right", ncols=LEGEND_COLUMNS)
    caption = (
        "Each line is a model of the Pareto set, or a trial after its last epoch, through the settings that "
        "all trials drew and its validation metrics; the Pareto set is coloured by method, and every metric "
        "has its better end on top."
    )
    return finish(content, "parallel.png", "Settings and what came of them", caption, figure)


def draw_upright(axes: Axes, position: int, upright: Axis) -> None:
    axes.plot([position, position], [0, 1], color=GREY, lw=1, zorder=4)
    axes.text(position, 1.06, upright.label, ha="center", va="bottom", fontweight="bold", fontsize=8.5)
    halo = {"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 0.8}
    for text, height in upright.ticks.items():
        axes.plot([position - 0.03, position], [height, height], color=GREY, lw=1, zorder=4)
        axes.text(position - 0.05, height, text, ha="right", va="center", fontsize=7.5, bbox=halo, zorder=5)


def smooth(heights: Sequence[float]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """A curve through the heights at 0, 1, 2, ... that is level at each."""
    x = np.linspace(0, len(heights) - 1, 24 * (len(heights) - 1) + 1)
    before = np.minimum(x.astype(int), max(len(heights) - 2, 0))
    after = np.minimum(before + 1, len(heights) - 1)
    share = (x - before) ** 2 * (3 - 2 * (x - before))
    values = np.asarray(heights)
    return x, values[before] * (1 - share) + values[after] * share


def spread(heights: Mapping[str, float], gap: float) -> dict[str, float]:
    """The heights, moved up where that is needed to keep them `gap` apart."""
    placed: dict[str, float] = {}
    lowest = -np.inf
    for name, height in sorted(heights.items(), key=lambda item: item[1]):
        placed[name] = max(height, lowest)
        lowest = placed[name] + gap
    return placed


# reliability


def reliability_picture(run: Run, content: Content, look: Look) -> Picture:
    """The untrained model and the first members of the front."""
    members = ranked_members(content)
    shown = members[:SHOWN_MEMBERS]
    untrained = run.storage.fetch(run.baseline_file.with_suffix(".parquet"))
    models = [diagrams(UNTRAINED, UNTRAINED, untrained)]
    models += [member_diagrams(run, row) for row in shown]
    title, figure = f"Reliability on {models[0].set}", reliability_figure(models, look)
    if len(shown) < len(members):
        first = words(objectives(content)[0])
        title += f": the first {len(shown)} of {len(members)} members of the Pareto set by {first}"
    return finish(content, "reliability.png", title, RELIABILITY, figure, captioned=True)


def trial_picture(run: Run, content: Content, row: Row, look: Look) -> Picture:
    model, of = member_diagrams(run, row), run.trial(number(row)).point(row["epoch"])
    title, figure = f"Reliability of {model.name} on {model.set}", reliability_figure([model], look)
    return finish(content, f"{of.id}-reliability.png", title, RELIABILITY, figure, captioned=True)


def member_diagrams(run: Run, row: Row) -> Diagrams:
    name = f"{row['id']} {row['method']}"
    records = run.trial(number(row)).point(row["epoch"]).records
    return diagrams(name, row["method"], run.storage.fetch(records))


def reliability_figure(models: Sequence[Diagrams], look: Look) -> Figure:
    """Clean and attacked side by side, two models in a row; below each diagram its share of images."""
    columns = len(VERSIONS) * min(len(models), 2)
    rows = -(-len(models) * len(VERSIONS) // columns)
    figure = Figure(figsize=(2.45 * columns + 0.3, 2.9 * rows + 0.7))
    grid = figure.add_gridspec(2 * rows, columns, height_ratios=[4, 1] * rows)
    panels = [(model, version) for model in models for version in VERSIONS]
    most = max(float(model.versions[version].shares.max()) for model, version in panels)
    for index, (model, version) in enumerate(panels):
        row, column = divmod(index, columns)
        of = model.versions[version]
        upper = figure.add_subplot(grid[2 * row, column])
        lower = figure.add_subplot(grid[2 * row + 1, column])
        title = f"{model.name}, {VERSIONS[version]}\nECE {of.ece:.4f}, n = {model.images}"
        upper.set_title(title, fontsize=8.5)
        draw_reliability(upper, of, look.colour[model.method])
        draw_shares(lower, of, most)
        if column == 0:
            upper.set_ylabel("accuracy")
            lower.set_ylabel("images")
    return figure


def draw_reliability(axes: Axes, of: Reliability, colour: str) -> None:
    filled = of.count > 0
    left = (np.arange(BINS) / BINS)[filled]
    accuracy, gap = of.accuracy[filled], (of.confidence - of.accuracy)[filled]
    bar: dict[str, Any] = {"width": 1 / BINS, "align": "edge"}
    axes.bar(left, accuracy, color=colour, alpha=0.75, edgecolor="white", linewidth=0.5, **bar)
    axes.bar(left, gap, bottom=accuracy, fill=False, edgecolor=GAP, hatch="/////", linewidth=0.9, **bar)
    axes.plot([0, 1], [0, 1], color=INK, ls="--", lw=0.9)
    axes.set(xlim=(0, 1), ylim=(0, 1), xticks=[0, 0.5, 1], yticks=[0, 0.5, 1])
    axes.tick_params(labelbottom=False)


def draw_shares(axes: Axes, of: Reliability, most: float) -> None:
    left = np.arange(BINS) / BINS
    axes.bar(left, of.shares, 1 / BINS, align="edge", color=GREY, edgecolor="white", linewidth=0.5)
    axes.set(xlim=(0, 1), ylim=(0, most), xticks=[0, 0.5, 1], yticks=[0, most], xlabel="confidence")
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))


# learning


def curves_picture(content: Content, trials: Sequence[TrialRecord], look: Look) -> Picture:
    """Every trial with an epoch behind it, running ones too."""
    names, labels = objectives(content), objective_labels(content)
    members = {row["trial"] for row in ranked_members(content)}
    figure = Figure(figsize=(max(6.5, 3.5 * len(names)), 4.0))
    for index, name in enumerate(names):
        axes = figure.add_subplot(1, len(names), index + 1)
        axes.grid(visible=True)
        axes.set(title=labels[index], xlabel="epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        for trial in trials:
            style: dict[str, Any] = {"lw": 1, "alpha": FAINT, "markersize": 3}
            if trial.id in members:
                style = {"lw": 2.4, "zorder": 3, "markersize": 5}
            epochs = [epoch["epoch"] for epoch in trial.epochs]
            values = [epoch["metrics"][name] for epoch in trial.epochs]
            axes.plot(epochs, values, color=look.colour[trial.method], marker="o", **style)
        if content["baseline"]["validation"]:
            axes.axhline(content["baseline"]["validation"][name], color=INK, ls="--", lw=1.2)
    untrained = Line2D([], [], color=INK, ls="--", label=UNTRAINED)
    methods = look.lines({trial.method for trial in trials})
    figure.legend(handles=[*methods, untrained], loc="outside upper right", ncols=LEGEND_COLUMNS)
    caption = (
        "Validation metrics after each epoch, coloured by method; trials with a model in the Pareto set "
        "are bold, and the dashed line is the untrained model."
    )
    return finish(content, "curves.png", "Learning curves", caption, figure)
