"""Three hosts and Ray's launcher: up, submit, MLflow, a lost host, a wrong token, down; tests/namespaces."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.command import WIDE

REPOSITORY = Path(__file__).parents[1]
HOSTS = REPOSITORY / "tests" / "namespaces"
TINY = """\
name: tiny
trial:
  data: {train: fashion-mnist-8k, images: 64}
  method: {name: tecoa}
  attack: {steps: 1}
  optimizer: {name: adamw, learning_rate: !loguniform [1e-4, 3e-3]}
  batch_size: 32
  epochs: 2
evaluation: {attack: {epsilon: 8/255, steps: 1}, images: 40}
final: {attack: {epsilon: 8/255, steps: 1}, images: 40}
search: {trials: 4, sampler: random}
resources: {cpus: 2}
"""
# As `make` leaves it: the environment, without a package index on the hosts.
INSTALLED = """
mkdir -p ~/clip-sweeper/.venv && ln -s {venv}/bin {venv}/lib {venv}/pyvenv.cfg ~/clip-sweeper/.venv/
touch -d tomorrow ~/clip-sweeper/.venv/ready
echo 'export PYTHONPATH=$HOME/clip-sweeper RAY_health_check_failure_threshold=3 \
RAY_health_check_period_ms=1000 RAY_health_check_timeout_ms=3000 RAY_health_check_initial_delay_ms=1000 \
RAY_USAGE_STATS_ENABLED=0' >>~/.bashrc
"""
DELIVERED = 'import mlflow; print(len(mlflow.search_runs(search_all_experiments=True)), "runs")'

pytestmark = pytest.mark.hosts


class Laptop:
    """The machine outside the hosts, with a home of its own. file: the cluster's."""

    def __init__(self, folder: Path) -> None:
        self.state, self.file = folder / "state", folder / "on-premises.yaml"
        home, tmp = folder / "home", folder / "tmp"
        for each in (home, tmp):
            each.mkdir()
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        own = {"HOME": str(home), "TMPDIR": str(tmp), "RAY_TMPDIR": str(tmp), "PATH": path}
        drop = ("RAY_AUTH_TOKEN", "SWEEPER_RUNS", "RAY_ADDRESS")
        self.environment = {k: v for k, v in os.environ.items() if k not in drop} | own | WIDE
        self.environment["PYTHONPATH"] = str(REPOSITORY)

    def run(self, *command: object, code: int = 0) -> str:
        done = subprocess.run(
            [str(each) for each in command], capture_output=True, text=True, check=False,
            env=self.environment, cwd=REPOSITORY, timeout=200, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    def sweeper(self, *arguments: object, code: int = 0) -> str:
        return self.run(sys.executable, "-m", "sweeper", *arguments, code=code)

    def on_cluster(self, *arguments: object, code: int = 0) -> str:
        return self.sweeper(*arguments, "--cluster", self.file, code=code)

    def host(self, number: int, command: str) -> str:
        return self.run(HOSTS, "ssh", number, self.state, command)

    def write_file(self) -> None:
        """The shipped file with what it says is to be edited."""
        text = (REPOSITORY / "clusters" / "on-premises.yaml").read_text(encoding="utf-8")
        for key, value in {
            "cluster_name": f"hosts-{os.getpid()}",
            "head_ip": "10.99.0.1",
            "worker_ips": "[10.99.0.2, 10.99.0.3]",
            "ssh_user": "root",
            "ssh_private_key": self.state / "key",
        }.items():
            text, found = re.subn(rf"(?m)^( *{key}:) .*$", rf"\1 {value}", text)
            assert found == 1
        self.file.write_text(text.replace("/mnt/sweeper", str(self.state)), encoding="utf-8")


@pytest.fixture(scope="module")
def laptop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Laptop]:
    laptop = Laptop(tmp_path_factory.mktemp("hosts"))
    venv = Path(sys.executable).parents[1].resolve()
    try:
        laptop.run(HOSTS, "up", 3, laptop.state, venv, sys.base_prefix)
        for number in (1, 2, 3):
            laptop.host(number, INSTALLED.format(venv=venv))
        laptop.host(1, "echo a-password-of-24 >~/.mlflow-password")
        laptop.write_file()
        laptop.run("ray", "get-auth-token", "--generate")
        yield laptop
    finally:
        laptop.run(HOSTS, "down")


def wait(run: Path, pattern: str, seconds: float) -> str:
    """Until the log of the run, which lies on the folder that all share, says so."""
    deadline = time.monotonic() + seconds
    while True:
        text = (run / "log.txt").read_text(encoding="utf-8")
        if re.search(pattern, text):
            return text
        assert time.monotonic() < deadline, text
        time.sleep(0.5)


def test_a_sweep_on_three_hosts_survives_the_loss_of_one(laptop: Laptop, tmp_path: Path) -> None:
    file = tmp_path / "tiny.yaml"
    file.write_text(TINY, encoding="utf-8")
    assert "not up" in laptop.on_cluster("status", code=2)

    laptop.run("ray", "up", "--yes", laptop.file)
    said = laptop.on_cluster("submit", file)
    name = re.findall(r"run (tiny-\S+) goes on", said)[0]
    run = laptop.state / "runs" / name
    text = wait(run, r"t001 tecoa: epoch 1/2", 150)
    assert "2 trials at a time" in text
    assert "running" in laptop.on_cluster("status", name)

    laptop.run(HOSTS, "cut", 3)
    wait(run, "finished", 200)
    result = json.loads(laptop.on_cluster("pareto", name, "--json"))
    assert [trial["status"] for trial in result["trials"]] == ["completed"] * 4
    assert "finished" in laptop.on_cluster("logs", name, "-f")
    laptop.run(HOSTS, "mend", 3)
    laptop.on_cluster("track", name)
    assert "6 runs" in laptop.host(1, f". ~/sweeper.env && python -c '{DELIVERED}'")
    assert not (run / "mlflow.db").exists()

    token = laptop.host(1, "cat ~/.ray/auth_token; echo 0123456789abcdef0123456789abcdef >~/.ray/auth_token")
    refused = laptop.on_cluster("submit", file, code=2)
    assert "refuses our token" in refused
    assert len(refused.strip().splitlines()) == 1
    laptop.host(1, f"echo -n {token.strip()} >~/.ray/auth_token")

    laptop.sweeper("down", laptop.file)
    for number in (1, 2, 3):
        left = laptop.host(number, "ps -eo args")
        assert not re.search("raylet|gcs_server|ray::|sweeper|mlflow", left)
