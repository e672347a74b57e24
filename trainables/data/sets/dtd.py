"""Describable Textures, as its archive unpacks, with the first of its ten partitions."""

from __future__ import annotations

from pathlib import Path

from trainables.data import templates
from trainables.data.folders import class_folders
from trainables.data.images import Split
from trainables.data.listing import Parts
from trainables.data.sets.known import known
from trainables.data.tables import Table, numbered, read_lines, tabled

FOLDER = "dtd/dtd"
FILES: dict[Split, str] = {
    "train": "labels/train1.txt",
    "validation": "labels/val1.txt",
    "test": "labels/test1.txt",
}


@known(
    "dtd",
    archive="dtd-r1.0.1.tar.gz",
    into="dtd",
    layout=(f"{FOLDER}/images", *(f"{FOLDER}/{name}" for name in FILES.values())),
    templates=templates.DTD,
)
def dtd(root: Path) -> Parts:
    """Has a validation split of its own."""
    images = root / FOLDER / "images"
    keys = tuple(class_folders(images))

    def table(file: Path) -> Table:
        names = read_lines(file)
        return Table(
            file, names, numbered(file, [name.partition("/")[0] for name in names], keys, str(images))
        )

    tables = {split: table(root / FOLDER / name) for split, name in FILES.items()}
    return tabled(images, tables, tuple(key.replace("_", " ") for key in keys), keys)
