"""One recorded trace in the simulator, in a run folder with interruptions, and in Ray: the same decisions."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from sweeper import halving, runner
from sweeper.budget import Clock
from sweeper.cluster import Cluster
from sweeper.curves import Curves, Unrepeated, recorded
from sweeper.display import Display
from sweeper.errors import UserError
from sweeper.files import write_json
from sweeper.front import candidates
from sweeper.halving import Halving, ending, not_finite
from sweeper.run import Run
from sweeper.search import of_run
from sweeper.simulator import Simulation, simulate
from sweeper.spec import SweepSpec
from sweeper.trial import Metrics, epoch_file
from tests.curves import BASELINE, curves
from tests.replay import Replay
from tests.scheduler_contract import sweep
from tests.timing import outcome, timed

WORKERS = 2


@pytest.fixture(scope="module")
def traced() -> tuple[SweepSpec, Curves, Simulation]:
    """A small sweep, in which trials are stopped at both rungs, diverge, and end."""
    spec = sweep("{brackets: 2}", trials=16, sampler="forest", constrained=True)
    table = Curves(curves(spec, 30, 9, seed=3))
    return spec, table, simulate(spec, table, workers=WORKERS)


@pytest.fixture(scope="module")
def cluster(traced: tuple[SweepSpec, Curves, Simulation]) -> Iterator[Cluster]:
    """Ray on this machine."""
    with Cluster.connect(traced[0].file.resources) as connected:
        yield connected


class Folder:
    """A run folder in which a trace takes place, as a driver and its workers would write it."""

    def __init__(self, run: Run, table: Curves) -> None:
        self.run, self.table = run, table
        stopping = halving.of_run(run)
        assert stopping is not None
        self.halving = stopping
        self.search = of_run(run, WORKERS)
        self._start()

    def _start(self) -> None:
        """Starts trials as a driver would, so that the sampler knows as much."""
        running = sum(trial.status == "unfinished" for trial in self.run.trials())
        for _ in range(min(WORKERS - running, self.run.spec.file.search.trials - self.search.next)):
            suggestion = self.search.ask()
            assert suggestion is not None
            self.run.add_trial(suggestion)

    def report(self, number: int, epoch: int, crash: str = "") -> None:
        """A trial finishes an epoch, and what follows of it, until the driver dies: after the worker has
        written the `epoch`, after the `decision` was written, or not at all."""
        trial = self.run.trial(number)
        metrics = self.table.nearest(trial.drawn).metrics[epoch - 1]
        if not not_finite(self.run.spec.file.pareto, metrics):
            write_json(epoch_file(trial.folder, epoch, "json"), {"epoch": epoch, "metrics": metrics})
        if crash == "epoch":
            return
        last = epoch == trial.config["epochs"]
        self.search.report(number, epoch, metrics)
        goes_on = self.halving.record(number, epoch, metrics, last=last)
        if crash == "decision" or (goes_on and not last):
            return
        report = {**metrics, "epoch": epoch, "failed": None}
        self.run.end_trial(trial, *ending(trial, report, self.run.spec.file.pareto))
        self.search.end(self.run.trial(number))
        self._start()


def a_run(folder: Path, spec: SweepSpec) -> Run:
    run = Run.create(folder, spec, {"seed": 3})
    write_json(run.baseline_file, {"metrics": BASELINE})
    return run


def statuses(trials: list[Any]) -> list[tuple[Any, ...]]:
    return [(trial.number, trial.status, trial.reason, trial.drawn) for trial in trials]


def test_the_trace_has_all_that_can_happen(traced: tuple[SweepSpec, Curves, Simulation]) -> None:
    _, _, simulation = traced
    assert {trial.status for trial in simulation.trials} == {"completed", "stopped", "failed"}
    assert {len(t.epochs) for t in simulation.trials if t.status == "stopped"} == {1, 3}


def test_interruptions_change_no_decision(
    traced: tuple[SweepSpec, Curves, Simulation], tmp_path: Path
) -> None:
    """At every point where something is written; the driver that follows finds its way from the folder."""
    spec, table, simulation = traced
    folder = Folder(a_run(tmp_path, spec), table)
    for index, (number, epoch) in enumerate(simulation.trace):
        crash = ("", "epoch", "decision", "", "torn")[index % 5]
        folder.report(number, epoch, crash)
        if crash == "torn":
            with open(folder.run.rungs_file, "a") as file:
                file.write('{"trial": 3, "epo')
        if crash:
            after = Folder(folder.run, table)
            trial = folder.run.trial(number)
            if trial.status == "unfinished" and len(trial.epochs) in (epoch - 1, trial.config["epochs"]):
                after.report(number, epoch)  # an epoch that left nothing, or the last, is reported again
            folder = after
    assert folder.run.decisions() == simulation.decisions
    assert statuses(folder.run.trials()) == statuses(simulation.trials)


def test_ray_and_the_simulator_decide_alike(
    traced: tuple[SweepSpec, Curves, Simulation],
    cluster: Cluster,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Ray goes on from a folder whose driver died before it could stop the first trial that it had to."""
    spec, table, simulation = traced
    stop = next(decision for decision in simulation.decisions if not decision.goes_on)
    before = simulation.trace.index((stop.trial, stop.epoch))
    assert before < len(simulation.trace) / 4
    folder = Folder(a_run(tmp_path, spec), table)
    for number, epoch in simulation.trace[:before]:
        folder.report(number, epoch)
    folder.report(stop.trial, stop.epoch, crash="epoch")
    run = folder.run
    in_turn(monkeypatch, run, simulation, before)
    monkeypatch.setattr("sweeper.worker.Worker", Replay)
    runner.work(run, cluster, WORKERS, Display(run, WORKERS, Clock(run), quiet=True), lambda: None)
    assert run.decisions() == simulation.decisions
    assert statuses(run.trials()) == statuses(simulation.trials)


@pytest.mark.slow
def test_ray_makes_trials_wait_as_the_simulator_does(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each trial is slower than the next, so that those with higher numbers come to every rung first; the
    decisions are those of any other timing."""
    spec = sweep(trials=8, sampler="tpe", deterministic=True)
    table = Curves(curves(spec, 30, 9, seed=8))
    reference = simulate(spec, table, workers=WORKERS)
    simulation, waits = timed(spec, table, WORKERS, lambda trial: 0.1**trial.number)
    assert simulation.trace != reference.trace
    assert waits > 3
    run = a_run(tmp_path, spec)
    in_turn(monkeypatch, run, simulation, 0)
    monkeypatch.setattr("sweeper.worker.Worker", Replay)
    runner.work(run, cluster, WORKERS, Display(run, WORKERS, Clock(run), quiet=True), lambda: None)
    assert run.decisions() == simulation.decisions
    assert outcome(spec, run.trials(), run.decisions()) == outcome(
        spec, reference.trials, reference.decisions
    )
    assert statuses(run.trials()) == statuses(reference.trials)
    assert not list(run.path.glob("ray/**/checkpoint*"))


def in_turn(monkeypatch: pytest.MonkeyPatch, run: Run, simulation: Simulation, done: int) -> None:
    """Lets the workers report in the order of the trace: each after the one before was decided on."""
    metrics = [[epoch["metrics"] for epoch in trial.epochs] for trial in simulation.trials]
    recording = {"trace": simulation.trace, "metrics": metrics}
    (run.path / "recording.json").write_text(json.dumps(recording))
    seen = set(simulation.trace[:done])
    write_json(run.path / "turn", len(seen))

    def record(self: Halving, trial: int, epoch: int, metrics: Metrics, **options: Any) -> bool:
        goes_on = RECORD(self, trial, epoch, metrics, **options)
        seen.add((trial, epoch))
        write_json(run.path / "turn", len(seen))
        return goes_on

    monkeypatch.setattr(Halving, "record", record)


RECORD = Halving.record


def test_thousands_of_trials_in_seconds() -> None:
    spec = sweep(trials=2000, epochs=27)
    table = Curves(curves(spec, 100, 27))
    started = time.process_time()
    simulation = simulate(spec, table, workers=64)
    assert time.process_time() - started < 20
    assert len(simulation.trials) == 2000
    assert len(simulation.trace) < 0.2 * 2000 * 27  # of the epochs that there would be
    assert {trial.status for trial in simulation.trials} == {"completed", "stopped", "failed"}


def test_workers_share_the_time() -> None:
    """Without early stopping and with equal epochs the clock can be reckoned by hand."""
    spec = sweep(trials=12)
    spec = SweepSpec(
        spec.file.model_copy(
            update={"search": spec.file.search.model_copy(update={"early_stopping": None})}
        ),
        spec.tree, spec.trainable, spec.metrics, spec.evaluation, spec.final,
    )  # fmt: skip
    table = curves(spec, 20, 9).assign(seconds=2.0)
    table = table[~table["config"].isin(table[table["robust_ece"].isna()]["config"])]  # none diverges
    for workers in (1, 3, 5):
        simulation = simulate(spec, Curves(table), workers=workers)
        assert max(simulation.ends.values()) == -(-12 // workers) * 9 * 2
        assert len(simulation.trace) == 12 * 9
        assert simulation.decisions == []


def test_early_stopping_finds_as_much_in_less_time() -> None:
    """What it is for: by halving, the front is reached with a fraction of the epochs."""
    spec = sweep(trials=60, epochs=27)
    table = Curves(curves(spec, 60, 27))
    simulation = simulate(spec, table, workers=4)
    best = max(p.metrics["robust_accuracy"] for p in candidates(spec, simulation.trials, BASELINE))
    every = [table.nearest(trial.drawn).metrics[-1]["robust_accuracy"] for trial in simulation.trials]
    assert len(simulation.trace) < 0.35 * 60 * 27
    assert best > np.nanquantile(every, 0.8)


def test_the_nearest_curve() -> None:
    rows = [
        {"config": "baseline", "drawn": "{}", "epoch": 0, "seconds": 0.0, "m": 0.0},
        *(
            {"config": name, "drawn": json.dumps(drawn), "epoch": 1, "seconds": 1.0, "m": 1.0}
            for name, drawn in {
                "a": {"method": "x", "rate": 1e-4},
                "b": {"method": "x", "rate": 1e-2},
                "c": {"method": "y", "rate": 1e-3, "y.weight": 3},
                "d": {"method": "y", "rate": 1e-3, "y.weight": 50},
            }.items()
        ),
    ]
    table = Curves(pd.DataFrame(rows))
    assert table.nearest({"method": "x", "rate": 1e-4}).config == "a"
    assert table.nearest({"method": "x", "rate": 6e-3}).config == "b"
    assert table.nearest({"method": "y", "rate": 1e-4, "y.weight": 40}).config == "d"
    assert table.nearest({"method": "y", "rate": 1e-2, "y.weight": 2}).config == "c"
    assert table.nearest({"method": "z", "rate": 1e-3, "y.weight": 50}).config == "d"


def some_curves(count: int = 40) -> Curves:
    """Of two parameters, of which only `matters` does."""
    rng = np.random.default_rng(0)
    about = {"config": "baseline", "drawn": "{}", "epoch": 0, "seconds": 0.0, "m": 0.0}
    rows: list[dict[str, Any]] = [about]
    for index in range(count):
        drawn = {"matters": rng.uniform(), "noise": rng.uniform()}
        about = {"config": str(index), "drawn": json.dumps(drawn), "seconds": 1.0}
        rows += [{**about, "epoch": epoch, "m": drawn["matters"] * epoch} for epoch in (1, 2)]
    return Curves(pd.DataFrame(rows))


def test_what_matters_for_the_curves_counts_for_nearness() -> None:
    table = some_curves()
    assert table.weights["matters"] > 10 * table.weights["noise"]
    at = np.random.default_rng(1).uniform(size=(50, 2))
    found = [table.nearest({"matters": matters, "noise": noise}).metrics[0]["m"] for matters, noise in at]
    assert np.abs(np.array(found) - at[:, 0]).max() < 0.1


def test_each_curve_is_given_once_before_any_is_given_again() -> None:
    table = some_curves(10)
    first = Unrepeated(table)
    given = [first.nearest({"matters": 0.5, "noise": 0.5}).config for _ in range(20)]
    assert sorted(given[:10]) == sorted(given[10:]) == sorted(str(index) for index in range(10))
    assert given[0] == table.nearest({"matters": 0.5, "noise": 0.5}).config
    assert Unrepeated(table).nearest({"matters": 0.5, "noise": 0.5}).config == given[0]


def test_curves_of_a_run_and_as_parquet(traced: tuple[SweepSpec, Curves, Simulation], tmp_path: Path) -> None:
    spec, table, simulation = traced
    folder = Folder(a_run(tmp_path, spec), table)
    for number, epoch in simulation.trace:
        folder.report(number, epoch)
        file = folder.run.trial_folder(number) / f"epoch-{epoch:03d}.json"
        if file.exists():
            timed = json.loads(file.read_text()) | {"training_seconds": 2.0, "evaluation_seconds": 0.5}
            write_json(file, timed)
    recorded([folder.run]).to_parquet(tmp_path / "curves.parquet")
    again = Curves.load(tmp_path / "curves.parquet")
    completed = [trial for trial in simulation.trials if trial.status == "completed"]
    assert again.baseline == BASELINE
    assert [curve.config for curve in again.curves] == [f"{folder.run.name}/{t.id}" for t in completed]
    for trial in completed:
        curve = again.nearest(trial.drawn)
        assert curve.metrics == [epoch["metrics"] for epoch in trial.epochs]
        assert curve.seconds == [2.5] * 9


def test_what_is_wrong_with_curves_is_one_line() -> None:
    spec = sweep()
    table = curves(spec, 3, 5)
    for broken, message in (
        (table.drop(columns="seconds"), "no column 'seconds'"),
        (table[table["epoch"] > 0], "no row of config 'baseline'"),
        (table.drop(columns="robust_ece"), "no metric 'robust_ece'"),
        (table, "has 5 epochs, and the sweep trains 9"),
    ):
        with pytest.raises(UserError, match=message):
            simulate(spec, Curves(broken), workers=2)
