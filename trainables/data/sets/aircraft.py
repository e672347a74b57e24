"""FGVC-Aircraft, as its archive unpacks, at the level of variants."""

from __future__ import annotations

from pathlib import Path

from trainables.data import templates
from trainables.data.images import Split
from trainables.data.listing import Parts
from trainables.data.sets.known import known
from trainables.data.tables import Table, numbered, read_lines, tabled

FOLDER = "fgvc-aircraft-2013b/data"
FILES: dict[Split, str] = {
    "train": "images_variant_train.txt",
    "validation": "images_variant_val.txt",
    "test": "images_variant_test.txt",
}


@known(
    "fgvc_aircraft",
    archive="fgvc-aircraft-2013b.tar.gz",
    layout=tuple(f"{FOLDER}/{name}" for name in ("images", "variants.txt", *FILES.values())),
    templates=templates.AIRCRAFT,
)
def aircraft(root: Path) -> Parts:
    """Has a validation split of its own. The line with the photographer's name below each image stays, as
    clip_benchmark leaves it."""
    folder = root / FOLDER
    classes = tuple(read_lines(folder / "variants.txt"))

    def table(file: Path) -> Table:
        rows = [line.partition(" ") for line in read_lines(file)]
        labels = numbered(file, [variant for _, _, variant in rows], classes, str(folder / "variants.txt"))
        return Table(file, [f"{number}.jpg" for number, _, _ in rows], labels)

    tables = {split: table(folder / name) for split, name in FILES.items()}
    return tabled(folder / "images", tables, classes)
