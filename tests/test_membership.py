"""The probability of being Pareto-optimal: where it is known, by laws, and by simulation."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from scipy import stats

from benchmarks import membership as benchmark
from sweeper import spec
from sweeper.files import write_json
from sweeper.membership import centred, probability, true_values, wishart_below_one
from sweeper.result import result
from sweeper.run import Run
from sweeper.search import Suggestion
from sweeper.table import pareto_table
from tests.records import class_bins, records
from trainables.evaluate import Evaluation


def bootstrap(truth: np.ndarray, noise: float, draws: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Estimates and draws around them, of independent normal noise."""
    r = np.random.default_rng(seed)
    estimates = truth + noise * r.standard_normal(truth.shape)
    return estimates, estimates + noise * r.standard_normal((draws, *truth.shape))


def test_of_two_with_one_objective_it_is_that_of_the_smaller() -> None:
    _, draws = bootstrap(np.array([[0.0], [1.0]]), 1.0, 50_000)
    difference = draws.mean(axis=0)[1, 0] - draws.mean(axis=0)[0, 0]
    first = stats.norm.cdf(difference / np.sqrt(2))
    assert probability(draws) == pytest.approx([first, 1 - first], abs=0.01)


def test_equal_ones_are_members_together_and_infeasible_ones_are_none() -> None:
    costs = np.zeros((4, 3, 2))
    assert probability(costs).tolist() == [1, 1, 1]
    violation = np.array([[0, 1, 0]] * 3 + [[0, 0, 0]])
    assert probability(costs, violation).tolist() == [1, 0.25, 1]
    costs[:2, 0] = 1
    assert probability(costs, violation).tolist() == [0.5, 0.25, 1]


def test_centred_draws_have_the_estimates_as_mean() -> None:
    estimates, draws = bootstrap(np.zeros((9, 3)), 1.0, 100)
    moved = centred(estimates, draws + 7)
    assert moved.mean(axis=0) == pytest.approx(estimates)
    assert moved - moved[0] == pytest.approx(draws - draws[0])


def test_true_values_of_configurations_far_apart_are_the_estimates() -> None:
    estimates, draws = bootstrap(np.random.default_rng(1).normal(size=(12, 2)) * 1000, 0.1, 200)
    assert true_values(estimates, draws) == pytest.approx(centred(estimates, draws), abs=0.01)


def test_true_values_are_as_far_apart_as_the_truth() -> None:
    """Half of the estimates' variance is noise: estimates scatter by 2, bootstrap draws by 3."""
    truth = np.random.default_rng(2).normal(size=(400, 2))
    estimates, draws = bootstrap(truth, 1.0, 100)
    assert draws.var(axis=1).mean() == pytest.approx(3, rel=0.1)
    values = true_values(estimates, draws)
    assert values.var(axis=1).mean() == pytest.approx(1, rel=0.15)
    assert ((values.mean(axis=0) - truth) ** 2).mean() == pytest.approx(0.5, rel=0.15)


def test_true_values_do_not_depend_on_units() -> None:
    estimates, draws = bootstrap(np.random.default_rng(3).normal(size=(20, 3)), 0.7, 50)
    units, origin = np.array([1e-3, 1.0, 50.0]), np.array([1.0, -2.0, 3.0])
    expected = true_values(estimates, draws) * units + origin
    assert true_values(estimates * units + origin, draws * units + origin) == pytest.approx(
        expected, rel=1e-4
    )


def test_objectives_without_noise_and_copies_stay_as_they_are() -> None:
    estimates, draws = bootstrap(np.random.default_rng(4).normal(size=(10, 2)), 0.5, 60)
    estimates[:, 1] = draws[:, :, 1] = np.arange(10)
    assert true_values(estimates, draws)[:, :, 1] == pytest.approx(
        np.broadcast_to(np.arange(10), (60, 10)), abs=0.02
    )
    estimates, draws = bootstrap(np.zeros((1, 2)), 0.5, 60)
    copies = true_values(np.repeat(estimates, 12, axis=0), np.repeat(draws, 12, axis=1))
    assert (copies == copies[:, :1]).all()
    assert probability(copies).tolist() == [1] * 12


def test_few_configurations_are_centred_alone() -> None:
    estimates, draws = bootstrap(np.zeros((7, 3)), 1.0, 30)
    assert (true_values(estimates, draws) == centred(estimates, draws)).all()


def test_wishart_matrices_below_one_are_those_of_scipy() -> None:
    scatter = np.array([[12.0, 3.0], [3.0, 20.0]])
    drawn = wishart_below_one(9, scatter, 6000, seed=0)
    peer = stats.wishart(9, np.linalg.inv(scatter)).rvs(30_000, random_state=0)
    peer = peer[np.linalg.eigvalsh(peer)[:, -1] <= 1]
    assert np.linalg.eigvalsh(drawn)[:, -1].max() <= 1
    for of in (lambda b: b[:, 0, 0], lambda b: b[:, 0, 1], np.linalg.det):
        assert stats.ks_2samp(of(drawn), of(peer)).pvalue > 0.01


def test_called_optimal_with_probability_p_they_are_with_frequency_p() -> None:
    """A small edition of benchmarks/membership.py, in fifths: within 5 points, where a bootstrap is not."""
    setting = benchmark.Setting("rather close", benchmark.searched, 0.5, 30, 300, 0.5)
    results = [benchmark.sweep(setting, 100, seed) for seed in range(120)]
    optimal = np.concatenate([truth for truth, _ in results])

    def off(kind: str) -> float:
        called = np.concatenate([of[kind] for _, of in results])
        fifth = np.minimum((called * 5).astype(int), 4)
        return max(abs(called[fifth == k].mean() - optimal[fifth == k].mean()) for k in range(5))

    assert off("offered") < 0.05
    assert off("bootstrap") > 0.1


# In the result of a run

SWEEP = """\
name: synthetic
trial:
  data: {{train: fashion-mnist-8k, evaluate: [fashion-mnist-8k, digits]}}
  method: {{name: tecoa}}
evaluation: {{images: 200}}
pareto: {pareto}
search: {{trials: 10, seed: 3}}
"""
IMAGES = {"fashion-mnist-8k": 200, "digits": 100}
PARETO = "{maximize: [robust_accuracy, transfer.clean_accuracy], minimize: [robust_ece]}"


def evaluated(file: Path, seed: int, skill: float) -> None:
    evaluation = Evaluation(records(seed, IMAGES, skill=skill), class_bins(IMAGES))
    file.parent.mkdir(parents=True, exist_ok=True)
    evaluation.save(file.with_suffix(".parquet"))
    write_json(file, {"epoch": 1, **evaluation.report()})


def synthetic_run(root: Path, pareto: str = PARETO, trials: int = 10) -> Run:
    """The better, the higher its number."""
    run = Run.create(root, spec.from_text(SWEEP.format(pareto=pareto), "synthetic.yaml"), {})
    evaluated(run.baseline_file, 0, 0.5)
    for number in range(trials):
        config = run.spec.trial({**run.spec.base_trial(), "epochs": number + 1})
        trial = run.add_trial(Suggestion(number, config, {}, seed=number))
        evaluated(trial.folder / "epoch-001.json", number + 1, 0.3 + 0.06 * number)
        trial.point(1).weights.touch()
        run.end_trial(trial, "completed")
    return run


def test_a_run_says_how_probably_each_trial_is_optimal(tmp_path: Path) -> None:
    run = synthetic_run(tmp_path)
    run.trial(4).point().records.unlink()
    run.end_trial(run.trial(5), "failed")
    run.end_trial(run.trial(6), "stopped")
    content = result(run)
    probability = [row["probability"] for row in content["trials"]]
    assert [p is None for p in probability] == [number in (4, 5) for number in range(10)]
    assert probability[0] < 0.2
    assert 0.8 < probability[9] <= 1
    assert content["probability"] == (
        "P(optimal): the probability that the true values are Pareto-optimal among those of 8 models "
        "(trials after an epoch), by 1000 paired samples of the validation images (seed 3)."
    )
    assert json.loads(json.dumps(content, allow_nan=False)) == result(run)
    console = Console(width=160, record=True)
    console.print(pareto_table(content))
    text = console.export_text()
    assert "P(opti" in text
    assert f"{probability[9]:.0%}".replace("%", " %") in text


def test_constraints_relative_to_the_untrained_model_count(tmp_path: Path) -> None:
    pareto = "{maximize: [clean_accuracy], minimize: [], subject_to: {clean_accuracy: '>= 1.2 * baseline'}}"
    rows = result(synthetic_run(tmp_path, pareto))["trials"]
    assert rows[9]["probability"] > 0.7
    assert rows[0]["probability"] == 0
    assert sum(row["probability"] for row in rows) == pytest.approx(1, abs=0.01)


def test_seeds_of_a_configuration_share_its_probability(tmp_path: Path) -> None:
    run = synthetic_run(tmp_path)
    for number in (3, 8):
        file = run.trial(number).folder / "config.json"
        write_json(file, json.loads(file.read_text()) | {"trial": run.trial(9).config})
    content = result(run)
    assert len({content["trials"][number]["probability"] for number in (3, 8, 9)}) == 1
    assert "among those of 8 models" in content["probability"]


def test_what_can_not_be_resampled_is_said(tmp_path: Path) -> None:
    run = synthetic_run(tmp_path, "{maximize: [clean_accuracy], minimize: [clean_ece_class_wise]}", trials=2)
    content = result(run)
    assert [row["probability"] for row in content["trials"]] == [None, None]
    assert content["probability"].startswith(
        "P(optimal) is not known: clean_ece_class_wise can't be resampled"
    )


def test_without_records_nothing_is_said(tmp_path: Path) -> None:
    run = synthetic_run(tmp_path, trials=2)
    run.baseline_file.with_suffix(".parquet").unlink()
    assert result(run)["probability"] is None
