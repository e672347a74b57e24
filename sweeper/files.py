"""JSON and text files of which a reader sees the old one or the new one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def write_json(path: Path, value: Any) -> None:
    """Writes strict JSON; a reader sees the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(value, indent=1, allow_nan=False))


def write_text(path: Path, text: str) -> None:
    """A reader sees the old file or the new one."""
    partial = path.with_name(f"{path.name}.partial")
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def drop_torn_line(file: Path) -> None:
    """Takes away a last line that its writer could not finish; there is nothing to be written for it."""
    with open(file, "rb+") as opened:
        opened.truncate(opened.read().rfind(b"\n") + 1)


def read_json(path: Path) -> Any:
    """The file's value; None if there is no such file."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
