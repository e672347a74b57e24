"""STL-10, as its archive unpacks. Its unlabelled images are not used."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from trainables.data import templates
from trainables.data.listing import Listing, Parts, rows_of
from trainables.data.sets.known import known
from trainables.data.tables import in_range, read_lines
from trainables.errors import DataError

FOLDER = "stl10_binary"
SIZE = (96, 96)
BYTES = 3 * 96 * 96


@known(
    "stl10",
    archive="stl10_binary.tar.gz",
    layout=tuple(
        f"{FOLDER}/{name}"
        for name in ("train_X.bin", "train_y.bin", "test_X.bin", "test_y.bin", "class_names.txt")
    ),
    templates=templates.STL10,
)
def stl10(root: Path) -> Parts:
    folder = root / FOLDER
    classes = tuple(read_lines(folder / "class_names.txt"))
    return {"train": partial(part, folder, "train", classes), "test": partial(part, folder, "test", classes)}


def part(folder: Path, split: str, classes: tuple[str, ...]) -> Listing:
    """Images are column after column, channel by channel; labels count from 1."""
    images, file = folder / f"{split}_X.bin", folder / f"{split}_y.bin"
    labels = in_range(file, np.fromfile(file, dtype=np.uint8).astype(np.int64) - 1, classes)
    size = images.stat().st_size
    if size != len(labels) * BYTES:
        raise DataError(
            f"{images} has {size} bytes; expected {BYTES} for each of the {len(labels)} labels in {file}"
        )
    array = np.memmap(images, dtype=np.uint8, mode="r", shape=(len(labels), 3, 96, 96)).transpose(0, 3, 2, 1)
    return Listing(rows_of(images, array), labels, classes, size=SIZE)
