"""The search: what it draws depends on the seed and on results, never on timing or interruptions."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path
from typing import Any

import optuna
import pytest

from sweeper import space, spec
from sweeper.errors import SpecError
from sweeper.hashes import trial_seed
from sweeper.run import Run
from sweeper.search import Search, of_run
from sweeper.spec import SweepSpec
from sweeper.trial import TrialRecord
from tests.searching import UNTRAINED, metrics_of
from tests.sweeps import FINITE, SMALL


def small(trials: int = 12, *, deterministic: bool = True, **replacements: str) -> SweepSpec:
    settings = f"trials: {trials}, deterministic: {str(deterministic).lower()}"
    text = SMALL.replace("trials: 5", settings)
    for old, new in replacements.items():
        text = text.replace(old, new)
    return spec.from_text(text, "small.yaml")


class Driver:
    """Drives a search in a run folder as Ray would, at any number of trials side by side."""

    def __init__(self, run: Run, lag: int, shuffle: random.Random) -> None:
        self.run, self.lag, self.shuffle = run, lag, shuffle
        self.search = Search(
            run.spec,
            run.path / "study.journal",
            name=run.id,
            lag=lag,
            baseline=UNTRAINED,
            known=run.trials(),
        )
        self.running = [t for t in run.trials() if t.status == "unfinished"]

    def go(self, ends: int | None = None) -> None:
        """Runs to the end of the sweep, or until `ends` trials have ended; then it is abandoned."""
        done = 0
        planned = self.run.spec.file.search.trials
        while len(self.search.ended) < planned and (ends is None or done < ends):
            while len(self.running) < self.lag and self.search.next < planned:
                suggestion = self.search.ask()
                if suggestion is None:
                    break
                self.running.append(self.run.add_trial(suggestion))
            self.end(self.running.pop(self.shuffle.randrange(len(self.running))))
            done += 1

    def end(self, trial: TrialRecord) -> None:
        from sweeper.files import write_json

        metrics = metrics_of(trial.config)
        write_json(trial.folder / "epoch-001.json", {"epoch": 1, "metrics": metrics, "training": {}})
        self.run.end_trial(trial, "completed")
        self.search.end(self.run.trial(trial.number))


def new_run(folder: Path, sweep: SweepSpec) -> Run:
    return Run.create(folder, sweep, {"seed": 0})


def drawn(run: Run) -> list[dict[str, Any]]:
    return [trial.drawn for trial in run.trials()]


@pytest.mark.parametrize(
    ("sampler", "trials"), [("tpe", 14), ("nsga2", 14), ("gp", 5), ("random", 14), ("forest", 14)]
)
def test_the_order_in_which_trials_end_does_not_matter(tmp_path: Path, sampler: str, trials: int) -> None:
    sweep = small(trials, **{"seed: 3": f"seed: 3, sampler: {sampler}"})
    runs = [new_run(tmp_path / str(i), sweep) for i in range(3)]
    for number, run in enumerate(runs):
        Driver(run, lag=4, shuffle=random.Random(number)).go()
    assert drawn(runs[0]) == drawn(runs[1]) == drawn(runs[2])
    assert len({str(d) for d in drawn(runs[0])}) == trials


def test_interruptions_do_not_matter(tmp_path: Path) -> None:
    sweep = small(12)
    whole, broken = new_run(tmp_path / "a", sweep), new_run(tmp_path / "b", sweep)
    Driver(whole, lag=3, shuffle=random.Random(0)).go()
    shuffle = random.Random(1)
    for _ in range(4):
        Driver(broken, lag=3, shuffle=shuffle).go(ends=2)
    Driver(broken, lag=3, shuffle=shuffle).go()
    assert drawn(broken) == drawn(whole)
    assert [t.number for t in broken.trials()] == list(range(12))


def test_death_in_the_middle_of_a_draw_does_not_matter(tmp_path: Path) -> None:
    sweep = small(8)
    whole, broken = new_run(tmp_path / "a", sweep), new_run(tmp_path / "b", sweep)
    Driver(whole, lag=1, shuffle=random.Random(0)).go()
    first = Driver(broken, lag=1, shuffle=random.Random(0))
    first.go(ends=4)
    assert first.search.ask() is not None  # drawn, in the study, but never written to the folder
    first.search.study.enqueue_trial({"method": "pmg"})  # and the next draw had only begun
    Driver(broken, lag=1, shuffle=random.Random(0)).go()
    assert drawn(broken) == drawn(whole)


def test_results_do_matter(tmp_path: Path) -> None:
    """After its random start TPE draws something else when the results are others."""
    sweep = small(10)
    one, other = new_run(tmp_path / "a", sweep), new_run(tmp_path / "b", sweep)
    Driver(one, lag=1, shuffle=random.Random(0)).go()

    class Opposite(Driver):
        def end(self, trial: TrialRecord) -> None:
            attack = trial.config["attack"]
            attack["epsilon"] = "4/255" if attack["epsilon"] == "8/255" else "8/255"
            super().end(trial)

    Opposite(other, lag=1, shuffle=random.Random(0)).go()
    assert drawn(one)[:2] == drawn(other)[:2]
    assert drawn(one) != drawn(other)


def test_every_grid_value_gets_the_same_number_of_trials(tmp_path: Path) -> None:
    run = new_run(tmp_path, small(12))
    Driver(run, lag=4, shuffle=random.Random(0)).go()
    assert Counter(trial.method for trial in run.trials()) == dict.fromkeys(
        ("tecoa", "pmg", "carot", "dirichlet"), 3
    )


def test_known_points_come_first_with_every_grid_value_that_they_leave_open(tmp_path: Path) -> None:
    points = "[{method: pmg, method.pmg.alpha: 1, attack.epsilon: 8/255}, {optimizer.learning_rate: 1/1000}]"
    sweep = small(13, **{"seed: 3": f"seed: 3, known: {points}", "trials: 8": "trials: 13"})
    run = new_run(tmp_path, spec.from_text(sweep.text(), "again.yaml"))
    Driver(run, lag=3, shuffle=random.Random(0)).go(ends=4)
    Driver(run, lag=3, shuffle=random.Random(1)).go()
    first, *others = run.trials()
    assert (first.method, first.drawn["method.alpha"], first.drawn["attack.epsilon"]) == ("pmg", 1, "8/255")
    assert [trial.method for trial in others] == ["tecoa", "pmg", "carot", "dirichlet"] * 3
    assert [trial.drawn["optimizer.learning_rate"] for trial in others[:4]] == [0.001] * 4
    assert len({trial.drawn["optimizer.learning_rate"] for trial in others[4:]}) == 8


def test_the_grid_sampler_runs_every_configuration_once(tmp_path: Path) -> None:
    run = new_run(tmp_path, spec.from_text(FINITE, "finite.yaml"))
    Driver(run, lag=3, shuffle=random.Random(0)).go(ends=3)
    Driver(run, lag=3, shuffle=random.Random(1)).go()
    assert len({str(trial.config) for trial in run.trials()}) == len(run.trials()) == 8


def test_conditional_parameters_exist_only_where_they_belong(tmp_path: Path) -> None:
    run = new_run(tmp_path, small(8))
    Driver(run, lag=2, shuffle=random.Random(0)).go()
    for trial in run.trials():
        assert ("method.alpha" in trial.drawn) == (trial.method == "pmg")
        assert ("method.concentration_scale" in trial.drawn) == (trial.method == "dirichlet")


def test_the_study_on_disk_knows_values_constraints_and_failures(tmp_path: Path) -> None:
    run = new_run(tmp_path, small(6))
    driver = Driver(run, lag=6, shuffle=random.Random(0))
    records = [driver.run.add_trial(s) for _ in range(6) if (s := driver.search.ask())]
    for record, status in zip(records, ["completed"] * 4 + ["failed", "stopped"], strict=True):
        if status == "completed":
            driver.end(record)
        else:
            run.end_trial(record, "failed" if status == "failed" else "stopped", "test")
            driver.search.end(run.trial(record.number))
    driver.search.finish()
    storage = optuna.storages.JournalStorage(
        optuna.storages.journal.JournalFileBackend(str(run.path / "study.journal"))
    )
    study = optuna.load_study(study_name=run.id, storage=storage)
    assert [trial.state.name for trial in study.trials] == ["COMPLETE"] * 4 + ["FAIL", "PRUNED"]
    for trial, record in zip(study.trials[:4], run.trials(), strict=False):
        metrics = metrics_of(record.config)
        assert trial.values == [metrics[m] for m in run.spec.file.pareto.metrics]
        violation = max(0.0, 0.5 * UNTRAINED["clean_accuracy"] - metrics["clean_accuracy"])
        assert list(trial.constraints.values()) == [violation]


def test_a_run_that_was_moved_goes_on_with_its_study(tmp_path: Path) -> None:
    run = new_run(tmp_path / "here", small())
    Driver(run, lag=2, shuffle=random.Random(0)).go(ends=3)
    moved = Run.load(run.path.rename(tmp_path / "there"))
    assert moved.name == "there"
    assert len(of_run(moved, 1).study.trials) >= 3


def test_no_two_runs_have_one_id(tmp_path: Path) -> None:
    first, second = (new_run(tmp_path / root, small()) for root in ("a", "b"))
    assert first.id != second.id
    assert first.id.startswith(first.name)


def test_seeds_follow_the_configuration() -> None:
    config = small().base_trial()
    assert trial_seed(0, config) == trial_seed(0, dict(reversed(config.items())))
    assert trial_seed(0, config) != trial_seed(1, config)
    assert trial_seed(0, config) != trial_seed(0, config | {"epochs": 9})


def test_probes_use_every_option_and_both_ends() -> None:
    text = "trial: {a: !choice [{name: x, p: !uniform [1, 2]}, {name: y, q: !choice [3, 4]}], b: !int [5, 6]}"
    from sweeper.tree import Mapping, parse

    root = parse(text, "test")
    assert isinstance(root, Mapping)
    probed = [probe.value for probe in space.probes(root.items["trial"])]
    assert {p["a"]["name"] for p in probed} == {"x", "y"}
    assert {p["a"].get("p") for p in probed} >= {1, 2}
    assert {p["a"].get("q") for p in probed} >= {3, 4}
    assert {p["b"] for p in probed} == {5, 6}


def test_grids_multiply_and_nest() -> None:
    from sweeper.tree import parse

    nested = parse("{a: !grid [{name: x, k: !grid [1, 2]}, {name: y}], b: !grid [7, 8]}", "test")
    assert len(space.grid(nested)) == 6
    assert {"a": "x", "a.x.k": "2", "b": "8"} in space.grid(nested)
    with pytest.raises(SpecError, match="!grid inside a !choice"):
        space.grid(parse("{a: !choice [{name: x, k: !grid [1, 2]}, {name: y}]}", "test"))
