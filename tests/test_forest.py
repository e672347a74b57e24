"""The forest sampler: what it makes of epochs, stopped trials, failures and constraints."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeper import forest, space, spec
from sweeper.forest import Encoding, Forest, Grown, looked_at, place, random_value, ranks
from sweeper.pareto import hypervolume
from sweeper.run import Metrics, TrialRecord
from sweeper.search import Search
from sweeper.space import Decision
from sweeper.spec import SweepSpec
from sweeper.tree import Choice, Range, parse
from tests.searching import UNTRAINED

SWEEP = """\
name: small
trial:
  data: {train: fashion-mnist-8k}
  method: !choice [{name: tecoa}, {name: pmg, alpha: !loguniform [0.1, 10]}, {name: carot}]
  optimizer: {learning_rate: !loguniform [1e-5, 1e-1]}
  epochs: 9
search: {trials: 60, startup_trials: 10}
"""
BEST = 1e-3


def sweep() -> SweepSpec:
    return spec.from_text(SWEEP, "small.yaml")


def distributions(text: str) -> dict[str, Choice | Range]:
    return space.distributions(parse(text, "test"))


def rate_of(drawn: dict[str, Any]) -> float:
    return float(drawn["optimizer.learning_rate"])


def off(drawn: dict[str, Any]) -> float:
    """Powers of ten from the best learning rate."""
    return abs(math.log10(rate_of(drawn) / BEST))


def metrics_of(drawn: dict[str, Any], epoch: int) -> Metrics:
    """One peak, at which all objectives are at their best."""
    good = math.exp(-off(drawn)) * (1 - math.exp(-epoch / 3))
    return {"robust_accuracy": 0.5 * good, "clean_accuracy": 0.5 + 0.4 * good, "robust_ece": 0.8 - 0.5 * good}


def started(search: Search) -> TrialRecord:
    asked = search.ask()
    assert asked is not None
    return TrialRecord(asked.number, Path("t"), asked.config, asked.drawn, asked.seed)


def run(made: SweepSpec, trials: int, status: str = "completed", epochs: int = 9) -> list[TrialRecord]:
    """A search all of whose trials end after some epochs."""
    search = Search(made, None, name="test", lag=1, baseline=UNTRAINED)
    done = []
    for _ in range(trials):
        record = started(search)
        record.epochs = [{"epoch": e, "metrics": metrics_of(record.drawn, e)} for e in range(1, epochs + 1)]
        search.end(replace(record, status=status))  # type: ignore[arg-type]
        done.append(record)
    return done


@pytest.mark.parametrize(("status", "epochs"), [("completed", 9), ("stopped", 1)])
def test_it_learns_where_the_best_are_even_if_all_are_stopped(status: str, epochs: int) -> None:
    done = run(sweep(), 30, status, epochs)
    first, later = ([off(trial.drawn) for trial in each] for each in (done[:10], done[20:]))
    assert np.median(later) < 0.3 < np.median(first)


def test_trials_that_run_are_learned_from() -> None:
    search = Search(sweep(), None, name="test", lag=1, baseline=UNTRAINED)
    drawn = []
    for number in range(30):
        drawn.append(started(search).drawn)
        search.report(number, 1, metrics_of(drawn[-1], 1))
    assert np.median([off(each) for each in drawn[20:]]) < 0.3


def test_failures_are_avoided() -> None:
    """All learning rates above the best one diverge, without a single epoch."""
    search = Search(sweep(), None, name="test", lag=1, baseline=UNTRAINED)
    rates = []
    for _ in range(40):
        record = started(search)
        if rate_of(record.drawn) > BEST:
            record.status = "failed"
        else:
            record.status = "completed"
            record.epochs = [{"epoch": e, "metrics": metrics_of(record.drawn, e)} for e in (1, 9)]
        search.end(record)
        rates.append(rate_of(record.drawn))
    assert np.mean([rate > BEST for rate in rates[20:]]) <= 0.25
    assert np.median([off({"optimizer.learning_rate": rate}) for rate in rates[20:]]) < 0.5


def constrained(constraint: str, **changes: Any) -> SweepSpec:
    pareto = f"pareto: {{subject_to: {{clean_accuracy: '{constraint}'}}}}\nsearch:"
    overrides = [f"search.{key}={value}" for key, value in changes.items()]
    return spec.from_text(SWEEP.replace("search:", pareto), "x", overrides=overrides)


def clean(trials: list[TrialRecord]) -> np.ndarray:
    """(n,) clean accuracies after the last epoch."""
    return np.array([metrics_of(trial.drawn, 9)["clean_accuracy"] for trial in trials])


def test_broken_constraints_are_avoided() -> None:
    """Two thirds of the learning rates break the constraint, the best ones among them."""
    later = [clean(run(constrained("<= 0.6", seed=seed), 50)[25:]) > 0.6 for seed in range(4)]
    random = clean(run(constrained("<= 0.6", sampler="random"), 100)) > 0.6
    assert 0.5 < random.mean() < 0.8
    assert np.mean(later) < 0.3


def test_what_keeps_the_constraints_is_looked_for_while_nothing_does() -> None:
    """One in twenty learning rates does; the first ten trials are random."""
    firsts = []
    for seed in range(4):
        kept = clean(run(constrained(">= 0.75", seed=seed), 40)) >= 0.75
        firsts.append(int(kept.argmax()))
        assert kept.any()
        assert kept[20:].mean() > 0.5
    assert np.median(firsts) <= 14


def test_an_objective_in_which_all_are_equal_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """As robust accuracy is, if the attack is too strong for all."""
    real = metrics_of
    monkeypatch.setattr(f"{__name__}.metrics_of", lambda *at: {**real(*at), "robust_accuracy": 0.0})
    assert np.median([off(trial.drawn) for trial in run(sweep(), 30)[20:]]) < 0.3


def test_a_warm_start_is_known_from_the_first_trial_whenever_the_untrained_model_is_measured() -> None:
    """In a deterministic sweep, in which later trials know only those that are long over."""
    made, warm = constrained(">= 0.5 * baseline", deterministic=True), []
    for index in range(15):
        drawn = {"method": "tecoa", "optimizer.learning_rate": 10 ** (-1 - 4 * index / 14)}
        warm.append({"from": f"earlier/t{index:03d}", "point": drawn, "metrics": metrics_of(drawn, 9)})
    warm = [{**each, "baseline": UNTRAINED} for each in warm]
    searches = [
        Search(made, None, name="test", lag=32, baseline=baseline, warm=warm)
        for baseline in (UNTRAINED, None)
    ]
    assert searches[1].ask() is None
    searches[1].baseline = UNTRAINED
    early, late = ([started(search).drawn for _ in range(8)] for search in searches)
    assert early == late
    assert np.median([off(drawn) for drawn in early]) < 0.5


FINITE = """\
name: finite
trial:
  data: {train: fashion-mnist-8k}
  method: {name: tecoa}
  optimizer: {learning_rate: !choice [1e-5, 1e-4, 1e-3, 1e-2, 1e-1]}
  batch_size: !choice [16, 32, 64, 128]
  epochs: 9
search: {trials: 30, startup_trials: 5}
"""


def test_nothing_is_trained_twice_before_all_was() -> None:
    done = run(spec.from_text(FINITE, "x"), 22)
    assert len({str(trial.drawn) for trial in done[:20]}) == 20
    assert len({trial.seed for trial in done}) == 20  # what is drawn again is the same training
    best = [rate_of(trial.drawn) == BEST for trial in done]
    assert sum(best[5:9]) >= 2


def test_each_option_has_its_turn_however_few_configurations_it_has() -> None:
    """Of 2,001 configurations one is TeCoA's; half of the random trials are."""
    method = "!choice [{name: tecoa}, {name: carot, average_every: !int [1, 2000]}]"
    rate = "!choice [1e-5, 1e-4, 1e-3, 1e-2, 1e-1]"
    text = (
        FINITE.replace("{name: tecoa}", method)
        .replace(rate, "1e-3")
        .replace("!choice [16, 32, 64, 128]", "32")
    )
    search = Search(spec.from_text(text, "x"), None, name="test", lag=1, baseline=UNTRAINED)
    assert space.count(search.sweep.space) == 2001
    drawn = [started(search).drawn for _ in range(5)]
    assert len({str(each) for each in drawn}) == 5
    assert {"method": "tecoa"} in drawn


def test_a_trial_is_learned_from_at_its_own_last_epoch() -> None:
    """Long trials are better, and short ones say nothing about epochs that they do not have."""
    made = spec.from_text(SWEEP.replace("epochs: 9", "epochs: !choice [5, 20]"), "x")
    learner = Forest(made)
    for number in range(40):
        last = (5, 20)[number % 2]
        point = {"method": "tecoa", "epochs": str(last), "optimizer.learning_rate": 10 ** (-1 - number / 10)}
        learner.add(number, point)
        for epoch in range(1, last + 1):
            learner.observe(number, epoch, metrics_of(point, epoch))
        assert list(learner.epochs[number]) == {5: [1, 3, 5], 20: [1, 3, 9, 20]}[last]
    grown = learner._grown(39, UNTRAINED)
    assert grown is not None
    near = {"method": "tecoa", "optimizer.learning_rate": BEST}
    encoded = np.array([learner.encoding({**near, "epochs": last}) for last in ("5", "20")])
    direction = np.ones(3) / math.sqrt(3)
    short, long = grown.worth(encoded, np.array([5, 20]), direction, np.random.default_rng(0))
    gains = [metrics_of(near, epoch)["robust_accuracy"] for epoch in (5, 20)]
    assert short / long == pytest.approx(gains[0] / gains[1], abs=0.12)


def test_what_is_given_stays_and_the_rest_fits() -> None:
    text = SWEEP.replace("!choice [{name: tecoa}", "!grid [{name: tecoa}")
    done = run(spec.from_text(text, "x"), 24)
    assert [trial.method for trial in done] == ["tecoa", "pmg", "carot"] * 8
    assert all(("method.alpha" in trial.drawn) == (trial.method == "pmg") for trial in done)


def test_the_worth_of_random_directions_is_the_hypervolume() -> None:
    """For m objectives: hypervolume = pi^(m/2) / (2^m gamma(m/2 + 1)) E[max_y min_i (y_i / w_i)^m]."""
    rng = np.random.default_rng(0)
    for m in (2, 3):
        gains = rng.uniform(size=(5, m))
        w = np.abs(rng.normal(size=(200_000, m)))
        w /= np.linalg.norm(w, axis=1, keepdims=True)
        grown = Grown(np.arange(5), np.ones(m, dtype=bool), gains, np.zeros(5), [])
        best = np.array([gains[grown.best(each, 1)[0]] for each in w[:300]])
        np.testing.assert_allclose(
            (best / w[:300]).min(axis=1), (gains[None] / w[:300, None]).min(axis=2).max(axis=1)
        )
        worth = (gains[None] / w[:, None]).min(axis=2).max(axis=1) ** m
        constant = math.pi ** (m / 2) / (2**m * math.gamma(m / 2 + 1))
        assert constant * worth.mean() == pytest.approx(hypervolume(1 - gains, np.ones(m)), rel=0.01)


def test_points_as_numbers() -> None:
    encode = Encoding(
        distributions(
            "{a: !choice [4/255, 1/255, 0.1], b: !choice [{name: x, p: !loguniform [1, 100]}, {name: y}], "
            "c: !int [0, 4]}"
        )
    )
    columns = dict(zip("abxyc", encode({"a": "4/255", "b": "y", "c": 3}), strict=False))
    assert columns["a"] == 0.5
    one = encode({"a": "0.1", "b": "x", "b.x.p": 10.0, "c": 0})
    other = encode({"a": "0.1", "b": "y", "c": 0})
    assert sorted(np.array(one) - np.array(other)) == [-1, 0, 0, 1, 1.5]


def test_only_choices_of_numbers_have_an_order() -> None:
    (numbers,) = distributions("{a: !choice [16/255, 1/255, 0.5, 2]}").values()
    (mixed,) = distributions("{a: !choice [1, null]}").values()
    assert isinstance(numbers, Choice)
    assert isinstance(mixed, Choice)
    assert ranks(space.labels(numbers)) == {"1/255": 0, "16/255": 1 / 3, "0.5": 2 / 3, "2": 1}
    assert ranks(space.labels(mixed)) == {}


@given(st.sampled_from(["!loguniform [1e-4, 3]", "!uniform [-2, 5]", "!int [1, 7]"]), st.integers(0, 2**32))
def test_values_stay_in_their_range_and_near(text: str, seed: int) -> None:
    (found,) = distributions(f"{{a: {text}}}").values()
    assert isinstance(found, Range)
    rng = np.random.default_rng(seed)
    decision = Decision("a", found, {})
    value = random_value(decision, None, rng)
    near = [random_value(decision, value, rng) for _ in range(20)]
    assert all(found.low <= each <= found.high for each in (value, *near))
    assert all(isinstance(each, int) == found.integer for each in (value, *near))
    moved = [abs(place(each, found) - place(value, found)) for each in near]
    assert np.median(moved) < 3 * forest.STEP


def test_the_trees_are_regrown_as_trials_come_and_not_with_every_draw() -> None:
    made = sweep()
    learner = Forest(made)
    for number in range(205):
        drawn = {"optimizer.learning_rate": 10 ** (-1 - 4 * number / 205), "method": "tecoa"}
        learner.add(number, drawn)
        learner.observe(number, 1, metrics_of(drawn, 1))
    assert len({id(learner._grown(last, UNTRAINED)) for last in range(199, 204)}) == 1


def test_epochs_that_are_looked_at() -> None:
    assert {last: looked_at(last) for last in (1, 9, 20)} == {1: [1], 9: [1, 3, 9], 20: [1, 3, 9, 20]}


@pytest.mark.parametrize("file", sorted(Path("search_spaces").glob("*.yaml")), ids=lambda file: file.stem)
def test_a_candidate_decides_what_a_configuration_asks_for_in_its_order(file: Path) -> None:
    learner = Forest(spec.load(file))
    for seed in range(20):
        candidate = learner._candidate({}, None, np.random.default_rng(seed))
        asked: list[str] = []

        def decide(name: str, _: Choice | Range, asked: list[str] = asked, of: Any = candidate) -> Any:
            asked.append(name)
            return of[name]

        space.resolve(learner.sweep.space, decide)
        assert asked == list(candidate)
