"""Where what can be made again is kept, and how files are written that several processes want."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def cache_root() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "clip-sweeper"


@contextmanager
def locked(file: Path) -> Iterator[None]:
    """One process at a time; a process that dies gives its lock back."""
    with open(file, "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def whole(file: Path) -> Iterator[Path]:
    """A path to write to, which takes the place of `file` at the end; a reader sees the old file or the new
    one. Nothing is left of a writing that fails."""
    partial = file.with_name(f"{file.name}.{os.getpid()}.partial")
    try:
        yield partial
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)
