"""`search.deterministic`: the same sweep trial for trial, whatever the timing; and what it is not without."""

from __future__ import annotations

import random
from pathlib import Path

import optuna
import pytest

from sweeper import spec
from sweeper.curves import Curves
from sweeper.errors import SpecError
from sweeper.plan import print_plan
from sweeper.run import Run
from sweeper.search import Search
from sweeper.simulator import simulate
from sweeper.spec import SweepSpec
from tests.curves import curves
from tests.scheduler_contract import sweep
from tests.searching import UNTRAINED, Workers
from tests.sweeps import SMALL
from tests.timing import Killed, Tune, chance, outcome, timed

WORKERS = 3


def a_sweep(
    deterministic: bool = True, stopping: str = "{brackets: 2}", sampler: str = "forest"
) -> tuple[SweepSpec, Curves]:
    """One in which trials are stopped at both rungs, diverge, and end; results matter to what is drawn."""
    made = sweep(stopping, trials=24, sampler=sampler, constrained=True, deterministic=deterministic)
    return made, Curves(curves(made, 40, 9, seed=8))


@pytest.mark.parametrize(("stopping", "sampler"), [("{}", "forest"), ("{brackets: 2}", "tpe")])
def test_the_timing_does_not_matter(stopping: str, sampler: str) -> None:
    made, table = a_sweep(stopping=stopping, sampler=sampler)
    regular = simulate(made, table, workers=WORKERS)
    assert {trial.status for trial in regular.trials} == {"completed", "stopped", "failed"}
    for seed in range(6):
        simulation, waits = timed(made, table, WORKERS, chance(seed))
        assert outcome(made, simulation.trials, simulation.decisions) == outcome(
            made, regular.trials, regular.decisions
        )
        assert simulation.trace != regular.trace
        assert waits > 3


def test_without_it_the_timing_matters() -> None:
    """To what is drawn and to what is decided, so that the test above can fail."""
    made, table = a_sweep(deterministic=False)
    trials, decisions = [], []
    for seed in range(3):
        simulation, waits = timed(made, table, WORKERS, chance(seed))
        assert waits == 0
        trials.append(str([trial.drawn for trial in simulation.trials]))
        decisions.append({(d.trial, d.epoch): d.goes_on for d in simulation.decisions})
    assert len(set(trials)) == 3
    assert decisions[0] != decisions[1] != decisions[2] != decisions[0]


@pytest.mark.parametrize("workers", [1, 2, 7])
def test_no_deadlock_however_slow_the_trials_that_others_wait_for(workers: int) -> None:
    """Each trial is a hundred times as fast as the one before it, or as slow."""
    made, table = a_sweep()
    ends = []
    for factor in (100.0, 0.01):
        simulation, _ = timed(made, table, workers, lambda trial, f=factor: f ** (trial.number % 5))  # type: ignore[misc]
        assert len(simulation.trials) == 24
        assert "unfinished" not in {trial.status for trial in simulation.trials}
        ends.append(outcome(made, simulation.trials, simulation.decisions))
    assert ends[0] == ends[1]


def a_run(folder: Path, made: SweepSpec) -> Run:
    return Run.create(folder, made, {"seed": 3})


def test_tune_and_the_simulator_agree_whatever_is_lost_or_killed(tmp_path: Path) -> None:
    """The untrained model's measurement, which the constraints wait for, takes its time like any job."""
    made, table = a_sweep()
    simulation = simulate(made, table, workers=WORKERS)
    for seed in range(4):
        run, rng, drivers = a_run(tmp_path / str(seed), made), random.Random(seed), 1
        faults = {"lost": 0.1, "killed": 0.05} if seed else {}
        while True:
            try:
                Tune(run, table, WORKERS, rng, **faults).go()  # type: ignore[arg-type]
                break
            except Killed:
                drivers += 1
        assert drivers > 5 or not seed
        assert outcome(made, run.trials(), run.decisions()) == outcome(
            made, simulation.trials, simulation.decisions
        )


def test_trials_whose_worker_is_lost_for_good_keep_nobody_waiting(tmp_path: Path) -> None:
    made, table = a_sweep(sampler="tpe")
    ends = []
    for seed in range(3):
        run = a_run(tmp_path / str(seed), made)
        Tune(run, table, WORKERS, random.Random(seed), failing=(0, 5, 6)).go()
        trials = run.trials()
        assert len(trials) == 24
        assert [trials[n].reason for n in (0, 5, 6)] == [
            "the worker failed more often than a trial is restarted; see error.txt"
        ] * 3
        assert {d.trial for d in run.decisions()}.isdisjoint({0, 5, 6})
        ends.append(outcome(made, trials, run.decisions()))
    assert ends[0] == ends[1] == ends[2]


def test_an_epoch_that_was_never_reported_is_decided_on(tmp_path: Path) -> None:
    """With or without it: a trial does not slip past a rung with its worker."""
    for deterministic in (True, False):
        made, table = a_sweep(deterministic, stopping="{}", sampler="tpe")
        run = a_run(tmp_path / str(deterministic), made)
        Tune(run, table, WORKERS, random.Random(0), lost=0.4).go()
        at_first = {d.trial for d in run.decisions() if d.epoch == 1}
        assert at_first == {trial.number for trial in run.trials() if trial.epochs}


# --- the sampler ------------------------------------------------------------------------------------------


def test_without_it_the_sampler_knows_all_that_has_ended_and_what_runs(tmp_path: Path) -> None:
    made, _ = a_sweep(deterministic=False)
    run = a_run(tmp_path, made)
    search = Search(made, None, name="test", lag=2, baseline=None)
    for _ in range(5):  # it waits for nothing, not even for the untrained model
        suggestion = search.ask()
        assert suggestion is not None
        run.add_trial(suggestion)
    states = optuna.trial.TrialState
    for number in (4, 1):
        run.end_trial(run.trial(number), "failed", "test")
        search.end(run.trial(number))
    assert search.ask() is not None
    assert {trial.state for trial in search.study.trials} == {states.RUNNING}  # constraints may be relative
    search.baseline = UNTRAINED
    assert search.ask() is not None
    ended = [trial.number for trial in search.study.trials if trial.state == states.FAIL]
    assert ended == [1, 4]
    assert sum(trial.state == states.RUNNING for trial in search.study.trials) == 5


# --- the file ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", ["hours: 2", "gpu_hours: 2"])
def test_budgets_of_time_are_refused(limit: str) -> None:
    text = SMALL.replace("trials: 5", f"trials: 5, deterministic: true, budget: {{{limit}}}")
    text += "resources: {gpus: 1}\n"
    with pytest.raises(SpecError) as refused:
        spec.from_text(text, "f.yaml")
    name = limit.partition(":")[0]
    line = next(iter(refused.value.lines))
    assert len(refused.value.lines) == 1
    assert line.startswith("f.yaml:")
    assert f"search.budget.{name}: how far a sweep gets in it depends on timing" in line
    assert spec.from_text(text.replace("deterministic: true", "deterministic: false"), "f.yaml")
    assert spec.from_text(text.replace(limit, "epochs: 9"), "f.yaml")


def test_a_budget_of_epochs_starts_the_same_trials_whatever_the_timing(tmp_path: Path) -> None:
    settings = "trials: 30, deterministic: true, budget: {epochs: 31}"
    text = SMALL.replace("trials: 5", settings).replace("epochs: 2\n", "epochs: !int [1, 7]\n")
    text = text.replace("trials: 8", "trials: 30")
    started = []
    for seed in range(4):
        run = Run.create(tmp_path / str(seed), spec.from_text(text, "f.yaml"), {"seed": 3})
        Workers(run, 3, rng=random.Random(seed)).go()
        started.append([(trial.drawn, len(trial.epochs)) for trial in run.trials()])
        lengths = [length for _, length in started[-1]]
        assert sum(lengths[:-1]) < 31 <= sum(lengths)
    assert started[0] == started[1] == started[2] == started[3]


@pytest.mark.parametrize(("deterministic", "line"), [(True, "yes, the same"), (False, "no, every trial")])
def test_plan_says_so(deterministic: bool, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    print_plan(a_sweep(deterministic)[0])
    assert f"deterministic: {line}" in capsys.readouterr().out
