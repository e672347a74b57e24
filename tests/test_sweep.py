"""The main job, through the real command line: run, interrupt, kill, resume, and the numbers agree."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from PIL import Image

from sweeper import Run, spec
from sweeper.cli import main
from sweeper.evaluation import find_point
from sweeper.trial import SPLIT, STAGES, Stage
from tests import alone
from tests.browser import browser, page  # noqa: F401
from tests.command import called, sweeper, wait_for
from tests.finished import finished_run
from tests.mlflow_page import Visit, shown
from tests.sweeps import SMALL

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.sweeps

METHODS = {"tecoa", "pmg", "carot", "dirichlet"}


@dataclass
class Finished:
    """A sweep that was run to its end, and what the command printed."""

    run: Run
    output: str


@pytest.fixture(scope="module")
def sweep_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("sweep") / "small.yaml"
    file.write_text(
        SMALL.replace("startup_trials: 2", "startup_trials: 2, deterministic: true, concurrent: 1")
    )
    return file


@pytest.fixture(scope="module")
def whole(sweep_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """The small sweep, ended by Ctrl-C in its third trial, and resumed. test_failures.py kills drivers."""
    runs = tmp_path_factory.mktemp("whole")
    pressed = threading.Thread(target=press_ctrl_c_after, args=(runs, "t002"), daemon=True)
    pressed.start()
    interrupted = called("run", sweep_file, "--runs", runs, code=130)
    pressed.join()
    assert "Pareto set of" in interrupted.stdout
    assert "sweeper resume" in interrupted.stderr
    assert "Traceback" not in interrupted.stderr
    assert not (Run.find(None, runs).path / "pareto.json").exists()
    output = called("resume", "--runs", runs).stdout
    return Finished(Run.find(None, runs), output)


@pytest.fixture(scope="module")
def uninterrupted(sweep_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The same sweep, one job after another in this process."""
    return alone.drive(Run.create(tmp_path_factory.mktemp("alone"), spec.load(sweep_file), {"seed": 3}))


def press_ctrl_c_after(runs: Path, trial: str) -> None:
    """Once `trial` has finished an epoch, as the command runs in this process."""
    wait_for(lambda: any(runs.glob(f"*/trials/{trial}/epoch-001.json")))
    os.kill(os.getpid(), signal.SIGINT)


def test_every_method_ran_with_finite_metrics(whole: Finished) -> None:
    trials = whole.run.trials()
    assert len(trials) == 5
    assert {trial.method for trial in trials} == METHODS
    for trial in trials:
        assert trial.status == "completed"
        assert [epoch["epoch"] for epoch in trial.epochs] == [1, 2]
        for epoch in trial.epochs:
            assert epoch["split"] == "validation"
            assert epoch["images_per_second"] > 0
            assert set(whole.run.spec.metrics) <= set(epoch["metrics"])
            assert all(math.isfinite(value) for value in epoch["metrics"].values())


def test_the_front_is_the_non_dominated_set(whole: Finished) -> None:
    content = whole.run.pareto()
    bound = 0.5 * content["baseline"]["validation"]["clean_accuracy"]

    def costs(metrics: dict[str, float]) -> tuple[float, ...]:
        return -metrics["robust_accuracy"], -metrics["clean_accuracy"], metrics["robust_ece"]

    def optimal(models: dict[str, dict[str, float]], bound: float) -> set[str]:
        allowed = {name: costs(m) for name, m in models.items() if m["clean_accuracy"] >= bound}
        return {
            name
            for name, own in allowed.items()
            if not any(
                all(a <= b for a, b in zip(other, own, strict=True)) and other != own
                for other in allowed.values()
            )
        }

    models = {
        point.id: point.metrics
        for trial in whole.run.trials()
        for point in (trial.point(1), trial.point(2))  # no more than may be kept
    }
    candidates = {row["id"]: row["final"] for row in content["candidates"]}
    assert set(candidates) == optimal(models, bound)
    bound = 0.5 * content["baseline"]["final"]["clean_accuracy"]
    members = {row["id"] for row in content["candidates"] if row["pareto"]}
    assert members == optimal(candidates, bound)
    for trial in content["trials"]:
        assert trial["pareto"] == any(name.startswith(f"{trial['id']}@") for name in members)


def test_numbers_agree_in_records_results_terminal_csv_and_mlflow(whole: Finished) -> None:
    run = whole.run
    content = json.loads((run.path / "pareto.json").read_text())
    assert json.loads(called("pareto", run.path, "--json").stdout) == content
    table = called("pareto", run.path, "--csv").stdout
    rows = {row["id"]: row for row in csv.DictReader(io.StringIO(table))}
    tracked = mlflow_runs(run)
    assert set(tracked) == {"", "baseline", *(t["id"] for t in content["trials"])}
    for row in [content["baseline"], *content["candidates"]]:
        for stage in STAGES:
            if row[stage] is None:
                assert stage == "test"
                assert not row["pareto"]
                continue
            records = pd.read_parquet(records_file(run, row["id"], stage))
            assert set(records["split"]) == {SPLIT[stage]}
            own = records[records["set"] == "fashion-mnist-8k"]
            assert row[stage]["clean_accuracy"] == (own["clean_prediction"] == own["label"]).mean()
            assert row[stage]["robust_accuracy"] == (own["broken_by"] == "").mean()
            for version in ("clean", "robust"):
                assert row[stage][f"{version}_nll"] == own[f"{version}_nll"].mean()
            history = steps(run, tracked[row.get("trial", "baseline")].info.run_id, stage)
            for name, value in row[stage].items():
                assert history[name, row.get("epoch", 0)] == value
                if row["id"] in rows:
                    assert float(rows[row["id"]][f"{stage}.{name}"]) == value
            for name in content["maximize"] + content["minimize"]:
                assert f"{row[stage][name]:.4f}" in whole.output
    assert set(rows) == {"baseline", *(row["id"] for row in content["candidates"] if row["pareto"])}


def steps(run: Run, run_id: str, stage: str) -> dict[tuple[str, int], float]:
    """Values of a stage's metrics in MLflow by name and step."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{run.path / 'mlflow.db'}")
    names = [name for name in client.get_run(run_id).data.metrics if name.startswith(f"{stage}/")]
    return {
        (name.removeprefix(f"{stage}/").replace("/", "."), each.step): each.value
        for name in names
        for each in client.get_metric_history(run_id, name)
    }


def records_file(run: Run, name: str, stage: Stage) -> Path:
    if stage != "validation":
        return run.final_file(name, SPLIT[stage]).with_suffix(".parquet")
    if name == "baseline":
        return run.baseline_file.with_suffix(".parquet")
    return find_point(run, name).records


def mlflow_runs(run: Run) -> dict[str, Any]:
    """MLflow's runs of a sweep by trial; fails if one is there twice."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{run.path / 'mlflow.db'}")
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    found = client.search_runs(experiments, f"tags.sweep_id = '{run.id}'")
    by_trial = {each.data.tags.get("trial_id", ""): each for each in found}
    assert len(by_trial) == len(found)
    parent = by_trial[""].info.run_id
    for trial, each in by_trial.items():
        assert trial == "" or each.data.tags["mlflow.parentRunId"] == parent
        assert each.info.status == "FINISHED"
    return by_trial


def test_mlflow_has_parameters_steps_tags_and_artifacts(whole: Finished) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{whole.run.path / 'mlflow.db'}")
    tracked = mlflow_runs(whole.run)
    for trial in whole.run.pareto()["trials"]:
        each = tracked[trial["id"]]
        assert each.data.tags["pareto"] == str(trial["pareto"]).lower()
        assert each.data.params["attack.epsilon"] == trial["config"]["attack"]["epsilon"]
        assert each.data.params["method.name"] == trial["method"]
        for name in ("validation/robust_accuracy", "epoch"):  # once, although the sweep was interrupted
            history = client.get_metric_history(each.info.run_id, name)
            assert [point.step for point in history] == [1, 2]
        names = {item.path for item in client.list_artifacts(each.info.run_id)}
        assert {"config.json", "records"} <= names
        assert ("plots" in names) == trial["pareto"]
    parent = {item.path for item in client.list_artifacts(tracked[""].info.run_id)}
    assert {"sweep.yaml", "pareto.json", "report"} <= parent


@pytest.mark.slow
@pytest.mark.browser
def test_mlflows_page_shows_the_sweep(whole: Finished, page: Page, tmp_path: Path) -> None:  # noqa: F811
    with shown(whole.run) as links:
        for name, address in links.items():
            assert f"{name}: http://127.0.0.1:5000/#{address.partition('#')[2]}" in whole.output
        Visit(page, whole.run, links, tmp_path).all()


def test_test_images_were_touched_by_the_front_and_the_untrained_model_only(whole: Finished) -> None:
    content = whole.run.pareto()
    assert content["baseline"]["test"] is not None
    for row in content["candidates"]:
        assert (row["test"] is not None) == row["pareto"]
    members = {row["id"] for row in content["candidates"] if row["pareto"]}
    measured = {file.stem for file in (whole.run.path / "final" / "test").glob("*.json")}
    assert measured == {"baseline", *members}
    assert "test images (at most 40 of each set), PGD-5 at epsilon 8/255" in whole.output


def test_weights_are_there_of_the_kept_epochs_alone(whole: Finished) -> None:
    """Nothing that training would have gone on from: all have ended."""
    for trial in whole.run.trials():
        files = {file.name for file in trial.folder.glob("*.safetensors")}
        assert files == {f"epoch-{epoch:03d}.safetensors" for epoch in trial.kept}
        assert trial.kept


def test_what_the_run_shares_with_the_next_one_lies_beside_it(whole: Finished) -> None:
    """The untrained model in each stage, and class texts; it is not taken for a run."""
    cache = whole.run.path.parent / "cache"
    kept = {kind.name: len(list(kind.glob("*/manifest.json"))) for kind in cache.iterdir()}
    assert kept["baseline"] == 3
    assert kept["class-text"] == 2  # of two data sets, for all trials and measurements
    assert not [file for file in cache.glob("*/*") if file.suffix in (".partial", ".damaged")]
    assert [run.id for run in Run.all(whole.run.path.parent)] == [whole.run.id]


def test_an_interrupted_sweep_equals_the_uninterrupted_one(whole: Finished, uninterrupted: Run) -> None:
    for one, other in zip(whole.run.trials(), uninterrupted.trials(), strict=True):
        assert (one.id, one.config, one.seed, one.status) == (
            other.id,
            other.config,
            other.seed,
            other.status,
        )
        assert [e["metrics"] for e in one.epochs] == [e["metrics"] for e in other.epochs]
    same = {"run": ""}
    assert whole.run.pareto() | same == uninterrupted.pareto() | same


def test_delivering_again_changes_nothing(whole: Finished) -> None:
    before = {trial: dict(each.data.metrics) for trial, each in mlflow_runs(whole.run).items()}
    sent = json.loads(called("track", whole.run.path, "--json").stdout)
    assert set(sent["trials"]) | {""} == set(before)
    assert sent["parent"] == mlflow_runs(whole.run)[""].info.run_id
    assert {trial: dict(each.data.metrics) for trial, each in mlflow_runs(whole.run).items()} == before


def test_status_report_and_resume_of_a_finished_run(whole: Finished) -> None:
    assert "5 of 5 trials (5 completed); finished" in called("status", whole.run.path).stdout
    written = json.loads(called("report", whole.run.path, "--json").stdout)
    assert Path(written["page"]).stat().st_size > 50_000
    assert written["page"] in written["files"]
    before = json.loads((whole.run.path / "pareto.json").read_text())
    done = called("resume", whole.run.path, "--json")
    said = json.loads(done.stdout)
    assert (said["run"], said["finished"], said["page"]) == (whole.run.name, True, written["page"])
    assert said["pareto"] == before
    assert "writing the report ..." in done.stderr
    assert json.loads((whole.run.path / "pareto.json").read_text()) == before


@pytest.mark.slow
def test_a_trial_is_measured_again_by_other_attacks(whole: Finished) -> None:
    run, trial = whole.run, next(row for row in whole.run.pareto()["candidates"] if row["pareto"])
    plain = json.loads(sweeper("evaluate", trial["id"], run.path, "--json"))
    assert plain["metrics"] == trial["test"]  # as for the final table
    strong = ["--attack", "apgd-ce", "--set", "confidence_attack={steps: 2}"]
    again = json.loads(called("evaluate", trial["id"], run.path, "--json", *strong).stdout)
    assert again["metrics"]["robust_ece"] == trial["test"]["robust_ece"]
    assert again["metrics"]["robust_accuracy"] <= trial["test"]["robust_accuracy"]
    assert again["metrics"]["confidence_up_accuracy"] == trial["test"]["clean_accuracy"]
    assert len(list((run.path / "evaluations").glob("*.json"))) == 2  # nothing is lost
    shown = called("evaluate", "baseline", run.path, "--split", "validation", "--set", "images=20").stdout
    assert "baseline of" in shown
    assert "validation images (at most 20 of each set), PGD-3 at epsilon 8/255" in shown
    assert "images withstood everything; broken by: " in shown


@pytest.mark.slow
def test_a_trial_is_checked_for_masked_gradients(whole: Finished) -> None:
    output = called("evaluate", "t000", whole.run.path, "--sanity", "--set", "images=20").stdout
    assert "unbounded: passed: robust accuracy 0.0%" in output
    assert "FAILED" not in output


def test_what_can_not_be_measured_is_one_line(whole: Finished) -> None:
    for arguments, expected in (
        (["t99"], "has no trial 't99' with kept weights"),
        (["t000@7"], "has no trial 't000@7' with kept weights; kept are the epochs"),
        (["t000", "--attack", "standrad"], "did you mean 'standard'"),
        (["t000", "--set", "imags=3"], "did you mean 'images'"),
        (["t000", "--attack", "torchattacks.Sqare"], "did you mean Square"),
    ):
        trial, *options = arguments
        done = called("evaluate", trial, whole.run.path, *options, code=2)
        assert expected in done.stderr
        assert done.stderr.count("\n") == 1
    command = [sys.executable, "-m", "sweeper", "evaluate", trial, str(whole.run.path), *options]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (process.returncode, process.stderr) == (2, done.stderr)  # no import adds a word


def test_a_second_driver_is_refused(whole: Finished) -> None:
    with whole.run.driving():
        done = called("resume", whole.run.path, code=2)
    assert done.stderr.count("\n") == 1
    assert "another process" in done.stderr


SIX_LINES = """\
name: mine
trial:
  data: {{train: {{image_folder: {folder}}}}}
  method: {{name: tecoa}}
  epochs: 1
search: {{trials: 1}}
"""


@pytest.mark.slow
def test_a_folder_of_ones_own_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    for label, name in enumerate(["red_square", "blue_circle"]):
        (tmp_path / "images" / name).mkdir(parents=True)
        for index in range(30):
            pixels = rng.integers(0, 90, size=(40, 30 + index, 3), dtype=np.uint8)
            pixels[..., 2 * label] += 150
            Image.fromarray(pixels).save(tmp_path / "images" / name / f"{index}.png")
    file = tmp_path / "six.yaml"
    file.write_text(SIX_LINES.format(folder=tmp_path / "images"))
    output = sweeper("run", file, "--runs", tmp_path / "runs")
    run = Run.find(None, tmp_path / "runs")
    assert [trial.status for trial in run.trials()] == ["completed"]
    assert "Pareto set of mine" in output
    records = pd.read_parquet(run.trials()[0].point().records)
    assert set(records["set"]) == {"images"}
    assert len(records) == round(0.2 * 48)
    (tmp_path / "images").rename(tmp_path / "gone")
    done = called("run", file, "--runs", tmp_path / "runs", code=2)
    assert done.stderr.count("\n") == 1
    assert "is not a folder" in done.stderr


@pytest.mark.slow
def test_a_finished_run_is_extended(whole: Finished, tmp_path: Path) -> None:
    copied = Path(shutil.copytree(whole.run.path, tmp_path / "moved"))
    output = sweeper("resume", copied, "--trials", 6)
    run = Run.load(copied)
    assert "of 6 trials" in output
    assert run.about["extended"][0]["to"] == {"trials": 6, "budget": {}}
    assert json.loads((run.path / "pareto.json").read_text()) == run.pareto()
    tracked = mlflow_runs(run)
    assert set(tracked) == {"", "baseline", *(f"t00{number}" for number in range(6))}
    assert tracked[""].data.metrics["trials"] == 6
    for trial in run.pareto()["trials"]:
        assert tracked[trial["id"]].data.tags["pareto"] == str(trial["pareto"]).lower()


STOPPED = """\
name: stopped
trial:
  data: {train: fashion-mnist-8k, images: 64}
  attack: {epsilon: 8/255, steps: 1}
  method: {name: tecoa}
  optimizer: {learning_rate: !grid [1e-3, 1e30]}
  batch_size: 16
  epochs: 3
evaluation: {attack: {epsilon: 8/255, steps: 2}, images: 20}
final: {attack: {epsilon: 8/255, steps: 2}, images: 20}
search: {trials: 4, seed: 1}
tracking: {mlflow: false}
"""


def test_diverged_trials_fail_with_a_reason_and_are_not_in_the_front(tmp_path: Path) -> None:
    file = tmp_path / "stopped.yaml"
    file.write_text(STOPPED)
    run = alone.drive(Run.create(tmp_path / "runs", spec.load(file), {"seed": 1}))
    assert not (run.path / "mlflow.db").exists()
    output = called("pareto", run.path).stdout
    by_rate = {rate: [t for t in run.trials() if t.drawn["optimizer.learning_rate"] == rate]
               for rate in ("0.001", "1e+30")}  # fmt: skip
    assert [len(trials) for trials in by_rate.values()] == [2, 2]
    for trial in by_rate["1e+30"]:
        assert trial.status == "failed"
        assert "training loss" in (trial.reason or "")
        assert "training loss" in called("status", run.path).stdout
    assert by_rate["0.001"][0].status == "completed"
    members = {row["id"] for row in run.pareto()["candidates"] if row["pareto"]}
    assert members <= {point.id for trial in by_rate["0.001"] for point in trial.points}
    assert members
    assert all(member in output for member in members)


def test_a_sweep_whose_images_have_changed_is_not_gone_on_with(tmp_path: Path) -> None:
    run = finished_run(tmp_path)
    baseline = json.loads(run.baseline_file.read_text())
    baseline["sets"][1]["digest"] = "of other images"
    run.baseline_file.write_text(json.dumps(baseline))
    done = CliRunner().invoke(main, ["resume", str(run.path)])
    assert done.exit_code == 2
    assert done.output.count("\n") == 1
    assert "data set 'digits' has changed since the sweep was started" in done.output
