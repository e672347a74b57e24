"""PatchCamelyon: six HDF5 files, read row by row, for the training images take 7 GB."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainables.data import templates
from trainables.data.images import Split
from trainables.data.listing import Listing, rows_of
from trainables.data.sets.known import known
from trainables.data.tables import in_range
from trainables.errors import DataError

if TYPE_CHECKING:
    from trainables.data.listing import Parts

SIZE = (96, 96)
CLASSES = ("lymph node", "lymph node containing metastatic tumor tissue")
NAMES: dict[Split, str] = {"train": "train", "validation": "valid", "test": "test"}
CHUNK_CACHE = 64 * 2**20
"""Bytes; HDF5 unpacks a chunk of many images to read one, and keeps it that long."""


def file_of(name: str, what: str) -> str:
    return f"pcam/camelyonpatch_level_2_split_{name}_{what}.h5"


@known(
    "pcam",
    archive="the six camelyonpatch_level_2_split_*.h5.gz",
    into="pcam",
    layout=tuple(file_of(name, what) for name in NAMES.values() for what in "xy"),
    templates=templates.PCAM,
)
def pcam(root: Path) -> Parts:
    """Has a validation split of its own."""
    return {
        split: partial(part, root / file_of(name, "x"), root / file_of(name, "y"))
        for split, name in NAMES.items()
    }


def part(images: Path, labels: Path) -> Listing:
    x, y = read(images, "x"), read(labels, "y")
    if x.shape != (len(y), *SIZE, 3):
        raise DataError(f"{images} has images of shape {x.shape}; expected {(len(y), *SIZE, 3)} for {labels}")
    numbers = in_range(labels, y[:].reshape(-1).astype("int64"), CLASSES)
    return Listing(rows_of(images, x), numbers, CLASSES, size=SIZE)


def read(file: Path, name: str) -> Any:
    """A dataset of an HDF5 file, whose rows are read when they are asked for. h5py lets one thread read at a
    time. Raises DataError."""
    import h5py

    try:
        return h5py.File(file, "r", rdcc_nbytes=CHUNK_CACHE)[name]
    except (OSError, KeyError) as error:
        raise DataError(f"{file} is no HDF5 file with {name!r} ({error})") from None
