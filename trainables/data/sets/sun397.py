"""SUN397, with the first of the ten partitions that were published with it."""

from __future__ import annotations

from pathlib import Path

from trainables.data import templates
from trainables.data.images import Split
from trainables.data.listing import Parts
from trainables.data.sets.known import known
from trainables.data.tables import Table, numbered, read_lines, tabled

FOLDER = "SUN397"
TRAIN, TEST = "Training_01.txt", "Testing_01.txt"


@known(
    "sun397",
    archive="SUN397.tar.gz, and Partitions.zip in the folder SUN397 that it makes,",
    layout=(f"{FOLDER}/ClassName.txt", f"{FOLDER}/{TRAIN}", f"{FOLDER}/{TEST}"),
    templates=templates.SUN397,
)
def sun397(root: Path) -> Parts:
    """50 images of each class to train on and 50 to test on; a note says how many are in neither list.

    clip_benchmark measures on all images of the set instead, training images included. Names are the
    folders' as there: `/a/apartment_building/outdoor` is `apartment building outdoor`.
    """
    folder = root / FOLDER
    keys = tuple(read_lines(folder / "ClassName.txt"))
    classes = tuple(key[3:].replace("_", " ").replace("/", " ") for key in keys)

    def table(file: Path) -> Table:
        names = read_lines(file)
        labels = numbered(
            file, [name.rpartition("/")[0] for name in names], keys, str(folder / "ClassName.txt")
        )
        return Table(file, [name.lstrip("/") for name in names], labels)

    tables: dict[Split, Table] = {"train": table(folder / TRAIN), "test": table(folder / TEST)}
    return tabled(folder, tables, classes, keys, complete=False)
