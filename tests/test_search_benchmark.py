"""What benchmarks/search.py reckons with: costs, intervals, peers behind the simulator's interfaces."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from benchmarks import costs, peers, search
from benchmarks.outcomes import Outcomes
from sweeper import space
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


def covered(intervals: Sequence[costs.Estimate], truth: float) -> float:
    return float(np.mean([each.low <= truth <= each.high for each in intervals]))


def test_intervals_of_medians_and_their_ratios_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    """On exponential costs, whose median is ln 2 of their mean."""
    monkeypatch.setattr(costs, "DRAWS", 400)
    rng = np.random.default_rng(1)
    samples = rng.exponential(size=(300, 2, 50)) * np.array([[1.0], [3.0]])
    medians = [costs.median(first, np.inf, rng) for first, _ in samples]
    assert 0.91 <= covered(medians, np.log(2)) <= 0.99
    ratios = [costs.ratio(first, second, (np.inf, np.inf), rng) for first, second in samples]
    assert 0.91 <= covered(ratios, 1 / 3) <= 0.99
    pairs = [(rng.exponential(size=50), scale) for scale in (1.0, 3.0) for _ in range(150)]
    paired = [costs.ratio(each, scale * each, (np.inf, np.inf), rng) for each, scale in pairs]
    for (_, scale), found in zip(pairs, paired, strict=True):
        np.testing.assert_allclose(found, 1 / scale)  # of pairs that differ by a factor it is certain


def test_of_runs_that_were_broken_off_no_more_is_known_than_that() -> None:
    rng, inf = np.random.default_rng(2), np.inf
    some = costs.median([1, 2, 3, 4, inf], 10, rng)
    assert (some.value, some.high) == ("3.00", inf)
    assert str(costs.median([1, inf, inf, inf, inf], 120, rng)).startswith("> 120.00 [1")
    ones, limits = [100] * 5, (120, 120)
    assert str(costs.ratio(ones, [inf] * 5, limits, rng)) == "< 0.83 [0.00, 0.83]"
    assert str(costs.ratio([inf] * 5, ones, limits, rng)) == "> 1.20 [1.20, inf]"
    assert str(costs.ratio([inf] * 5, [inf] * 5, (40, 120), rng)) == "unknown [0.00, inf]"


def test_an_interrupted_benchmark_goes_on(tmp_path: Path) -> None:
    kept, of = Outcomes(tmp_path / "kept.jsonl"), {"arm": "ours", "seed": 3}
    kept.add(of, [[0.5], np.inf, 1.5])
    with kept.file.open("a") as file:
        file.write('\n{"of": {"arm": "ours", "seed": 3}')  # killed while it wrote
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


def test_what_was_computed_from_other_data_does_not_count(tmp_path: Path) -> None:
    data = tmp_path / "curves.parquet"
    data.write_bytes(b"134")
    Outcomes(tmp_path / "kept.jsonl", [data]).add({"seed": 0}, 1.0)
    assert {"seed": 0} in Outcomes(tmp_path / "kept.jsonl", [data])
    data.write_bytes(b"267")
    assert {"seed": 0} not in Outcomes(tmp_path / "kept.jsonl", [data])


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


SERVER = """\
import json, sys
for line in sys.stdin:
    message = json.loads(line)
    if "new" in message:
        space = message["new"]["space"]
    elif "suggest" in message:
        first = {name: each[0] if isinstance(each, list) else each["low"] for name, each in space.items()}
        print(json.dumps({"config": first}), flush=True)
    else:
        goes_on = message["metrics"]["robust_accuracy"] < -0.5 and not message["last"]
        print(json.dumps({"goes_on": goes_on}), flush=True)
"""


def test_what_another_environment_is_asked_and_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It draws and decides; it is told of costs, smaller is better."""
    (tmp_path / "server.py").write_text(SERVER)
    monkeypatch.setattr(peers, "SERVER", tmp_path / "server.py")
    made = sweep()
    peer = peers.Moasha(made, Path(sys.executable))
    suggestion = peer.ask()
    assert suggestion.number == 0
    parameters = space.distributions(made.space)
    assert set(suggestion.drawn) <= {*parameters, *(name.replace(".pmg", "") for name in parameters)}
    assert suggestion.config["optimizer"]["learning_rate"] == parameters["optimizer.learning_rate"].low  # type: ignore[union-attr]
    good, bad = ({"robust_accuracy": a, "clean_accuracy": 0.5, "robust_ece": 0.1} for a in (0.6, 0.4))
    assert [peer.record(0, 1, good), peer.record(0, 2, bad), peer.record(0, 9, good, last=True)] == [
        True, False, False
    ]  # fmt: skip


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
