"""Oxford-IIIT Pets, as its two archives unpack."""

from __future__ import annotations

from pathlib import Path

from trainables.data import templates
from trainables.data.listing import Parts
from trainables.data.sets.known import known
from trainables.data.tables import Table, numbered, read_columns, tabled
from trainables.errors import DataError

FOLDER = "oxford-iiit-pet"
TRAIN, TEST = "annotations/trainval.txt", "annotations/test.txt"


@known(
    "pets",
    archive="images.tar.gz and annotations.tar.gz",
    into=FOLDER,
    layout=(f"{FOLDER}/images", f"{FOLDER}/{TRAIN}", f"{FOLDER}/{TEST}"),
    templates=templates.PETS,
)
def pets(root: Path) -> Parts:
    """`trainval` is our training split. The archive has a few images that neither list names; a note
    says how many. Classes are called as the images are, `american_bulldog_1` an American Bulldog."""
    folder = root / FOLDER
    rows = {file: read_columns(folder / file, 2) for file in (TRAIN, TEST)}
    keys = breeds(folder / TRAIN, rows[TRAIN])

    def table(file: str) -> Table:
        labels = numbered(folder / file, [breed(row[0]) for row in rows[file]], keys, str(folder / TRAIN))
        wrong = [row for row, label in zip(rows[file], labels, strict=True) if row[1] != str(label + 1)]
        if wrong:
            raise DataError(
                f"{folder / file} calls {wrong[0][0]} class {wrong[0][1]}, but its name says another"
            )
        return Table(folder / file, [f"{row[0]}.jpg" for row in rows[file]], labels)

    classes = tuple(" ".join(word.title() for word in key.split("_")) for key in keys)
    return tabled(
        folder / "images", {"train": table(TRAIN), "test": table(TEST)}, classes, keys, complete=False
    )


def breed(image: str) -> str:
    return image.rpartition("_")[0]


def breeds(file: Path, rows: list[list[str]]) -> tuple[str, ...]:
    """In the order of the classes' numbers, which count from 1."""
    name_of = {int(number): breed(image) for image, number in rows if number.isdigit()}
    if sorted(name_of) != list(range(1, len(name_of) + 1)):
        raise DataError(f"{file} should number its classes from 1 on without gaps")
    return tuple(name_of[number] for number in sorted(name_of))
