"""Which settings matter: what a forest of trees, grown on the trials, loses without each.

Trees tell from a configuration and an epoch which objectives are reached there, as the sampler's do
(`sweeper.forest`, whose encoding this is), but what they are worth is measured on trials that they were not
grown from.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sweeper import space
from sweeper.forest import Encoding
from sweeper.report.chart import INK, SKY, Absent, Axis, Boxes, Chart, Mark, Panel, Points, Style
from sweeper.report.prepare import Material
from sweeper.tree import Choice, Range

Array = NDArray[np.float64]

ENOUGH = 12
"""Trials below which nothing is said."""
FOLDS, SEEDS, TREES = 4, 5, 40
STUDENT = 2.776
"""The 97.5 % quantile of Student's t with SEEDS - 1 degrees of freedom."""
SHOWN = 12
EPOCHS = "epochs trained"


@dataclass(frozen=True)
class Trials:
    """What was seen. points: of each trial.  x: (n, d) encoded settings, and in the end the logarithm of the
    epoch.  y: (n, m) objectives.  trial: (n,) which of the points a row is of.  columns: of x, by parameter,
    those of what is beneath it included."""

    parameters: Mapping[str, Choice | Range]
    ids: list[str]
    points: list[dict[str, Any]]
    x: Array
    y: Array
    trial: NDArray[np.intp]
    columns: Mapping[str, list[int]]

    def has(self, name: str) -> NDArray[np.bool_]:
        """(n,) which rows have the parameter."""
        if name == EPOCHS:
            return np.ones(len(self.x), dtype=bool)
        return np.array([name in point for point in self.points])[self.trial]

    @cached_property
    def varied(self) -> list[str]:
        """The parameters that differ between rows, and the epoch."""
        return [
            name
            for name in self.columns
            if len(np.unique(self.x[self.has(name)][:, self.columns[name]], axis=0)) > 1
        ]


def seen(of: Material) -> Trials:
    """All trials shown, at epochs 1, 3, 9, ... and their last."""
    sweep = of.run.spec
    parameters = space.distributions(sweep.space)
    encoding = Encoding(parameters)
    ids, x, y, which, points = list[str](), list[list[float]](), list[list[float]](), list[int](), list[Any]()
    for id, trial in of.trials.items():
        epochs = [epoch for epoch in trial.epochs if looked_at(epoch["epoch"], len(trial.epochs))]
        values = [[epoch["metrics"].get(name, math.nan) for name in of.names] for epoch in epochs]
        if trial.status == "failed" or not epochs or not np.isfinite(values).all():
            continue
        try:
            point = space.locate(sweep.space, trial.config)
        except (ValueError, KeyError):  # of another space, before the run was extended
            continue
        x += [[*encoding(point), math.log(epoch["epoch"])] for epoch in epochs]
        y += values
        which += [len(points)] * len(epochs)
        points.append(point)
        ids.append(id)
    columns = with_beneath(encoding, parameters) | {EPOCHS: [encoded_width(encoding, parameters)]}
    return Trials(
        parameters,
        ids,
        points,
        np.array(x).reshape(-1, 1 + encoded_width(encoding, parameters)),
        np.array(y).reshape(-1, len(of.names)),
        np.array(which, dtype=np.intp),
        columns,
    )


def looked_at(epoch: int, last: int) -> bool:
    return epoch == last or epoch in {3**k for k in range(last.bit_length())}


def width(encoding: Encoding, name: str, distribution: Choice | Range) -> int:
    return 1 if isinstance(distribution, Range) or encoding.ranks[name] else len(encoding.labels[name])


def encoded_width(encoding: Encoding, parameters: Mapping[str, Choice | Range]) -> int:
    return sum(width(encoding, name, distribution) for name, distribution in parameters.items())


def with_beneath(encoding: Encoding, parameters: Mapping[str, Choice | Range]) -> dict[str, list[int]]:
    own, start = {}, 0
    for name, distribution in parameters.items():
        own[name] = list(range(start, start + width(encoding, name, distribution)))
        start += len(own[name])
    return {
        name: [
            at
            for other, places in own.items()
            if other == name or other.startswith(f"{name}.")
            for at in places
        ]
        for name in parameters
    }


def grown(x: Array, y: Array, seed: int) -> Any:
    from sklearn.ensemble import ExtraTreesRegressor

    forest = ExtraTreesRegressor(TREES, min_samples_leaf=2, max_features=0.7, random_state=seed)
    return forest.fit(x, y if y.shape[1] > 1 else y[:, 0])


@dataclass(frozen=True)
class Importance:
    """score: (S, m) R² on held-out trials.  loss: (S, p, m) by how much the squared error of held-out trials
    grows, as a share of their variance, when a parameter's values are dealt out anew. S seeds, p names, m
    objectives."""

    names: list[str]
    score: Array
    loss: Array


def importance(trials: Trials, seed: int = 0) -> Importance:
    """By permutation (Breiman, Machine Learning 45 (2001) 5), on trials that the trees were not grown from.

    Values are dealt out among the rows that have the parameter, and with a choice what is beneath it.
    """
    scale = trials.y.std(axis=0)
    y = (trials.y - trials.y.mean(axis=0)) / np.where(scale > 0, scale, 1)
    names, spread = trials.varied, (y**2).sum(axis=0)
    spread = np.where(spread > 0, spread, 1)
    errors = np.zeros((SEEDS, 1 + len(names), y.shape[1]))
    count = len(trials.points)
    for index in range(SEEDS):
        generator = np.random.default_rng([seed, index])
        fold = (generator.permutation(count) % min(FOLDS, count))[trials.trial]
        for held in range(fold.max() + 1):
            out = fold == held
            forest = grown(trials.x[~out], y[~out], index)
            asked = [trials.x[out], *(dealt(trials, name, out, generator) for name in names)]
            told = forest.predict(np.concatenate(asked)).reshape(len(asked), -1, y.shape[1])
            errors[index] += ((told - y[out]) ** 2).sum(axis=1)
    return Importance(names, 1 - errors[:, 0] / spread, (errors[:, 1:] - errors[:, :1]) / spread)


def dealt(trials: Trials, name: str, out: NDArray[np.bool_], generator: np.random.Generator) -> Array:
    """Held-out rows with a parameter's values dealt out anew."""
    x = trials.x[out].copy()
    have = np.flatnonzero(trials.has(name)[out])
    columns = trials.columns[name]
    x[have[:, None], columns] = x[generator.permutation(have)[:, None], columns]
    return x


def known(of: Material) -> tuple[Trials, Importance] | None:
    """None of too few trials, or of settings that are all equal."""

    def compute() -> tuple[Trials, Importance] | None:
        trials = seen(of)
        enough = len(trials.points) >= ENOUGH and trials.varied
        return (trials, importance(trials)) if enough else None

    return of.once("importance", compute)


TITLE = "Importance of the settings"
FEW = f"At least {ENOUGH} trials with different settings are needed to tell which of these matter."


def importance_chart(of: Material) -> Chart | Absent:
    """Of each setting for each objective."""
    found = known(of)
    if found is None:
        return Absent("importance", TITLE, FEW)
    trials, of_all = found
    mean = of_all.loss.mean(axis=0)
    order = np.argsort(-mean.max(axis=1), kind="stable")[:SHOWN]
    heights = {float(len(order) - 1 - at): of_all.names[index] for at, index in enumerate(order)}
    panels = [importance_panel(of, of_all, order, objective, heights) for objective in range(len(of.names))]
    hidden = len(of_all.names) - len(order)
    return Chart(
        "importance",
        TITLE,
        f"From {len(trials.points)} trials at epochs 1, 3, 9, ... and their last: by how much the squared "
        f"error of a forest on held-out trials ({FOLDS} folds) grows, as a share of the variance, when the "
        "values of one setting are dealt out anew among the trials that have it; of a choice together with "
        "what lies beneath it. R²: what share of the variance the forest tells on held-out trials; where "
        f"it is small, trust none. Intervals (95 %) are over {SEEDS} seeds of folds, trees and dealing, not "
        "over other trials. What early stopping has cut off counts up to "
        f"there.{f' Of less importance, and left out: {hidden} more.' if hidden else ''} "
        f"{of.says('validation')}.",
        panels,
        columns=min(3, len(panels)),
        height=34 + 23 * len(order),
    )


def importance_panel(
    of: Material, found: Importance, order: NDArray[np.intp], objective: int, heights: Mapping[float, str]
) -> Panel:
    values, ends = over_seeds(found.loss[:, order, objective])
    score, (low, high) = (
        over_seeds(found.score[:, [objective]])[0][0],
        over_seeds(found.score[:, [objective]])[1][0],
    )
    at = list(heights)
    told = [
        f"{name}\n{value:.3f} ({low:.3f} to {high:.3f})"
        for name, value, (low, high) in zip(heights.values(), values, ends, strict=True)
    ]
    marks: list[Mark] = [
        Boxes(
            np.minimum(values, 0),
            np.maximum(values, 0),
            [y - 0.32 for y in at],
            [y + 0.32 for y in at],
            Style(SKY),
            hover=told,
        ),
        Points(list(values), at, Style(INK, size=4), x_intervals=ends, hover=told),
    ]
    axis = Axis(low=-0.6, high=len(at) - 0.4, ticks=heights if objective % 3 == 0 else {}, grid=False)
    title = f"{of.labels[of.names[objective]]}\nR² {score:.2f} ({low:.2f} to {high:.2f})"
    return Panel(marks, Axis("R² lost", low=min(0, float(values.min()))), axis, title)


def over_seeds(values: Array) -> tuple[Array, list[tuple[float, float]]]:
    """(S, k) as k means and 95 % intervals, Student's t over seeds."""
    mean, half = values.mean(axis=0), STUDENT * values.std(axis=0, ddof=1) / math.sqrt(len(values))
    return mean, [(float(m - h), float(m + h)) for m, h in zip(mean, half, strict=True)]
