"""Equal-mass and class-wise errors, the calibrated null and the debiased error, against other libraries."""

from __future__ import annotations

import math
import time

import calibration as verified  # uncertainty-calibration, of Kumar et al. 2019
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torchmetrics.functional.classification import binary_calibration_error, multiclass_calibration_error

from trainables.metrics.calibration import (
    calibrated_null,
    ece_per_batch_10bin,
    equal_mass_calibration_error,
    equal_mass_index,
    expected_calibration_error,
    reliability,
)
from trainables.metrics.classwise import class_bins, class_wise_ece, merge_class_bins
from trainables.metrics.debiased import bin_statistics, debiased_calibration_error, squared_error

RECORDS = st.integers(1, 200).flatmap(
    lambda n: st.tuples(
        arrays(np.float64, n, elements=st.one_of(st.floats(0, 1), st.sampled_from([0.0, 0.25, 0.5, 1.0]))),
        arrays(np.bool_, n),
        st.permutations(range(n)),
    )
)


def records(n, seed=0):
    rng = np.random.default_rng(seed)
    confidence = rng.beta(4, 1, n)
    return confidence, rng.uniform(size=n) < confidence**1.5


def predictions(n=600, classes=5, seed=0):
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 1.5, (n, classes))
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return probabilities, np.array([rng.choice(classes, p=p) for p in probabilities])


# torchmetrics


def test_torchmetrics_agrees_where_no_confidence_is_1_or_on_an_edge():
    probabilities, labels = predictions()
    top, correct = probabilities.max(1), probabilities.argmax(1) == labels
    theirs = multiclass_calibration_error(
        torch.from_numpy(probabilities), torch.from_numpy(labels), 5, n_bins=15, norm="l1"
    )
    assert expected_calibration_error(top, correct) == pytest.approx(theirs.item(), abs=1e-6)
    confidence, correct = records(500)
    theirs = binary_calibration_error(
        torch.from_numpy(confidence), torch.from_numpy(correct).int(), n_bins=10
    )
    assert expected_calibration_error(confidence, correct, 10) == pytest.approx(theirs.item(), abs=1e-6)


def test_torchmetrics_l2_is_the_biased_plug_in():
    confidence, correct = records(500)
    theirs = binary_calibration_error(
        torch.from_numpy(confidence), torch.from_numpy(correct).int(), n_bins=15, norm="l2"
    )
    assert bin_statistics(confidence, correct).plug_in ** 0.5 == pytest.approx(theirs.item(), abs=1e-6)


def test_torchmetrics_puts_a_confidence_of_1_apart():
    """Its issue 3510: .95 and 1 belong to one bin, where the errors of a right and a wrong image cancel."""
    confidence, correct = np.array([0.95, 1.0]), np.array([True, False])
    theirs = binary_calibration_error(
        torch.from_numpy(confidence), torch.from_numpy(correct).int(), n_bins=10
    )
    assert expected_calibration_error(confidence, correct, 10) == pytest.approx(0.475)
    assert theirs.item() == pytest.approx((0.05 + 1) / 2)


def test_torchmetrics_takes_cosines_for_probabilities():
    """Outputs that lie in [0, 1] are not softmaxed, whatever they are: an error of .7 becomes one of .25."""
    cosines = torch.full((8, 4), 0.25, dtype=torch.float64)
    cosines[:, 0] = 0.3
    labels = torch.zeros(8, dtype=torch.long)
    theirs = multiclass_calibration_error(cosines, labels, 4, n_bins=15)
    assert theirs.item() == pytest.approx(0.7)  # |1 - .3|: the cosine was taken for the confidence
    softmaxed = (100 * cosines).softmax(-1).max(-1).values.numpy()
    assert expected_calibration_error(softmaxed, np.ones(8)) == pytest.approx(1 - softmaxed[0])


# uncertainty-calibration


def test_equal_mass_error_is_that_of_uncertainty_calibration():
    confidence, correct = records(600)
    edges = verified.get_equal_bins(list(confidence), 15)
    binned = verified.bin(list(zip(confidence, correct, strict=True)), edges)
    assert [len(b) for b in binned] == list(np.bincount(equal_mass_index(confidence), minlength=15))
    gaps = [abs(np.mean([c for c, _ in b]) - np.mean([y for _, y in b])) * len(b) / 600 for b in binned]
    assert equal_mass_calibration_error(confidence, correct) == pytest.approx(sum(gaps), abs=1e-12)


def test_debiased_error_is_that_of_uncertainty_calibration_for_discrete_confidences():
    """Whose variance is that of the correctness alone: the same where the confidences of a bin are equal."""
    rng = np.random.default_rng(3)
    confidence = rng.choice([0.15, 0.35, 0.55, 0.95], 400)
    correct = rng.uniform(size=400) < confidence - 0.1
    theirs = verified.get_calibration_error(confidence, correct.astype(int), p=2, debias=True)
    assert debiased_calibration_error(confidence, correct).value == pytest.approx(theirs, abs=1e-12)


# Equal mass


@given(RECORDS)
@settings(max_examples=60)
def test_equal_mass_is_bounded_and_independent_of_the_order(record):
    confidence, correct, order = record
    error = equal_mass_calibration_error(confidence, correct)
    assert 0 <= error <= np.abs(correct - confidence).mean() + 1e-12
    assert abs(correct.mean() - confidence.mean()) - 1e-12 <= error
    order = np.array(order)
    assert equal_mass_calibration_error(confidence[order], correct[order]) == pytest.approx(error, abs=1e-12)


@given(arrays(np.float64, st.integers(1, 100), elements=st.sampled_from([0.1, 0.2, 0.5, 0.9])))
def test_equal_confidences_stay_together(confidence):
    index = equal_mass_index(confidence, 4)
    for value in np.unique(confidence):
        assert len(set(index[confidence == value])) == 1


@pytest.mark.parametrize("bins", [3, 10, 15])
def test_equal_mass_is_equal_width_where_confidences_are_uniform(bins):
    confidence = (np.arange(40 * bins) + 0.5) / (40 * bins)
    correct = np.random.default_rng(0).uniform(size=len(confidence)) < 0.7
    assert equal_mass_calibration_error(confidence, correct, bins) == pytest.approx(
        expected_calibration_error(confidence, correct, bins), abs=1e-12
    )


def test_equal_masses_differ_by_at_most_one():
    count = np.bincount(equal_mass_index(np.random.default_rng(0).uniform(size=1003)), minlength=15)
    assert count.max() - count.min() <= 1


# Class-wise


def class_wise_by_definition(probabilities, labels, bins=15):
    classes = probabilities.shape[1]
    return np.mean(
        [expected_calibration_error(probabilities[:, k], labels == k, bins) for k in range(classes)]
    )


@pytest.mark.parametrize("classes", [2, 5, 30])
def test_class_wise_error_is_its_definition(classes):
    probabilities, labels = predictions(classes=classes)
    table = class_bins(probabilities, labels)
    assert class_wise_ece(table) == pytest.approx(class_wise_by_definition(probabilities, labels), abs=1e-12)


def test_class_wise_error_by_hand():
    """Two images, two classes, two bins: class 0 has .9 (right) and .4 (wrong), class 1 .1 and .6."""
    table = class_bins(np.array([[0.9, 0.1], [0.4, 0.6]]), np.array([0, 1]), bins=2)
    assert table.to_dict("list") == {
        "class": [0, 0, 1, 1],
        "bin": [0, 1, 0, 1],
        "images": [1, 1, 1, 1],
        "probability": [0.4, 0.9, 0.1, 0.6],
        "frequency": [0, 1, 0, 1],
    }
    assert class_wise_ece(table) == pytest.approx(((0.4 + 0.1) / 2 + (0.1 + 0.4) / 2) / 2)


def test_batches_merge_into_the_table_of_the_whole_set():
    probabilities, labels = predictions(1000, 7)
    batches = np.split(np.arange(1000), [1, 130, 500, 800])
    merged = merge_class_bins([class_bins(probabilities[b], labels[b]) for b in batches])
    whole = class_bins(probabilities, labels)
    pd.testing.assert_frame_equal(merged, whole, check_exact=False, rtol=1e-12)
    assert class_wise_ece(merged) == pytest.approx(class_wise_ece(whole), abs=1e-14)


def test_no_images_have_no_class_wise_error():
    assert class_wise_ece(class_bins(np.empty((0, 3)), np.empty(0, dtype=int))) == 0


# Per batch, and the null


def test_error_per_batch_is_the_mean_over_batches():
    confidence, correct = records(25)
    parts = [(0, 10), (10, 20), (20, 25)]
    expected = np.mean([expected_calibration_error(confidence[a:b], correct[a:b], 10) for a, b in parts])
    assert ece_per_batch_10bin(confidence, correct, 10) == pytest.approx(expected)
    assert ece_per_batch_10bin(confidence, correct, 25) == expected_calibration_error(confidence, correct, 10)
    assert ece_per_batch_10bin([], [], 10) == 0


def test_null_is_what_resampled_labels_measure():
    confidence, _ = records(400)
    rng = np.random.default_rng(7)
    errors = [expected_calibration_error(confidence, rng.uniform(size=400) < confidence) for _ in range(3000)]
    null = calibrated_null(confidence, draws=4000)
    assert null.mean == pytest.approx(np.mean(errors), rel=0.02)
    assert null.quantile == pytest.approx(np.quantile(errors, 0.95), rel=0.03)


def test_null_has_the_biases_that_the_notes_list():
    """A calibrated model's ECE with 15 bins: .116 at 100 images, .037 at 1,000, .012 at 10,000."""
    rng = np.random.default_rng(0)
    for n, expected in ((100, 0.116), (1000, 0.037), (10_000, 0.012)):
        assert calibrated_null(rng.uniform(0.1, 1, n), draws=300).mean == pytest.approx(expected, rel=0.12)


def test_null_is_repeatable_certain_and_fast():
    confidence = np.random.default_rng(0).beta(3, 1, 10_000)
    start = time.process_time()
    first = calibrated_null(confidence)
    assert time.process_time() - start < 1.5  # .1 s on an idle core
    assert calibrated_null(np.random.default_rng(1).permutation(confidence)) == pytest.approx(first)
    assert calibrated_null(np.array([0.0, 1.0, 1.0])) == (0, 0)
    assert calibrated_null([]) == (0, 0)


# Debiased error


@given(RECORDS)
@settings(max_examples=60)
def test_debiased_error_and_its_interval_are_ordered_bounded_and_independent_of_the_order(record):
    confidence, correct, order = record
    estimate = debiased_calibration_error(confidence, correct)
    assert 0 <= estimate.low <= estimate.value <= estimate.high <= 1 + 1e-9
    assert estimate.value <= bin_statistics(confidence, correct).plug_in ** 0.5 + 1e-12
    order = np.array(order)
    assert debiased_calibration_error(confidence[order], correct[order]) == pytest.approx(estimate, abs=1e-6)


@pytest.mark.parametrize("power", [1.0, 2.0])
def test_squared_error_is_unbiased(power):
    """Over 2,000 sets of 300 images, calibrated and not; the plug-in is off by a multiple of that."""
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0, 1, 300)
    count, mean, chance = reliability(confidence, confidence**power)
    truth = (count * (chance - mean) ** 2).sum() / 300
    statistics = [bin_statistics(confidence, rng.uniform(size=300) < confidence**power) for _ in range(2000)]
    estimates = np.array([squared_error(s) for s in statistics])
    error = estimates.std() / math.sqrt(2000)
    assert abs(estimates.mean() - truth) < 4 * error
    assert np.mean([s.plug_in for s in statistics]) - truth > 20 * error


@pytest.mark.parametrize(
    ("confidence", "correct", "value", "low", "high"),
    [
        (np.full(1000, 1.0), np.zeros(1000), 1.0, 0.99, 1.0),  # sure and always wrong
        (np.full(1000, 1.0), np.ones(1000), 0.0, 0.0, 0.01),  # sure and always right
        (np.full(1000, 0.03), np.zeros(1000), 0.03, 0.02, 0.031),  # all wrong and unsure
        (np.full(10_000, 0.8), np.arange(10_000) % 2, 0.3, 0.29, 0.31),
        (np.array([0.5]), np.array([1]), 0.0, 0.0, 1.0),  # one image says nothing
    ],
)
def test_intervals_at_the_extremes(confidence, correct, value, low, high):
    estimate = debiased_calibration_error(confidence, correct)
    assert estimate.value == pytest.approx(value, abs=1e-3)
    assert low <= estimate.low <= estimate.high <= high + 1e-9


def test_no_images_have_no_debiased_error():
    assert all(math.isnan(x) for x in debiased_calibration_error([], []))
