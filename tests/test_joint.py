"""Fronts of several runs laid over each other: by their definitions, by laws and by simulation."""

from __future__ import annotations

import moocore
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeper.joint import beaten, common_reference, volumes
from sweeper.pareto import dominates, non_dominated

ONES = np.ones(3)


@st.composite
def laid(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, int]:
    """Models on a coarse grid, so that some are equal; not every group has one."""
    size = draw(st.integers(1, 4))
    values = draw(st.lists(st.lists(st.integers(0, 9), min_size=3, max_size=3), min_size=1, max_size=10))
    groups = draw(st.lists(st.integers(0, size - 1), min_size=len(values), max_size=len(values)))
    return np.array(values, float) / 8, np.array(groups), size


def by_counting(costs: np.ndarray) -> float:
    """Volume below (1, 1, 1): the share of cells of the grid that some model dominates."""
    cells = np.stack(np.meshgrid(*[np.arange(8) / 8] * 3), axis=-1).reshape(-1, 3)
    if not len(costs):
        return 0.0
    return float((costs[:, None] <= cells).all(axis=2).any(axis=0).mean())


@given(laid())
def test_volumes_by_counting(models: tuple[np.ndarray, np.ndarray, int]) -> None:
    costs, groups, size = models
    found = volumes(costs, groups, size, ONES)
    assert found.whole == pytest.approx(by_counting(costs))
    for group in range(size):
        assert found.own[group] == pytest.approx(by_counting(costs[groups == group]))
        without = by_counting(costs[groups != group])
        assert found.gained[group] == pytest.approx(found.whole - without, abs=1e-12)


@given(laid())
def test_nobody_gains_less_than_nothing_or_more_than_it_has(
    models: tuple[np.ndarray, np.ndarray, int],
) -> None:
    found = volumes(*models, ONES)
    assert (found.gained >= 0).all()
    assert (found.gained <= found.own + 1e-12).all()
    assert (found.own <= found.whole + 1e-12).all()
    assert found.gained.sum() <= found.whole + 1e-12 <= found.own.sum() + 2e-12


@given(laid(), st.randoms(use_true_random=False))
def test_neither_the_order_of_runs_nor_of_models_matters(
    models: tuple[np.ndarray, np.ndarray, int], random: object
) -> None:
    costs, groups, size = models
    r = np.random.default_rng(random.randrange(99))  # type: ignore[attr-defined]
    order, names = r.permutation(len(costs)), r.permutation(size)
    first, second = volumes(*models, ONES), volumes(costs[order], names[groups][order], size, ONES)
    assert second.whole == pytest.approx(first.whole)
    assert second.own[names] == pytest.approx(first.own)
    assert second.gained[names] == pytest.approx(first.gained)
    assert (
        beaten(costs[order], names[groups][order], size)[1][np.ix_(names, names)] == beaten(*models)[1]
    ).all()


@given(laid())
def test_a_run_that_others_dominate_adds_nothing(models: tuple[np.ndarray, np.ndarray, int]) -> None:
    """It moves neither front nor reference point; but what others gain is less where it comes second."""
    costs, groups, size = models
    worse = costs + np.array([0, 0, 1 / 8])
    more = np.vstack([costs, worse]), np.concatenate([groups, np.full(len(costs), size)])
    assert (common_reference(more[0], [ONES]) == common_reference(costs, [ONES])).all()
    before, after = volumes(*models, ONES), volumes(*more, size + 1, ONES)
    assert after.whole == pytest.approx(before.whole)
    assert after.own[:-1] == pytest.approx(before.own)
    assert after.gained[-1] == 0
    assert (after.gained[:-1] <= before.gained + 1e-12).all()
    assert not non_dominated(more[0])[len(costs) :].any()


@given(laid())
def test_a_copy_of_a_run_leaves_it_no_gain(models: tuple[np.ndarray, np.ndarray, int]) -> None:
    costs, groups, size = models
    twice = (
        np.vstack([costs, costs[groups == 0]]),
        np.concatenate([groups, np.full((groups == 0).sum(), size)]),
    )
    after = volumes(*twice, size + 1, ONES)
    assert after.gained[0] == after.gained[-1] == 0
    assert after.whole == pytest.approx(volumes(*models, ONES).whole)


@given(laid())
def test_who_beats_whom_by_definition(models: tuple[np.ndarray, np.ndarray, int]) -> None:
    costs, groups, size = models
    on_front, counts = beaten(*models)
    for column in range(size):
        own = costs[groups == column]
        front = [model for model in own if not any(dominates(other, model) for other in own)]
        assert on_front[column] == len(front)
        for row in range(size):
            rivals = costs[groups == row]
            assert counts[row, column] == sum(any(dominates(o, model) for o in rivals) for model in front)


def test_constraints_count() -> None:
    costs, groups = [[0.0, 0.0], [0.5, 0.5], [0.5, 0.25]], [0, 0, 1]
    found = volumes(costs, groups, 2, [1, 1], violation=[0.1, 0, 0])
    assert found.own.tolist() == [0.25, 0.375]
    assert found.gained.tolist() == [0, 0.125]
    assert beaten(costs, groups, 2, [0.1, 0, 0])[1].tolist() == [[0, 0], [1, 0]]
    assert common_reference(costs, [[1.5, 0]], [0.1, 0, 0]).tolist() == [1.6, 0.275]


def test_peer_moocore_gives_the_same_gains() -> None:
    """Its hypervolume contribution of a set of one point each."""
    r = np.random.default_rng(0)
    costs = r.random((40, 3))
    costs = costs[non_dominated(costs)]
    found = volumes(costs, np.arange(len(costs)), len(costs), ONES)
    assert found.gained == pytest.approx(moocore.hv_contributions(costs, ref=ONES), abs=1e-12)


def test_samples_of_images_hold_the_truth_nine_times_in_ten() -> None:
    """Not quite 95 times in 100: what is gained can't be below 0, and draws scatter upwards from there. Of
    fronts that were chosen on other images; normal noise as of accuracies on 600 images, half of it common to
    all models."""
    r, hits, sweeps, groups = np.random.default_rng(0), np.zeros(5), 120, np.repeat([0, 1], 6)

    def noise(draws: int) -> np.ndarray:
        return 0.014 * (r.standard_normal((draws, 1, 2)) + r.standard_normal((draws, 12, 2)))

    def all_of(costs: np.ndarray, front: np.ndarray, reference: np.ndarray) -> np.ndarray:
        found = volumes(costs[front], groups[front], 2, reference)
        return np.array([found.whole, *found.own, *found.gained])

    for _ in range(sweeps):
        strength = r.uniform(0, 1, 12)
        truth = np.stack([0.6 - 0.3 * strength, 0.2 + 0.3 * strength**2], axis=1)
        truth += r.normal(0, 0.02, truth.shape)
        seen, measured = truth + noise(1)[0], truth + noise(1)[0]
        front = np.concatenate([6 * g + np.flatnonzero(non_dominated(seen[groups == g])) for g in (0, 1)])
        reference = common_reference(measured[front], [[1.0, 1.0]])
        draws = [all_of(measured + each, front, reference) for each in noise(60)]
        low, high = np.quantile(draws, [0.025, 0.975], axis=0)
        true = all_of(truth, front, reference)
        hits += (low <= true + 1e-12) & (true <= high + 1e-12)
    assert (hits / sweeps > 0.85).all()
    assert 0.88 < hits.mean() / sweeps < 0.97
