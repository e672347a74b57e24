"""The names of the data sets. Nothing heavy here: sweep files are checked against this list."""

from __future__ import annotations

EMBEDDED = ("fashion-mnist-8k", "digits")
ON_DISK = ("tiny-imagenet",)
NAMES = (*EMBEDDED, *ON_DISK)

ALIASES: dict[str, str] = {}
"""Other names by which clip_benchmark knows a set."""
