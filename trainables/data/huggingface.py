"""A data set of the library `datasets`, in the folder where its `save_to_disk` wrote it.

Its Arrow files are memory-mapped; images are read from them where they are wanted.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from trainables.data.folders import splits_of
from trainables.data.listing import File, Item, Listing, as_labels
from trainables.data.tables import in_range
from trainables.errors import DataError

if TYPE_CHECKING:
    from trainables.data.listing import Parts


@dataclass(frozen=True, slots=True)
class Cell:
    """An image in a column of an Arrow table, whose values are dicts with the `bytes` of an image file or
    the `path` of one. saved: changes when the table's files do."""

    where: str
    column: Any = field(compare=False, repr=False)
    index: int
    saved: str

    def __str__(self) -> str:
        return f"{self.where} #{self.index}"

    def stamp(self) -> str:
        return f"{self.saved}\0{self.index}"

    def open(self) -> Image.Image:
        value = self.column[self.index].as_py()
        if value is None:
            raise ValueError("no image")
        return (
            Image.open(BytesIO(value["bytes"])) if value["bytes"] is not None else File(value["path"]).open()
        )


def huggingface(root: Path, image: str | None = None, label: str | None = None) -> Parts:
    """A `DatasetDict` with splits, or a `Dataset` without, which is `train` then.

    image, label: columns; by default the only ones of the types Image and ClassLabel.
    Raises DataError if it is none or has not exactly one of each.
    """
    saved = load(root)
    if not isinstance(saved, dict):
        return {"train": partial(listing, root, saved, image, label)}
    splits = splits_of(list(saved))
    if not splits:
        raise DataError(f"{root} has the splits {', '.join(saved)}; expected train, validation or test")
    notes = tuple(f"the split {name!r} is not used" for name in saved if name not in splits.values())
    return {
        split: partial(listing, root / name, saved[name], image, label, notes)
        for split, name in splits.items()
    }


def load(root: Path) -> Any:
    if not any((root / file).is_file() for file in ("dataset_dict.json", "state.json")):
        raise DataError(f"{root} is no data set that `save_to_disk` of the library datasets wrote")
    try:
        from datasets import load_from_disk
    except ImportError:
        raise DataError("this needs the package datasets: pip install datasets") from None
    try:
        return load_from_disk(str(root))
    except Exception as error:  # the library raises whatever its files' readers do
        raise DataError(f"{root} can't be read: {' '.join(str(error).split())}") from error


def listing(
    root: Path, saved: Any, image: str | None, label: str | None, notes: tuple[str, ...] = ()
) -> Listing:
    image = column(root, saved, "Image", image, "image_column")
    label = column(root, saved, "ClassLabel", label, "label_column")
    keys = tuple(saved.features[label].names)
    values = saved.data.column(label).to_pylist()
    missing = sum(value in (None, -1) for value in values)
    if missing:
        raise DataError(f"{root}: {missing} of {len(saved)} images have no label; save the set without them")
    labels = in_range(root, as_labels(values), keys)
    stamp = "\n".join(File(file["filename"]).stamp() for file in saved.cache_files)
    cells = saved.data.column(image)
    items: list[Item] = [Cell(str(root), cells, index, stamp) for index in range(len(saved))]
    return Listing(items, labels, tuple(key.replace("_", " ") for key in keys), keys, notes=notes)


def column(root: Path, saved: Any, kind: str, given: str | None, key: str) -> str:
    """The column of a type. Raises DataError unless there is one, or the one given."""
    found = [name for name, feature in saved.features.items() if type(feature).__name__ == kind]
    chosen = [name for name in found if given in (None, name)]
    if len(chosen) == 1:
        return chosen[0]
    columns = ", ".join(f"{name}: {type(feature).__name__}" for name, feature in saved.features.items())
    wanted = f"{given!r} to be such a column" if given else "exactly one such column"
    hint = f", or {key} to name one of them" if not given and found else ""
    raise DataError(f"{root} has {len(found)} columns of type {kind} ({columns}); expected {wanted}{hint}")
