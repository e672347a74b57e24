"""What a sweep of thousands of trials costs per trial doesn't grow; benchmarks/scale.py has ten thousand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow import MlflowClient
from optuna.trial import FrozenTrial, TrialState, create_trial

from benchmarks import scale
from benchmarks.driven import Drive, finished_run, new_run
from sweeper import budget, front, optimality, search
from sweeper.files import read_json, write_json
from sweeper.pareto import fronts, non_dominated
from sweeper.report import prepare, write_report
from sweeper.run import Run
from sweeper.search import Recent
from tests.command import called

TRIALS = 250


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """A finished sweep; its study is not synced to the disk, which takes most of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda _: None)
        yield finished_run(tmp_path_factory.mktemp("runs"), TRIALS)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often a JSON file was read, by the beginning of its name."""
    count: Counter[str] = Counter()

    def counting(path: Path) -> Any:
        count[path.name.partition("-")[0]] += 1
        return read_json(path)

    for module in ("run", "trial"):
        monkeypatch.setattr(f"sweeper.{module}.read_json", counting)
    return count


def test_status_reads_no_epoch(run: Run, reads: Counter[str]) -> None:
    output = called("status", run.path).output
    assert f"{TRIALS} of {TRIALS} trials" in output
    assert reads["epoch"] == 0
    assert reads["config.json"] == TRIALS


def test_status_names_the_last_that_failed(run: Run, tmp_path: Path) -> None:
    other = new_run(tmp_path, 30)
    for number in range(30):
        trial = run.trial(number)
        target = other.trial_folder(number)
        write_json(target / "config.json", read_json(trial.folder / "config.json"))
        write_json(target / "status.json", {"status": "failed", "reason": "of a reason"})
    lines = [line for line in called("status", other.path).output.splitlines() if "of a reason" in line]
    assert len(lines) == 20
    assert lines[-1].startswith("t029")


def test_the_result_reads_each_epoch_at_most_once_and_most_never(run: Run, reads: Counter[str]) -> None:
    content = run.pareto()
    epochs = sum(len(trial.epochs) for trial in run.trials())
    assert reads["epoch"] < epochs
    expected = front.candidates(run.spec, run.trials(), run.baseline() or {})
    assert [row["id"] for row in content["candidates"]] == [point.id for point in expected]
    assert len(content["trials"]) == TRIALS


def test_the_result_of_a_complete_run_is_read_from_one_file(run: Run, reads: Counter[str]) -> None:
    content = run.pareto()
    write_json(run.path / "pareto.json", content)
    reads.clear()
    try:
        assert run.pareto() == read_json(run.path / "pareto.json")
        assert reads == {"pareto.json": 1}
    finally:
        (run.path / "pareto.json").unlink()


def test_as_many_points_as_ever_are_compared_by_their_images(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = front.points(run.trials())
    monkeypatch.setattr(optimality, "COMPARED", 50)
    chosen = optimality.foremost(run.spec, known, run.baseline() or {})
    ranks = fronts(*front.judged(run.spec, [point.metrics for point in known], run.baseline()))
    worst = max(ranks[known.index(point)] for point in chosen)
    assert len(chosen) == 50
    assert all(ranks[index] >= worst for index, point in enumerate(known) if point not in chosen)


def test_fronts_are_the_same_when_only_the_first_are_asked_for() -> None:
    rng = np.random.default_rng(0)
    costs, broken = rng.integers(0, 30, (3000, 3)).astype(float), rng.integers(-3, 3, 3000).clip(0)
    whole, first = fronts(costs, broken), fronts(costs, broken, enough=200)
    asked = first < first.max()
    assert asked.sum() >= 200
    assert (first[asked] == whole[asked]).all()
    assert (whole[~asked] >= first.max()).all()
    assert (non_dominated(costs) == (fronts(costs) == 0)).all()


def test_a_report_shows_a_sample_and_says_so(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepare, "SHOWN", 40)
    monkeypatch.setattr("sweeper.report.PICTURED", 2)
    content = run.pareto()
    page = write_report(run, content).read_text()
    members = sum(row["pareto"] for row in content["trials"])
    assert page.count("<tr") < 50 + 2 * len(content["candidates"]) + members
    assert f"{40 + members} of {TRIALS} trials are shown" in page
    assert len(list((run.path / "report").glob("t*.png"))) == 2
    shown = prepare.sample(content["trials"])
    numbers = [int(row["id"][1:]) for row in shown if not row["pareto"]]
    assert numbers == sorted(numbers)
    assert np.diff(numbers).max() < 3 * TRIALS / 40  # from the whole search


def test_a_small_report_shows_all() -> None:
    rows: list[dict[str, Any]] = [{"id": f"t{n}", "pareto": n % 3 == 0} for n in range(400)]
    assert prepare.sample(rows) == rows


def test_a_sampler_sees_the_latest_trials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """And draws from the beginning of a sweep what it would draw without a bound."""
    drawn = {}
    for bound in (10, 1000, 10**9):
        monkeypatch.setattr(search, "LEARNED_FROM", bound)
        run = new_run(tmp_path / str(bound), 25, ["search.sampler=tpe", "search.startup_trials=5"])
        Drive(run, side=1).go()
        drawn[bound] = [trial.drawn for trial in run.trials()]
    assert drawn[1000] == drawn[10**9]
    assert drawn[10] != drawn[1000]
    assert drawn[10][:10] == drawn[1000][:10]


def test_what_is_recent_are_the_latest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "LEARNED_FROM", 3)
    study = search.optuna.create_study()
    study.add_trials([create_trial(state=TrialState.COMPLETE, value=float(n)) for n in range(5)])
    seen: list[FrozenTrial] = Recent(study).get_trials()
    assert [trial.number for trial in seen] == [2, 3, 4]
    assert len(study.get_trials()) == 5


def test_a_budget_looks_at_no_ended_trial_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: Counter[int] = Counter()
    busy = budget.busy
    monkeypatch.setattr(budget, "busy", lambda trial: looked.update([trial.number]) or busy(trial))
    overrides = ["search.sampler=random", "search.budget={epochs: 100000}"]
    run = new_run(tmp_path, 40, overrides)
    Drive(run, side=2).go()
    assert set(looked) == set(range(40))
    assert set(looked.values()) == {1}


@pytest.mark.slow
def test_the_benchmark_of_a_whole_run_with_its_tracker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.chdir(tmp_path)  # where MLflow keeps files beside a database
    run, probe = scale.folder(12, "random", True, tmp_path)
    assert {trial.status for trial in run.trials()} <= {"completed", "stopped"}
    assert (run.path / "report" / "index.html").exists()
    assert probe.samples[-1].trials == 12
    client = MlflowClient(tracking_uri=uri)
    (experiment,) = client.search_experiments(filter_string=f"name = '{run.spec.file.tracking.experiment}'")
    assert len(client.search_runs([experiment.experiment_id])) == 14  # the sweep and the untrained model, too
