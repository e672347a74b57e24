"""AUROC and AURC against scikit-learn, their definitions and cases worked by hand."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import roc_auc_score

from trainables.metrics.detection import auroc, auroc_of_pairs
from trainables.metrics.selective import aurc, confidence_when_wrong, doubt_when_right

SCORES = st.integers(2, 40).flatmap(
    lambda n: st.tuples(
        arrays(np.float64, n, elements=st.sampled_from([-1.0, 0.0, 0.1, 0.25, 2.0])), arrays(np.bool_, n)
    )
)


@given(SCORES)
def test_auroc_is_that_of_scikit_learn_and_mirrors(pair):
    score, positive = pair
    estimate = auroc(score, positive)
    if positive.all() or not positive.any():
        assert all(math.isnan(x) for x in estimate)
        return
    assert estimate.value == pytest.approx(roc_auc_score(positive, score), abs=1e-12)
    assert auroc(-score, positive).value == pytest.approx(1 - estimate.value, abs=1e-12)
    assert auroc(score, ~positive).value == pytest.approx(1 - estimate.value, abs=1e-12)
    if not math.isnan(estimate.low):
        assert 0 <= estimate.low <= estimate.value + 1e-12
        assert estimate.value - 1e-12 <= estimate.high <= 1
        mirrored = auroc(-score, positive)
        assert (1 - mirrored.high, 1 - mirrored.low) == pytest.approx(estimate[1:], abs=1e-9)


def test_auroc_variance_is_delongs_by_definition():
    rng = np.random.default_rng(0)
    low, high = rng.normal(0, 1, 300), rng.normal(1, 1, 200)
    wins = (high[:, None] > low) + 0.5 * (high[:, None] == low)
    variance = wins.mean(1).var(ddof=1) / 200 + wins.mean(0).var(ddof=1) / 300
    area, start, end = auroc(np.r_[low, high], np.r_[np.zeros(300), np.ones(200)])
    half = 1.965 * math.sqrt(variance) / (area * (1 - area))  # Student's quantile of about 400 degrees
    logits = [math.log(x / (1 - x)) for x in (start, area, end)]
    assert logits == pytest.approx([logits[1] - half, logits[1], logits[1] + half], abs=2e-3)


@pytest.mark.parametrize(("separated", "value"), [(1, 1.0), (-1, 0.0)])
def test_a_perfect_separation_is_still_uncertain(separated, value):
    score = separated * np.r_[np.zeros(990), np.ones(10)]
    estimate = auroc(score, np.arange(1000) >= 990)
    assert estimate.value == value
    assert estimate.high - estimate.low == pytest.approx(0.2775, abs=1e-3)  # as 10 of 10, or 0 of 10


def test_few_errors_have_an_area_but_no_interval():
    estimate = auroc([0.1, 0.2, 0.9, 0.4, 0.3], [0, 0, 1, 1, 1])
    assert estimate.value == 1
    assert math.isnan(estimate.low)


def test_pairs_pool_all_scores():
    rng = np.random.default_rng(0)
    clean, attacked = rng.uniform(0, 1, (2, 400))
    estimate = auroc_of_pairs(clean, attacked**0.5)
    pooled = roc_auc_score(np.r_[np.zeros(400), np.ones(400)], np.r_[clean, attacked**0.5])
    assert estimate.value == pytest.approx(pooled)


def test_the_pairing_narrows_or_widens_the_interval():
    rng = np.random.default_rng(0)
    clean = rng.normal(0, 1, 400)
    twice, opposed = clean + rng.normal(0.5, 0.1, 400), -clean + rng.normal(0.5, 0.1, 400)
    independent = auroc(np.r_[clean, twice], np.r_[np.zeros(400), np.ones(400)])
    widths = [high - low for _, low, high in (auroc_of_pairs(clean, x) for x in (twice, opposed))]
    assert widths[0] < 0.5 * (independent.high - independent.low) < widths[1]


def test_pairs_at_the_extremes():
    assert all(math.isnan(x) for x in auroc_of_pairs([], []))
    apart = auroc_of_pairs(np.zeros(100), np.ones(100))
    assert apart.value == 1
    assert 0.95 < apart.low < 0.97
    same = auroc_of_pairs(np.full(100, 0.3), np.full(100, 0.3))
    assert same.value == 0.5
    assert same.low < 0.5 < same.high


def aurc_by_definition(confidence, wrong):
    """Mean of the running error rate, over all orders that the confidences allow."""
    n = len(wrong)
    orders = [
        o for o in itertools.permutations(range(n)) if list(confidence[list(o)]) == sorted(confidence)[::-1]
    ]
    return np.mean([[wrong[list(o)][: k + 1].mean() for k in range(n)] for o in orders])


@given(arrays(np.float64, 6, elements=st.sampled_from([0.2, 0.5, 0.9])), arrays(np.bool_, 6))
def test_aurc_is_the_mean_over_the_orders_of_equals(confidence, correct):
    assert aurc(confidence, correct) == pytest.approx(aurc_by_definition(confidence, ~correct))


@pytest.mark.parametrize(
    ("confidence", "correct", "expected"),
    [
        ([0.9, 0.8, 0.7, 0.6], [1, 1, 1, 1], 0),
        ([0.9, 0.8, 0.7, 0.6], [0, 0, 0, 0], 1),
        ([0.9, 0.8, 0.7, 0.6], [1, 1, 0, 0], (0 + 0 + 1 / 3 + 1 / 2) / 4),
        ([0.9, 0.8, 0.7, 0.6], [0, 0, 1, 1], (1 + 1 + 2 / 3 + 1 / 2) / 4),
        ([0.5, 0.5, 0.5, 0.5], [0, 0, 1, 1], 0.5),
    ],
)
def test_aurc_by_hand(confidence, correct, expected):
    assert aurc(confidence, correct) == pytest.approx(expected)


def test_conditional_confidences():
    confidence, correct = np.array([0.9, 0.6, 0.8, 0.2]), np.array([True, False, True, False])
    assert confidence_when_wrong(confidence, correct).value == pytest.approx(0.4)
    assert doubt_when_right(confidence, correct).value == pytest.approx(0.15)
    assert math.isnan(confidence_when_wrong(confidence, np.ones(4)).value)
    assert math.isnan(doubt_when_right(confidence, np.zeros(4)).value)
    assert math.isnan(aurc([], []))
