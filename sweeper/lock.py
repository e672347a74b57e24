"""Who drives a run, where all who may drive it see one file: a lock, held by the driver, that names it."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TextIO

from sweeper import pages
from sweeper.errors import UserError
from sweeper.lease import Who, told

FILE = "driver.lock"


@contextmanager
def locked(folder: Path) -> Iterator[tuple[Who, Who]]:
    """Holds a run folder for this process, and says who holds it now and who did before: empty if nobody did.
    Raises UserError if another process holds it."""
    with open(folder / FILE, "a+", encoding="utf-8") as lock:
        before = taken(lock, folder.name)
        started = datetime.now().strftime("%Y%m%d-%H%M%S")
        who = {"pid": os.getpid(), "host": socket.gethostname(), "started": started}
        who["token"] = secrets.token_hex(8)
        lock.truncate(0)
        lock.write(json.dumps(who))
        lock.flush()
        yield who, before


def locked_by(folder: Path) -> Who | None:
    """`pid`, `host` and `started` of the process that holds a run folder; None if there is none."""
    with open(folder / FILE, "a+", encoding="utf-8") as lock:
        try:
            taken(lock, folder.name)
        except UserError:
            lock.seek(0)
            return who_wrote(lock.read())
    return None


def taken(lock: TextIO, run: str) -> Who:
    """Locks the file and returns who held it before."""
    lock.seek(0)
    before = who_wrote(lock.read())
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UserError(
            f"{run} is being run by another process ({told(before)}); stop that one first, "
            f"with: sweeper stop {run}",
            pages.DRIVERS,
        ) from None
    except OSError as error:
        raise UserError(f"{lock.name} can't be locked: {error.strerror}", pages.STORAGE) from None
    return before


def who_wrote(text: str) -> Who:
    """The content of a lock file; empty for one that says nothing, or was written by an earlier version."""
    try:
        who = json.loads(text or "{}")
    except ValueError:
        return {}
    return who if isinstance(who, dict) else {}
