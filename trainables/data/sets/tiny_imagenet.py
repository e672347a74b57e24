"""TinyImageNet, as `tiny-imagenet-200.zip` unpacks."""

from __future__ import annotations

from pathlib import Path

from trainables.data.folders import class_folders, class_listing
from trainables.data.listing import File, Listing, Parts, as_labels, check_agreement
from trainables.data.sets.known import known
from trainables.errors import DataError

SIZE = (64, 64)


@known(
    "tiny-imagenet",
    archive="tiny-imagenet-200.zip",
    layout=(
        "tiny-imagenet-200/train",
        "tiny-imagenet-200/words.txt",
        "tiny-imagenet-200/val/val_annotations.txt",
    ),
)
def tiny_imagenet(root: Path) -> Parts:
    """Its labelled `val` images are our test split; its own test images have no labels and are not used."""
    folder = root / "tiny-imagenet-200"
    ids = tuple(class_folders(folder / "train"))
    classes = class_names(folder / "words.txt", ids)

    def train() -> Listing:
        found = class_listing(folder / "train", ids)
        return Listing(found.items, found.labels, classes, ids, SIZE)

    def test() -> Listing:
        table, images = folder / "val" / "val_annotations.txt", folder / "val" / "images"
        rows = [line.split("\t") for line in table.read_text(encoding="utf-8").splitlines()]
        label = {wnid: k for k, wnid in enumerate(ids)}
        strange = sorted({row[1] for row in rows} - set(ids))
        if strange:
            raise DataError(f"{table} names {strange[0]}, which has no folder in {folder / 'train'}")
        check_agreement(table, images, [row[0] for row in rows])
        items = [File(str(images / row[0])) for row in rows]
        return Listing(items, as_labels([label[row[1]] for row in rows]), classes, ids, SIZE)

    return {"train": train, "test": test}


def class_names(words: Path, ids: tuple[str, ...]) -> tuple[str, ...]:
    """The first synonym of each WordNet id."""
    lines = words.read_text(encoding="utf-8").splitlines()
    names = dict(line.split("\t", 1) for line in lines if "\t" in line)
    missing = [wnid for wnid in ids if wnid not in names]
    if missing:
        raise DataError(f"{words} has no name for {missing[0]}")
    return tuple(names[wnid].split(",")[0].strip() for wnid in ids)
