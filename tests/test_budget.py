"""Budgets: what a sweep may spend, whichever comes first, told from the run folder alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from sweeper import budget, spec
from sweeper.plan import print_plan
from sweeper.run import Run
from tests.command import called
from tests.searching import Workers, members
from tests.sweeps import SMALL


def a_run(folder: Path, limits: str, *, trials: int = 20, gpus: str = "0") -> Run:
    text = SMALL.replace("trials: 5", f"trials: {trials}, budget: {limits}").replace(
        "trials: 8", "trials: 20"
    )
    return Run.create(folder, spec.from_text(f"{text}resources: {{gpus: {gpus}}}\n", "f.yaml"), {"seed": 3})


def epochs(run: Run) -> int:
    return sum(len(trial.epochs) for trial in run.trials())


@pytest.mark.parametrize("side", [1, 3])
def test_epochs_are_exceeded_by_less_than_a_trial_and_nothing_is_left_half_trained(
    tmp_path: Path, side: int
) -> None:
    run = a_run(tmp_path, "{epochs: 9}")
    workers = Workers(run, side)
    workers.go()
    assert epochs(run) == 10  # trials have two
    assert {trial.status for trial in run.trials()} == {"completed"}
    assert workers.measured == members(run)
    assert run.pareto()["trials_planned"] == 5


def test_trials_come_first_if_they_are_fewer(tmp_path: Path) -> None:
    run = a_run(tmp_path, "{epochs: 100, hours: 1}", trials=4)
    Workers(run).go()
    assert len(run.trials()) == run.pareto()["trials_planned"] == 4


def test_gpu_hours_are_those_of_epochs_and_survive_interruptions(tmp_path: Path) -> None:
    """Half a GPU for 3600 s an epoch: a trial of two epochs takes one GPU-hour."""
    run = a_run(tmp_path, "{gpu_hours: 2.75}", gpus="0.5")
    for _ in range(3):
        Workers(run, seconds=3600).go(epochs=1)
    assert budget.left(run, run.trials(), 0) == "1.25 of 2.75 GPU-hours left"
    Workers(run, seconds=3600).go()
    assert [trial.status for trial in run.trials()] == ["completed"] * 3
    assert budget.left(run, run.trials(), 0) == "0 of 2.75 GPU-hours left"


def test_hours_add_up_over_drivers_and_pauses_do_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    run = a_run(tmp_path, "{hours: 2}")
    first = Workers(run)
    first.go(epochs=2)
    now += 3600
    first.clock.write()
    now += 1_000_000  # nobody drives
    second = Workers(run)
    second.go(epochs=3)
    assert "budget: 1 of 2 hours left" in called("status", run.path).stdout
    now += 3600  # in the middle of trial 2, which is finished; no other is started
    second.go()
    assert [trial.status for trial in run.trials()] == ["completed"] * 3
    assert second.measured == members(run)
    third = Workers(run)
    assert third.searcher.finished
    assert "trials_planned" in run.pareto()


def test_plan_shows_the_bounds(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    print_plan(a_run(tmp_path, "{hours: 12, gpu_hours: 40, epochs: 500}", gpus="1").spec)
    assert "budget: 12 hours, 40 GPU-hours, 500 epochs, whichever" in capsys.readouterr().out
