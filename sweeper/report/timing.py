"""Who did what when: what early stopping decided, and which epochs ran side by side."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np

from sweeper.report.chart import BLUE, INK, VERMILION, Absent, Axis, Boxes, Chart, Mark, Panel, Points, Style
from sweeper.report.prepare import Material
from sweeper.table import number
from sweeper.trial import TrialRecord, epoch_file

# early stopping


@dataclass(frozen=True)
class Arrival:
    """A trial at a rung: what was decided there, in the order of the decisions."""

    trial: str
    epoch: int
    metrics: Mapping[str, float]
    goes_on: bool


def arrivals(file: Path) -> list[Arrival]:
    """From `rungs.jsonl`; a line that is being written is left out."""
    if not file.is_file():
        return []
    found = []
    for line in file.read_text(encoding="utf-8").splitlines():
        try:
            each = json.loads(line)
        except ValueError:
            continue
        found.append(
            Arrival(f"t{int(each['trial']):03d}", int(each["epoch"]), each["metrics"], bool(each["goes_on"]))
        )
    return found


def rungs_chart(of: Material) -> Chart | Absent:
    """A panel for each rung: who came to it when, with what, and who went on."""
    title = "Rungs of early stopping"
    if of.run.spec.file.search.early_stopping is None:
        return Absent("rungs", title, "The sweep stops no trial early.")
    ends = {trial.id: trial.last_epoch for trial in of.trials.values()}
    decided = [each for each in arrivals(of.run.rungs_file) if ends.get(each.trial, 0) != each.epoch]
    decided = [each for each in decided if each.trial in ends and of.names[0] in each.metrics]
    if not decided:
        return Absent("rungs", title, "No trial has come to a rung yet.")
    epochs = sorted({each.epoch for each in decided})
    return Chart(
        "rungs",
        title,
        f"Each trial at the epochs at which early stopping decides: {of.labels[of.names[0]]} (one of the "
        "metrics that it goes by) against the order of arrival. Upright and filled: it went on; upside "
        f"down and open: it was stopped. {of.says('validation')}.",
        [rung_panel(of, epoch, [each for each in decided if each.epoch == epoch]) for epoch in epochs],
        columns=min(3, len(epochs)),
        height=220,
    )


def rung_panel(of: Material, epoch: int, decided: Sequence[Arrival]) -> Panel:
    name = of.names[0]
    order = {id(each): float(index + 1) for index, each in enumerate(decided)}
    marks: list[Mark] = []
    for goes_on, label, style in (
        (False, "stopped", Style(VERMILION, "v", open=True, size=8)),
        (True, "went on", Style(BLUE, "^", size=8)),
    ):
        shown = [each for each in decided if each.goes_on == goes_on]
        told = [arrival_hover(of, each, label) for each in shown]
        x, y = [order[id(each)] for each in shown], [each.metrics[name] for each in shown]
        marks.append(Points(x, y, style, label, models=[each.trial for each in shown], hover=told))
    gone_on = sum(each.goes_on for each in decided)
    title = f"after epoch {epoch}\n{gone_on} of {len(decided)} went on"
    return Panel(marks, Axis("arrival", whole=True), Axis(of.labels[name]), title)


def arrival_hover(of: Material, each: Arrival, label: str) -> str:
    told = [f"{of.labels[name]}: {number(dict(each.metrics), name)}" for name in of.names]
    return "\n".join([f"{each.trial} after epoch {each.epoch}: {label}", *told])


# who ran when


@dataclass(frozen=True)
class Segment:
    """An epoch of a trial, by the clock. lane: of those side by side, from 0."""

    trial: TrialRecord
    epoch: int
    began: float
    ended: float
    lane: int


SLACK, OVERLAP = 1.0, 0.1
"""For how many seconds, and for which part of a trial at most, it may lie over the one before in its lane: a
worker begins with the next while the files of the last are still being written."""


def segments(trials: Sequence[TrialRecord]) -> list[Segment]:
    """When each epoch was trained and measured: its file says when it ended, and what it took stands in it.

    Seconds from the first. Lanes are the first that are free when a trial begins: a folder does not know
    which worker it was.
    """
    spans = [(trial, spans_of(trial)) for trial in trials if trial.epochs]
    spans.sort(key=lambda each: each[1][0][1])
    start = min((each[0][1] for _, each in spans), default=0.0)
    free: list[float] = []
    found = []
    for trial, own in spans:
        began = own[0][1] + min(SLACK, OVERLAP * (own[-1][2] - own[0][1]))
        lane = next((index for index, until in enumerate(free) if until <= began), len(free))
        free[lane : lane + 1] = [own[-1][2]]
        found += [Segment(trial, epoch, begin - start, end - start, lane) for epoch, begin, end in own]
    return found


def spans_of(trial: TrialRecord) -> list[tuple[int, float, float]]:
    """Each epoch's number, begin and end, by the clock. None begins before the one before ended."""
    found: list[tuple[int, float, float]] = []
    for epoch in trial.epochs:
        ended = epoch_file(trial.folder, epoch["epoch"], "json").stat().st_mtime
        took = float(epoch.get("training_seconds", 0)) + float(epoch.get("evaluation_seconds", 0))
        began = max(ended - took, found[-1][2]) if found else ended - took
        found.append((int(epoch["epoch"]), began, max(began, ended)))
    return found


def plausible(found: Sequence[Segment]) -> bool:
    """Whether files have the times of the run, and not those of a copy: epochs of a trial that took time did
    not end at once."""
    busy = sum(each.ended - each.began for each in found)
    return busy > 0 and all(
        b.ended - a.ended > 0.2 * (b.ended - b.began) for a, b in pairwise(found) if a.trial is b.trial
    )


def timeline_chart(of: Material) -> Chart | Absent:
    """Epochs of trials as they ran side by side."""
    title = "Who ran when"
    found = segments(list(of.trials.values()))
    if not found:
        return Absent("timeline", title, "No trial has finished an epoch yet.")
    if not plausible(found):
        return Absent(
            "timeline", title, "The files of this run have the times of a copy, not those of the run."
        )
    latest = max(each.ended for each in found)
    unit, seconds = next(
        (u, s) for u, s in (("hours", 3600), ("minutes", 60), ("seconds", 1)) if latest >= 2 * s or s == 1
    )
    lanes = 1 + max(each.lane for each in found)
    marks: list[Mark] = []
    wide = float(np.mean([each.ended - each.began for each in found])) / latest > APART
    for method in sorted({each.trial.method for each in found}):
        shown = [each for each in found if each.trial.method == method]
        marks.append(
            Boxes(
                [each.began / seconds for each in shown],
                [each.ended / seconds for each in shown],
                [each.lane - 0.4 for each in shown],
                [each.lane + 0.4 for each in shown],
                Style(of.look[method].colour, opacity=0.85, edge_width=0.7 if wide else 0),
                method,
                models=[each.trial.id for each in shown],
                hover=[
                    f"{each.trial.id}@{each.epoch} {method}\n{each.ended - each.began:.3g} s"
                    for each in shown
                ],
                names=[each.trial.id for each in shown],
            )
        )
    marks += list(ends(found, seconds))
    height = float(min(520, 60 + 26 * lanes))
    ticks = {float(lane): str(lane + 1) for lane in range(lanes)} if lanes <= 16 else None
    return Chart(
        "timeline",
        title,
        "Each box is an epoch, trained and measured, of the trials shown, with the trial's name where there "
        "is room; rows are what ran side by side. A trial ends in the symbol of how: completed, stopped "
        "early or failed. Between boxes, a trial waited, or its worker had other things to do. By the times "
        "of the files.",
        [
            Panel(
                marks,
                Axis(unit, low=0, grid=True),
                Axis("side by side", -0.6, lanes - 0.4, ticks=ticks, grid=False, whole=True),
            )
        ],
        height=height,
    )


APART = 0.008
"""Of the timeline's width: boxes narrower than this have no outlines, which would hide them."""
MANY = 40
ENDS = {
    "completed": Style(INK, "o", size=6),
    "stopped": Style(INK, "X", size=7),
    "failed": Style(VERMILION, "s", size=7),
}


def ends(found: Sequence[Segment], seconds: float) -> Iterator[Points]:
    """Smaller where there are many."""
    last = {each.trial.id: each for each in found}
    for status, style in ENDS.items():
        shown = [each for each in last.values() if each.trial.status == status]
        if shown:
            x, y = [each.ended / seconds for each in shown], [float(each.lane) for each in shown]
            ids = [each.trial.id for each in shown]
            told = [
                f"{each.trial.id} {each.trial.method}: {status} after epoch {each.epoch}" for each in shown
            ]
            shrunk = replace(style, size=style.size * min(1, 2 * MANY / (MANY + len(last))))
            yield Points(x, y, shrunk, status, models=ids, hover=told)
