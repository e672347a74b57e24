"""What a search has gained: learning curves, and what the front has grown by."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sweeper import front
from sweeper.pareto import hypervolume, non_dominated, reference_point
from sweeper.report.chart import (
    BLUE,
    FAINT,
    INK,
    UNTRAINED,
    Absent,
    Axis,
    Chart,
    Lines,
    Mark,
    Panel,
    Points,
    Rule,
    Style,
)
from sweeper.report.prepare import Material, words
from sweeper.trial import TrialRecord

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
        curves = [learning_curve(trial, name) for trial in shown]
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


def learning_curve(trial: TrialRecord, name: str) -> tuple[list[int], list[float]]:
    """The epochs after which a metric was measured, and what it was."""
    measured = [epoch for epoch in trial.epochs if name in epoch["metrics"]]
    return [int(epoch["epoch"]) for epoch in measured], [epoch["metrics"][name] for epoch in measured]


# hypervolume

MOMENTS = 200
"""Trials after which a long search's hypervolume is computed."""


def hypervolume_chart(of: Material) -> Chart | Absent:
    """How much the front dominates, after each trial that ended."""
    title = "Hypervolume of the front"
    baseline, rows = of.run.baseline(), [row for row in of.content["trials"] if row["validation"]]
    rows = [row for row in rows if row["status"] in ("completed", "stopped")]
    if not rows or baseline is None:
        return Absent("hypervolume", title, "No trial has ended yet, or the untrained model is not measured.")
    order = {row["id"]: at for at, row in enumerate(sorted(rows, key=lambda row: ended_at(of, row)))}
    known = [(order[row["id"]] + 1, row["validation"]) for row in rows]
    known += [
        (order[row["trial"]] + 1, row["validation"])
        for row in of.content["candidates"]
        if row["trial"] in order
    ]
    costs, violation = front.judged(of.run.spec, [metrics for _, metrics in known], baseline)
    reference = reference_point(costs)
    x, y = growth(
        costs[violation <= 0], np.array([at for at, _ in known])[violation <= 0], len(rows), reference
    )
    ids = [list(order)[at - 1] for at in x]
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
                    Lines([(x, y)], Style(BLUE, width=2), steps=True),
                    Points(x, y, Style(BLUE, size=3), models=ids, hover=volume_hover(ids, y)),
                ],
                Axis("trials that have ended", low=0, whole=True),
                Axis("hypervolume", low=0),
            )
        ],
        height=240,
    )


def growth(
    costs: Array, known: NDArray[np.int64], count: int, reference: Array
) -> tuple[list[int], list[float]]:
    """After how many trials, and the hypervolume of what was known then, at `MOMENTS` moments at most.

    costs: (n, m) of points that keep the constraints.  known: (n,) after how many of `count` trials each is.
    """
    moments = np.unique(np.linspace(1, count, min(count, MOMENTS)).astype(int))
    best, volumes, before = costs[:0], list[float](), 0
    for moment in moments:
        new = costs[(known > before) & (known <= moment)]
        best = np.unique(np.vstack([best, new]), axis=0)
        best, before = best[non_dominated(best)], moment
        volumes.append(hypervolume(best, reference) if len(best) else 0.0)
    return moments.tolist(), volumes


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
