"""Early stopping: the laws of `scheduler_contract`, faults that they catch, peers."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from optuna.study._multi_objective import _fast_non_domination_rank

from sweeper.halving import Halving, Rung
from sweeper.ranking import Fronts, Within, epsilon_net, rank, spread
from tests import scheduler_contract as contract
from tests.scheduler_contract import RANKING, STOPPING, Array, Ranker


def our_ranker(costs: Array, violation: Array, within: Any) -> Any:
    return rank(costs, violation, within=within, generator=np.random.default_rng(0))


@pytest.mark.parametrize("within", get_args(Within))
@pytest.mark.parametrize("law", RANKING, ids=lambda law: law.__name__)
def test_the_order_obeys(law: Callable[[Ranker], None], within: str) -> None:
    law(partial(our_ranker, within=within))


@pytest.mark.parametrize("law", STOPPING, ids=lambda law: law.__name__)
def test_early_stopping_obeys(law: Callable[[Any], None]) -> None:
    law(Halving)


class Ranking(Halving):
    """The same rule written once more, by the positions of all; the basis of the planted faults."""

    ranker: Ranker = staticmethod(partial(our_ranker, within="epsilon_net"))

    def newest_goes_on(self, rung: Rung, generator: np.random.Generator) -> bool:
        count, eta, constraints = len(rung.metrics), self.stopping.reduction_factor, self.pareto.constraints
        if count < eta or (constraints and self.baseline is None):
            return True
        baseline, violation = self.baseline or {}, np.zeros(count)
        costs = np.array([self.costs(metrics) for metrics in rung.metrics])
        for c in constraints:
            violation += [c.violation(metrics[c.metric], baseline[c.metric]) for metrics in rung.metrics]
        dominates = (costs <= costs[-1]).all(axis=1) & (costs < costs[-1]).any(axis=1)
        before = (violation < violation[-1]) | ((violation == violation[-1]) & dominates)
        if count < self.stopping.protect and not before.any():
            return True
        return bool(type(self).ranker(costs, violation)[-1] < math.ceil(count / eta))


@pytest.mark.slow
def test_the_rule_written_once_more_obeys_too() -> None:
    """So what a planted fault breaks, the fault breaks."""
    for law in STOPPING:
        law(Ranking)


def sorted_indices(costs: Array, violation: Array) -> Any:
    """The fault of Syne Tune 0.16."""
    return np.argsort(our_ranker(costs, violation, "epsilon_net"))


def unnormalised(costs: Array, violation: Array) -> Any:
    usable = np.flatnonzero(np.isfinite(costs).all(axis=1))
    fronts, generator = Fronts(costs.shape[1]), np.random.default_rng(0)
    for index in usable:
        fronts.add(costs[index], violation[index])
    members = [np.flatnonzero(fronts.front == front) for front in np.unique(fronts.front)]
    order = [usable[m[spread(fronts.costs[m], "epsilon_net", generator)]] for m in members]
    positions = np.empty(len(costs), dtype=int)
    others = np.setdiff1d(np.arange(len(costs)), usable)
    positions[np.concatenate([*order, others]).astype(int)] = np.arange(len(costs))
    return positions


def global_generator(costs: Array, violation: Array) -> Any:
    generator = np.random.default_rng(np.random.randint(2**31))
    return rank(costs, violation, generator=generator)


class SortedIndices(Ranking):
    ranker = staticmethod(sorted_indices)


class MissingSign(Halving):
    def costs(self, metrics: dict[str, float]) -> list[float]:
        return [metrics[name] for name in self.objectives]


class Unnormalised(Ranking):
    ranker = staticmethod(unnormalised)


class GlobalGenerator(Ranking):
    ranker = staticmethod(global_generator)


class LostState(Halving):
    """As a scheduler that Ray restores: without what it knew."""

    def __init__(self, *arguments: Any, past: Any = (), **others: Any) -> None:
        super().__init__(*arguments, **others)


@pytest.mark.parametrize(
    ("fault", "caught_by"),
    [
        (
            sorted_indices,
            {contract.permuting_trials_permutes_ranks, contract.a_newcomer_that_dominates_all_is_first},
        ),
        (unnormalised, {contract.units_do_not_matter}),
        (global_generator, {contract.the_global_generator_is_left_alone}),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_fault_in_the_order_is_caught(fault: Ranker, caught_by: set[Callable[[Ranker], None]]) -> None:
    broken = {law for law in RANKING if not obeys(fault, law)}
    assert caught_by <= broken
    assert broken < set(RANKING)  # it is this fault, not an order that has nothing right


def obeys(suspect: Any, law: Callable[[Any], None]) -> bool:
    try:
        law(suspect)
    except AssertionError:
        return False
    return True


@pytest.mark.parametrize(
    ("fault", "law"),
    [
        (SortedIndices, contract.the_best_newcomer_goes_on_and_the_worst_is_stopped),
        (MissingSign, contract.maximising_is_minimising_the_negative),
        (Unnormalised, contract.units_do_not_decide),
        (GlobalGenerator, contract.the_seed_is_the_only_source_of_chance),
        (LostState, contract.a_rebuilt_scheduler_decides_alike),
    ],
    ids=lambda value: value.__name__,
)
def test_a_fault_in_early_stopping_is_caught(fault: type[Halving], law: Callable[[Any], None]) -> None:
    assert law in STOPPING
    assert not obeys(fault, law)


GRID = hnp.arrays(
    np.float64, st.tuples(st.integers(1, 25), st.integers(1, 4)), elements=st.integers(0, 4).map(float)
)


@given(GRID, st.integers(0, 99))
def test_peer_optuna_finds_the_same_fronts(costs: Array, seed: int) -> None:
    violation = np.random.default_rng(seed).integers(-1, 3, len(costs)).clip(min=0).astype(float)
    fronts = Fronts(costs.shape[1])
    for point, excess in zip(costs, violation, strict=True):
        fronts.add(point, excess)
    expected = _fast_non_domination_rank(costs, penalty=violation)
    feasible = violation == 0
    assert (fronts.front[feasible] == expected[feasible]).all()
    for level in np.unique(violation):  # Optuna doesn't tell apart those that break the constraints alike
        inside = violation == level
        own = _fast_non_domination_rank(costs[inside])
        assert (fronts.front[inside] - fronts.front[inside].min() == own).all()


@given(GRID)
def test_being_among_the_first_is_having_a_low_rank(costs: Array) -> None:
    """For distinct points: between copies chance decides."""
    costs = np.unique(costs, axis=0)
    costs = costs[np.random.default_rng(0).permutation(len(costs))]
    fronts, generator = Fronts(costs.shape[1]), np.random.default_rng(0)
    for point in costs:
        fronts.add(point)
    positions = rank(costs, generator=generator)
    for count in range(len(costs) + 1):
        found = [fronts.among_first(i, count, "epsilon_net", generator) for i in range(len(costs))]
        assert found == (positions < count).tolist()


def test_an_epsilon_net_covers_within_twice_the_best_radius() -> None:
    """Against the best of all subsets of that size."""
    from itertools import combinations

    rng = np.random.default_rng(0)
    for _ in range(5):
        points = rng.random((9, 3))
        gaps = np.linalg.norm(points[:, None] - points[None], axis=2)
        order = epsilon_net(points)
        assert order[0] == points.sum(axis=1).argmin()
        for count in range(1, 9):
            radius = gaps[:, order[:count]].min(axis=1).max()
            best = min(gaps[:, list(chosen)].min(axis=1).max() for chosen in combinations(range(9), count))
            assert radius <= 2 * best


def test_peer_optuna_crowds_alike() -> None:
    from optuna.samplers.nsgaii._elite_population_selection_strategy import _crowding_distance_sort
    from optuna.trial import create_trial

    angles = np.random.default_rng(1).permutation(np.linspace(0.05, 1.2, 12) ** 1.5)
    points = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    trials = [create_trial(values=point.tolist()) for point in points]
    for number, trial in enumerate(trials):
        trial.number = number
    _crowding_distance_sort(trials)
    expected = [trial.number for trial in trials]
    positions = rank(points, within="crowding", generator=np.random.default_rng(0))
    ours = np.argsort(positions).tolist()
    assert set(ours[:2]) == set(expected[:2])  # both ends, infinitely far from others
    assert ours[2:] == expected[2:]


def test_contract_data_are_shuffled() -> None:
    costs = contract.some_costs(np.random.default_rng(0))
    for column in costs.T:
        assert np.argsort(np.argsort(column)).tolist() != np.argsort(column).tolist()
