"""Non-dominated sets and what is said of them, by their definitions, by laws and by peers."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from optuna.study import StudyDirection
from optuna.study._multi_objective import _dominates
from optuna.trial import FrozenTrial, create_trial

from sweeper.pareto import (
    as_costs,
    dominates,
    fronts,
    hypervolume,
    hypervolume_over_time,
    knee,
    lexicographic,
    non_dominated,
    reference_point,
)
from sweeper.ranking import Fronts

COSTS = hnp.arrays(
    np.float64,
    st.tuples(st.integers(0, 12), st.integers(1, 4)),
    elements=st.integers(-3, 3).map(float),
)


def by_definition(costs: np.ndarray) -> list[bool]:
    """Written again with plain loops."""
    members = []
    for i, point in enumerate(costs):
        beaten = False
        for j, other in enumerate(costs):
            if i != j and all(o <= p for o, p in zip(other, point, strict=True)):
                beaten |= any(o < p for o, p in zip(other, point, strict=True))
        members.append(not beaten)
    return members


@given(COSTS)
def test_agrees_with_the_definition(costs: np.ndarray) -> None:
    assert non_dominated(costs).tolist() == by_definition(costs)


@given(COSTS, st.integers(0, 99))
def test_order_and_scale_do_not_matter(costs: np.ndarray, seed: int) -> None:
    order = np.random.default_rng(seed).permutation(len(costs))
    member = non_dominated(costs)
    assert (non_dominated(costs[order]) == member[order]).all()
    scales = np.linspace(0.1, 7, costs.shape[1])
    assert (non_dominated(costs * scales + 5) == member).all()


@given(COSTS)
def test_the_front_dominates_or_equals_everything_else(costs: np.ndarray) -> None:
    member = non_dominated(costs)
    for point in costs[~member]:
        assert any(dominates(other, point) for other in costs[member])
    for point in costs[member]:
        assert not any(dominates(other, point) for other in costs)


@given(COSTS)
def test_a_dominated_newcomer_changes_nothing(costs: np.ndarray) -> None:
    if len(costs):
        worse = costs[:1] + 1
        assert (non_dominated(np.vstack([costs, worse]))[:-1] == non_dominated(costs)).all()


def test_peer_optuna_says_the_same() -> None:
    rng = np.random.default_rng(0)
    values = rng.integers(0, 5, size=(40, 3)).astype(float)

    def trial(row: np.ndarray) -> FrozenTrial:
        return create_trial(values=row.tolist())

    directions = [StudyDirection.MAXIMIZE, StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE]
    expected = [not any(_dominates(trial(o), trial(p), directions) for o in values) for p in values]
    costs = as_costs(values, ["maximize", "maximize", "minimize"])
    assert non_dominated(costs).tolist() == expected


def test_constraints_and_non_finite_values() -> None:
    costs = [[0.0, 0.0], [1.0, 1.0], [np.nan, -9.0], [-np.inf, 0.0], [1.0, 1.0]]
    assert non_dominated(costs).tolist() == [True, False, False, False, False]
    assert non_dominated(costs, [0.1, 0, 0, 0, 0]).tolist() == [False, True, False, False, True]
    assert non_dominated(np.empty((0, 3))).tolist() == []


# Fronts


@given(COSTS)
def test_fronts_are_what_is_non_dominated_when_earlier_ones_are_gone(costs: np.ndarray) -> None:
    rank, left = fronts(costs), np.arange(len(costs))
    for current in itertools.count():
        if not len(left):
            break
        member = np.array(by_definition(costs[left]))
        assert (rank[left[member]] == current).all()
        left = left[~member]


@given(COSTS, st.integers(0, 99))
def test_fronts_do_not_depend_on_the_order(costs: np.ndarray, seed: int) -> None:
    order = np.random.default_rng(seed).permutation(len(costs))
    assert (fronts(costs[order]) == fronts(costs)[order]).all()


def test_fronts_with_constraints_and_non_finite_values() -> None:
    costs = [[1.0, 1.0], [0.0, 0.0], [0.0, 0.0], [2.0, 2.0], [9.0, 9.0], [0.0, np.nan], [0.0, np.inf]]
    assert fronts(costs, [0, 0.2, 0.1, 0, 0.1, 0, 0]).tolist() == [0, 4, 2, 1, 3, 5, 5]
    assert fronts(costs, [1, 1, 1, 1, 1, 1, np.nan]).tolist() == [1, 0, 0, 2, 3, 4, 4]
    assert fronts(np.empty((0, 2))).tolist() == []


@given(COSTS, st.integers(0, 99))
def test_fronts_are_those_that_early_stopping_keeps_up_to_date(costs: np.ndarray, seed: int) -> None:
    """All at once, and point by point."""
    violation = np.random.default_rng(seed).integers(0, 3, len(costs)) / 2
    growing = Fronts(costs.shape[1])
    for point, broken in zip(costs, violation, strict=True):
        growing.add(point, broken)
    assert (fronts(costs, violation) == growing.front).all()


def test_fronts_of_thousands_of_points() -> None:
    costs = np.random.default_rng(0).random((3000, 3))
    rank = fronts(costs)
    assert (rank[non_dominated(costs)] == 0).all()
    assert sorted(set(rank)) == list(range(rank.max() + 1))


# Hypervolume

BOXES = hnp.arrays(
    np.float64,
    st.tuples(st.integers(1, 6), st.integers(2, 4)),
    elements=st.integers(0, 12).map(lambda i: i / 8),  # the reference point is 1: some are beyond it
)


def by_inclusion_and_exclusion(costs: np.ndarray) -> float:
    """Volume of the union of the boxes from each point to (1, ..., 1)."""
    total = 0.0
    for size in range(1, len(costs) + 1):
        for chosen in itertools.combinations(costs, size):
            total -= (-1) ** size * float(np.prod(np.maximum(1 - np.max(chosen, axis=0), 0)))
    return total


@given(BOXES)
def test_hypervolume_by_inclusion_and_exclusion(costs: np.ndarray) -> None:
    assert hypervolume(costs, np.ones(costs.shape[1])) == pytest.approx(by_inclusion_and_exclusion(costs))


@given(BOXES, st.integers(0, 99))
def test_hypervolume_laws(costs: np.ndarray, seed: int) -> None:
    r = np.random.default_rng(seed)
    reference = np.ones(costs.shape[1])
    volume = hypervolume(costs, reference)
    assert hypervolume(costs[r.permutation(len(costs))], reference) == pytest.approx(volume)
    objectives = r.permutation(len(reference))
    assert hypervolume(costs[:, objectives], reference) == pytest.approx(volume)
    scales = r.uniform(0.5, 2, len(reference))
    assert hypervolume(costs * scales + 3, reference * scales + 3) == pytest.approx(volume * scales.prod())
    dominated = np.vstack([costs, costs[:1] + r.integers(0, 3, len(reference)) / 8])
    assert hypervolume(dominated, reference) == pytest.approx(volume)
    more = np.vstack([costs, r.random(len(reference))])
    assert volume <= hypervolume(more, reference) + 1e-12 <= 1 + 2e-12
    assert hypervolume(costs[non_dominated(costs)], reference) == pytest.approx(volume)


@pytest.mark.parametrize("size", [2, 3, 4])
def test_hypervolume_by_chance(size: int) -> None:
    """The share of uniform points that are dominated, within five standard errors of 100,000."""
    r = np.random.default_rng(size)
    costs, probes = r.random((40, size)) ** 0.3, r.random((100_000, size))
    hit = np.zeros(len(probes), dtype=bool)
    for point in costs:
        hit |= (point <= probes).all(axis=1)
    volume = hypervolume(costs, np.ones(size))
    assert abs(hit.mean() - volume) < 5 * np.sqrt(volume * (1 - volume) / len(probes))


@pytest.mark.parametrize("n", [2, 10, 100])
def test_hypervolume_of_a_line_in_closed_form(n: int) -> None:
    """n equal steps of the diagonal x + y = 1 dominate (n - 1) / 2n of the unit square."""
    x = np.arange(1, n) / n
    assert hypervolume(np.column_stack([x, 1 - x]), [1, 1]) == pytest.approx((n - 1) / (2 * n))


def test_hypervolume_of_what_does_not_count() -> None:
    costs = [[0.5, 0.5], [0.0, 0.0], [np.nan, 0.0], [1.0, 0.0], [-1.0, 2.0]]
    assert hypervolume(costs, [1, 1], violation=[0, 0.1, 0, 0, 0]) == 0.25
    assert hypervolume(np.empty((0, 3)), [1, 1, 1]) == 0


@settings(max_examples=40)
@given(BOXES, st.integers(0, 99))
def test_hypervolume_over_time_is_that_of_all_so_far(costs: np.ndarray, seed: int) -> None:
    r = np.random.default_rng(seed)
    reference, elapsed, broken = (
        np.ones(costs.shape[1]),
        r.permutation(len(costs)),
        r.random(len(costs)) < 0.2,
    )
    times, volumes = hypervolume_over_time(costs, elapsed, reference, broken)
    assert times.tolist() == sorted(elapsed)
    for time, volume in zip(times, volumes, strict=True):
        so_far = elapsed <= time
        assert volume == pytest.approx(hypervolume(costs[so_far], reference, broken[so_far]))


def test_reference_point_lies_a_tenth_beyond_the_worst() -> None:
    costs = [[0.0, 5.0], [10.0, 5.0], [np.inf, 0.0]]
    assert reference_point(costs).tolist() == [11.0, 6.0]


# Picks


@given(COSTS, st.integers(0, 99))
def test_picks_are_non_dominated_and_feasible(costs: np.ndarray, seed: int) -> None:
    r = np.random.default_rng(seed)
    violation = (r.random(len(costs)) < 0.3).astype(float)
    tolerances = r.integers(0, 3, costs.shape[1])
    for pick in (knee(costs, violation), lexicographic(costs, tolerances, violation)):
        assert (pick is None) == (not len(costs) or violation.all())
        if pick is not None:
            assert non_dominated(costs, violation)[pick]


@given(COSTS, st.integers(0, 99))
def test_the_knee_does_not_depend_on_units(costs: np.ndarray, seed: int) -> None:
    scales = 2.0 ** np.random.default_rng(seed).integers(-3, 4, costs.shape[1])
    assert knee(costs * scales) == knee(costs)


def test_the_knee_of_a_bent_front() -> None:
    costs = np.array([[0.0, 1.0], [0.1, 0.2], [0.45, 0.19], [1.0, 0.0], [0.05, 0.9], [2.0, 2.0]])
    assert knee(costs) == 1
    assert knee(costs, [0, 1, 0, 0, 0, 0]) == 2
    assert knee([[3.0, 4.0]]) == 0


def test_lexicographic_keeps_what_is_nearly_best() -> None:
    costs = as_costs(
        [[0.50, 0.80, 0.3], [0.49, 0.90, 0.2], [0.49, 0.89, 0.1], [0.40, 0.99, 0.0]],
        ["maximize"] * 2 + ["minimize"],
    )
    assert lexicographic(costs, [0, 0, 0]) == 0
    assert lexicographic(costs, [0.015, 0, 0]) == 1
    assert lexicographic(costs, [0.015, 0.015, 0]) == 2
    assert (
        lexicographic(costs, [0.015, 0.015, 0.15]) == 1
    )  # both are good enough: the first objectives decide
    assert lexicographic(costs, [1, 1, 0]) == 3
