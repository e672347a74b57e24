"""What a known data set is, and where its files are expected."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from trainables.data.images import Split
from trainables.data.listing import Parts
from trainables.errors import DataError

TEMPLATES = ("a photo of a {c}.",)


@dataclass(frozen=True)
class Known:
    """A data set known by name. parts: lists its splits below a folder. layout: what has to be there.
    training: what has to be there besides to train on it. archive: of which it is unpacked, and `into`
    which folder. templates: the set's own prompts."""

    name: str
    parts: Callable[[Path], Parts]
    layout: tuple[str, ...] = ()
    training: tuple[str, ...] = ()
    archive: str = ""
    into: str = ""
    templates: tuple[str, ...] = TEMPLATES

    def check(self, root: Path, split: Split) -> None:
        """Raises DataError, with the layout expected, if a part that the split needs is not there."""
        needed = self.layout + (self.training if split == "train" else ())
        for expected in needed:
            if not (root / expected).exists():
                raise DataError(
                    f"not there: expected {root / expected}; unpack {self.archive} in {root / self.into}, so "
                    f"that {root} holds {', '.join(needed)}, or set SWEEPER_DATA to the folder that does",
                    "data.md#known-sets",
                )


KNOWN: dict[str, Known] = {}


def known(
    name: str,
    *,
    archive: str = "",
    into: str = "",
    layout: tuple[str, ...] = (),
    training: tuple[str, ...] = (),
    templates: tuple[str, ...] = TEMPLATES,
) -> Callable[[Callable[[Path], Parts]], Callable[[Path], Parts]]:
    """Registers a function that lists the splits of a known data set below the data folder."""

    def register(parts: Callable[[Path], Parts]) -> Callable[[Path], Parts]:
        KNOWN[name] = Known(name, parts, layout, training, archive, into, templates)
        return parts

    return register


def data_root() -> Path:
    """Where data sets known by name lie: $SWEEPER_DATA, or `data` under the current folder."""
    return Path(os.environ.get("SWEEPER_DATA", "data")).expanduser().absolute()
