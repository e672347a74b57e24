"""How well in-distribution images are told from others, against scikit-learn."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, norm
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from trainables.metrics.separation import KINDS, at_scores, separation


def scores(n, m, seed=0, levels=None):
    """(n,) of in-distribution images and (m,) of others, rounded to so many levels."""
    random = np.random.default_rng(seed)
    drawn = random.normal(1, 1, n), random.normal(0, 1.5, m)
    return drawn if levels is None else tuple(np.round(each * levels) / levels for each in drawn)


def by_sklearn(inside, outside):
    positive = np.r_[np.ones(len(inside)), np.zeros(len(outside))]
    both = np.r_[inside, outside]
    false, true, _ = roc_curve(positive, both, drop_intermediate=False)
    return {
        "auroc": roc_auc_score(positive, both),
        "aupr": average_precision_score(positive, both),
        "fpr95": false[np.flatnonzero(true >= 0.95 - 1e-12)[0]],
    }


@pytest.mark.parametrize("levels", [None, 1, 3])
@pytest.mark.parametrize(("n", "m"), [(200, 50), (31, 300), (1, 1), (20, 1)])
def test_the_three_numbers_are_those_of_scikit_learn(n, m, levels):
    inside, outside = scores(n, m, seed=n, levels=levels)
    expected = by_sklearn(inside, outside)
    found = separation(inside, outside)
    assert {kind: found[kind].value for kind in found} == pytest.approx(expected, abs=1e-12)


def test_in_distribution_images_are_the_positives():
    """The other convention gives another area and another rate."""
    inside, outside = scores(900, 100)
    own, other = separation(inside, outside), separation(-outside, -inside)
    assert own["auroc"].value == pytest.approx(other["auroc"].value)
    assert own["aupr"].value > 0.95
    assert other["aupr"].value < 0.5
    assert abs(own["fpr95"].value - other["fpr95"].value) > 0.1


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 25), st.integers(1, 25), st.integers(0, 10**6), st.sampled_from([None, 1]))
def test_weights_are_repetitions(n, m, seed, levels):
    inside, outside = scores(n, m, seed, levels)
    random = np.random.default_rng(seed)
    of_inside = np.bincount(random.integers(0, n, n), minlength=n)
    of_outside = np.bincount(random.integers(0, m, m), minlength=m)
    repeated = by_sklearn(np.repeat(inside, of_inside), np.repeat(outside, of_outside))
    weighted = at_scores(inside, outside, of_inside[None].astype(float), of_outside[None].astype(float))
    for kind, statistic in KINDS.items():
        assert statistic(*weighted)[0] == pytest.approx(repeated[kind], abs=1e-9), kind


def test_intervals_hold_the_truth():
    """Of 100 samples, all but a few; the truth is that of a large sample."""
    truth = by_sklearn(*scores(200_000, 200_000, seed=10**6))
    held = dict.fromkeys(truth, 0)
    for seed in range(100):
        found = separation(*scores(150, 150, seed), seed=seed)
        for kind, value in truth.items():
            held[kind] += found[kind].low <= value <= found[kind].high
    assert all(90 <= count <= 99 for count in held.values()), held


@pytest.mark.parametrize(("n", "m", "distance"), [(600, 600, 4.5), (1000, 300, 4.5), (600, 600, 5.5)])
def test_intervals_hold_where_hardly_any_image_is_on_the_wrong_side(n, m, distance, monkeypatch):
    """Truths of normal scores, by their distribution function and 10,000 quantiles."""
    monkeypatch.setattr("trainables.metrics.separation.DRAWS", 100)
    passed = (np.arange(10_000) + 0.5) / 10_000
    others = m / n * norm.sf(norm.isf(passed) + distance)
    truth = {
        "auroc": norm.cdf(distance / np.sqrt(2)),
        "aupr": (passed / (passed + others)).mean(),
        "fpr95": norm.sf(norm.ppf(0.05) + distance),
    }
    held, random = dict.fromkeys(truth, 0), np.random.default_rng(0)
    for _ in range(100):
        found = separation(random.normal(distance, 1, n), random.normal(0, 1, m))
        for kind, value in truth.items():
            held[kind] += found[kind].low <= value <= found[kind].high
    assert min(held.values()) >= 93, held


def test_an_interval_of_a_perfect_separation_is_that_of_a_share():
    found = separation(np.arange(600) + 1.0, -np.arange(300) - 1.0)
    _, high = binomtest(0, 300).proportion_ci(method="exact")
    assert found["fpr95"] == pytest.approx((0, 0, high))
    assert found["aupr"] == pytest.approx((1, 1 - high, 1))
    assert found["auroc"] == pytest.approx((1, 1 - high, 1), abs=1e-3)  # Wilson's


def test_memory_is_that_of_a_chunk_and_chunks_change_nothing(monkeypatch):
    inside, outside = scores(300, 200)
    whole = separation(inside, outside)
    monkeypatch.setattr("trainables.metrics.separation.CHUNK", 2**14)
    assert separation(inside, outside) == whole
    tracemalloc.start()
    separation(inside, outside)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**20  # the weights of all samples are 4 MB


def test_nothing_is_undefined_but_without_images():
    assert np.isnan(separation([], [1.0])["aupr"].value)
    perfect = separation([2.0, 3.0, 4.0, 5.0], [0.0, 1.0, 0.5, 0.2])
    assert (perfect["auroc"].value, perfect["aupr"].value, perfect["fpr95"].value) == (1, 1, 0)
    equal = separation([1.0, 1.0], [1.0, 1.0])
    assert (equal["auroc"].value, equal["aupr"].value, equal["fpr95"].value) == (0.5, 0.5, 1)
