"""MLflow has what the run folder has, once, whatever happens to requests, answers, servers and deliverers."""

from __future__ import annotations

import base64
import json
import os
import shutil
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from mlflow import MlflowClient

from sweeper import spec
from sweeper.files import read_json, write_json
from sweeper.redact import redacted
from sweeper.run import Run
from sweeper.search import Suggestion
from sweeper.tracking import Mirror, Tracker, lines, notes
from sweeper.trial import TrialRecord, epoch_file
from tests.mlflow_server import Server, served
from tests.sweeps import SMALL

METRICS = {"clean_accuracy": 0.75, "robust_accuracy": 0.25, "robust_ece": 0.125}
ABOUT_IMAGES = {
    "set": "digits",
    "split": "validation",
    "origin": "20 % of them",
    "images": 40,
    "classes": 10,
    "size": [8, 8],
    "notes": [],
    "digest": "0",
}
SECRET = "k9-secret-word"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with served(tmp_path_factory.mktemp("server")) as made:
        yield made


@pytest.fixture(autouse=True)
def _addressed(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    server.forget()


def a_run(root: Path, name: str | None = None) -> Run:
    name = name or root.name  # runs of one name and second are one to MLflow
    return Run.create(root, spec.from_text(SMALL.replace("small", name), "small.yaml"), {"seed": 3})


def add_trial(run: Run, number: int, epochs: int = 2, status: str | None = "completed") -> None:
    config = run.spec.trial({**run.spec.base_trial(), "method": {"name": "tecoa"}})
    trial = run.add_trial(Suggestion(number, config, {"method": "tecoa"}, seed=number))
    add_epochs(trial, range(1, epochs + 1))
    if status is not None:
        run.end_trial(trial, status)  # type: ignore[arg-type]


def add_epochs(trial: TrialRecord, epochs: range) -> None:
    """Each better than the one before."""
    for epoch in epochs:
        file = epoch_file(trial.folder, epoch, "json")
        metrics = METRICS | {"robust_accuracy": 0.2 * epoch, "digits.clean_ece": 0.5}
        more = {"training": {"loss": 1.5 / epoch, "loss.kl": 0.5}, "images_per_second": 100.0}
        more |= {"sets": [ABOUT_IMAGES], "training_set": ABOUT_IMAGES | {"split": "train", "digest": "1"}}
        more |= {"system": {"gpu_0_utilization_percentage": 90.0}}
        intervals = {"robust_accuracy": [0.2 * epoch - 0.1, 0.2 * epoch + 0.1]}
        write_json(file, {"epoch": epoch, "metrics": metrics, "intervals": intervals, **more})
        file.with_suffix(".parquet").write_bytes(b"records")
        file.with_suffix(".safetensors").touch()


def finish(run: Run) -> None:
    """Its one candidate is the first trial after its second epoch."""
    for name in ("baseline", "t000@2"):
        for split in ("validation", "test"):
            sets = [ABOUT_IMAGES | {"split": split, "digest": split}]
            write_json(run.final_file(name, split), {"metrics": METRICS, "sets": sets})  # type: ignore[arg-type]
    (run.path / "report").mkdir(exist_ok=True)
    (run.path / "report" / "index.html").write_text("a page")
    (run.path / "report" / "t000@2.png").write_bytes(b"a picture")
    content = run.pareto()
    for row in (content["candidates"][0], content["trials"][0]):
        row["probability"] = 0.875
    write_json(run.path / "pareto.json", content)


def a_finished_run(root: Path, name: str | None = None, trials: int = 2) -> Run:
    """The second trial of two has failed."""
    run = a_run(root, name)
    write_json(run.baseline_file, {"metrics": METRICS})
    add_trial(run, 0)
    if trials == 2:
        add_trial(run, 1, epochs=1, status="failed")
    finish(run)
    return run


def client_of_server() -> MlflowClient:
    return MlflowClient(
        tracking_uri=os.environ["MLFLOW_TRACKING_URI"]
    )  # MLflow's default is its server's own


def tracked(run: Run, server: Server) -> dict[str, dict[str, Any]]:
    """All that MLflow has of a run, by trial; fails if a trial is there twice. Histories and artifacts are
    read where the server keeps them, which takes less time than to ask for each."""
    client = client_of_server()
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    found = client.search_runs(experiments, f"tags.sweep_id = '{run.id}'")
    by_trial = {each.data.tags.get("trial_id", ""): each for each in found}
    assert len(by_trial) == len(found)
    own = ("sweep_id", "mlflow.parentRunId", "mlflow.runName", "mlflow.note.content")
    parents = {e.data.tags.get("mlflow.parentRunId") for trial, e in by_trial.items() if trial}
    assert parents <= {by_trial[""].info.run_id}
    return {
        trial: {
            "status": each.info.status,
            "parameters": each.data.params,
            "tags": {name: value for name, value in each.data.tags.items() if name not in own},
            "metrics": server.metrics(each.info.run_id),
            "artifacts": server.artifacts(each.info.run_id),
            "data": [
                (of.dataset.name, of.dataset.digest, [tag.value for tag in of.tags])
                for of in sorted(each.inputs.dataset_inputs, key=lambda of: of.dataset.digest)
            ],
            "models": server.models(each.info.run_id),
        }
        for trial, each in by_trial.items()
    }


def test_a_finished_run_is_there_as_it_lies_in_its_folder(tmp_path: Path, server: Server) -> None:
    run = a_finished_run(tmp_path)
    Mirror(run).deliver()
    there = tracked(run, server)
    assert set(there) == {"", "baseline", "t000", "t001"}
    assert {trial: each["status"] for trial, each in there.items()} == {
        "": "FINISHED",
        "baseline": "FINISHED",
        "t000": "FINISHED",
        "t001": "FAILED",
    }
    first = there["t000"]
    assert first["metrics"]["epoch"] == [(1, 1.0), (2, 2.0)]
    assert first["metrics"]["training/loss"] == [(1, 1.5), (2, 0.75)]
    assert first["metrics"]["training/loss/kl"] == [(1, 0.5), (2, 0.5)]
    assert first["metrics"]["validation/digits/clean_ece"] == [(1, 0.5), (2, 0.5)]
    assert first["metrics"]["system/gpu_0_utilization_percentage"] == [(1, 90.0), (2, 90.0)]
    assert first["metrics"]["test/robust_ece"] == [(2, 0.125)]
    assert first["metrics"]["pareto_probability"] == [(0, 0.875)]
    assert first["parameters"]["method.name"] == "tecoa"
    assert first["tags"] == {
        "trial_id": "t000",
        "method": "tecoa",
        "status": "completed",
        "pareto": "true",
        "pareto_epochs": "2",
        "pareto_probability": "0.875",
        "complete": "true",
    }
    assert there["t001"]["tags"]["pareto"] == "false"
    assert there["t001"]["tags"]["status"] == "failed"
    assert first["data"] == [
        ("digits", "0", ["validation"]),
        ("digits", "1", ["training"]),
        ("digits", "test", ["test"]),
        ("digits", "validation", ["validation"]),
    ]
    measured = [
        (f"{stage}/{name}", 2, value) for stage in ("final", "test") for name, value in METRICS.items()
    ]
    assert first["models"] == {"t000@2": sorted(measured)}
    assert there["t001"]["models"] == {}
    assert {"config.json", "records/epoch-001.parquet", "plots/t000@2.png"} <= set(first["artifacts"])
    assert {"pareto.json", "sweep.yaml", "report/index.html"} <= set(there[""]["artifacts"])
    assert there[""]["metrics"]["trials"] == [(0, 2.0)]


def test_what_is_written_about_a_run_says_what_its_numbers_are(tmp_path: Path) -> None:
    run = a_finished_run(tmp_path)
    mirror = Mirror(run)
    mirror.deliver()

    def note(trial: str) -> str:
        return str(client_of_server().get_run(mirror.ids[trial]).data.tags["mlflow.note.content"])

    attack = "PGD-3 at epsilon 8/255, pixels of native size, ECE with 15 equal-width bins, attack seed 0"
    for written in (note(""), note("baseline"), note("t000")):
        assert "test images (at most 40 of each set), PGD-5 at epsilon 8/255" in written
    assert "| t000@2 tecoa | &ensp;test | &ensp;0.2500 | &ensp;0.7500 | &ensp;0.1250 | &ensp;88 % |" in note(
        ""
    )
    assert f"mlflow artifacts download --run-id {mirror.ids['']} --artifact-path sweep.yaml" in note("")
    assert f"validation images (at most 40 of each set), {attack}" in note("t000")
    assert "**Pareto-optimal** after epoch 2." in note("t000")
    assert "| 2 | &ensp;search | &ensp;0.4000 .300–.500 |" in note("t000")
    assert f"sweeper export {run.name} --trial t000@2" in note("t000")
    assert "Failed after epoch 1." in note("t001")


def test_a_long_description_has_fewer_rows() -> None:
    rows = [[f"t{index}", "x" * 100] for index in range(100)]
    text = notes._fitting(["words"], ["model", "value"], rows, ["after"])
    assert len(text) <= notes.LONGEST
    assert text.startswith("words")
    assert text.endswith("after")
    assert "| t30 |" in text
    assert "more are in artifact `pareto.json`." in text


def test_views_begin_with_the_objectives_and_links_open_the_front(tmp_path: Path, server: Server) -> None:
    run = a_finished_run(tmp_path)
    mirror = Mirror(run)
    mirror.deliver()
    experiment = client_of_server().get_experiment(mirror.experiment)
    saved = json.loads(experiment.tags[f"mlflow.sharedViewState.{run.id}-front"])
    state = json.loads(zlib.decompress(base64.b64decode(saved["state"].removeprefix("deflate;"))))
    assert state["searchFilter"] == f"tags.pareto = 'true' and tags.sweep_id = '{run.id}'"
    names = ("robust_accuracy", "clean_accuracy", "robust_ece")
    assert state["columnOrder"][1:4] == [f"metrics.`test/{name}`" for name in names]
    assert {"params.`method.name`", "params.`method.alpha`"} <= set(state["selectedColumns"])
    assert state["compareRunCharts"][0]["selectedParams"] == [
        "attack.epsilon",
        "method.name",
        "optimizer.learning_rate",
    ]
    front, compared = lines(run)
    assert f"{server.uri}/#/experiments/{mirror.experiment}/runs?" in front
    assert f"viewStateShareKey={run.id}-front" in front
    assert f"runs={quote(json.dumps([mirror.ids['t000']]))}&experiments=" in compared


@pytest.mark.parametrize("first", [0, *(pytest.param(each, marks=pytest.mark.slow) for each in (1, 2))])
def test_whichever_answer_is_lost_the_next_delivery_makes_it_good(
    tmp_path: Path, server: Server, first: int
) -> None:
    """A request that never arrived is as one before it whose answer was lost. Every third, from `first`."""
    Mirror(a_finished_run(tmp_path / "first", f"{tmp_path.name}-first", trials=1)).deliver()
    server.forget()  # of the experiment, too, which whoever comes first makes
    whole = a_finished_run(tmp_path / "whole", f"{tmp_path.name}-whole", trials=1)
    Mirror(whole).deliver()
    count, expected = len(server.requests), tracked(whole, server)
    server.forget()
    for lost in range(first, count, 3):
        run = a_finished_run(tmp_path / str(lost), f"cut-{lost}", trials=1)
        server.forget(lambda index, lost=lost: index == lost)  # type: ignore[misc]
        with pytest.raises(Exception, match=r"\S"):
            Mirror(run).deliver()
        server.forget()
        Mirror(run).deliver()
        there = tracked(run, server)
        assert there.pop("")["artifacts"] == expected[""]["artifacts"]
        assert there == {trial: each for trial, each in expected.items() if trial}, lost


def test_a_run_that_was_made_late_after_all_is_deleted(tmp_path: Path, server: Server) -> None:
    """By a request that was given up, and that the server got to when another one had made the run."""
    run = a_finished_run(tmp_path)
    mirror = Mirror(run)
    mirror.deliver()
    before = tracked(run, server)
    tags = {"sweep_id": run.id, "trial_id": "t001", "mlflow.parentRunId": mirror.ids[""]}
    client_of_server().create_run(mirror.experiment, start_time=0, tags=tags)
    Mirror(run).deliver()
    assert tracked(run, server) == before


def test_a_result_that_is_sent_twice_is_there_once(tmp_path: Path, server: Server) -> None:
    """With as many metrics as a real one; MLflow takes those of a model twice only if they are few."""
    run = a_finished_run(tmp_path)
    for split in ("validation", "test"):
        file = run.final_file("t000@2", split)  # type: ignore[arg-type]
        write_json(file, {"metrics": METRICS | {f"further_{index}": 0.5 for index in range(150)}})
    mirror = Mirror(run)
    mirror.deliver()
    before = tracked(run, server)
    assert len(before["t000"]["metrics"]) > 300
    client_of_server().set_tag(mirror.ids[""], "complete", "")
    Mirror(run).deliver()
    assert tracked(run, server) == before


def test_after_an_extension_the_front_is_another_one(tmp_path: Path, server: Server) -> None:
    run = a_finished_run(tmp_path)
    Mirror(run).deliver()
    add_trial(run, 2)
    about = {**run.about, "extended": [{"to": {"trials": 3}}]}
    write_json(run.path / "run.json", about)
    (run.path / "pareto.json").unlink()
    extended = Run.load(run.path)
    content = extended.pareto()
    content["candidates"] = [row | {"pareto": row["trial"] == "t002"} for row in content["candidates"]]
    assert {row["trial"] for row in content["candidates"]} == {"t000", "t002"}
    content["trials"][2]["probability"] = 0.75
    write_json(run.path / "pareto.json", content)
    mirror = Mirror(extended)
    mirror.deliver()
    there = tracked(run, server)
    assert there[""]["tags"]["complete"] == "after extension 1"
    front = {trial: each["tags"].get("pareto") for trial, each in there.items()}
    assert front == {"": None, "baseline": None, "t000": "false", "t001": "false", "t002": "true"}
    assert there["t000"]["tags"]["pareto_epochs"] == there["t000"]["tags"]["pareto_probability"] == ""
    assert there["t002"]["tags"]["pareto_probability"] == "0.75"
    models = client_of_server().search_logged_models([mirror.experiment], f"tags.sweep_id = '{run.id}'")
    assert {model.name: model.tags["pareto"] for model in models} == {"t000@2": "false", "t002@2": "true"}
    assert [line for line in lines(run) if quote(json.dumps([mirror.ids["t002"]])) in line]


def test_a_server_of_mlflow_2_has_no_models_and_all_else(tmp_path: Path, server: Server) -> None:
    run, server.unknown = a_finished_run(tmp_path), "/api/2.0/mlflow/logged-models"
    try:
        Mirror(run).deliver()
    finally:
        server.unknown = None
    there = tracked(run, server)
    assert there[""]["status"] == "FINISHED"
    assert there["t000"]["tags"]["pareto"] == "true"
    assert there["t000"]["metrics"]["test/robust_ece"] == [(2, 0.125)]
    assert there["t000"]["models"] == {}


def test_several_that_deliver_at_once_deliver_once(tmp_path: Path, server: Server) -> None:
    run = a_finished_run(tmp_path)
    errors: list[Exception] = []

    def deliver() -> None:
        try:
            Mirror(run).deliver()
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=deliver) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert set(tracked(run, server)) == {"", "baseline", "t000", "t001"}
    assert sum("runs/create" in path for path in server.requests) == 4


def test_a_deliverer_sees_what_another_one_did_in_between(tmp_path: Path, server: Server) -> None:
    """As `sweeper track` beside a sweep that runs."""
    run = a_run(tmp_path)
    mine = Mirror(run)
    mine.deliver()
    for number in range(3):
        add_trial(run, number)
        Mirror(run).deliver()
        mine.deliver()
    assert sum("runs/create" in path for path in server.requests) == 4
    assert all(
        each["metrics"]["epoch"] == [(1, 1.0), (2, 2.0)] for t, each in tracked(run, server).items() if t
    )


def test_a_delivery_costs_what_has_changed(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, costs = a_run(tmp_path), []
    read: list[Path] = []
    for module in ("run", "trial"):
        monkeypatch.setattr(
            f"sweeper.{module}.read_json", lambda path: (read.append(path), read_json(path))[1]
        )
    mirror = Mirror(run)
    for number in range(12):
        add_trial(run, number, epochs=1, status=None)
        mirror.deliver()
        add_epochs(run.trial(number), range(2, 3))
        run.end_trial(run.trial(number), "completed")
        read.clear()
        server.forget()
        mirror.deliver()
        costs.append((len(server.requests), len(read)))
    assert len(set(costs)) == 1
    server.forget()
    read.clear()
    mirror.deliver()
    assert server.requests == []
    assert not [path for path in read if "trials" in path.parts]


def test_what_ran_when_a_mirror_began_is_followed_to_its_end(tmp_path: Path, server: Server) -> None:
    run = a_run(tmp_path)
    add_trial(run, 0, epochs=1, status=None)
    add_trial(run, 1)
    Mirror(run).deliver()
    mirror = Mirror(run)
    mirror.deliver()
    assert {trial: each["status"] for trial, each in tracked(run, server).items()} == {
        "": "RUNNING",
        "t000": "RUNNING",
        "t001": "FINISHED",
    }
    add_epochs(run.trial(0), range(2, 3))
    run.end_trial(run.trial(0), "stopped", "stopped early")
    mirror.deliver()
    first = tracked(run, server)["t000"]
    assert (first["status"], first["tags"]["reason"]) == ("FINISHED", "stopped early")
    assert (first["tags"]["status"], first["tags"]["stopped_at"]) == ("stopped", "2")
    assert first["metrics"]["epoch"] == [(1, 1.0), (2, 2.0)]


def test_a_database_in_whose_making_it_was_killed_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLflow itself can't go on with one: its tables would be there already."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    run = a_finished_run(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr("alembic.command.upgrade", killed)  # half-way through
        with pytest.raises(Killed):
            Mirror(run)
    assert not (run.path / "mlflow.db").exists()
    Mirror(run).deliver()
    assert set(Mirror(run).ids) == {"", "baseline", "t000", "t001"}
    assert not list(run.path.glob("mlflow.db.*"))


class Killed(Exception):
    """The process, as it were."""


def killed(*_: Any, **__: Any) -> None:
    raise Killed


# --- servers that are away, or refuse -------------------------------------------------------------------


def test_a_server_that_is_away_is_one_line_and_so_is_its_return(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sweeper.tracking.tracker.EVERY_SECONDS", 0.05)
    monkeypatch.setattr("sweeper.tracking.tracker.AT_MOST_SECONDS", 0.1)
    run, said, told = a_finished_run(tmp_path), [], threading.Event()

    def say(line: str) -> None:
        said.append(line)
        told.set()

    server.forget(lambda _: True)
    with Tracker(run, say):
        assert told.wait(60)
        told.clear()
        server.forget()
        assert told.wait(60)
    assert len(said) == 2
    assert "can't be reached" in said[0]
    assert "answers again and has all that it missed" in said[1]
    assert set(tracked(run, server)) == {"", "baseline", "t000", "t001"}


def test_a_server_that_refuses_is_one_line_without_the_secret(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, user = a_finished_run(tmp_path), "someone"
    right = base64.b64encode(f"{user}:{SECRET}".encode()).decode()
    server.authorization = f"Basic {right}"
    try:
        address = server.uri.replace("://", f"://{user}:wrong-{SECRET}@")
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        done = called_with(address, "track", run.path, code=2)
        assert done.count("\n") == 1
        assert f"MLflow at {server.uri.replace('://', '://***@')} refuses" in done
        assert "401" in done
        assert "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN" in done
        assert SECRET not in done
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", user)
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", SECRET)
        done = called_with(server.uri, "track", run.path)
        assert [line.partition("#")[0] for line in done.splitlines()] == [
            f"the front in MLflow: {server.uri}/",
            f"side by side: {server.uri}/",
        ]
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
        assert set(Mirror(run).ids) == {"", "baseline", "t000", "t001"}
    finally:
        server.authorization = None
    written = [file for file in run.path.rglob("*") if file.is_file()]
    assert not [file for file in written if SECRET.encode() in file.read_bytes()]


def called_with(address: str, *arguments: object, code: int = 0) -> str:
    """What the command prints, with MLflow at an address."""
    from click.testing import CliRunner

    from sweeper.cli import main

    done = CliRunner(env={"MLFLOW_TRACKING_URI": address}).invoke(main, list(map(str, arguments)))
    assert done.exit_code == code, done.output
    return done.output


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://user:word@host:5000/a?b=c", "http://***@host:5000/a?b=c"),
        ("failed for url https://token@host/x after 3 s", "failed for url https://***@host/x after 3 s"),
        ("postgresql://host/db?password=word&sslmode=on", "postgresql://host/db?password=***&sslmode=on"),
        ("sqlite:////runs/a@b/mlflow.db", "sqlite:////runs/a@b/mlflow.db"),
        (f"server said {SECRET}", "server said ***"),
    ],
)
def test_what_is_shown_has_no_secret(text: str, shown: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", SECRET)
    assert redacted(text) == shown


def test_what_is_written_to_a_run_has_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", SECRET)
    run, said = a_run(tmp_path / "runs"), f"refused: https://{SECRET}@host"
    add_trial(run, 0, status=None)
    (tmp_path / "error").write_text(said)
    run.log(said)
    run.keep_error(str(run.trial(0).folder), str(tmp_path / "error"))
    run.keep_error(None, str(tmp_path / "error"))
    assert run.end_trial(run.trial(0), "failed", f"said {SECRET}").reason == "said ***"
    texts = [file.read_text() for file in run.path.rglob("*") if file.is_file() and file.suffix != ".parquet"]
    assert sum("refused: https://***@host" in text for text in texts) == 3
    assert not [text for text in texts if SECRET in text]


@pytest.mark.parametrize("names", [{"trial": "../../elsewhere/t000"}, {"epoch": "2/../../../../elsewhere"}])
@pytest.mark.usefixtures("server")
def test_what_a_result_of_others_names_is_in_the_run(tmp_path: Path, names: dict[str, str]) -> None:
    run = a_finished_run(tmp_path / "runs")
    shutil.copytree(run.trial(0).folder, tmp_path / "runs" / "elsewhere" / "t000")
    content = json.loads((run.path / "pareto.json").read_text())
    content["candidates"][0].update(names)
    write_json(run.path / "pareto.json", content)
    with pytest.raises((ValueError, KeyError), match=r"elsewhere|format code"):
        Mirror(run).deliver()
