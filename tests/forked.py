"""The `sweeper` command in processes of its own that start at once: forked from one that has imported what a
driver imports, which takes a driver most of its start."""

from __future__ import annotations

import atexit
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO

IMPORTED = ["mlflow", "ray.tune", "sweeper.report.static", "sweeper.runner", "sweeper.search", "sweeper.tune"]
FORKED = multiprocessing.get_context("forkserver")
FORKED.set_forkserver_preload(IMPORTED)


class Command:
    """As far as a test needs it, what subprocess.Popen gives for the command with these arguments."""

    def __init__(self, arguments: list[str], environment: dict[str, str]) -> None:
        self.folder = TemporaryDirectory(prefix="sweeper-")
        self.said = [Path(self.folder.name, name) for name in ("out", "err")]
        self.process = FORKED.Process(target=_command, args=(arguments, environment, self.said))
        self.process.start()
        assert self.process.pid is not None
        self.pid, self.kill = self.process.pid, self.process.kill

    @property
    def returncode(self) -> int | None:
        return self.process.exitcode

    def poll(self) -> int | None:
        return self.process.exitcode

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        self.process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired("sweeper", timeout or 0)
        out, err = (file.read_text() if file.exists() else "" for file in self.said)
        return out, err


def _command(arguments: list[str], environment: dict[str, str], said: list[Path]) -> None:
    os.environ.clear()
    os.environ.update(environment)
    sys.path[:0] = environment.get("PYTHONPATH", "").split(os.pathsep)
    for stream, file in zip((sys.stdout, sys.stderr), said, strict=True):
        _redirected(stream, file)
    from sweeper.cli import main

    try:
        main(arguments, prog_name="sweeper")
    finally:
        atexit._run_exitfuncs()  # which multiprocessing leaves out


def _redirected(stream: IO[str], file: Path) -> None:
    with open(file, "wb") as target:
        os.dup2(target.fileno(), stream.fileno())
