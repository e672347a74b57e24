"""The `sweeper` command, in a process of its own or in this one."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable

from click.testing import CliRunner, Result

from sweeper.cli import main

PATIENCE = 300  # seconds
WIDE = {"COLUMNS": "160"}


def environment() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if k != "MLFLOW_TRACKING_URI"} | WIDE


def sweeper(*arguments: object, code: int = 0, patience: float = PATIENCE) -> str:
    """What the command prints as a process."""
    command = [sys.executable, "-m", "sweeper", *map(str, arguments)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=environment(), timeout=patience
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


def called(*arguments: object, code: int = 0, **environment: str | None) -> Result:
    """The same command in this process: for what needs none of its own, which takes seconds to start."""
    without = dict.fromkeys(("MLFLOW_TRACKING_URI",))
    done = CliRunner(env=WIDE | without | environment).invoke(main, list(map(str, arguments)))
    assert done.exit_code == code, done.output
    return done


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "nothing happened for too long"
        time.sleep(0.02)
