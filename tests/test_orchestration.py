"""What a driver does and keeps for a trial depends neither on how many there were nor on all that trials
report; see benchmarks/orchestration.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ray.tune.experiment import Trial

from sweeper import budget, front, spec
from sweeper.display import Display
from sweeper.files import read_json, write_json
from sweeper.run import Run
from sweeper.tune import Watcher
from tests.searching import UNTRAINED, Workers
from tests.sweeps import SMALL


def a_run(root: Path, trials: int) -> Run:
    text = SMALL.replace("trials: 5", f"trials: {trials}, sampler: random, budget: {{epochs: 1000}}")
    return Run.create(root, spec.from_text(text, "small.yaml"), {"seed": 3})


class WithoutSession(Trial):
    """Of no running Ray, where its errors would lie."""

    error_file = None


class Watched(Workers):
    """Tells the watcher too, as Tune does. reads: how many files had been read when each trial ended."""

    def __init__(self, run: Run) -> None:
        super().__init__(run)
        display = Display(run, 1, self.clock, quiet=True)
        self.watcher = Watcher(run, display, lambda: None, self.searcher.search.ended)
        self.read: list[Path] = []
        self.reads: list[int] = []

    def count(self, path: Path) -> Any:
        self.read.append(path)
        return read_json(path)

    def _step(self, name: str, job: Any) -> int:
        trial = Trial("worker", config=dict(job), stub=True)
        self.watcher.on_trial_start(0, [], trial)
        trained = super()._step(name, job)
        self.watcher.on_trial_result(0, [], trial, {})
        if job.get("number") in self.searcher.search.ended:
            self.watcher.on_trial_complete(0, [], trial)
            self.reads.append(len(self.read))
        return trained


def test_a_late_trial_reads_as_many_files_as_an_early_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workers = Watched(a_run(tmp_path, trials=16))
    for module in ("run", "trial"):
        monkeypatch.setattr(f"sweeper.{module}.read_json", workers.count)
    workers.go(epochs=30)  # the last trial, after which the front is looked for among all, is left out
    of_each = [after - before for before, after in zip(workers.reads, workers.reads[1:], strict=False)]
    assert len(of_each) == 14
    assert len(set(of_each)) == 1


def test_outlines_say_what_a_driver_asks_and_no_more(tmp_path: Path) -> None:
    run = a_run(tmp_path, trials=8)
    Workers(run).go()
    known, kept = run.trials(), run.outlines()
    fronts = [front.candidates(run.spec, trials, UNTRAINED) for trials in (kept, known)]
    assert len({tuple(point.id for point in members) for members in fronts}) == 1
    assert budget.spent(run, kept, 0) == budget.spent(run, known, 0)
    assert budget.used_up(run, kept, 0) == budget.used_up(run, known, 0)
    for trial in known:
        for epoch in trial.epochs:
            metrics = epoch["metrics"] | {f"further_{index}": 0.5 for index in range(100)}
            more = epoch | {"metrics": metrics, "intervals": {name: [0, 1] for name in metrics}}
            write_json(trial.folder / f"epoch-{epoch['epoch']:03d}.json", more)
    assert run.outlines() == kept


def test_tune_keeps_nothing_of_a_trial_that_has_ended(tmp_path: Path) -> None:
    """Whatever its configuration and reports were, and whether it ended well."""
    workers = Watched(a_run(tmp_path, trials=4))
    workers.go(epochs=2)
    kept = []
    for end in (workers.watcher.on_trial_complete, workers.watcher.on_trial_error):
        for size in (1, 100):
            job = {"number": 0, "id": "t000"} | {f"setting_{index}": index for index in range(size)}
            trial = WithoutSession("worker", config=job, trial_id="a", stub=True)
            trial.evaluated_params = dict(job)
            trial.set_experiment_tag(f"1_{job}")
            trial.update_last_result({f"metric_{index}": 0.5 for index in range(size)})
            trial.run_metadata.last_result_time = 0.0
            end(0, [], trial)
            kept.append(trial.get_json_state())
    assert all(state == kept[0] for state in kept)
