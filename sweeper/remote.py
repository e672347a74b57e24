"""The same command on a cluster's head, through Ray's own launcher: SSH, so that no port is opened.

What a cluster file of ours promises of every node: `~/sweeper.env` sets its environment, and the project lies
in `~/clip-sweeper`.
"""

from __future__ import annotations

import base64
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from sweeper import capacity, pages
from sweeper.errors import UserError

PATIENCE = 25  # seconds until the head has answered
MARK = "sweeper-on-the-head"  # between what Ray and SSH say and what the command says
SPELT = "sweeper-on-the'-'head"  # for the shell; Ray shows the command, and that is no mark
NODE = ". ~/sweeper.env && cd ~/clip-sweeper"
COLOURS = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
SSH = "-q -o BatchMode=yes -o ConnectTimeout=10 -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null"


def forward(cluster: Path, arguments: Sequence[str]) -> int:
    """Runs `sweeper ARGUMENTS` on the head, shows what it says as it says it, and returns its exit code.

    Raises UserError with one line within PATIENCE if the head can't be reached.
    """
    return run(cluster, f"{NODE} && COLUMNS={_columns()} sweeper {shlex.join(arguments)}")


def submit(cluster: Path, text: str, arguments: Sequence[str]) -> int:
    """As `sweeper submit FILE ARGUMENTS` on the head. text: the sweep file's, which goes along."""
    packed = base64.b64encode(text.encode()).decode()
    command = f"sweeper submit $file {shlex.join(arguments)}"
    return run(
        cluster,
        f"{NODE} && file=$(mktemp -d)/sweep.yaml && echo {packed} | base64 -d >$file && "
        f"COLUMNS={_columns()} {command}",
    )


def down(cluster: Path) -> int:
    """`ray down`, and before it stops Ray and MLflow on hosts of one's own, which would go on."""
    config = capacity.content(cluster)
    if config["provider"].get("type") == "local":
        stop = shlex.quote(". ~/sweeper.env && ray stop --force >/dev/null")
        for address in config["provider"].get("worker_ips") or []:
            host = f"{config['auth']['ssh_user']}@{address}"
            if run(cluster, f"ssh {SSH} -i ~/ray_bootstrap_key.pem {host} {stop}"):
                print(
                    f"{address} can't be reached; end Ray there yourself: ray stop --force", file=sys.stderr
                )
        run(cluster, f"{NODE} && ray stop --force >/dev/null; python clusters/tracking_server.py stop")
    return subprocess.call([*_ray("down"), "--yes", str(cluster)])


def run(cluster: Path, command: str) -> int:
    """Runs a shell command on the head, passes on what it says and returns its exit code."""
    capacity.content(cluster)  # what is wrong with the file is said by us
    process = subprocess.Popen(
        [*_ray("exec"), str(cluster), f"echo {SPELT}; ( {command} ); echo {SPELT} $?"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,  # so that it can be ended with the SSH it starts
    )
    answered = threading.Event()
    before: list[str] = []
    with _watched(process, answered):
        for line in _lines(process):
            said, mark, code = line.partition(MARK)
            if mark and answered.is_set():
                print(said, end="", flush=True)
                return int(code)
            if mark:
                answered.set()
            elif answered.is_set():
                print(line, flush=True)
            else:
                before.append(line)
    if answered.is_set():
        raise UserError(
            "the connection to the cluster's head was lost; what was submitted there goes on", pages.CLUSTERS
        )
    raise UserError(_explained(cluster, before), pages.CLUSTERS)


@contextmanager
def _watched(process: subprocess.Popen[str], answered: threading.Event) -> Iterator[None]:
    """Ends the process when the caller leaves, and when it has not answered in time."""

    def end() -> None:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)

    def give_up() -> None:
        if not answered.is_set():
            end()

    timer = threading.Timer(PATIENCE, give_up)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        end()
        process.wait()


def _lines(process: subprocess.Popen[str]) -> Iterator[str]:
    """Without what SSH's terminal adds to them, and without colours where nobody sees them."""
    assert process.stdout is not None
    for line in process.stdout:
        yield (line if sys.stdout.isatty() else COLOURS.sub("", line)).rstrip("\r\n")


def _explained(cluster: Path, said: Sequence[str]) -> str:
    """Why there was no answer, in a line. said: what Ray and SSH said instead."""
    text = COLOURS.sub("", "\n".join(said))
    if re.search(r"Head node .*not found", text):
        return f"{cluster}: this cluster is not up; start it with: ray up {cluster}"
    if "Permission denied" in text:
        return f"{cluster}: the head refuses the key or the user under `auth`"
    if "credentials" in text.lower():
        return f"{cluster}: no credentials for its provider were found; `aws configure` sets AWS's"
    return f"{cluster}: its head does not answer over SSH; is it up (ray up {cluster}) and in reach?"


def _ray(verb: str) -> list[str]:
    return [sys.executable, "-m", "ray.scripts.scripts", verb]


def _columns() -> int:
    return shutil.get_terminal_size().columns
