"""Calibration error and uncertainties against their definitions, written again here."""

from __future__ import annotations

import mpmath as mp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.calibration import calibration_curve

from trainables.methods.dirichlet import log_concentration
from trainables.metrics import uncertainty
from trainables.metrics.calibration import expected_calibration_error, reliability

RNG = np.random.default_rng(0)


def ece_by_definition(confidence, correct, bins=15):
    """Guo et al. 2017, equation 3, bins ((m-1)/M, m/M]; the first one holds 0."""
    total = 0.0
    for m in range(bins):
        inside = [
            i for i, c in enumerate(confidence) if m / bins < c <= (m + 1) / bins or (c == 0 and m == 0)
        ]
        if inside:
            accuracy = sum(correct[i] for i in inside) / len(inside)
            mean = sum(confidence[i] for i in inside) / len(inside)
            total += len(inside) / len(confidence) * abs(accuracy - mean)
    return total


@given(st.integers(1, 300).flatmap(lambda n: st.tuples(
    arrays(np.float64, n, elements=st.floats(0, 1)), arrays(np.bool_, n)
)))  # fmt: skip
@settings(max_examples=100)
def test_ece_is_the_definition_and_within_bounds(pair):
    confidence, correct = pair
    ece = expected_calibration_error(confidence, correct)
    assert ece == pytest.approx(ece_by_definition(confidence, correct), abs=1e-12)
    assert 0 <= ece <= 1
    # no bin can be further off than its images are, nor the bins together less than the whole
    assert abs(correct.mean() - confidence.mean()) - 1e-12 <= ece
    assert ece <= np.abs(correct - confidence).mean() + 1e-12


def test_reliability_is_that_of_scikit_learn():
    confidence = RNG.uniform(0, 1, 3000)
    correct = RNG.uniform(0, 1, 3000) < confidence**2
    count, mean, accuracy = reliability(confidence, correct)
    their_accuracy, their_mean = calibration_curve(correct, confidence, n_bins=15)
    assert count.sum() == 3000
    np.testing.assert_allclose(mean, their_mean)
    np.testing.assert_allclose(accuracy, their_accuracy)


@pytest.mark.parametrize(
    ("confidence", "correct", "expected"),
    [
        ([0.5] * 4, [1, 1, 0, 0], 0.0),  # calibrated
        ([0.75] * 4 + [0.25] * 4, [1, 1, 1, 0, 1, 0, 0, 0], 0.0),
        ([0.03] * 50, [0] * 50, 0.03),  # all wrong and unsure: small, which is why it is not shown alone
        ([1.0] * 5, [1] * 5, 0.0),  # exactly 1 is in the last bin, not beyond it
        ([1.0] * 4, [1, 1, 1, 0], 0.25),
        ([0.0] * 3, [0] * 3, 0.0),
        ([0.65, 0.64], [1, 0], 0.145),  # one bin: errors cancel
        ([0.65, 0.95], [1, 0], (0.35 + 0.95) / 2),  # two bins: they do not
    ],
)
def test_cases_worked_by_hand(confidence, correct, expected):
    assert expected_calibration_error(confidence, correct) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("bins", [2, 10, 15])
def test_a_confidence_on_a_bin_edge_belongs_to_the_lower_bin(bins):
    for k in range(1, bins + 1):
        count, _, _ = reliability([k / bins], [True], bins)
        assert count.argmax() == k - 1


def test_single_precision_confidences_are_binned_as_they_are():
    confidence = RNG.uniform(0, 1, 500).astype(np.float32)
    correct = RNG.uniform(0, 1, 500) < confidence
    expected = ece_by_definition(confidence.astype(float), correct)
    assert expected_calibration_error(confidence, correct) == pytest.approx(expected, abs=1e-12)


def test_pooling_is_not_averaging_over_batches():
    """A calibrated model scores about .037 per 1,000 images but .005 on 50,000 (evaluation notes)."""
    confidence = RNG.uniform(0.1, 1, 51200)
    correct = RNG.uniform(0, 1, 51200) < confidence
    pooled = expected_calibration_error(confidence, correct)
    per_batch = np.mean(
        [
            expected_calibration_error(c, y)
            for c, y in zip(np.split(confidence, 100), np.split(correct, 100), strict=True)
        ]
    )
    assert pooled < 0.01
    assert per_batch > 3 * pooled


def test_order_does_not_matter():
    confidence, correct = RNG.uniform(0, 1, 100), RNG.integers(0, 2, 100)
    order = RNG.permutation(100)
    a, b = (
        expected_calibration_error(confidence, correct),
        expected_calibration_error(confidence[order], correct[order]),
    )
    assert a == pytest.approx(b, abs=1e-12)


# Uncertainty


def cosines(seed=0, count=4, classes=6):
    values = np.random.default_rng(seed).uniform(-0.4, 0.6, (count, classes))
    return torch.from_numpy(values.astype(np.float32))


@pytest.mark.parametrize("scale", [0.5, 5.0, 1 / 0.07, 100.0])
def test_dirichlet_uncertainties_are_the_formulas(scale):
    cosine = cosines()
    with mp.workdps(150):
        for row, aleatoric, epistemic in zip(
            cosine, uncertainty.aleatoric(cosine, scale), uncertainty.epistemic(cosine, scale), strict=True
        ):
            alpha = [mp.exp(mp.mpf(scale) * (mp.mpf(float(c)) + 1)) for c in row]
            total = mp.fsum(alpha)
            spread = -mp.fsum(a / total * (mp.digamma(a + 1) - mp.digamma(total + 1)) for a in alpha)
            # alpha is the exponential of a float32, so a relative error of scale * 1e-7 is inherent
            assert aleatoric.item() == pytest.approx(float(spread / mp.log(6)), rel=scale * 2e-6, abs=1e-12)
            assert epistemic.item() == pytest.approx(float(6 / (total + 6)), rel=scale * 2e-6)


def test_aleatoric_uncertainty_is_the_expected_entropy():
    """Of categorical distributions drawn from Dir(alpha), by Monte Carlo."""
    cosine = cosines(count=1)
    alpha = np.exp(2.0 * (cosine.double().numpy()[0] + 1))
    p = np.random.default_rng(1).dirichlet(alpha, 200_000)
    expected = -(p * np.log(p)).sum(1).mean() / np.log(6)
    assert uncertainty.aleatoric(cosine, 2.0).item() == pytest.approx(expected, rel=5e-3)


def test_entropy_is_that_of_the_softmax():
    logits = np.random.default_rng(2).normal(0, 4, (5, 7))
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    expected = -(p * np.log(p)).sum(1) / np.log(7)
    np.testing.assert_allclose(uncertainty.entropy(torch.from_numpy(logits)), expected, rtol=1e-10)


@given(arrays(np.float32, (3, 5), elements=st.floats(-1, 1, width=32)), st.floats(0.1, 100))
@settings(max_examples=100)
def test_all_three_lie_between_0_and_1(values, scale):
    cosine = torch.from_numpy(values)
    for value in (
        uncertainty.entropy(100 * cosine),
        uncertainty.aleatoric(cosine, scale),
        uncertainty.epistemic(cosine, scale),
    ):
        assert torch.isfinite(value).all()
        assert (value >= -1e-9).all()
        assert (value <= 1 + 1e-9).all()


def test_knowing_nothing_is_1_and_knowing_all_is_0():
    assert uncertainty.entropy(torch.zeros(1, 10)).item() == pytest.approx(1)
    assert uncertainty.aleatoric(torch.zeros(1, 10), 100).item() == pytest.approx(1)
    certain = torch.full((1, 10), -1.0)
    certain[0, 0] = 1.0
    assert uncertainty.entropy(100 * certain).item() == pytest.approx(0, abs=1e-12)
    assert uncertainty.aleatoric(certain, 100).item() == pytest.approx(0, abs=1e-9)
    assert uncertainty.epistemic(torch.ones(1, 10), 100).item() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1 / 0.07, 100.0])
@pytest.mark.parametrize("classes", [2, 10, 1000])
def test_dirichlet_uncertainties_are_exact_where_they_are_tiny(classes, scale):
    """Relative to the concentrations as single precision has them: from 1 up to e^200."""
    rng = np.random.default_rng(classes)
    one = np.full(classes, -1.0)
    one[0] = 1.0
    near = np.where(np.arange(classes) == 0, 1.0, 0.99)
    rows = np.stack([rng.uniform(-1, 1, classes), -np.ones(classes), np.ones(classes), one, near])
    cosine = torch.from_numpy(rows.astype(np.float32))
    for log_alpha, aleatoric, epistemic in zip(
        log_concentration(cosine, scale),
        uncertainty.aleatoric(cosine, scale),
        uncertainty.epistemic(cosine, scale),
        strict=True,
    ):
        with mp.workdps(200):
            alpha = [mp.exp(mp.mpf(float(x))) for x in log_alpha]
            total = mp.fsum(alpha)
            psi = {a: mp.digamma(a + 1) for a in set(alpha)}
            expected = mp.fsum(a / total * (mp.digamma(total + 1) - psi[a]) for a in alpha) / mp.log(classes)
            assert abs(aleatoric.item() / expected - 1) < 1e-12
            assert abs(epistemic.item() / (classes / (total + classes)) - 1) < 1e-12


@pytest.mark.parametrize(
    "logits", [[0.0, 0.0], [40.0, 0.0], [100.0, 0.0, 0.0], [700.0, 0.0], [1e3, -1e3, 999.0]]
)
def test_entropy_is_exact_where_it_is_tiny(logits):
    with mp.workdps(400):
        weights = [mp.exp(mp.mpf(x)) for x in logits]
        p = [w / mp.fsum(weights) for w in weights]
        expected = -mp.fsum(x * mp.log(x) for x in p) / mp.log(len(p))
        assert abs(uncertainty.entropy(torch.tensor([logits])).item() / expected - 1) < 1e-12
