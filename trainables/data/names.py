"""The names of the data sets. Nothing heavy here: sweep files are checked against this list."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

EMBEDDED = ("fashion-mnist-8k", "digits")
ON_DISK = ("tiny-imagenet",)
NAMES = (*EMBEDDED, *ON_DISK)


def folder_name(folder: Path) -> str:
    """The name of an image folder's data set unless it is given one."""
    return folder.resolve().name
