"""What others wrote is safe to open, and nobody else reaches what runs here. See docs/security.md."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.driven import finished_run
from sweeper.files import write_json
from tests.command import called
from tests.sockets import addresses, is_loopback
from trainables.errors import ModelError
from trainables.models import load

PATIENCE = 100  # seconds

SWEEP = """
import json, os, sys
from pathlib import Path
from benchmarks import driven, made_up
from sweeper import runner, worker
from sweeper.budget import Clock
from sweeper.cluster import Cluster
from sweeper.display import Display
from sweeper.tracking import Tracker

run = driven.new_run(Path(sys.argv[1]), 2, ["search.early_stopping=", "tracking.mlflow=false"])
planted = run.path / "ray" / "attempt-1"
planted.mkdir(parents=True)
for name in ("tuner.pkl", "trainable.pkl", "searcher-state.pkl", "experiment_state-1.json"):
    (planted / name).write_bytes(Path(sys.argv[2]).read_bytes())
worker.Worker = made_up.MadeUp
with run.driving(), Cluster.connect(run.spec.file.resources) as cluster:
    import ray
    display = Display(run, 1, Clock(run), quiet=True)
    runner.work(run, cluster, 1, display, lambda: None)
    ended = sum(trial.status == "completed" for trial in run.trials())
    print(json.dumps([ray.get_runtime_context().gcs_address, ended]), flush=True)
    sys.stdin.readline()
"""
CLIENT = """
import sys
from ray._raylet import GcsClient
print(len(GcsClient(address=sys.argv[1]).get_all_node_info(timeout=10)))
"""


class Evil:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> Any:
        return (Path.touch, (self.file,))


@dataclass
class Running:
    """A sweep whose trials have ended and whose cluster is still there."""

    process: subprocess.Popen[str]
    home: Path
    address: str
    ended: int
    trace: Path


def environment(home: Path, **more: str) -> dict[str, str]:
    own = {k: v for k, v in os.environ.items() if not k.startswith("RAY_AUTH")}
    return own | {"HOME": str(home), "PYTHONPATH": "."} | more


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    home, folder = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("runs")
    evil, trace = folder / "evil.pkl", folder / "trace"
    evil.write_bytes(pickle.dumps(Evil(trace)))
    command = [sys.executable, "-c", SWEEP, str(folder), str(evil)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=environment(home), **pipes) as process:  # type: ignore[call-overload]
        lines = iter(process.stdout.readline, "")
        address, ended = json.loads(next(line for line in lines if line.startswith("[")))
        yield Running(process, home, address, ended, trace)
        process.communicate("\n", timeout=PATIENCE)


def test_a_sweep_listens_on_the_loopback_address_alone(running: Running) -> None:
    found = addresses(running.process.pid)
    assert len(found) > 3
    assert all(map(is_loopback, found)), found


def test_a_client_needs_the_token_which_only_its_user_can_read(running: Running, tmp_path: Path) -> None:
    token = running.home / ".ray" / "auth_token"
    assert token.stat().st_mode & 0o077 == 0
    mode = {"RAY_AUTH_MODE": "token"}
    clients = {
        "with": environment(tmp_path, **mode, RAY_AUTH_TOKEN=token.read_text()),
        "wrong": environment(tmp_path, **mode, RAY_AUTH_TOKEN="0" * 64),
        "without": environment(tmp_path),
    }
    started = {
        name: subprocess.Popen(
            [sys.executable, "-c", CLIENT, running.address],
            env=own,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for name, own in clients.items()
    }
    said = {name: process.communicate(timeout=PATIENCE) for name, process in started.items()}
    assert said["with"][0] == "1\n", said["with"][1]
    for name in ("wrong", "without"):
        assert started[name].returncode != 0
        assert "Unauth" in said[name][1], said[name][1]


def test_what_ray_left_in_a_run_folder_is_never_unpickled(running: Running) -> None:
    assert running.ended == 2
    assert not running.trace.exists()


def test_mlflows_page_is_on_the_loopback_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[list[str]] = []
    monkeypatch.setattr(subprocess, "call", lambda command, **_: commands.append(command) or 0)
    monkeypatch.setenv("MLFLOW_HOST", "0.0.0.0")
    run = finished_run(tmp_path, 4)
    called("ui", run.path)
    (command,) = commands
    assert command[command.index("--host") + 1] == "127.0.0.1"


LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{c}: &{c} [{', '.join([f'*{b}'] * 10)}]\n" for b, c in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("name: !!python/object/apply:os.system ['touch TRACE']\n", "unknown tag"),
        ("name: x\ntrial: !!python/name:os.system\n", "unknown tag"),
        ("name: x\ntrial: {epochs: !!python/object/new:os.system [touch TRACE]}\n", "unknown tag"),
        (LAUGHS, "more than 100000 values"),
        ("a: &a [*a]\n", "contains itself"),
        ("a: " + "[" * 5000 + "]" * 5000 + "\n", "nested too deeply"),
    ],
)
def test_a_sweep_file_of_others_is_data(tmp_path: Path, text: str, line: str) -> None:
    file, trace = tmp_path / "others.yaml", tmp_path / "trace"
    file.write_text(text.replace("TRACE", str(trace)))
    output = called("plan", file, code=2).output
    assert line in output
    assert len(output.splitlines()) == 1
    assert not trace.exists()


@pytest.mark.timeout(120)
def test_weights_that_would_run_code_are_refused(tmp_path: Path) -> None:
    folder, trace = tmp_path / "model", tmp_path / "trace"
    folder.mkdir()
    embedded = Path("trainables/embedded/clip-tiny/open_clip_config.json").resolve()
    (folder / "open_clip_config.json").write_text(embedded.read_text())
    torch.save({"state_dict": Evil(trace)}, folder / "open_clip_pytorch_model.bin")
    with pytest.raises(ModelError, match=r"(?i)weights.only"):
        load(f"local-dir:{folder}", None, "cpu")
    assert not trace.exists()


def test_names_in_a_run_folder_of_others_lead_nowhere_else(tmp_path: Path) -> None:
    """Ids in the result and in configurations name no file outside of the run."""
    run = finished_run(tmp_path / "runs", 6, ["search.early_stopping="])
    before = set(everything(tmp_path) - everything(run.path))
    content = run.pareto()
    for row in content["candidates"]:
        row["id"] = f"../../{row['id']}"
        row["epoch"] = int(row["epoch"])
    write_json(run.path / "pareto.json", content)
    called("report", run.path)
    called("export", run.path, code=2)
    called("evaluate", "../../t000", run.path, code=2)
    assert everything(tmp_path) - everything(run.path) == before
    assert list((run.path / "report").glob("t*@*-reliability.png"))


@pytest.mark.parametrize("name", ["report", "report/index.html", "trials/t000/status.json", "elsewhere"])
def test_no_link_leads_out_of_a_run_folder_of_others(tmp_path: Path, name: str) -> None:
    run, victim = finished_run(tmp_path / "runs", 4), tmp_path / "victim"
    victim.mkdir()
    (victim / "mine.png").touch()
    link = run.path / name
    link.parent.mkdir(exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(victim)
    for verb in ("report", "track", "resume"):
        refused = called(verb, run.path, code=2).stderr
        assert refused.startswith(f"{link} leads out of the run folder, to {victim}; delete this link (see ")
    assert everything(victim) == {victim / "mine.png"}


def test_a_run_folder_may_be_reached_by_a_link_and_have_links_within(tmp_path: Path) -> None:
    run = finished_run(tmp_path / "runs", 4)
    (run.path / "best").symlink_to("trials/t000")
    (tmp_path / "there").symlink_to(run.path)
    called("status", tmp_path / "there")


def everything(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


def test_trial_numbers_of_others_are_numbers(tmp_path: Path) -> None:
    run = finished_run(tmp_path, 4)
    with pytest.raises((ValueError, TypeError)):
        run.trial("../../elsewhere")  # type: ignore[arg-type]
