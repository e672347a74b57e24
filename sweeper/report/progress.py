"""The course of a search: learning curves, early stopping, who ran when, what the front has grown by."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sweeper import front
from sweeper.pareto import hypervolume_over_time, reference_point
from sweeper.report.chart import (
    FAINT,
    INK,
    UNTRAINED,
    Absent,
    Axis,
    Boxes,
    Chart,
    Lines,
    Mark,
    Panel,
    Points,
    Rule,
    Style,
)
from sweeper.report.prepare import Material, words
from sweeper.table import number
from sweeper.trial import TrialRecord, epoch_file

Array = NDArray[np.float64]


# learning curves


def curves_chart(of: Material) -> Chart | Absent:
    """Every trial with an epoch behind it, running ones too."""
    title = "Learning curves"
    trials = [trial for trial in of.trials.values() if trial.epochs]
    if not trials:
        return Absent("curves", title, "No trial has finished an epoch yet.")
    return Chart(
        "curves",
        title,
        "Metrics after each epoch, by method; trials with a model in the Pareto set are bold, and the "
        f"broken line is the untrained model. {of.says('validation')}.",
        [curves_panel(of, trials, name) for name in of.names],
        columns=min(3, len(of.names)),
        height=250,
    )


def curves_panel(of: Material, trials: Sequence[TrialRecord], name: str) -> Panel:
    members = {model.trial for model in of.members}
    groups: dict[tuple[bool, str], list[TrialRecord]] = {}
    for trial in trials:
        groups.setdefault((trial.id in members, trial.method), []).append(trial)
    marks: list[Mark] = [
        Lines([], replace(of.look[method], width=2), method, marked=True)
        for method in sorted({trial.method for trial in trials})
    ]
    for bold, method in sorted(groups):
        shown = groups[bold, method]
        style = replace(of.look[method], width=2.6 if bold else 1, size=6 if bold else 3)
        if not bold:
            style = replace(style, opacity=FAINT)
        curves = [(epochs_of(trial), [epoch["metrics"][name] for epoch in trial.epochs]) for trial in shown]
        told = [
            [
                f"{trial.id}@{epoch} {method}\n{of.labels[name]} {value:.4f}"
                for epoch, value in zip(*curve, strict=True)
            ]
            for trial, curve in zip(shown, curves, strict=True)
        ]
        models = [trial.id for trial in shown]
        marks.append(Lines(curves, style, method, models=models, hover=told, marked=True))
    if of.untrained:
        marks.append(Rule("y", of.untrained.value("validation", name), Style(INK, dash="dash"), UNTRAINED))
    return Panel(marks, Axis("epoch", whole=True), Axis(), of.labels[name])


def epochs_of(trial: TrialRecord) -> list[int]:
    return [int(epoch["epoch"]) for epoch in trial.epochs]


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
        (False, "stopped", Style(STOPPED, "v", open=True, size=8)),
        (True, "went on", Style(WENT_ON, "^", size=8)),
    ):
        shown = [each for each in decided if each.goes_on == goes_on]
        told = [arrival_hover(of, each, label) for each in shown]
        x, y = [order[id(each)] for each in shown], [each.metrics[name] for each in shown]
        marks.append(Points(x, y, style, label, models=[each.trial for each in shown], hover=told))
    gone_on = sum(each.goes_on for each in decided)
    title = f"after epoch {epoch}\n{gone_on} of {len(decided)} went on"
    return Panel(marks, Axis("arrival", whole=True), Axis(of.labels[name]), title)


WENT_ON, STOPPED = "#0072B2", "#D55E00"


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
        began = own[0][1]
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
            )
        )
    marks += list(ends(found, seconds))
    height = float(min(520, 60 + 26 * lanes))
    ticks = {float(lane): str(lane + 1) for lane in range(lanes)} if lanes <= 16 else None
    return Chart(
        "timeline",
        title,
        "Each box is an epoch, trained and measured, of the trials shown; rows are what ran side by side. "
        "A trial ends in the symbol of how: completed, stopped early or failed. Between boxes, a trial "
        "waited, or its worker had other things to do. By the times of the files.",
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
ENDS = {
    "completed": Style(INK, "o", size=6),
    "stopped": Style(INK, "X", size=7),
    "failed": Style("#D55E00", "s", size=7),
}


def ends(found: Sequence[Segment], seconds: float) -> Iterator[Points]:
    last = {each.trial.id: each for each in found}
    for status, style in ENDS.items():
        shown = [each for each in last.values() if each.trial.status == status]
        if shown:
            x, y = [each.ended / seconds for each in shown], [float(each.lane) for each in shown]
            ids = [each.trial.id for each in shown]
            told = [
                f"{each.trial.id} {each.trial.method}: {status} after epoch {each.epoch}" for each in shown
            ]
            yield Points(x, y, style, status, models=ids, hover=told)


# hypervolume


def hypervolume_chart(of: Material) -> Chart | Absent:
    """How much the front dominates, after each trial that ended."""
    title = "Hypervolume of the front"
    baseline, rows = of.run.baseline(), [row for row in of.content["trials"] if row["validation"]]
    rows = [row for row in rows if row["status"] in ("completed", "stopped")]
    if not rows or baseline is None:
        return Absent("hypervolume", title, "No trial has ended yet, or the untrained model is not measured.")
    order = {row["id"]: at for at, row in enumerate(sorted(rows, key=lambda row: ended_at(of, row)))}
    known = [(order[row["id"]], row["validation"]) for row in rows]
    known += [
        (order[row["trial"]], row["validation"]) for row in of.content["candidates"] if row["trial"] in order
    ]
    costs, violation = front.judged(of.run.spec, [metrics for _, metrics in known], baseline)
    reference = reference_point(costs)
    when, volumes = hypervolume_over_time(costs, [at + 1 for at, _ in known], reference, violation)
    last = np.append(np.diff(when) > 0, True)  # of what became known at once, the value of all
    x, y = when[last].tolist(), volumes[last].tolist()
    ids = list(order)
    return Chart(
        "hypervolume",
        title,
        f"The volume that the models found so far dominate ({', '.join(of.labels.values())}), in the "
        "product of the objectives' units, from the worst of each and a tenth of its range beyond: "
        f"{reference_words(of, reference)}. Of a trial its last epoch counts, and what of it is a candidate "
        "of the front, from when it has ended. Can be compared only with a volume from the same point. "
        f"{of.says('validation')}.",
        [
            Panel(
                [
                    Lines([(x, y)], Style(WENT_ON, width=2), steps=True),
                    Points(x, y, Style(WENT_ON, size=3), models=ids, hover=volume_hover(ids, y)),
                ],
                Axis("trials that have ended", low=0, whole=True),
                Axis("hypervolume", low=0),
            )
        ],
        height=240,
    )


def ended_at(of: Material, row: Mapping[str, Any]) -> tuple[float, int]:
    number = int(str(row["id"])[1:])
    file = of.run.trial_folder(number) / "status.json"
    return file.stat().st_mtime if file.is_file() else math.inf, number


def volume_hover(ids: Sequence[str], volumes: Sequence[float]) -> list[str]:
    gained = np.diff(volumes, prepend=0)
    return [f"after {id}: {v:.5g}\ngained {g:.3g}" for id, v, g in zip(ids, volumes, gained, strict=True)]


def reference_words(of: Material, reference: Array) -> str:
    signs = [-1 if name in of.content["maximize"] else 1 for name in of.names]
    values = zip(of.names, signs, reference, strict=True)
    return ", ".join(f"{words(name)} {sign * end:.4f}" for name, sign, end in values)
