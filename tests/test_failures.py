"""What fails while a sweep runs, on real processes: a cluster of pretend nodes, drivers, MLflow's server.

The drivers are killed at random points; SWEEPER_FAILURES_SEED chooses others, SWEEPER_FAILURES_KILLS
how many.
"""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest

from sweeper import spec
from sweeper.files import read_json
from sweeper.objects import Objects
from sweeper.run import Run
from tests.bucket import Server
from tests.command import PATIENCE, environment, wait_for
from tests.forked import Command
from tests.hosts import SCRATCH, withdraw_claims
from tests.light import IMAGES, SIZE, installed
from tests.mlflow_server import Process, refusing
from tests.pretend_cluster import PretendCluster
from tests.small_disk import SmallDisk

pytestmark = pytest.mark.failures

SEED = int(os.environ.get("SWEEPER_FAILURES_SEED", "1"))
KILLS = int(os.environ.get("SWEEPER_FAILURES_KILLS", "10"))
SECRET = "k9-secret-word"
EPOCHS = 3

Driver = Command | subprocess.Popen[str]

SWEEP = """\
name: {name}
trial:
  data: {{train: fashion-mnist-8k}}
  attack: {{epsilon: 8/255, steps: 1}}
  method: {{name: tecoa}}
  optimizer: {{learning_rate: !loguniform [1e-4, 3e-3]}}
  epochs: 3
pareto: {{maximize: [robust_accuracy, clean_accuracy], epochs: 1}}
search: {{trials: {trials}, seed: 5, deterministic: true, concurrent: 2, startup_trials: 3}}
resources: {{epoch_minutes: {minutes}}}
tracking: {{mlflow: {mlflow}}}
"""


@dataclass
class World:
    """What the sweeps of this file run on, and among."""

    root: Path
    cluster: PretendCluster
    server: Process
    bucket: Server
    disk: SmallDisk | None  # which the cluster sees; None where nobody may have one

    def file(self, name: str, *, trials: int = 6, minutes: float = 60, mlflow: bool = False) -> Path:
        file = self.root / f"{name}.yaml"
        file.write_text(SWEEP.format(name=name, trials=trials, minutes=minutes, mlflow=str(mlflow).lower()))
        return file

    def environment(self, **more: str) -> dict[str, str]:
        address = self.server.uri.replace("://", f"://someone:{SECRET}@")
        own = {"RAY_ADDRESS": self.cluster.address, "MLFLOW_TRACKING_URI": address}
        return environment() | own | more

    def start(self, *arguments: object, before: Sequence[str] | None = None, **more: str) -> Driver:
        """before: what comes before the command, in a new process. None: in a forked one, in which Ray was
        imported without `more`."""
        given = list(map(str, arguments))
        if before is None:
            return Command(given, self.environment(**more))
        return subprocess.Popen(
            [*before, sys.executable, "-m", "sweeper", *given],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self.environment(**more),
        )

    def call(
        self, *arguments: object, code: int = 0, before: Sequence[str] | None = None, **more: str
    ) -> str:
        """What the command prints; without the secret, whatever it was."""
        return ended(self.start(*arguments, before=before, **more), code)


def ended(process: Driver, code: int) -> str:
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == code, out + err
    assert SECRET not in out + err
    assert "Traceback" not in err
    return out + err


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    root = tmp_path_factory.mktemp("failures")
    path = os.pathsep.join([str(installed(root / "installed")), str(Path.cwd())])
    patch = pytest.MonkeyPatch()
    patch.setenv("PYTHONPATH", path)
    patch.setenv("RAY_AUTH_MODE", "token")
    bucket = Server()
    for name, value in (bucket.environment() | {SCRATCH: str(root / "scratch")}).items():
        patch.setenv(name, value)
    (root / "server").mkdir()
    server = Process(root / "server").start()
    disk = SmallDisk(root / "disk")
    disk.place.mkdir()
    possible = disk.possible()
    cluster = PretendCluster(2, disk.created("100m") if possible else ())
    disk.pid = cluster.process.pid
    server.wait()
    yield World(root, cluster, server, bucket, disk if possible else None)
    cluster.shutdown()
    server.stop()
    bucket.close()
    patch.undo()


@pytest.fixture(scope="module")
def whole(world: World) -> Run:
    """The sweep, uninterrupted."""
    runs = world.root / "whole"
    world.call("run", world.file("small", mlflow=True), "--runs", runs)
    return Run.find(None, runs)


def progress(runs: Path) -> int:
    """How many results lie in the only run of a folder."""
    return sum(1 for pattern in ("trials/*/*.json", "final/*/*.json") for _ in runs.glob(f"*/{pattern}"))


def same(one: Run, other: Run) -> None:
    """Trial for trial, epoch for epoch, and so the front."""
    for trial, twin in zip(one.trials(), other.trials(), strict=True):
        assert (trial.config, trial.seed, trial.status) == (twin.config, twin.seed, twin.status)
        assert [e["metrics"] for e in trial.epochs] == [e["metrics"] for e in twin.epochs]
        assert [e["epoch"] for e in trial.epochs] == [*range(1, EPOCHS + 1)]
    mine, theirs = (read_json(run.path / "pareto.json") | {"run": ""} for run in (one, other))
    assert mine == theirs


def once_in_mlflow(world: World, run: Run) -> None:
    """The sweep, the untrained model and each trial, with each epoch."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=world.server.uri)
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    found = client.search_runs(experiments, f"tags.sweep_id = '{run.id}'")
    trials = [trial.id for trial in run.trials()]
    assert sorted(each.data.tags.get("trial_id", "") for each in found) == ["", "baseline", *trials]
    for each in found:
        assert each.info.status == "FINISHED"
        if each.data.tags.get("trial_id") in trials:
            assert [m.value for m in client.get_metric_history(each.info.run_id, "epoch")] == [1, 2, 3]
            assert each.data.params["method.name"] == "tecoa"


def test_drivers_killed_at_random_points(world: World, whole: Run) -> None:
    """Each trial exactly once, the same study, the same front; in MLflow once, and no secret anywhere."""
    rng, runs = random.Random(SEED), world.root / "killed"
    points = sorted(rng.sample(range(1, progress(whole.path.parent)), KILLS))
    print(f"SWEEPER_FAILURES_SEED={SEED}: killed at {points}")
    arguments: list[object] = ["run", world.file("small", mlflow=True)]
    for point in points:
        driver = world.start(*arguments, "--runs", runs)
        wait_for(lambda point=point, driver=driver: progress(runs) >= point or driver.poll() is not None)  # type: ignore[misc]
        time.sleep(0.2 * rng.random())
        driver.kill()
        driver.communicate()
        arguments = ["resume"] if list(runs.glob("*/run.json")) else arguments
    world.call("resume", "--runs", runs)
    run = Run.find(None, runs)
    same(run, whole)
    world.call("track", run.path)
    for each in (run, whole):
        once_in_mlflow(world, each)
        written = [file for file in each.path.rglob("*") if file.is_file() and not file.is_symlink()]
        assert not [file for file in written if SECRET.encode() in file.read_bytes()]


def test_mlflow_away_for_the_middle_third(world: World, whole: Run) -> None:
    runs, total = world.root / "away", progress(whole.path.parent)
    driver = world.start("run", world.file("small", mlflow=True), "--runs", runs)
    wait_for(lambda: progress(runs) >= total // 3)
    world.server.stop()
    wait_for(lambda: progress(runs) >= 2 * total // 3)
    world.server.start()
    ended(driver, 0)
    world.server.wait()
    run = Run.find(None, runs)
    world.call("track", run.path)
    same(run, whole)
    once_in_mlflow(world, run)


def has_pending(pid: int, number: signal.Signals) -> bool:
    """Whether a process that is stopped will get the signal when it goes on."""
    status = Path(f"/proc/{pid}/status").read_text()
    pending = next(line for line in status.splitlines() if line.startswith("ShdPnd:"))
    return bool(int(pending.split()[1], 16) >> (number - 1) & 1)


def test_stop_and_two_drivers_at_once(world: World, whole: Run) -> None:
    runs = world.root / "stopped"
    driver = world.start("run", world.file("small"), "--runs", runs)
    wait_for(lambda: progress(runs) >= 4)
    driver.send_signal(signal.SIGSTOP)  # or it might end before the others have started
    said = world.call("resume", "--runs", runs, code=2)
    assert f"pid {driver.pid} on " in said
    assert said.count("\n") == 1
    stopping = world.start("stop", "--runs", runs)
    wait_for(lambda: has_pending(driver.pid, signal.SIGINT))
    driver.send_signal(signal.SIGCONT)
    assert "go on with: sweeper resume" in ended(stopping, 0)
    assert "interrupted; go on with" in ended(driver, 130)
    assert "is not being run" in world.call("stop", "--runs", runs, code=2)
    driver = world.start("resume", "--runs", runs)
    before = progress(runs)
    wait_for(lambda: progress(runs) > before)
    driver.send_signal(signal.SIGTERM)
    assert "interrupted; go on with" in ended(driver, 130)
    world.call("resume", "--runs", runs)
    same(Run.find(None, runs), whole)


@pytest.mark.slow
def test_credentials_that_expire_and_another_host_goes_on(world: World, whole: Run) -> None:
    """A third one reads along."""
    hosts = [{SCRATCH: str(world.root / f"{name} host")} for name in ("first", "second", "third")]
    address = world.bucket.make_bucket("expired")
    driver = world.start(
        "run", world.file("small"), "--runs", address, **world.bucket.environment("FIRST"), **hosts[0]
    )
    wait_for(lambda: world.bucket.puts("t001/epoch-001.json") > 0 or driver.poll() is not None)
    world.bucket.refused["FIRST"] = "ExpiredToken"
    said = ended(driver, 2)
    assert "the credentials have expired" in said.splitlines()[-1]
    assert f"go on with: sweeper resume {address}/small-" in said.splitlines()[-1]
    run = Run.find(None, address)
    assert "unfinished" in {trial.status for trial in run.trials()}
    withdraw_claims(run)
    another_goes_on(world, address, *hosts[1:])
    stored = Objects(str(run)).read("log.txt.00000") or b""
    assert stored.decode().splitlines()[-1].endswith(" finished")
    same(Run.find(None, address), whole)


def another_goes_on(world: World, address: str, driver: dict[str, str], reader: dict[str, str]) -> str:
    """What a third host reads along, to the end."""
    process = world.start("resume", "--runs", address, **driver)
    read = ended(world.start("logs", "-f", "--runs", address, **reader), 0)
    ended(process, 0)
    assert read.splitlines()[-1].endswith(" finished")
    return read


@pytest.mark.slow
def test_ctrl_c_in_a_bucket_and_another_host_goes_on(world: World, whole: Run) -> None:
    """A third one reads along until the end."""
    hosts = [{SCRATCH: str(world.root / name)} for name in ("first", "second", "third")]
    address = world.bucket.make_bucket("failures")
    driver = world.start("run", world.file("small"), "--runs", address, **hosts[0])
    before = world.bucket.puts("epoch-002.json")  # of other tests
    wait_for(lambda: world.bucket.puts("epoch-002.json") >= before + 2)
    driver.send_signal(signal.SIGINT)
    assert f"interrupted; go on with: sweeper resume {address}/small-" in ended(driver, 130)
    read = another_goes_on(world, address, *hosts[1:])
    assert "interrupted; go on with" in read
    assert read.endswith(" finished\n")
    same(Run.find(None, address), whole)


def test_mlflow_that_refuses(world: World) -> None:
    """A line at the start and one at the end, which say where and what to do; it can be delivered later."""
    runs = world.root / "refused"
    with refusing("403 Forbidden") as uri:
        address = uri.replace("://", f"://someone:{SECRET}@")
        file = world.file("refused", trials=2, mlflow=True)
        said = world.call("run", file, "--runs", runs, MLFLOW_TRACKING_URI=address).splitlines()
        told = [line for line in said if line.startswith("MLflow at ")]
        assert len(told) == 2
        assert all(f"MLflow at {uri.replace('://', '://***@')} refuses (" in line for line in told)
        assert all("set MLFLOW_TRACKING_USERNAME" in line for line in told)
        assert "the sweep goes on" in told[0]
        run = Run.find(None, runs)
        assert told[1].endswith(f"deliver it later with: sweeper track {run}")
        again = world.call("track", run.path, code=2, MLFLOW_TRACKING_URI=address)
        assert again.count("\n") == 1
        assert " refuses (" in again
    world.call("track", run.path)
    once_in_mlflow(world, run)


def test_an_epoch_that_hangs(world: World) -> None:
    runs = world.root / "hanging"
    world.call("run", world.file("hanging", trials=3, minutes=0.03), "--runs", runs)
    trials = Run.find(None, runs).trials()
    assert [trial.status for trial in trials] == ["completed", "failed", "completed"]
    assert "took longer than resources.epoch_minutes" in str(trials[1].reason)
    assert "light.py" in trials[1].stuck_file.read_text()
    assert len(trials[1].epochs) == 1


def test_a_full_disk(world: World, whole: Run) -> None:
    """A real one: first without space, then without room for more files, each found by whatever comes to
    write. Where nobody may mount one, the trainable says that it is full."""
    if world.disk is None:
        print("no namespaces here: the disk is full by word of the trainable")
        a_full_disk_by_word(world, whole)
        return
    rng, disk = random.Random(SEED), world.disk
    disk.limit(size=f"{rng.randint(300, 1200)}k")
    files_left = rng.randint(3, 20)
    print(f"SWEEPER_FAILURES_SEED={SEED}: {files_left} more files after that")
    arguments: list[object] = ["run", world.file("small", mlflow=True)]
    for limits in ({}, {"size": "100m", "nr_inodes": files_left}):
        if limits:
            disk.limit(**limits | {"nr_inodes": disk.files() + files_left})
        said = world.call(*arguments, "--runs", disk.place, code=2, before=disk.inside)
        print(said.splitlines()[-1])
        assert said.splitlines()[-1].startswith(f"no space is left for {disk.place}/small-")
        undamaged(Run.find(None, disk.seen))
        arguments = ["resume"]
    disk.limit(nr_inodes=10_000)
    world.call("resume", "--runs", disk.place, before=disk.inside)
    run = Run.find(None, disk.seen)
    same(run, whole)
    once_in_mlflow(world, run)


def undamaged(run: Run) -> None:
    """What was written is whole, and no trial is to blame."""
    assert "failed" not in {trial.status for trial in run.trials()}
    ours = [file for file in run.path.rglob("*") if "ray" not in file.relative_to(run.path).parts]
    for file in ours:
        if file.suffix == ".json":
            json.loads(file.read_text())
        elif file.suffix == ".parquet":
            assert len(pd.read_parquet(file)) == IMAGES
        elif file.suffix == ".safetensors":
            assert file.stat().st_size == SIZE + 3
        assert file.suffix != ".partial"


def a_full_disk_by_word(world: World, whole: Run) -> None:
    runs = world.root / "full"
    runs.mkdir()
    driver = world.start("run", world.file("small"), "--runs", runs)
    wait_for(lambda: progress(runs) >= 5)
    (runs / "full").touch()
    run = Run.find(None, runs)
    (run.path / "trials" / "full").touch()
    said = ended(driver, 2)
    assert said.splitlines()[-1].startswith("no space is left for ")
    assert "failed" not in {trial.status for trial in run.trials()}
    (run.path / "trials" / "full").unlink()
    world.call("resume", "--runs", runs)
    same(run, whole)


def test_a_node_that_is_killed(world: World, whole: Run) -> None:
    """Its trial goes on elsewhere from its last epoch: the same numbers, none of them twice."""
    runs = world.root / "node"
    driver = world.start("run", world.file("small"), "--runs", runs)
    wait_for(lambda: any(runs.glob("*/trials/t001/epoch-001.json")))
    world.cluster.tell("kill-node")
    ended(driver, 0)
    world.cluster.tell("add-node")
    same(Run.find(None, runs), whole)


WRONG: dict[str, tuple[dict[str, str], list[str], str]] = {
    "another token": ({"RAY_AUTH_TOKEN": "0" * 64}, [], "refuses our token"),
    "no token": ({"RAY_AUTH_TOKEN": "", "HOME": "/nowhere"}, [], "/nowhere/.ray/auth_token is missing"),
    "nobody": ({"RAY_ADDRESS": "127.0.0.1:9"}, [], "no Ray cluster answers at RAY_ADDRESS=127.0.0.1:9"),
    "no client's port": ({"RAY_ADDRESS": "ray://127.0.0.1:9"}, [], "no Ray cluster answers at"),
    "a silent client's port": ({}, [], "no Ray cluster answers at RAY_ADDRESS=ray://"),
    "somebody else": ({"RAY_py_gcs_connect_timeout_s": "2"}, [], "no Ray cluster answers at"),
    "no such GPUs": ({}, ["resources.gpus=4"], "needs 1 CPU and 4 GPUs on one node, and the"),
}


def test_a_cluster_that_refuses_or_does_not_answer_or_is_too_small(world: World) -> None:
    """`run` says so in a line, and so does `resume`; they take turns, as both ask the same function."""
    file, about = world.file("wrong"), {"seed": 5, "directory": os.getcwd()}
    began, started = time.monotonic(), []
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        WRONG["somebody else"][0]["RAY_ADDRESS"] = address
        WRONG["a silent client's port"][0]["RAY_ADDRESS"] = f"ray://{address}"
        for own, overrides, words in WRONG.values():
            run = Run.create(world.root / "wrong", spec.load(file, overrides=overrides), about)
            options = [each for override in overrides for each in ("--set", override)]
            verbs = [["run", file, *options, "--runs", world.root / "new"], ["resume", run.path]]
            started.append((world.start(*verbs[len(started) % 2], before=(), **own), words))
        for process, words in started:
            said = ended(process, 2)
            assert words in said
            assert said.count("\n") == 1
    assert not (world.root / "new").exists()
    assert time.monotonic() - began < 60  # one alone takes half a minute at most; several share the cores


def test_a_head_that_is_started_anew_and_one_that_is_killed(world: World, whole: Run) -> None:
    """The last one of this file: nothing of the cluster is left."""
    runs = world.root / "head"
    driver = world.start("run", world.file("small"), "--runs", runs)
    for what in ("restart-head", "kill-head"):
        before = progress(runs)
        wait_for(lambda before=before: progress(runs) >= before + 4)
        world.cluster.tell(what)
        said = ended(driver, 3)
        assert "the Ray cluster of small-" in said.splitlines()[-1]
        where = "" if what == "kill-head" else world.cluster.address
        driver = world.start("resume", "--runs", runs, RAY_ADDRESS=where)
    ended(driver, 0)
    same(Run.find(None, runs), whole)
