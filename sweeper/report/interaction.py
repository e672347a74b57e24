"""How two settings act together: what a forest expects over both, all else as it was."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sweeper.forest import Encoding, place
from sweeper.report.chart import Absent, Axis, Chart, Heat, Mark, Panel, Points, Scale, Style
from sweeper.report.importance import ENOUGH, EPOCHS, FEW, Importance, Trials, grown, known
from sweeper.report.prepare import Material, words
from sweeper.report.settings import round_numbers
from sweeper.tree import Choice, Range

Array = NDArray[np.float64]

CELLS = 14
PAIR = ("epsilon", "concentration_scale")
FORESTS = 3


@dataclass(frozen=True)
class Side:
    """A setting on an axis from 0 to 1. at: where it is asked for.  ticks: labels by place."""

    name: str
    at: list[float]
    ticks: dict[float, str]


def side(name: str, distribution: Choice | Range, ranks: Mapping[str, float]) -> Side:
    if isinstance(distribution, Choice):
        return Side(name, sorted(ranks.values()), {rank: label for label, rank in ranks.items()})
    numbers = round_numbers(distribution.low, distribution.high, log=distribution.log)
    return Side(
        name,
        list(np.linspace(0, 1, CELLS)),
        {place(value, distribution): f"{value:.4g}" for value in numbers},
    )


def pair(trials: Trials, found: Importance) -> tuple[str, str] | None:
    """Epsilon and concentration scale where both are searched; else the two numbers of the highest importance
    that enough trials have both of."""
    encoding = Encoding(trials.parameters)
    order = np.argsort(-found.loss.mean(axis=0).mean(axis=1), kind="stable")
    able = [found.names[index] for index in order if found.names[index] != EPOCHS]
    able = [n for n in able if isinstance(trials.parameters[n], Range) or encoding.ranks[n]]
    named = [next((name for name in able if name.rpartition(".")[2] == wanted), None) for wanted in PAIR]
    pairs = [(named[0], named[1])] if named[0] and named[1] else []
    pairs += [(a, b) for at, b in enumerate(able) for a in able[:at]]
    for a, b in pairs:
        if sum(a in point and b in point for point in trials.points) >= ENOUGH:
            return a, b
    return None


def together(trials: Trials, sides: tuple[Side, Side]) -> tuple[Array, Array]:
    """(m, len(b), len(a)) what trees expect of each objective over two settings, all others and the last
    epochs as they were (partial dependence, Friedman, Ann. Statist. 29 (2001) 1189), and (m,) the share of
    its variance over this grid that is not the sum of what each does by itself: H² of Friedman and Popescu,
    Ann. Appl. Stat. 2 (2008) 916."""
    a, b = sides
    both = trials.has(a.name) & trials.has(b.name)
    x, y, trial = trials.x[both], trials.y[both], trials.trial[both]
    rows = x[np.append(np.diff(trial) != 0, True)]  # the last epoch of each
    places = [(u, v) for v in b.at for u in a.at]
    asked = np.repeat(rows[None], len(places), axis=0)
    asked[:, :, trials.columns[a.name][0]] = np.array(places)[:, :1]
    asked[:, :, trials.columns[b.name][0]] = np.array(places)[:, 1:]
    told = np.mean(
        [
            grown(x, y, seed).predict(asked.reshape(-1, x.shape[1])).reshape(len(places), len(rows), -1)
            for seed in range(FORESTS)
        ],
        axis=0,
    )
    values = told.mean(axis=1).reshape(len(b.at), len(a.at), -1).transpose(2, 0, 1)
    whole = values - values.mean(axis=(1, 2), keepdims=True)
    rest = whole - whole.mean(axis=1, keepdims=True) - whole.mean(axis=2, keepdims=True)
    spread = (whole**2).sum(axis=(1, 2))
    return values, (rest**2).sum(axis=(1, 2)) / np.where(spread > 0, spread, 1)


def interaction_chart(of: Material) -> Chart | Absent:
    title = "Interaction of two settings"
    found = known(of)
    if found is None:
        return Absent("interaction", title, FEW)
    chosen = pair(*found)
    if chosen is None:
        return Absent("interaction", title, f"No two numbers were drawn together by {ENOUGH} trials or more.")
    trials, encoding = found[0], Encoding(found[0].parameters)
    sides = [side(name, trials.parameters[name], encoding.ranks.get(name, {})) for name in chosen]
    values, shares = together(trials, (sides[0], sides[1]))
    ids, x, y = drawn_points(trials, encoding, chosen)
    panels = []
    for index, name in enumerate(of.names):
        scale = Scale("", float(values[index].min()), float(values[index].max()))
        marks: list[Mark] = [
            Heat(
                sides[0].at,
                sides[1].at,
                values[index].tolist(),
                cell_hover(sides, values[index], words(name)),
            ),
            Points(x, y, Style("#ffffff", size=5, edge="#000000", edge_width=0.8), models=ids, hover=ids),
        ]
        axes = [
            Axis(words, -reach(each), 1 + reach(each), ticks=each.ticks, grid=False)
            for each, words in zip(sides, (sides[0].name, "" if index else sides[1].name), strict=True)
        ]
        panels.append(
            Panel(marks, axes[0], axes[1], title=f"{of.labels[name]}\nH² {shares[index]:.2f}", scale=scale)
        )
    return Chart(
        "interaction",
        f"{title}: {' and '.join(name.rpartition('.')[2].replace('_', ' ') for name in chosen)}",
        f"What a forest grown on the {len(ids)} trials that have both expects after their last epoch, the "
        "other settings as they were drawn; the points are these trials. H²: the share of the variance "
        f"over this square that is not the sum of what each setting does by itself. {of.says('validation')}.",
        panels,
        columns=min(3, len(panels)),
        width=[560, 760, 1000][min(3, len(panels)) - 1],
        height=230,
    )


def reach(of: Side) -> float:
    return 0.5 / max(len(of.at) - 1, 1)


def cell_hover(sides: Sequence[Side], values: Array, metric: str) -> list[list[str]]:
    a, b = sides
    return [
        [f"{metric} {values[row, column]:.4f}" for column in range(len(a.at))] for row in range(len(b.at))
    ]


def drawn_points(
    trials: Trials, encoding: Encoding, names: Sequence[str]
) -> tuple[list[str], list[float], list[float]]:
    """The trials that have both settings, and where."""

    def at(point: Mapping[str, Any], name: str) -> float:
        distribution = trials.parameters[name]
        value = point[name]
        return place(value, distribution) if isinstance(distribution, Range) else encoding.ranks[name][value]

    both = [(id, p) for id, p in zip(trials.ids, trials.points, strict=True) if all(n in p for n in names)]
    x, y = ([at(point, name) for _, point in both] for name in names)
    return [id for id, _ in both], x, y
