"""Non-dominated sets, by their definition and by laws."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from optuna.study import StudyDirection
from optuna.study._multi_objective import _dominates
from optuna.trial import FrozenTrial, create_trial

from sweeper.pareto import as_costs, dominates, non_dominated

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
