"""The forest sampler: it learns from every epoch of every trial, however early the trial was stopped.

Extremely randomised trees (Geurts et al. 2006) tell from a configuration and an epoch which objectives are
reached there. A few of them, chosen at random for each draw, are one opinion of what may be true (Thompson
sampling), and what is drawn is the best of many candidates by that opinion. Which trade-off of the objectives
is the best one is drawn, too: a direction w, uniform on the positive part of the sphere, by which a point is
worth min_i gain_i / w_i, its gains over the worst that was seen, each as a share of the range that was seen.
The mean of that worth to the power of the number of objectives is proportional to the dominated hypervolume
(Zhang and Golovin 2020, arXiv 2006.04655), so over many draws it is this that grows. An objective in which
all are equal does not count.

A worth counts times the share of trials that keep the constraints, by the same trees; as long as nothing is
worth anything, what breaks the constraints least is drawn. A failed trial has reached the worst that was seen
at every epoch, and breaks them the most. No configuration of a space is drawn twice before all were: it would
be the same training again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cache, cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.tree import ExtraTreeRegressor

from sweeper import space
from sweeper.front import judged
from sweeper.hashes import stable_hash
from sweeper.space import Decision
from sweeper.spec import SweepSpec
from sweeper.tree import Choice, Range
from sweeper.trial import Metrics, TrialRecord

Array = NDArray[np.float64]
Indices = NDArray[np.intp]
Point = dict[str, Any]
"""Values of parameters by name, as Optuna has them: an option's label, or a number."""

TREES, OPINION = 64, 8
CANDIDATES, PARENTS = 400, 5
"""The candidates are drawn from the whole space and near the `PARENTS` best trials, as many from each."""
KEEP, STEP = 0.8, 0.1
"""Near a trial: the chance that a choice stays as it is; the standard deviation of a step along a range."""
REGROWN = 50
"""The trees are grown anew when there are more trials by one in this many."""
LOOKED_BACK = 500
"""Trials that the trees are grown from, the latest."""
ENUMERATED = 10_000
"""Configurations of a space that are gone through for one that was not drawn yet."""


class Forest:
    """What has been seen of a sweep's trials, and what to try next."""

    def __init__(self, sweep: SweepSpec) -> None:
        self.sweep = sweep
        self.points: dict[int, Point] = {}
        self.drawn: set[int] = set()  # hashes: points themselves take a kilobyte each
        self.epochs: dict[int, dict[int, Metrics]] = {}
        self.failed: set[int] = set()
        self.grown: tuple[int, Grown] | None = None

    @cached_property
    def encoding(self) -> Encoding:
        return Encoding(space.distributions(self.sweep.space))

    @cached_property
    def decisions(self) -> list[Decision]:
        return space.decisions(self.sweep.space)

    @cached_property
    def longest(self) -> int:
        return self.sweep.max_epochs()

    def last(self, point: Point) -> int:
        """The last epoch of a trial: its own, where that is searched."""
        return int(point.get("epochs", self.longest))

    def add(self, trial: int, point: Point) -> None:
        """A trial that was drawn, before anything is told of it. Numbers below 0: of earlier runs."""
        self.points[trial] = point
        self.drawn.add(hash(frozenset(point.items())))

    def observe(self, trial: int, epoch: int, metrics: Metrics) -> None:
        """What a trial has reached after an epoch."""
        known = {name: metrics.get(name, math.nan) for name in self.sweep.file.pareto.deciding}
        if epoch in self._looked_at(trial) and all(map(math.isfinite, known.values())):
            self.epochs.setdefault(trial, {})[epoch] = known

    def end(self, trial: TrialRecord) -> None:
        for epoch in trial.epochs:
            self.observe(trial.number, epoch["epoch"], epoch["metrics"])
        if trial.status == "failed":
            self.failed.add(trial.number)
            nothing = dict.fromkeys(self.sweep.file.pareto.deciding, math.nan)
            self.epochs[trial.number] = dict.fromkeys(self._looked_at(trial.number), nothing)

    def _looked_at(self, trial: int) -> list[int]:
        """None of a trial that is looked back to no more."""
        return looked_at(self.last(self.points[trial])) if trial in self.points else []

    def draw(self, number: int, last: int, baseline: Metrics | None, given: Point) -> Point | None:
        """The point of trial `number`. None while fewer than `startup_trials` have reported, unless the space
        is finite.

        last: the latest trial that may be known.  baseline: the untrained model's metrics, if they are known.
        given: values that are fixed.
        """
        generator = np.random.default_rng([self.sweep.file.search.seed, number])
        grown = self._grown(last, baseline)
        if grown is None:
            return self._first(given, generator)
        direction = np.abs(generator.normal(size=len(self.sweep.file.pareto.metrics)))
        direction /= np.linalg.norm(direction)
        parents = [self.points[trial] for trial in grown.best(direction, PARENTS)]
        near = [None, *parents] * (CANDIDATES // (PARENTS + 1))
        candidates = [self._candidate(given, parent, generator) for parent in near]
        candidates = [*filter(self._is_new, candidates)] or self._left(given, generator) or candidates
        encoded = np.array([self.encoding(candidate) for candidate in candidates])
        lasts = np.array([self.last(candidate) for candidate in candidates])
        return candidates[int(grown.worth(encoded, lasts, direction, generator).argmax())]

    def _first(self, given: Point, generator: np.random.Generator) -> Point | None:
        """A random point that was not drawn yet. None in an infinite space, where every one is new."""
        if space.count(self.sweep.space) is None:
            return None
        tried = (self._candidate(given, None, generator) for _ in range(CANDIDATES))
        return next(filter(self._is_new, [*tried, *self._left(given, generator)]), None)

    def _left(self, given: Point, generator: np.random.Generator) -> list[Point]:
        """Up to `CANDIDATES` of what was not drawn yet; empty if there is nothing left, or no end of it."""
        size = space.count(self.sweep.space)
        if size is None or size > ENUMERATED:
            return []
        left = [*filter(self._is_new, space.every(self.sweep.space, given))]
        return [left[index] for index in generator.permutation(len(left))[:CANDIDATES]]

    def _is_new(self, point: Point) -> bool:
        return hash(frozenset(point.items())) not in self.drawn

    def _candidate(self, given: Point, parent: Point | None, generator: np.random.Generator) -> Point:
        """A point of the space; near `parent` if there is one."""
        drawn: Point = {}
        left = [*self.decisions]
        while left:
            decision = left.pop(0)
            name, near = decision.name, parent.get(decision.name) if parent else None
            drawn[name] = given[name] if name in given else random_value(decision, near, generator)
            left[:0] = decision.inner.get(drawn[name], ())
        return drawn

    def _grown(self, last: int, baseline: Metrics | None) -> Grown | None:
        """Of the trials up to about `last`; in a deterministic sweep it depends on nothing else."""
        every = 1 + max(0, last) // REGROWN
        until = max(0, last + 1) // every * every
        if self.grown is None or self.grown[0] != until:
            latest = [trial for trial in sorted(self.points) if trial < until][-LOOKED_BACK:]
            self._forget(latest)
            seen = [trial for trial in latest if trial in self.epochs]
            if len(seen) < self.sweep.file.search.startup_trials or self.failed.issuperset(seen):
                return None
            self.grown = None  # trees take megabytes; not those before and these at a time
            self.grown = until, self._grow(seen, baseline, stable_hash(self.sweep.file.search.seed, until))
        return self.grown[1]

    def _forget(self, latest: list[int]) -> None:
        """What came before these, which will not be looked at again."""
        for trial in [trial for trial in self.points if latest and trial < latest[0]]:
            del self.points[trial]
            self.epochs.pop(trial, None)

    def _grow(self, trials: list[int], baseline: Metrics | None, seed: int) -> Grown:
        rows = [(trial, epoch, metrics) for trial in trials for epoch, metrics in self.epochs[trial].items()]
        costs, violation = judged(self.sweep, [metrics for _, _, metrics in rows], baseline)
        which = np.array([trial for trial, _, _ in rows])
        failed = np.isin(which, list(self.failed))
        worst, span = costs[~failed].max(axis=0), np.ptp(costs[~failed], axis=0)
        counts = span > 0 if span.any() else np.ones(len(span), dtype=bool)
        gains = ((worst - costs) / np.where(span > 0, span, 1))[:, counts]
        broken = violation / max(1e-12, violation[~failed].max())
        gains[failed], broken[failed] = 0, 1
        at = {trial: self.encoding(self.points[trial]) for trial in trials}
        known = np.array([[*at[trial], math.log(epoch)] for trial, epoch, _ in rows])
        values = np.column_stack([gains, broken, broken <= 0])
        trees = grow(known, values, np.random.default_rng(seed))
        return Grown(which, counts, gains, broken, trees)


@cache
def looked_at(last: int) -> list[int]:
    """The epochs of a trial that are learned and predicted: 1, 3, 9, ... and the last."""
    return [*(3**k for k in range(last.bit_length()) if 3**k < last), last]


def grow(known: Array, values: Array, generator: np.random.Generator) -> list[ExtraTreeRegressor]:
    """`TREES` trees from known, (n, d), to values, (n, k). As sklearn's ExtraTreesRegressor does it, in half
    the time, most of which it takes to look at its own arguments."""
    known = known.astype(np.float32)
    seeds = generator.integers(2**31, size=TREES).tolist()
    trees = [ExtraTreeRegressor(min_samples_leaf=2, max_features=0.7, random_state=seed) for seed in seeds]
    return [tree.fit(known, values, check_input=False) for tree in trees]


@dataclass(frozen=True)
class Grown:
    """Trees, and what they were grown from: what some trials have reached after some epochs.

    trials: (n,) their numbers.  counts: (m,) which objectives do.  gains: (n, k) in [0, 1], of those.
    broken: (n,) in [0, 1], by how much the constraints are.
    """

    trials: Indices
    counts: NDArray[np.bool_]
    gains: Array
    broken: Array
    trees: list[ExtraTreeRegressor]

    def best(self, direction: Array, count: int) -> list[int]:
        """The trials that have reached the most in a direction, then those that break the constraints least.
        direction: (m,), positive."""
        worth = np.min(self.gains / direction[self.counts], axis=1) * (self.broken <= 0)
        return list(dict.fromkeys(self.trials[np.lexsort((self.broken, -worth))].tolist()))[:count]

    def worth(self, points: Array, lasts: Indices, direction: Array, generator: np.random.Generator) -> Array:
        """(n,) the most that each of some points is worth after any epoch, in the opinion of a few trees. If
        none is worth anything: by how little each breaks the constraints.

        points: (n, d), encoded.  lasts: (n,) their last epochs.
        """
        trees = [self.trees[index] for index in generator.choice(TREES, OPINION, replace=False)]
        worth, broken = np.zeros(len(points)), np.ones(len(points))
        epochs = {last: looked_at(last) for last in set(lasts.tolist())}
        for epoch in sorted({epoch for each in epochs.values() for epoch in each}):
            asked = np.column_stack([points, np.full(len(points), math.log(epoch))]).astype(np.float32)
            seen = np.mean([tree.predict(asked, check_input=False) for tree in trees], axis=0)
            comes = np.array([epoch in epochs[last] for last in lasts.tolist()])
            here = np.min(seen[:, :-2] / direction[self.counts], axis=1) * seen[:, -1]
            worth = np.where(comes, np.maximum(worth, here), worth)
            broken = np.where(comes, np.minimum(broken, seen[:, -2]), broken)
        return worth if worth.any() else -broken


class Encoding:
    """Points as numbers for trees. A range is mapped to [0, 1], by its logarithm if it is drawn so; a choice
    of numbers to their ranks; another choice is a column for each option. What a point lacks is -1."""

    def __init__(self, parameters: Mapping[str, Choice | Range]) -> None:
        self.parameters = parameters
        choices = {name: each for name, each in parameters.items() if isinstance(each, Choice)}
        self.labels = {name: space.labels(each) for name, each in choices.items()}
        self.ranks = {name: ranks(labels) for name, labels in self.labels.items()}

    def __call__(self, point: Point) -> list[float]:
        columns: list[float] = []
        for name, distribution in self.parameters.items():
            value = point.get(name)
            if isinstance(distribution, Range):
                columns.append(-1.0 if value is None else place(value, distribution))
            elif order := self.ranks[name]:
                columns.append(-1.0 if value is None else order[value])
            else:
                columns += [float(value == label) for label in self.labels[name]]
        return columns


def ranks(labels: list[str]) -> dict[str, float]:
    """The options of a choice of numbers, from 0 to 1 in their order; empty for another choice."""
    try:
        order = sorted(labels, key=Fraction)
    except ValueError:
        return {}
    return {label: index / max(1, len(order) - 1) for index, label in enumerate(order)}


def place(value: float, distribution: Range) -> float:
    """Where a number lies in its range, from 0 to 1."""
    ends = distribution.low, distribution.high
    low, high, at = map(math.log, (*ends, value)) if distribution.log else (*ends, value)
    return (at - low) / (high - low)


def random_value(decision: Decision, near: Any, generator: np.random.Generator) -> Any:
    """A value of a parameter; near one if that is not None."""
    distribution = decision.distribution
    if isinstance(distribution, Choice):
        if near is not None and generator.random() < KEEP:
            return near
        return list(decision.inner)[generator.integers(len(decision.inner))]
    at = generator.random() if near is None else place(near, distribution) + STEP * generator.normal()
    ends = distribution.low, distribution.high
    low, high = map(math.log, ends) if distribution.log else ends
    value = low + (high - low) * min(1.0, max(0.0, at))
    value = min(max(math.exp(value) if distribution.log else value, distribution.low), distribution.high)
    return round(value) if distribution.integer else float(value)
