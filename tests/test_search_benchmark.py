"""What benchmarks/search.py reckons with: costs, intervals, peers behind the simulator's interfaces."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from benchmarks import costs, peers, search
from benchmarks.outcomes import Outcomes
from sweeper.curves import Curves
from sweeper.simulator import simulate
from tests.curves import curves
from tests.scheduler_contract import as_metrics, some_metrics, sweep

COSTS, VALUES = [1.0, 2.0, 4.0], [0.2, 0.9, 0.96]


def test_what_is_reached_by_a_cost() -> None:
    assert costs.value_at(COSTS, VALUES, [0.5, 1, 3, 4, 99]).tolist() == [0, 0.2, 0.9, 0.96, 0.96]


def test_what_a_target_costs() -> None:
    assert costs.cost_to_reach(COSTS, VALUES, 0.9) == 2
    assert costs.cost_to_reach(COSTS, VALUES, 0.95) == 4
    assert costs.cost_to_reach(COSTS, VALUES, 0.97) == np.inf


def test_the_interval_of_a_mean_is_students() -> None:
    values = np.random.default_rng(0).normal(size=(12, 3))
    mean, half = costs.mean(values)
    peer = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    np.testing.assert_allclose(mean - half, peer.low)
    np.testing.assert_allclose(mean + half, peer.high)


def covered(intervals: Sequence[costs.Interval], truth: float) -> float:
    return float(np.mean([each.low <= truth <= each.high for each in intervals]))


def test_intervals_of_medians_and_their_ratios_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    """On exponential costs, whose median is ln 2 of their mean."""
    monkeypatch.setattr(costs, "DRAWS", 400)
    rng = np.random.default_rng(1)
    samples = rng.exponential(size=(300, 2, 50)) * np.array([[1.0], [3.0]])
    assert 0.91 <= covered([costs.median(first, rng) for first, _ in samples], np.log(2)) <= 0.99
    assert 0.91 <= covered([costs.ratio(first, second, rng) for first, second in samples], 1 / 3) <= 0.99


def test_runs_that_never_arrive_are_infinitely_long() -> None:
    rng = np.random.default_rng(2)
    some = costs.median([1, 2, 3, 4, np.inf], rng)
    assert some.value == 3
    assert some.high == np.inf
    assert costs.median([1, np.inf, np.inf], rng).value == np.inf
    assert costs.ratio([1, 2, 3], [np.inf] * 3, rng) == (0, 0, 0)
    assert costs.ratio([np.inf] * 3, [1, 2, 3], rng) == (np.inf, np.inf, np.inf)
    assert str(costs.ratio([np.inf] * 3, [np.inf] * 3, rng)) == "nan [0.00, inf]"


def test_an_interrupted_benchmark_goes_on(tmp_path: Path) -> None:
    kept, of = Outcomes(tmp_path / "kept.jsonl"), {"arm": "ours", "seed": 3}
    kept.add(of, [[0.5], np.inf, 1.5])
    with kept.file.open("a") as file:
        file.write('\n{"of": {"arm": "ours", "se')  # killed while it wrote
    again = Outcomes(kept.file)
    assert again[{"seed": 3, "arm": "ours"}] == [[0.5], np.inf, 1.5]
    again.add({"arm": "ours", "seed": 4}, None)
    assert {"arm": "ours", "seed": 4} in Outcomes(kept.file)
    assert {"arm": "ours", "seed": 5} not in Outcomes(kept.file)


def test_what_other_code_had_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Outcomes(tmp_path / "kept.jsonl").add({"seed": 0}, 1.0)
    assert {"seed": 0} in Outcomes(tmp_path / "kept.jsonl")
    changed = tmp_path / "halving.py"
    changed.write_text("FACTOR = 4")
    monkeypatch.setattr("sweeper.halving.__file__", str(changed))
    assert {"seed": 0} not in Outcomes(tmp_path / "kept.jsonl")


def test_ray_stops_by_one_objective() -> None:
    """Those below the two thirds of a rung, whatever else they are good at."""
    asha = peers.Asha(sweep(), "robust_accuracy", 3)
    arrivals = some_metrics(0, 40)
    for number, metrics in enumerate(arrivals):
        earlier = [each["robust_accuracy"] for each in arrivals[:number]]
        expected = not earlier or metrics["robust_accuracy"] >= np.percentile(earlier, 100 * (1 - 1 / 3))
        assert asha.record(number, 1, metrics) == expected
    best = as_metrics(np.array([[-9.0, 9, 9]]))[0]
    assert asha.record(99, 1, best)
    assert asha.record(99, 9, best, last=True)


class Never:
    """Stops nothing."""

    def record(self, *_: Any, **__: Any) -> bool:
        return True


def test_a_search_is_broken_off_and_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """With everything trained the best known is reached; before, it is less, and only grows."""
    spec = sweep(trials=400)
    rows = curves(spec, 12, 9)
    table = Curves(rows[~rows["config"].isin(rows[rows["robust_ece"].isna()]["config"])])  # none diverges
    monkeypatch.setattr(search, "sweep_of", lambda *_: spec)
    ruler = search.Ruler(table, ())
    whole = simulate(spec, table, workers=3, stopping=Never())
    short = simulate(spec, table, workers=3, seconds=200)
    assert 0 < max(short.times) <= 200
    for simulation in (whole, short):
        paid, shares = ruler.shares(simulation, 3)
        assert (np.diff(paid) >= 0).all()
        assert (np.diff(shares) >= 0).all()
        assert paid[-1] * ruler.training / 3 <= max(simulation.times)
    assert ruler.shares(short, 3)[1][-1] < ruler.shares(whole, 3)[1][-1] == pytest.approx(1)


@pytest.mark.parametrize("sampler", ["tpe", "nsga2"])
def test_optuna_as_it_is_by_default(sampler: str) -> None:
    """After what it draws at random it is not what ours of that name draws."""
    made = sweep("null", trials=16, sampler=sampler)
    table = Curves(curves(made, 12, 9))
    default = peers.OptunaDefaults(made, None, name="test", lag=0, baseline=table.baseline)
    found = simulate(made, table, workers=1, search=default).trials
    assert len({str(trial.drawn) for trial in found}) == 16
    assert [t.drawn for t in found] != [t.drawn for t in simulate(made, table, workers=1).trials]
