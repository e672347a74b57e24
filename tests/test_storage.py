"""Runs in a bucket, on a real S3 server on loopback; who drives a run; run folders of other versions."""

from __future__ import annotations

import errno
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from sweeper import lease, objects, progress, site, storage
from sweeper import run as run_module
from sweeper.curves import Curves
from sweeper.errors import Obstacle, UserError
from sweeper.files import write_json
from sweeper.jobs import Jobs
from sweeper.lease import Lease, clock
from sweeper.objects import Object, Objects, StorageError
from sweeper.progress import At, Told
from sweeper.run import Run
from sweeper.search import Suggestion
from sweeper.spec import from_text, load
from sweeper.status import log_lines
from sweeper.trial import Decision, epoch_file
from sweeper.tune import Arrival
from sweeper.worker import Worker
from tests import alone
from tests.bucket import Server
from tests.command import PATIENCE, called, environment, wait_for
from tests.curves import curves
from tests.hosts import SCRATCH, Hosts, sweep_on, withdraw_claims
from tests.scheduler_contract import sweep
from tests.sweeps import SMALL
from tests.timing import Tune, outcome


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


@pytest.fixture
def address(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Of an empty bucket, with this process on a host that knows how to reach it."""
    for name, value in server.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv(SCRATCH, str(tmp_path / "here"))
    server.refused.clear()
    server.requests.clear()
    return server.make_bucket(f"bucket-{random.SystemRandom().getrandbits(40)}")


@pytest.fixture
def hosts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hosts:
    monkeypatch.setenv(SCRATCH, "")
    return Hosts(tmp_path / "hosts")


def a_run(root: storage.Root) -> Run:
    return Run.create(root, from_text(SMALL, "small.yaml"), {"seed": 3, "directory": os.getcwd()})


def decide(run: Run, trials: Iterable[int]) -> None:
    """On a few bytes for each."""
    for trial in trials:
        run.add_decision(Decision(trial, 1, {"a": 0.25}, True))


def suggestion(run: Run, number: int) -> Suggestion:
    return Suggestion(number, run.spec.trial(run.spec.base_trial()), {"n": number}, seed=number)


# --- the copy ---------------------------------------------------------------------------------------------


def test_what_one_host_writes_another_reads(address: str, hosts: Hosts) -> None:
    hosts.move()
    run = a_run(address)
    with run.driving():
        trial = run.add_trial(suggestion(run, 0))
        write_json(epoch_file(trial.folder, 1, "json"), {"epoch": 1, "metrics": {"a": 0.5}})
        for suffix in ("safetensors", "parquet"):
            epoch_file(trial.folder, 1, suffix).write_text(suffix)
        run.storage.push(trial.folder)
        run.end_trial(trial, "completed")
        run.add_decision(Decision(0, 1, {"a": 0.5}, True))
        run.write_driven_seconds(5.0)
    hosts.move()
    read = Run.find(None, address)
    assert read.path != run.path
    assert (read.id, read.spec.text(), read.decisions()) == (run.id, run.spec.text(), run.decisions())
    assert read.driven_seconds() == 5.0
    (there,) = read.trials()
    assert (there.status, there.epochs, there.kept) == ("completed", run.trial(0).epochs, [1])
    weights = there.point(1).weights
    assert weights.stat().st_size == 0  # weights are not brought before they are needed
    assert read.storage.fetch(weights).read_text() == "safetensors"
    run.storage.remove(trial.point(1).weights)
    read.storage.refresh()
    assert read.trial(0).kept == []


def test_how_far_workers_and_driver_are_is_seen_through_the_bucket(address: str, hosts: Hosts) -> None:
    hosts.move()
    run = a_run(address)
    with run.driving():
        job = Jobs(run, 1, 1).trial(run.add_trial(suggestion(run, 0)))
        hosts.move()
        worker = site.of_job(job)
        worker.begin()
        worker.tell(Told("training", 0.5))
        progress.say_at(run, At("searching", running=["t000"]))
        run.storage.look(run.path / progress.FOLDER)
        assert progress.told(run, ["t000"]) == {"t000": Told("training", 0.5)}
    hosts.move()
    read = Run.find(None, address)
    assert progress.at(read).running == ["t000"]
    assert progress.told(read, ["t000"]) == {"t000": Told("training", 0.5)}
    worker.tell(None)
    run.storage.look(run.path / progress.FOLDER)
    assert progress.told(run, ["t000"]) == {}
    progress.forget(run)
    read.storage.refresh()
    assert not (read.path / progress.FILE).exists()
    worker.close()


def test_a_copy_follows_the_bucket_file_for_file(address: str, hosts: Hosts) -> None:
    hosts.move()
    run = a_run(address)
    left = run.path / "trials" / "t000" / "config.json"  # of a driver that died before it had stored it
    write_json(left, {})
    (run.path / "mlflow.db").touch()
    with run.driving():
        assert not left.exists()
        assert (run.path / "mlflow.db").exists()


def test_a_log_is_followed_from_another_host(
    address: str, hosts: Hosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To its last line, in pieces, and without the rest of the run."""
    monkeypatch.setattr("sweeper.status.LOOK_AWAY", 0.05)
    monkeypatch.setattr(storage, "PIECE", 100)
    monkeypatch.setattr(lease, "EVERY", 0.05)  # between pushes of what may wait
    hosts.move()
    run = a_run(address)
    hosts.move()
    lines, said = log_lines(Run.load(str(run)), follow=True), [f"line {number}" for number in range(20)]
    seen = ""
    with run.driving():
        for number, line in enumerate(said):
            run.log(line)
            while len(seen.splitlines()) <= number and number % 5 == 0:
                seen += next(lines)
        run.write("pareto.json", {})
        run.log("finished")
    seen += "".join(lines)
    assert [line[20:] for line in seen.splitlines()] == [*said, "finished"]


def test_a_log_is_not_brought_where_its_run_is_driven(address: str, hosts: Hosts) -> None:
    """There it is ahead of the bucket."""
    hosts.move()
    run = a_run(address)
    with run.driving():
        run.log("not stored yet")
        Run.load(str(run)).storage.follow(run.log_file)
        assert "not stored yet" in run.log_file.read_text()


def test_a_file_of_the_same_size_is_brought_again(address: str, hosts: Hosts) -> None:
    hosts.move()
    writer = a_run(address)
    here = os.environ[SCRATCH]
    hosts.move()
    reader = Run.load(str(writer))
    for status in ("stopped", "skipped", "dropped"):  # within one second, which S3 does not divide
        os.environ[SCRATCH] = here
        writer.write("x.json", status)
        reader.storage.refresh()
        assert json.loads((reader.path / "x.json").read_text()) == status


def test_a_growing_file_is_sent_in_pieces(
    server: Server, address: str, hosts: Hosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "PIECE", 1000)
    hosts.move()
    run = a_run(address)
    decide(run, range(60))
    size = run.rungs_file.stat().st_size
    stored = {each.name: each.size for each in Objects(str(run)).listed() if "rungs" in each.name}
    assert list(stored.values()) == [1000] * (size // 1000) + [size % 1000]
    written = [server.puts(f"rungs.jsonl.{index:05d}") for index in range(len(stored))]
    assert sum(written) <= 60 + len(stored)
    hosts.move()
    again = Run.load(str(run))
    assert again.decisions() == run.decisions()
    again.add_decision(Decision(60, 1, {"a": 0.25}, False))
    hosts.move()
    assert len(Run.load(str(run)).decisions()) == 61


def test_what_is_added_while_a_growing_file_is_sent_comes_next_time(
    address: str, hosts: Hosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log, which the lease's thread sends: the last piece goes on where it is."""
    monkeypatch.setattr(storage, "PIECE", 1000)
    hosts.move()
    run, write, waiting = a_run(address), Objects.write, ["more"] * 3

    def write_slowly(objects: Objects, name: str, content: bytes) -> None:
        write(objects, name, content)
        if name.startswith("log.txt") and waiting:
            run.log(waiting.pop())

    run.log("first")
    with monkeypatch.context() as slow:
        slow.setattr(Objects, "write", write_slowly)
        run.storage.push(run.log_file)
    run.storage.push(run.log_file)
    assert Objects(str(run)).read("log.txt.00000") == run.log_file.read_bytes()
    assert Objects(str(run)).read("log.txt.00001") is None


def test_what_is_added_while_a_growing_file_is_read_does_not_tear_it(
    address: str, hosts: Hosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A piece that was read half full, and the next, begun since: there are bytes between them."""
    monkeypatch.setattr(storage, "PIECE", 1000)
    hosts.move()
    run = a_run(address)
    decide(run, range(15))
    hosts.move()
    reader = Run.load(str(run))
    hosts.move()
    writer, read, waiting = Run.load(str(run)), Objects.read, [range(15, 40)]

    def read_slowly(objects: Objects, name: str) -> bytes | None:
        content = read(objects, name)
        if waiting and name.startswith("rungs.jsonl"):
            decide(writer, waiting.pop())
        return content

    with monkeypatch.context() as slow:
        slow.setattr(Objects, "read", read_slowly)
        reader.storage.follow(reader.rungs_file)
    assert not waiting
    assert [decision.trial for decision in reader.decisions()] == list(range(15))
    reader.storage.follow(reader.rungs_file)
    assert reader.decisions() == writer.decisions()
    assert len(reader.decisions()) == 40


def test_a_line_that_was_cut_between_two_pieces_is_dropped(
    address: str, hosts: Hosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "PIECE", 100)
    hosts.move()
    run = a_run(address)
    decide(run, range(3))
    Objects(str(run)).delete("rungs.jsonl.00001")
    hosts.move()
    again = Run.load(str(run))
    assert [decision.trial for decision in again.decisions()] == [0]
    again.add_decision(Decision(1, 1, {"a": 0.5}, True))
    hosts.move()
    assert [d.metrics["a"] for d in Run.load(str(run)).decisions()] == [0.25, 0.5]


@pytest.mark.parametrize("name", ["../outside.json", "trials/../../outside.json", "/etc/outside.json"])
def test_no_object_leads_out_of_the_copy(address: str, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    run = a_run(address)
    monkeypatch.setattr(Objects, "listed", lambda *_: [Object(name, 2, 0.0)])
    with pytest.raises(StorageError, match="leads out of the run"):
        run.storage.refresh()


WRONG = ("s3://", "s3:///runs", "s3://b//runs", "s3://b/../../victim", "s3://b/./runs", "s3://..")


@pytest.mark.usefixtures("address")
@pytest.mark.parametrize("wrong", WRONG)
def test_an_address_that_leads_elsewhere_is_refused_in_one_line(tmp_path: Path, wrong: str) -> None:
    """Whether it is a root, a run, or a run that a sweep file names."""
    file, victim = tmp_path / "small.yaml", tmp_path / "victim" / "precious"
    victim.parent.mkdir()
    victim.touch()
    file.write_text(SMALL.replace("startup_trials: 2", f"startup_trials: 2, warm_start: ['{wrong}/run']"))
    for arguments in (["status", "--runs", wrong], ["status", f"{wrong}/run"], ["run", file]):
        refused = called(*arguments, code=2)
        assert refused.stderr.count("\n") == 1
        assert "expected s3://BUCKET/FOLDER" in refused.stderr
    assert victim.exists()


def test_folders_in_a_bucket_that_lead_elsewhere_are_no_runs(
    server: Server, address: str, hosts: Hosts
) -> None:
    hosts.move()
    run = a_run(address)
    for name in ("..", ".", ""):
        server.put(f"{address.removeprefix('s3://')}/{name}/run.json", b"{}")
    server.put(f"{address.removeprefix('s3://').partition('/')[0]}/run.json", b'{"created": ""}')
    assert [each.id for each in Run.all(address)] == [run.id]


def test_of_two_hosts_that_make_a_run_of_one_name_at_once_not_both_do(
    address: str, hosts: Hosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed, both, made = Objects.listed, threading.Barrier(2), []

    def make(there: storage.Storage) -> None:
        with suppress(FileExistsError):
            there.create()
            made.append(there)

    def together(self: Objects) -> list[Object]:
        both.wait(10)
        found = listed(self)
        both.wait(10)
        return found

    there = []
    for _ in range(2):
        hosts.move()
        there.append(storage.Storage.at(f"{address}/same"))
    monkeypatch.setattr(Objects, "listed", together)
    threads = [threading.Thread(target=make, args=(each,)) for each in there]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) < 2


def test_the_lock_of_those_who_deliver_to_mlflow_stays_with_the_copy(address: str, hosts: Hosts) -> None:
    hosts.move()
    run = a_run(address)
    (run.path / "mlflow.lock").touch()
    run.storage.refresh()
    assert (run.path / "mlflow.lock").exists()


def test_what_is_no_copy_is_left_alone(address: str, hosts: Hosts) -> None:
    """Run folders below a folder that claims to be a run, too."""
    hosts.move()
    run = a_run(address)
    own = run.path / "mlflow.db"
    own.touch()
    Objects(address).write("run.json", json.dumps({"created": "", "format": 1}).encode())
    with pytest.raises(StorageError, match="where its copy belongs, holds other files"):
        Run.load(address)
    assert own.exists()


def test_a_path_is_none_below_a_bucket(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = a_run(tmp_path / "runs")
    monkeypatch.chdir(run.path)
    for name in (str(run.path), ".", f"../{run.name}"):
        assert Run.find(name, address).path.samefile(run.path)


# --- whole sweeps -----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_sweep_over_hosts_that_share_a_bucket_equals_one_on_a_path(
    address: str, hosts: Hosts, tmp_path: Path
) -> None:
    """Whatever driver is killed and whatever worker is lost; nothing is read but through the bucket."""
    made = sweep("{}", trials=12, sampler="tpe", constrained=True, deterministic=True)
    table = Curves(curves(made, 40, 9, seed=8))
    local = Run.create(tmp_path / "local", made, {"seed": 3})
    Tune(local, table, 3, random.Random(0)).go()
    hosts.move()
    run = Run.create(address, made, {"seed": 3})
    assert sweep_on(str(run), hosts, table, 3, seed=1, killed=0.04, lost=0.2) > 2
    hosts.move()
    read = Run.load(str(run))
    assert outcome(made, read.trials(), read.decisions()) == outcome(made, local.trials(), local.decisions())
    epochs = [[epoch["epoch"] for epoch in trial.epochs] for trial in read.trials()]
    assert all(known == list(range(1, len(known) + 1)) for known in epochs)
    assert not read.is_driven()
    names = [each.name for each in Objects(str(run)).listed()]
    assert not [name for name in names if name.endswith("checkpoint.safetensors")]  # all have ended


TINY = """\
name: tiny
trial:
  data: {train: fashion-mnist-8k, images: 64}
  attack: {epsilon: 8/255, steps: 1}
  method: {name: tecoa}
  optimizer: {learning_rate: !loguniform [1e-4, 1e-3]}
  batch_size: 32
  epochs: 2
evaluation: {attack: {epsilon: 8/255, steps: 1}, images: 20}
final: {attack: {epsilon: 8/255, steps: 1}, images: 20}
pareto: {maximize: [clean_accuracy], minimize: [robust_ece]}
search: {trials: 3, seed: 1, concurrent: 1, deterministic: true}
tracking: {mlflow: false}
"""


@pytest.mark.slow  # in tests/test_failures.py with epochs that take a moment
def test_credentials_that_expire_stop_a_sweep_which_another_host_goes_on_with(
    server: Server, address: str, hosts: Hosts, tmp_path: Path
) -> None:
    file = tmp_path / "tiny.yaml"
    file.write_text(TINY)
    reference = alone.drive(Run.create(tmp_path / "local", load(file), {"seed": 1}))
    hosts.move()
    command = [sys.executable, "-m", "sweeper", "run", str(file), "--runs", address]
    process = start(command, server.environment("FIRST"))
    wait_for(lambda: server.puts("t001/epoch-001.json") > 0 or process.poll() is not None)
    server.refused["FIRST"] = "ExpiredToken"
    stdout, stderr = process.communicate(timeout=PATIENCE)
    assert process.returncode == 2, stdout + stderr
    assert stderr.count("\n") == 1
    assert "the credentials have expired" in stderr
    assert f"go on with: sweeper resume {address}/tiny-" in stderr
    hosts.move()
    run = Run.find(None, address)
    assert "unfinished" in {trial.status for trial in run.trials()}
    withdraw_claims(run)
    process = start([*command[:3], "resume", str(run)], server.environment("SECOND"))
    stdout, stderr = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, stdout + stderr
    hosts.move()
    done = Run.load(str(run))
    for one, other in zip(done.trials(), reference.trials(), strict=True):
        assert (one.config, one.seed, one.status) == (other.config, other.seed, other.status)
        assert [epoch["metrics"] for epoch in one.epochs] == [epoch["metrics"] for epoch in other.epochs]
    same = {"run": ""}
    assert json.loads((done.path / "pareto.json").read_text()) | same == reference.pareto() | same
    assert "3 of 3 trials (3 completed); finished" in called("status", done).output
    assert json.loads(called("pareto", "--runs", address, "--json").stdout)["run"] == done.name


def start(command: list[str], own: dict[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment() | own
    )


# --- what goes wrong --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "line"),
    [
        ("ExpiredToken", "the credentials have expired; renew them"),
        ("InvalidAccessKeyId", "the credentials are not valid"),
        ("SignatureDoesNotMatch", "the credentials are not valid"),
        ("AccessDenied", "access is refused; ask for the right to list, read, write and delete"),
    ],
)
def test_a_refusal_is_one_line_before_anything_starts(
    server: Server, address: str, tmp_path: Path, code: str, line: str
) -> None:
    file = tmp_path / "small.yaml"
    file.write_text(SMALL)
    server.refused["KEY"] = code
    for arguments in (["run", file], ["resume"], ["status"], ["export", f"{address}/a-run"]):
        refused = called(*arguments, "--runs", address, code=2)
        assert refused.stderr.count("\n") == 1
        assert refused.stderr.startswith(address)
        assert line in refused.stderr
        assert "secret" not in refused.stderr


def test_a_bucket_that_can_be_read_and_not_written(
    server: Server, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "read_only", {"KEY"})
    with pytest.raises(StorageError, match="access is refused"):
        storage.check(address)


def test_where_no_credentials_are_set_it_claims_nothing_about_those_of_the_host(
    server: Server, address: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    server.refused[""] = "AccessDenied"
    with pytest.raises(StorageError, match=r"ask for .* or if neither a role .* set AWS_ACCESS_KEY_ID"):
        storage.check(address)


def test_no_such_bucket(address: str) -> None:
    absent = address.replace("bucket-", "absent-")
    with pytest.raises(StorageError, match=f"^{absent}: there is no such bucket; create it"):
        storage.check(absent)


@pytest.mark.parametrize(
    "error", [OSError("Bucket 'absent' not found"), ValueError("Not a valid bucket name")]
)
def test_a_bucket_whose_region_can_not_be_told(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """As it is on AWS if no region is set."""

    def refuse(_: str) -> str:
        raise error

    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pyarrow.fs.resolve_s3_region", refuse)
    with pytest.raises(StorageError, match=r"^s3://absent/runs: there is no such bucket; create it"):
        storage.check("s3://absent/runs")


def test_a_server_that_is_not_there(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{closed.getsockname()[1]}")
        started = time.monotonic()
        with pytest.raises(StorageError, match=r"http://127.0.0.1:\d+ does not answer; see AWS_ENDPOINT_URL"):
            storage.check(address)
    assert time.monotonic() - started < 30


def test_a_server_that_never_answers(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects, "ATTEMPTS", 1)  # three of five seconds each as it is
    monkeypatch.setattr(objects, "SILENT_SECONDS", 1)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        with pytest.raises(StorageError, match="does not answer"):
            storage.check(address)


def test_credentials_that_were_renewed_meanwhile_are_found(
    server: Server, address: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    known = tmp_path / "credentials"
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(known))
    text = "[default]\naws_access_key_id = {}\naws_secret_access_key = secret\n"
    known.write_text(text.format("OLD"))
    there = Objects(address)
    there.write("a", b"1")
    server.refused["OLD"] = "ExpiredToken"
    with pytest.raises(StorageError, match="expired"):
        there.write("a", b"2")
    known.write_text(text.format("NEW"))
    there.write("a", b"3")
    assert there.read("a") == b"3"


def test_a_running_sweep_waits_for_a_server_that_is_away(
    server: Server, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objects, "ATTEMPTS", 1)
    there = Objects(address, patience=20)
    server.refused["KEY"] = "SlowDown"
    threading.Timer(1.5, server.refused.clear).start()
    there.write("a", b"1")
    assert there.read("a") == b"1"


class Interrupting:
    """Storage during whose writing this process is told to end."""

    def __init__(self, s3: Any) -> None:
        self.s3 = s3

    def open_output_stream(self, path: str) -> Any:
        stream = self.s3.open_output_stream(path)
        os.kill(os.getpid(), signal.SIGUSR1)
        return stream


def test_an_object_is_stored_whole_or_not_at_all(address: str, tmp_path: Path) -> None:
    def end(*_: object) -> None:
        sys.exit(1)

    there, file = Objects(address), tmp_path / "weights"
    file.write_bytes(b"whole")
    there._connection = Interrupting(there._s3())  # type: ignore[assignment]
    before = signal.signal(signal.SIGUSR1, end)
    try:
        with pytest.raises(SystemExit):
            there.upload("weights", file)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert Objects(address).read("weights") in (None, b"whole")


# --- who drives -------------------------------------------------------------------------------------------


def test_a_second_host_is_refused_and_told_who_drives(address: str, hosts: Hosts) -> None:
    hosts.move()
    run = a_run(address)
    with run.driving():
        assert json.loads((run.path / "driver.lock").read_text())["pid"] == os.getpid()
        assert run.driver() is not None
        hosts.move()
        other = Run.load(str(run))
        refused = called("resume", other, code=2).stderr
        assert refused.count("\n") == 1
        assert (
            f"being run by another process (pid {os.getpid()} on {socket.gethostname()}, started " in refused
        )
        assert "silent for 60 seconds" in refused
        assert "; running" in called("status", other).stdout
    assert other.driver() is None
    with other.driving():
        assert run.is_driven()


def test_on_a_path_the_second_is_told_too(tmp_path: Path) -> None:
    run = a_run(tmp_path)
    assert run.driver() is None
    with run.driving():
        who = Run.load(run.path).driver()
        assert who is not None
        assert (who["pid"], who["host"]) == (os.getpid(), socket.gethostname())
        assert f"pid {os.getpid()} on {socket.gethostname()}" in called("resume", run, code=2).stderr
        assert Run.load(run.path).driver() == who  # who asks changes nothing
    assert run.driver() is None


def claim(there: Objects, token: str, dead: str | None = None) -> Lease:
    return Lease(there, {"pid": 1, "host": token, "started": "now", "token": token}, dead, lambda: None)


def test_a_claim_that_is_not_renewed_is_taken_over_and_its_owner_stops(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "STALE", 2.0)
    monkeypatch.setattr(lease, "LATE", 1.0)
    there = Objects(address)
    first, second = claim(there, "first"), claim(there, "second")
    first.__enter__()  # and then its host sleeps
    first.ended.set()
    with pytest.raises(UserError, match=r"pid 1 on first, .*heard of \d seconds ago"):
        second.__enter__()
    time.sleep(3.1)
    with second:
        with pytest.raises(StorageError, match=r"pid 1 on second, .*took the run over"):
            first.check()
        second.check()


def test_a_late_driver_that_nobody_took_over_goes_on(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "LATE", 0.0)
    with claim(Objects(address), "first") as own:
        own.check()


def test_a_claim_is_renewed_whatever_else_fails(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "EVERY", 0.02)
    fails = []

    def fail() -> None:
        fails.append(clock())
        raise OSError("no space left on device")

    who = {"pid": 1, "host": "first", "started": "now", "token": "first"}
    with Lease(Objects(address), who, None, fail) as own:
        wait_for(lambda: len(fails) > 1)
        assert own.renewed > fails[0]


KILLED = """
import os, sys
from sweeper.run import Run
driving = Run.load(sys.argv[1]).driving()
driving.__enter__()
os._exit(1)
"""


def test_a_driver_that_is_known_to_be_gone_is_not_waited_for(address: str, hosts: Hosts) -> None:
    """The next on the same host: the lock file is free, and names the claim."""
    hosts.move()
    run = a_run(address)
    subprocess.run([sys.executable, "-c", KILLED, str(run)], check=False, env=environment())
    assert run.storage.holder() is not None
    with Run.load(str(run)).driving():
        assert len(Objects(str(run)).listed("driver")) == 1


def test_of_several_at_once_never_two_hold_it(address: str) -> None:
    there, holding, most, refused = Objects(address), [0], [0], []

    def drive(token: str) -> None:
        try:
            with claim(there, token):
                holding[0] += 1
                most[0] = max(most[0], holding[0])
                time.sleep(0.3)
                holding[0] -= 1
        except UserError as error:
            refused.append(str(error))

    threads = [threading.Thread(target=drive, args=(f"driver-{number}",)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most[0] == 1
    assert not there.listed("driver")


# --- workers ----------------------------------------------------------------------------------------------


def test_a_worker_that_does_not_see_the_run_folder_says_so(tmp_path: Path) -> None:
    job = {"run": str(tmp_path / "elsewhere"), "storage": None, "folder": str(tmp_path), "id": "t000"}
    worker = Worker(config=job)
    report = worker.train()
    assert report["done"]
    assert f"{socket.gethostname()} does not see the run folder {tmp_path / 'elsewhere'}" in report["refused"]
    assert "\n" not in report["refused"]
    with pytest.raises(Obstacle, match="does not see the run folder"):
        Arrival(a_run(tmp_path))("t000", report)


def test_a_full_disk_of_a_worker_is_no_fault_of_its_job(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(site, "own_folder", full)
    run = a_run(address)
    job = Jobs(run, threads=1, concurrent=1).trial(run.add_trial(suggestion(run, 0)))
    worker = Worker(config=job)
    report = worker.train()
    assert (report["done"], report["full"]) == (True, True)
    assert report["failed"] == f"[Errno {errno.ENOSPC}] No space left on device, on {socket.gethostname()}"
    worker.cleanup()


def test_a_worker_that_does_not_find_its_gpu_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And trains nothing on CPUs, nor fails a trial for it."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    file = from_text(f"{SMALL}resources: {{gpus: 1}}\n", "small.yaml")
    run = Run.create(tmp_path, file, {"seed": 3})
    jobs = Jobs(run, threads=1, concurrent=1)
    for job in (jobs.trial(run.add_trial(suggestion(run, 0))), jobs.measurement(None, "validation")):
        report = Worker(config=job).train()
        assert report["done"]
        assert f"finds no CUDA device on {socket.gethostname()}" in report["refused"]
        with pytest.raises(Obstacle, match=r"resources.gpus is 1"):
            Arrival(run)("t000", report)


def test_what_a_worker_reports_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other hosts see a new file late on NFS."""
    run = a_run(tmp_path)
    trial = run.add_trial(suggestion(run, 0))
    file = epoch_file(trial.folder, 1, "json")
    threading.Timer(0.5, lambda: write_json(file, {})).start()
    run.storage.reported(["trials/t000/epoch-001.json"])
    assert file.exists()
    monkeypatch.setattr(storage, "SEEN_WITHIN", 0.3)
    with pytest.raises(StorageError, match=r"epoch-002.json: a worker reports .* shared by all nodes"):
        run.storage.reported(["trials/t000/epoch-002.json"])


def test_folders_of_workers_that_were_killed_are_taken_away(tmp_path: Path) -> None:
    folder, lock = site.own_folder(tmp_path)
    (folder / "weights").touch()
    other, _ = site.own_folder(tmp_path)
    assert folder.exists()
    lock.close()  # as the end of the process does it
    site.own_folder(tmp_path)
    assert not folder.exists()
    assert other.exists()


# --- versions ---------------------------------------------------------------------------------------------


def test_a_run_folder_of_another_format_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_module, "FORMAT", 2)
    run = Run.create(tmp_path, from_text(SMALL, "s.yaml"), {"seed": 3, "versions": {"clip-sweeper": "9.1"}})
    monkeypatch.undo()
    before = sorted(run.path.rglob("*"))
    for verb in ("resume", "status", "pareto", "report", "export", "track"):
        refused = called(verb, run, code=2).stderr
        assert refused.count("\n") == 1
        assert (
            f"{run}: a run folder of format 2, by clip-sweeper 9.1, and this version reads format 1"
            in refused
        )
    assert sorted(run.path.rglob("*")) == before


def test_a_run_folder_from_before_formats_is_read(tmp_path: Path) -> None:
    run = a_run(tmp_path)
    about = {key: value for key, value in run.about.items() if key != "format"}
    write_json(run.path / "run.json", about)
    assert Run.load(run.path).about == about


@pytest.mark.parametrize("content", ["", "{", "[]"])
def test_a_run_json_that_is_none_is_refused(tmp_path: Path, content: str) -> None:
    run = a_run(tmp_path)
    (run.path / "run.json").write_text(content)
    refused = called("resume", run, code=2).stderr
    assert refused.count("\n") == 1
    assert "run.json" in refused
