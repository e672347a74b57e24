"""The live view: a state of a sweep as one screen, which never wraps and never overflows."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from sweeper.result import protocol
from sweeper.run import Run
from sweeper.state import State, Task, pace
from sweeper.table import ARROW
from sweeper.terminal import amount, percent
from sweeper.trainable import MEASURING, TRAINING
from sweeper.trial import Metrics

FRONT_ROWS = 8
LEAST_ROWS = 3
"""Of what runs, however long the front is."""
WIDE = 80
BAR, SHORT_BAR = 16, 5
"""Cells of a bar; of a short one below WIDE, where the rungs are left out too."""
GAP = 1
Cells = Sequence[RenderableType]


@dataclass(frozen=True)
class Column:
    """title: of the heading's lines."""

    title: tuple[str, ...]
    width: int
    right: bool = False


@dataclass(frozen=True)
class Layout:
    """Columns beside each other; the last ones are of the metrics in `names`. bar: its width."""

    columns: list[Column]
    names: list[str]
    bar: int
    rungs: bool


@dataclass(frozen=True)
class About:
    """What of a sweep does not change. columns: of each metric on the front, by name."""

    title: str
    protocol: str
    columns: dict[str, Column]
    rungs: bool

    @classmethod
    def of(cls, run: Run, concurrent: int | None) -> About:
        file = run.spec.file
        side = f", {concurrent} trials at a time" if concurrent else ""
        ways = [(name, ARROW["maximize"]) for name in file.pareto.maximize]
        ways += [(name, ARROW["minimize"]) for name in file.pareto.minimize]
        return cls(
            title=f"{run.name}: {file.search.sampler}, seed {file.search.seed}{side}",
            protocol=f"Measured on {protocol(run.spec, 'validation')['text']}.",
            columns={name: metric_column(name, arrow) for name, arrow in ways},
            rungs=file.search.early_stopping is not None,
        )


def metric_column(name: str, arrow: str) -> Column:
    """`transfer.robust_accuracy` takes three lines; the arrow says which end is better."""
    first, *others = name.replace("_", " ", 1).replace(".", " ", 1).split(" ")
    title = (f"{first} {arrow}", *others)
    return Column(title, max(6, *map(len, title)), right=True)


def screen(of: State, about: About, width: int, height: int) -> RenderableType:
    """The whole view, less than `height` lines of at most `width` cells. A narrow one lacks columns, a low
    one rows; in less than 20 lines it does not fit."""
    head = [line(about.title, width, "bold"), *protocol_lines(about, width), *progress(of, width)]
    head.append(Text())
    return Group(*head, *tables(of, about, width, height - len(head) - 1))


def protocol_lines(about: About, width: int) -> list[Text]:
    lines = textwrap.wrap(about.protocol, width, max_lines=2, placeholder=" ...")
    return [Text(each, "dim") for each in lines]


def progress(of: State, width: int) -> list[RenderableType]:
    """The bar of the stage, the trials, and how fast it goes."""
    counts = [f"{of.counts[name]} {name}" for name in ("completed", "stopped", "failed") if name in of.counts]
    running = f"{len(of.running)} running" + (f", {of.waiting} waiting" if of.waiting else "")
    at = f"{of.done}/{of.total}" if of.total else f"{of.ended}/{of.planned} trials"
    bar = Table.grid(padding=(0, 1, 0, 0))
    shown = fitting(of.stage, max(width - len(at) - BAR - 2, 10))
    bar.add_column(width=len(shown), no_wrap=True)
    bar.add_column(width=max(width - len(shown) - len(at) - 2, 1))
    bar.add_column(width=len(at), no_wrap=True)
    bar.add_row(shown, share_bar(of.share), at)
    lines = [", ".join([running, *counts]), ", ".join(pace(of)), f"budget: {of.budget}" if of.budget else ""]
    return [bar, *(line(each, width) for each in lines if each)]


def tables(of: State, about: About, width: int, height: int) -> list[RenderableType]:
    """The front and what runs, below one heading, in at most so many lines."""
    fits = layout(about, width)
    lines = max(len(column.title) for column in fits.columns)
    room = max(height - lines - 3, 2)  # the untrained model, and a title for each of the two
    front = of.front[: min(FRONT_ROWS, max(room - min(len(of.running), LEAST_ROWS), 1))]
    running, more = selected(of.running, max(room - len(front), 1))
    rows = [model(point.id, point.trial.method, point.metrics, fits) for point in front]
    if of.untrained:
        rows.insert(0, model("", "untrained", of.untrained, fits))
    title = f"Front so far: {amount(len(of.front), 'model')}"
    title += f", {len(front)} shown" * (len(front) < len(of.front))
    shown: list[RenderableType] = [table(fits.columns, [], heading=True), line(title, width, "bold")]
    shown += [table(fits.columns, rows)] if rows else []
    if of.running:
        shown.append(line("At work", width, "bold"))
    if running:
        shown.append(table(fits.columns, [at_work(task, fits) for task in running]))
    if more:
        shown.append(line(f"... and {more} more", width, "dim"))
    return shown


def layout(about: About, width: int) -> Layout:
    """As much as fits."""
    bar, rungs = (BAR, about.rungs) if width >= WIDE else (SHORT_BAR, False)
    columns = [Column(("",), 8), Column(("",), 9), Column(("epoch",), bar + 7)]
    if rungs:
        columns.append(Column(("rung",), 5))
    left = width - sum(column.width + GAP for column in columns)
    names = []
    for name, column in about.columns.items():
        left -= column.width + GAP
        if left + GAP >= 0:
            names.append(name)
    return Layout([*columns, *(about.columns[name] for name in names)], names, bar, rungs)


def selected(running: Sequence[Task], room: int) -> tuple[list[Task], int]:
    """Those that have come furthest, and how many others there are, for whom a line is left."""
    order = sorted(running, key=lambda task: (-(task.epoch or 0), task.id))
    if len(order) <= room:
        return order, 0
    return order[: room - 1], len(order) - room + 1


def model(name: str, method: str, metrics: Metrics, fits: Layout) -> Cells:
    return [name, method, *[""] * (2 if fits.rungs else 1), *numbers(metrics, fits.names)]


def at_work(task: Task, fits: Layout) -> Cells:
    rungs = [rung(task)] if fits.rungs else []
    return [task.id, task.method, how_far(task, fits.bar), *rungs, *numbers(task.metrics, fits.names)]


def how_far(task: Task, width: int) -> RenderableType:
    """A bar and `3/9`, or `34 %` of a measurement; in the place of the bar what else it is doing."""
    count = percent(task.part) if task.epochs is None else f"{task.epoch}/{task.epochs}"
    grid = Table.grid(padding=(0, 1, 0, 0))
    grid.add_column(width=width, no_wrap=True)
    grid.add_column(width=6, no_wrap=True)
    if task.doing in ("", TRAINING, MEASURING):
        grid.add_row(share_bar(task.done, width), count)
    else:
        share = percent(task.share)
        name = task.doing if len(f"{task.doing} {share}") <= width else task.doing.partition(" ")[0]
        grid.add_row(f"{fitting(name, width - len(share) - 1)} {share}".strip(), count)
    return grid


def share_bar(share: float, width: int | None = None) -> ProgressBar:
    """width: all there is for None."""
    return ProgressBar(total=1, completed=share, width=width, complete_style="cyan", finished_style="green")


def rung(task: Task) -> str:
    """`3→9`: early stopping let it go on after epoch 3, and decides next after epoch 9."""
    if task.rung is None and task.next_rung is None:
        return ""
    return f"{task.rung or ''}→{task.next_rung or ''}"


def numbers(metrics: Metrics | None, names: Sequence[str]) -> list[str]:
    return [f"{metrics[name]:.3f}" if metrics and name in metrics else "" for name in names]


def table(columns: Sequence[Column], rows: Sequence[Cells], *, heading: bool = False) -> Table:
    """Of fixed columns, so that tables below each other are one."""
    made = Table(box=None, padding=(0, GAP, 0, 0), pad_edge=False, show_header=heading, header_style="dim")
    for column in columns:
        title = Text("\n".join(column.title))
        made.add_column(
            title,
            width=column.width,
            justify="right" if column.right else "left",
            no_wrap=True,
            overflow="ellipsis",
        )
    for row in rows:
        made.add_row(*row)
    return made


def line(text: str, width: int, style: str = "") -> Text:
    return Text(fitting(text, width), style, no_wrap=True)


def fitting(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: max(width - 1, 0)]}…"
