"""Intervals: their coverage, measured as benchmarks/coverage.py does, on fewer models; and their extremes."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from benchmarks import coverage
from trainables.metrics import intervals
from trainables.metrics.comparison import mean_of, mean_where, paired_difference, shift
from trainables.metrics.comparison import squared_calibration_difference as squared_difference

MODELS, IMAGES = 200, 1000
FEWEST, MOST = 0.90, 0.99  # about three standard errors of 200 models beyond the 92 and 98 % of the benchmark


@pytest.mark.parametrize("family", coverage.FAMILIES)
def test_coverage_of_the_debiased_calibration_error(family):
    generator = np.random.default_rng(0)
    model = coverage.FAMILIES[family]
    measured = [coverage.measure_l2(model(generator), generator, IMAGES)[0] for _ in range(MODELS)]
    assert FEWEST <= coverage.row(family, measured).coverage <= MOST


@pytest.mark.parametrize("measure", [coverage.measure_means, coverage.measure_conditional])
@pytest.mark.parametrize("family", ["calibrated, wide", "over-confident", "attacked: few right, sure"])
def test_coverage_of_means_and_areas(family, measure):
    generator = np.random.default_rng(1)
    model = coverage.FAMILIES[family]
    measured = [measure(model(generator), generator, IMAGES) for _ in range(MODELS)]
    for column in zip(*measured, strict=True):
        row = coverage.row(family, list(column))
        assert FEWEST <= row.coverage <= MOST, row


@pytest.mark.parametrize("family", ["both calibrated, near 1", "clean against attacked"])
def test_coverage_of_differences(family, monkeypatch):
    monkeypatch.setattr(coverage, "BOOTSTRAP_DRAWS", 200)
    generator = np.random.default_rng(2)
    a, b = coverage.PAIRS[family]
    measured = [coverage.measure_pairs(a(generator), b(generator), generator, IMAGES) for _ in range(120)]
    for column in zip(*measured, strict=True):
        row = coverage.row(family, list(column))
        assert not row.offered or FEWEST <= row.coverage <= MOST, row


def test_bootstrap_of_an_ece_difference_misses_it(monkeypatch):
    """Why it isn't offered: the calibrated model's ECE is biased, the over-confident one's hardly."""
    monkeypatch.setattr(coverage, "BOOTSTRAP_DRAWS", 200)
    generator = np.random.default_rng(3)
    a, b = coverage.PAIRS["one calibrated, one over-confident"]
    measured = [coverage.measure_pairs(a(generator), b(generator), generator, IMAGES)[-1] for _ in range(40)]
    assert coverage.row("", measured).coverage < 0.5


# Shares


def test_share_is_wilsons_interval():
    estimate = intervals.share(np.arange(50) < 45)
    theirs = stats.binomtest(45, 50).proportion_ci(method="wilson")
    assert estimate == pytest.approx((0.9, theirs.low, theirs.high))


@pytest.mark.parametrize("successes", [0, 1, 45, 50])
def test_the_exact_interval_is_clopper_and_pearsons(successes):
    theirs = stats.binomtest(successes, 50).proportion_ci(method="exact")
    assert intervals.exact(successes, 50) == pytest.approx((successes / 50, theirs.low, theirs.high))


@pytest.mark.parametrize(("right", "low", "high"), [(0, 0.0, 0.0038), (1000, 0.9962, 1.0)])
def test_share_of_none_and_all_is_uncertain_on_one_side(right, low, high):
    estimate = intervals.share(np.arange(1000) < right)
    assert (estimate.low, estimate.high) == pytest.approx((low, high), abs=1e-4)


def test_statistics_of_nothing_are_undefined():
    nothing = [intervals.share([]), intervals.mean([]), shift([], []), squared_difference([], [], [], [])]
    for estimate in (*nothing, paired_difference(mean_of("x"), {"x": np.empty(0)}, {"x": np.empty(0)})):
        assert all(math.isnan(x) for x in estimate)


# Means


def test_mean_of_symmetric_values_is_students():
    values = np.concatenate([np.arange(1.0, 21), -np.arange(1.0, 21)])
    theirs = stats.ttest_1samp(values, 0).confidence_interval()
    assert intervals.mean(values) == pytest.approx((0, theirs.low, theirs.high), abs=1e-12)


def test_mean_of_skewed_values_leans_to_the_long_tail():
    low, high = (abs(x - 1) for x in intervals.mean(np.array([0.0] * 95 + [20.0] * 5))[1:])
    assert high > 1.3 * low


def test_mean_of_one_value_has_no_interval_and_of_equal_ones_no_width():
    one = intervals.mean([0.3])
    assert one.value == 0.3
    assert math.isnan(one.low)
    assert math.isnan(one.high)
    assert intervals.mean([0.1] * 50) == pytest.approx((0.1, 0.1, 0.1))


@given(arrays(np.float64, st.integers(2, 60), elements=st.floats(-100, 100)))
def test_mean_lies_in_its_interval_and_mirrors(values):
    value, low, high = intervals.mean(values)
    assert low - 1e-9 <= value <= high + 1e-9
    assert intervals.mean(-values) == pytest.approx((-value, -high, -low), abs=1e-9)


# Differences


def pair(n=300, seed=0):
    rng = np.random.default_rng(seed)
    common = rng.exponential(1, n)
    return common + rng.normal(0, 0.1, n), common + rng.normal(0.2, 0.1, n)


def test_bootstrap_of_a_mean_is_as_wide_as_students_interval_and_repeatable():
    a, b = pair()
    first = paired_difference(mean_of("nll"), {"nll": a}, {"nll": b})
    assert first == paired_difference(mean_of("nll"), {"nll": a}, {"nll": b})
    assert first == pytest.approx(intervals.mean(a - b), abs=2e-3)
    assert shift(b, a) == intervals.mean(a - b)


def test_bootstrap_takes_the_same_images_of_both():
    a, b = pair()
    paired = paired_difference(mean_of("x"), {"x": a}, {"x": b})
    assert (paired.high - paired.low) * 3 < intervals.mean(a).high - intervals.mean(a).low
    assert paired_difference(mean_of("x"), {"x": a}, {"x": a}) == (0, 0, 0)


def test_bootstrap_of_a_conditional_mean():
    a, b = pair()
    wrong = a > 1
    columns_a, columns_b = {"confidence": a, "wrong": wrong}, {"confidence": b, "wrong": ~wrong}
    estimate = paired_difference(mean_where("confidence", "wrong"), columns_a, columns_b)
    assert estimate.value == pytest.approx(a[wrong].mean() - b[~wrong].mean())
    assert estimate.low < estimate.value < estimate.high


def test_squared_difference_changes_its_sign_and_is_0_with_itself():
    rng = np.random.default_rng(0)
    a, b = rng.uniform(0, 1, (2, 500))
    right_a, right_b = rng.uniform(size=500) < a, rng.uniform(size=500) < b**2
    value, low, high = squared_difference(a, right_a, b, right_b)
    assert squared_difference(b, right_b, a, right_a) == pytest.approx((-value, -high, -low))
    assert squared_difference(a, right_a, a, right_a) == pytest.approx((0, 0, 0), abs=1e-9)
    assert high < 0  # b, the squared one, is the worse calibrated
