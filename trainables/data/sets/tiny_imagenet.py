"""TinyImageNet, as `tiny-imagenet-200.zip` unpacks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from trainables.data import templates
from trainables.data.folders import class_folders, class_listing
from trainables.data.listing import Listing
from trainables.data.sets.known import known
from trainables.data.tables import Table, numbered, read_columns, read_lines, tabled
from trainables.errors import DataError

if TYPE_CHECKING:
    from trainables.data.listing import Parts

SIZE = (64, 64)


@known(
    "tiny-imagenet",
    archive="tiny-imagenet-200.zip",
    layout=(
        "tiny-imagenet-200/train",
        "tiny-imagenet-200/words.txt",
        "tiny-imagenet-200/val/val_annotations.txt",
        "tiny-imagenet-200/val/images",
    ),
    templates=templates.IMAGENET,
)
def tiny_imagenet(root: Path) -> Parts:
    """Its labelled `val` images are our test split; its own test images have no labels and are not used."""
    folder = root / "tiny-imagenet-200"
    ids = tuple(class_folders(folder / "train"))
    classes = class_names(folder / "words.txt", ids)

    def train() -> Listing:
        found = class_listing(folder / "train", ids)
        return Listing(found.items, found.labels, classes, ids, SIZE)

    annotations = folder / "val" / "val_annotations.txt"
    rows = read_columns(annotations, 2, "\t")
    labels = numbered(annotations, [row[1] for row in rows], ids, str(folder / "train"))
    table = Table(annotations, [row[0] for row in rows], labels)
    return {"train": train, **tabled(folder / "val" / "images", {"test": table}, classes, ids, size=SIZE)}


def class_names(words: Path, ids: tuple[str, ...]) -> tuple[str, ...]:
    """The first synonym of each WordNet id."""
    names = dict(line.split("\t", 1) for line in read_lines(words) if "\t" in line)
    missing = [wnid for wnid in ids if wnid not in names]
    if missing:
        raise DataError(f"{words} has no name for {missing[0]}")
    return tuple(names[wnid].split(",")[0].strip() for wnid in ids)
