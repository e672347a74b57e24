"""Temperature scaling: the minimum of the NLL, found or said not to exist."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.optimize import minimize_scalar
from sklearn.metrics import log_loss

from trainables.metrics.temperature import HIGHEST, LOWEST, fit_temperature, scaled


def labelled(temperature=1.0, n=20_000, classes=5, seed=0):
    """Logits whose labels follow softmax(logits / temperature)."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (n, classes))
    gumbel = rng.gumbel(size=(n, classes))
    return logits, (logits / temperature + gumbel).argmax(1)


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5])
def test_the_temperature_of_the_labels_is_recovered(temperature):
    assert fit_temperature(*labelled(temperature)) == pytest.approx(temperature, rel=0.03)


@pytest.mark.parametrize("seed", range(3))
def test_the_temperature_is_that_of_the_lowest_log_loss(seed):
    logits, labels = labelled(1.7, n=300, seed=seed)
    best = minimize_scalar(
        lambda t: log_loss(labels, scaled(logits, np.exp(t)), labels=range(5)),
        bounds=(-3, 3),
        method="bounded",
    )
    assert fit_temperature(logits, labels) == pytest.approx(np.exp(best.x), rel=1e-4)


def test_the_regret_of_the_right_temperature_is_by_chance_a_chi_square_over_twice_the_images():
    """Why it has no interval: what the own temperature gains is never below 0. See docs/suites.md."""
    n, gains = 200, []
    for seed in range(400):
        logits, labels = labelled(1.5, n=n, seed=seed)
        own = fit_temperature(logits, labels)
        right, best = (log_loss(labels, scaled(logits, t), labels=range(5)) for t in (1.5, own))
        gains.append(right - best)
    assert min(gains) >= -1e-12
    assert np.mean(gains) == pytest.approx(1 / (2 * n), rel=0.2)
    assert np.mean(np.array(gains) > 1.92 / n) == pytest.approx(0.05, abs=0.025)


def test_the_unit_of_the_logits_is_the_unit_of_the_temperature():
    logits, labels = labelled(n=2000)
    temperature = fit_temperature(logits, labels)
    for factor in (0.05, 30.0):
        assert fit_temperature(factor * logits, labels) == pytest.approx(factor * temperature, rel=1e-6)
    assert fit_temperature(logits + 1e4, labels) == pytest.approx(temperature, rel=1e-6)


def test_bounds_where_there_is_no_minimum():
    logits = np.array([[3.0, 1.0, 0.0], [0.0, 2.0, 0.5]])
    assert fit_temperature(logits, [0, 1]) == LOWEST  # all right: the colder the better
    assert fit_temperature(1e4 * logits, [0, 1]) == LOWEST
    assert fit_temperature(logits, [2, 0]) == HIGHEST  # all labels last: the hotter the better
    assert fit_temperature(np.zeros((2, 3)), [0, 1]) == 1  # no temperature changes anything


@given(arrays(np.float32, (4, 6), elements=st.floats(-50, 50, width=32)), st.floats(0.05, 50))
@settings(max_examples=50)
def test_scaled_probabilities_sum_to_1_and_keep_the_prediction(logits, temperature):
    probabilities = scaled(logits, temperature)
    assert probabilities.dtype == np.float64
    np.testing.assert_allclose(probabilities.sum(1), 1)
    winner = logits.argmax(1)
    assert (probabilities[range(4), winner] == probabilities.max(1)).all()


@given(
    arrays(np.float64, (8, 3), elements=st.floats(-30, 30)), arrays(np.int64, 8, elements=st.integers(0, 2))
)
@settings(max_examples=50)
def test_no_other_temperature_is_better(logits, labels):
    def nll(temperature):
        probability = scaled(logits, temperature)[range(8), labels]
        return -np.log(np.maximum(probability, 1e-300)).mean()

    best = fit_temperature(logits, labels)
    assert LOWEST <= best <= HIGHEST
    for other in (LOWEST, 0.1, best * 0.9, best * 1.1, 10.0, HIGHEST):
        if LOWEST <= other <= HIGHEST:
            assert nll(best) <= nll(other) + 1e-9
