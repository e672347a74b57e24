"""Food-101, as its archive unpacks."""

from __future__ import annotations

from pathlib import Path

from trainables.data import templates
from trainables.data.images import Split
from trainables.data.listing import Parts, as_labels
from trainables.data.sets.known import known
from trainables.data.tables import Table, read_json, tabled
from trainables.errors import DataError

FOLDER = "food-101"


@known(
    "food101",
    archive="food-101.tar.gz",
    layout=(f"{FOLDER}/images", f"{FOLDER}/meta/train.json", f"{FOLDER}/meta/test.json"),
    templates=templates.FOOD101,
)
def food101(root: Path) -> Parts:
    meta = root / FOLDER / "meta"
    lists = {file: read_json(file) for file in (meta / "train.json", meta / "test.json")}
    keys = tuple(sorted(lists[meta / "train.json"]))

    def table(file: Path) -> Table:
        images = lists[file]
        strange = sorted(set(images) ^ set(keys))
        if strange:
            raise DataError(f"the files in {meta} disagree: only one of them has the class {strange[0]!r}")
        names = [f"{name}.jpg" for key in keys for name in images[key]]
        return Table(file, names, as_labels([k for k, key in enumerate(keys) for _ in images[key]]))

    tables: dict[Split, Table] = {"train": table(meta / "train.json"), "test": table(meta / "test.json")}
    return tabled(root / FOLDER / "images", tables, tuple(key.replace("_", " ") for key in keys), keys)
