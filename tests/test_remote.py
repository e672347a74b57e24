"""Verbs that run on a cluster's head: what is sent, what comes back, and what is said if nothing does. Ray's
launcher is played by a shell on this machine; tests/test_hosts.py has the real one."""

from __future__ import annotations

import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from sweeper import capacity, cluster, remote, runner, spec, submission
from sweeper import head as head_module
from sweeper.cluster import HEAD, Cluster, Have
from sweeper.errors import UserError
from sweeper.run import Run
from sweeper.spec import Resources
from sweeper.status import log_lines
from sweeper.trainable import Trainable
from tests.command import called
from tests.sweeps import SMALL

REPOSITORY = Path(__file__).parents[1]
FILE = "cluster_name: x\nprovider: {type: local, head_ip: 10.0.0.1, worker_ips: [10.0.0.2, 10.0.0.3]}\n"
# What `ray exec FILE COMMAND` does: chatters, shows the command, runs it.
SHELL = (
    "import subprocess, sys; print('Fetched IP', sys.argv[-1]); subprocess.call(['bash', '-c', sys.argv[-1]])"
)


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cluster file, with a head whose home holds what ours do."""
    path = tmp_path / "cluster.yaml"
    path.write_text(FILE, encoding="utf-8")
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "clip-sweeper").mkdir()
    programs = tmp_path / "bin"
    programs.mkdir()
    (tmp_path / "sweeper.env").write_text(f"export PATH={programs}:$PATH\n", encoding="utf-8")
    play(programs / "sweeper", 'for each; do echo "<$each>"; done; [ "$1" != submit ] || cat "$2"; exit 3')
    launcher(monkeypatch, SHELL)
    return path


def play(program: Path, script: str) -> None:
    program.write_text(f"#!/bin/bash\n{script}\n", encoding="utf-8")
    program.chmod(0o755)


def launcher(monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    monkeypatch.setattr(remote, "_ray", lambda verb: [sys.executable, "-c", script, verb])


def test_a_verb_runs_on_the_head_with_its_arguments_and_exit_code(file: Path) -> None:
    said = called("pareto", "a 'b' $c", "--cluster", file, "--json", code=3).output
    assert said.splitlines() == ["<pareto>", "<a 'b' $c>", "<--json>"]
    said = called("resume", f"--cluster={file}", code=3).output
    assert said.splitlines() == ["<resume>", "<--submit>"]  # its driver is on the cluster


def test_submit_sends_the_file_with_profile_and_overrides_applied(file: Path, tmp_path: Path) -> None:
    sweep = tmp_path / "small.yaml"
    sweep.write_text(SMALL, encoding="utf-8")
    given = ("--profile", "long", "--set", "search.seed=7", "--runs", "s3://b/runs", "--cluster", file)
    said = called("submit", sweep, *given, code=3).output
    arguments, text = said.split("name:", 1)
    assert arguments.split()[-2:] == ["<--runs>", "<s3://b/runs>"]
    sent = spec.from_text(f"name:{text}", "sent")
    assert (sent.file.search.trials, sent.file.search.seed, sent.max_epochs()) == (8, 7, 9)
    sweep.write_text(SMALL.replace("epochs: 2", "epoch: 2"), encoding="utf-8")
    assert "did you mean 'epochs'" in called("submit", sweep, "--cluster", file, code=2).output


@pytest.mark.parametrize(
    ("script", "line"),
    [
        ("print('RuntimeError: Head node of cluster (x) not found!')", "not up; start it with: ray up"),
        ("print('root@10.0.0.1: Permission denied (publickey).')", "refuses the key or the user"),
        ("import time; time.sleep(60)", "does not answer over SSH"),
        ("print('Fetched IP')", "does not answer over SSH"),
    ],
)
def test_a_head_that_does_not_answer_is_a_line(
    file: Path, monkeypatch: pytest.MonkeyPatch, script: str, line: str
) -> None:
    launcher(monkeypatch, script)
    monkeypatch.setattr(remote, "PATIENCE", 2)
    began = time.monotonic()
    said = called("status", "--cluster", file, code=2).output
    assert line in said
    assert len(said.splitlines()) == 1
    assert time.monotonic() - began < 20


def test_logs_are_what_the_run_has_said(tmp_path: Path) -> None:
    run = Run.create(tmp_path, spec.from_text(SMALL, "small.yaml"), {})
    assert "".join(log_lines(run, follow=False)) == ""
    run.log("searching ...")
    run.log("t000 tecoa: epoch 1/2")
    (run.path / "pareto.json").write_text("{}", encoding="utf-8")
    lines = "".join(log_lines(run, follow=True)).splitlines()
    assert [line[20:] for line in lines] == ["searching ...", "t000 tecoa: epoch 1/2"]


class Growing(Cluster):
    """A head and two workers, which come up after the nodes were looked at `after` times."""

    def __init__(self, resources: Resources, after: float = 0, **worker: float) -> None:
        super().__init__(resources)
        self.after, self.looked = after, 0
        self.worker = {"CPU": 6.0, "GPU": 0.0} | worker

    def _nodes(self) -> list[Have]:
        self.looked += 1
        return [{HEAD: 1}] + [self.worker] * (2 if self.looked > self.after else 0)


@pytest.fixture
def head(monkeypatch: pytest.MonkeyPatch, file: Path) -> list[object]:
    """This machine is the head of the file's cluster. What its autoscaler was asked for."""
    import ray.autoscaler.sdk as autoscaler

    asked: list[object] = []

    def request_resources(bundles: object) -> None:
        asked.append(bundles)

    monkeypatch.setattr(autoscaler, "request_resources", request_resources)
    monkeypatch.setattr(capacity, "ON_HEAD", file)
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    monkeypatch.setattr(cluster, "LOOK", 0.01)
    return asked


def test_a_sweep_waits_for_the_first_node_and_says_so(head: list[object]) -> None:
    said: list[str] = []
    growing = Growing(Resources(cpus=2, gpus=1), after=5, GPU=3)
    growing.wait(said.append)
    assert said == [
        "a trial needs 2 CPUs and 1 GPU on one node; waiting up to 20 minutes for 2 x worker of unknown size"
    ]
    assert head[0] == [{"CPU": 2, "GPU": 1}]
    assert head[-1] == []  # the demand is taken back
    assert growing.concurrent(None, trials=20) == 6
    one = Growing(Resources(cpus=2), after=1)
    one._nodes = lambda: [{HEAD: 1}, one.worker]  # type: ignore[method-assign]
    assert one.concurrent(None, trials=20) == 6  # the second worker is as large as the first, when it comes


def test_a_node_that_never_comes_is_a_line(head: list[object], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "PATIENCE", 0.1)
    with pytest.raises(UserError, match="none of 2 x worker of unknown size came in"):
        Growing(Resources(cpus=2), after=float("inf")).wait(lambda _: None)
    one = {"CPU": 2, "GPU": 0}
    assert [head[0], head[-2], head[-1]] == [[one], [one, one], []]  # more, so that other kinds are tried


def connecting(monkeypatch: pytest.MonkeyPatch, init: Callable[..., None]) -> None:
    import ray

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    monkeypatch.setattr(cluster, "located", lambda: "10.0.0.1:6379")


def test_what_a_killed_driver_asked_for_is_withdrawn(
    head: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    connecting(monkeypatch, lambda **_: None)
    with Growing.connect(Resources(cpus=2)):
        assert head == [[]]


def test_whatever_ray_raises_is_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def init(**_: object) -> None:
        raise RuntimeError("Failed to\nconnect")

    connecting(monkeypatch, init)
    with (
        pytest.raises(UserError, match=r"the cluster at RAY_ADDRESS=10\.0\.0\.1:6379: Failed to connect$"),
        Growing.connect(Resources()),
    ):
        pass


def test_hosts_that_are_all_up_and_too_small_are_a_line_at_once(head: list[object]) -> None:
    line = "needs 2 CPUs and 1 GPU on one node, and the cluster has 12 CPUs and 0 GPUs in all; lower"
    for after in (0, 5):
        with pytest.raises(UserError, match=line):
            Growing(Resources(cpus=2, gpus=1), after).wait(lambda _: None)
    assert head[-1] == []


@pytest.mark.usefixtures("head")
def test_what_the_cluster_can_grow_to_is_asked_before_anything_starts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(capacity, "ON_HEAD", REPOSITORY / "cluster.yaml")
    monkeypatch.setattr(cluster, "located", lambda: "10.0.0.1:6379")
    monkeypatch.setattr(cluster, "nodes", lambda _: [{HEAD: 1}])
    Cluster.check(Resources(cpus=8, gpus=1))
    with pytest.raises(UserError, match="0 GPUs in all and can grow by 3 x gpu-spot"):
        Cluster.check(Resources(gpus=2))


@pytest.mark.parametrize("verb", ["run", "submit"])
def test_what_fits_nowhere_makes_no_run_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(submission, "connect", lambda: None)
    sweep, runs = tmp_path / "small.yaml", tmp_path / "runs"
    sweep.write_text(SMALL, encoding="utf-8")
    said = called(verb, sweep, "--set", "resources.cpus=4096", "--runs", runs, code=2).output
    assert "a trial needs 4096 CPUs and 0 GPUs on one node, and the cluster has" in said
    assert not list(runs.glob("*"))


@pytest.mark.parametrize("address", ["auto", "elsewhere", "127.0.0.1:9"])
def test_an_address_where_nobody_answers_is_a_line(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    from ray._private import services

    monkeypatch.setattr(services, "find_gcs_addresses", set)
    monkeypatch.setattr(services, "find_bootstrap_address", lambda _: None)
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(UserError, match="no Ray cluster answers at RAY_ADDRESS="):
        cluster.located()


def test_who_listens_at_a_clients_port_is_asked_whether_it_speaks(monkeypatch: pytest.MonkeyPatch) -> None:
    import grpc

    monkeypatch.setattr(head_module, "ANSWER_SECONDS", 1)
    said = r"at RAY_ADDRESS=ray://127\.0\.0\.1:\d+: no answer in 1 s$"
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(UserError, match=said):
        head_module.reach(f"ray://127.0.0.1:{silent.getsockname()[1]}")
    server = grpc.server(ThreadPoolExecutor(1))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    head_module.reach(f"ray://127.0.0.1:{port}")
    server.stop(None)


def test_auto_is_asked_for_the_token_too(monkeypatch: pytest.MonkeyPatch) -> None:
    from ray._private import services

    reached: list[str] = []
    monkeypatch.setattr(services, "find_gcs_addresses", lambda: {"10.0.0.1:6379"})
    monkeypatch.setattr(services, "find_bootstrap_address", lambda _: None)
    monkeypatch.setattr(cluster, "reach", reached.append)
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    assert cluster.located() == "10.0.0.1:6379"
    assert reached == ["10.0.0.1:6379"]


def test_sigterm_is_an_interrupt_while_a_node_is_awaited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def waiting(*_: object) -> Iterator[Cluster]:
        signal.raise_signal(signal.SIGTERM)
        raise AssertionError("it goes on")
        yield

    run = Run.create(tmp_path, spec.from_text(SMALL, "small.yaml"), {"directory": str(tmp_path)})
    monkeypatch.setattr(Cluster, "connect", waiting)
    monkeypatch.setattr(runner, "preflight", lambda _: None)
    monkeypatch.setattr(Trainable, "check_unchanged", lambda *_: None)
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        called("resume", run.path, code=130)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert "interrupted" in (run.path / "log.txt").read_text(encoding="utf-8")


def test_a_second_submission_at_once_is_a_line(tmp_path: Path) -> None:
    class Taken:
        def list_jobs(self) -> list[object]:
            return []

        def submit_job(self, **_: object) -> str:
            raise RuntimeError("Request failed with status code 500: Traceback\n ...\nValueError: it exists")

    run = Run.create(tmp_path, spec.from_text(SMALL, "small.yaml"), {})
    with pytest.raises(UserError, match=r"not take small-\S+ as a job: ValueError: it exists$"):
        submission.submit(run, Taken())  # type: ignore[arg-type]


def test_down_of_a_file_without_workers(file: Path, capfd: pytest.CaptureFixture[str]) -> None:
    file.write_text("cluster_name: x\nprovider: {type: local, head_ip: 10.0.0.1}\n", encoding="utf-8")
    play(file.parent / "bin" / "ray", "exit 0")
    called("down", file)
    assert str(file) in capfd.readouterr().out  # what `ray down` is called with


class Head:
    """What knocks at a head find, one by one: no way (None), nobody, a head that starts, or an id. With the
    next, connections to the one before end."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *found: str | None) -> None:
        self.found, self.now = iter(found), found[0]
        self.lines: list[socket.socket] = []
        for name in ("WATCH_SECONDS", "KNOCK_SECONDS"):
            monkeypatch.setattr(head_module, name, 0.01)
        monkeypatch.setattr(head_module, "LOST_SECONDS", 0.1)
        monkeypatch.setattr(head_module, "knock", self.knock)
        monkeypatch.setattr(head_module, "identity", self.identity)

    def knock(self, *_: object) -> socket.socket:
        before, self.now = self.now, next(self.found, self.now)
        if self.now != before:
            for line in self.lines:
                line.close()
        if self.now is None:
            raise TimeoutError
        if self.now == "nobody":
            raise ConnectionRefusedError
        ours, theirs = socket.socketpair()
        self.lines.append(theirs)
        return ours

    def identity(self, _: str) -> str:
        if self.now == "starting":
            raise RuntimeError("RPC failed")
        return str(self.now)


@pytest.mark.parametrize(
    ("found", "lost"),
    [
        (("known", None, "known"), False),
        (("known", None, "starting", "known"), False),
        (("known", None), True),
        (("known", "nobody", "known"), True),
        (("known", "another"), True),
        (("known", None, "starting", "another"), True),
    ],
)
def test_a_head_that_is_gone_or_another_is_noticed(
    monkeypatch: pytest.MonkeyPatch, found: tuple[str | None, ...], lost: bool
) -> None:
    Head(monkeypatch, *found)
    gone = threading.Event()
    with head_module.Watch("10.0.0.1:6379", "known", gone.set) as watch:
        assert gone.wait(0.3) == lost
        assert watch.thread.is_alive() != lost


@pytest.mark.parametrize(("found", "lost"), [("known", False), ("another", True), ("nobody", True)])
def test_an_error_of_rays_is_that_of_a_lost_head(
    monkeypatch: pytest.MonkeyPatch, found: str, lost: bool
) -> None:
    Head(monkeypatch, found)
    gone: list[None] = []
    watch = head_module.Watch("10.0.0.1:6379", "known", lambda: gone.append(None))
    watch.ended.set()  # before it has looked
    with pytest.raises(RuntimeError), watch:
        raise RuntimeError("WrongClusterID")
    assert bool(gone) == lost
