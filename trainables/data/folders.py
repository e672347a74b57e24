"""A folder of one's own with one sub-folder of images per class."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from trainables.data.listing import IMAGE_SUFFIXES, File, Listing, Parts, as_labels, image_files
from trainables.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from trainables.data.images import Split

VALIDATION_FOLDERS = ("val", "validation", "valid")


def image_folder(root: Path) -> Parts:
    """`train/`, `val/` and `test/` where they are there, all of it as `train` otherwise. A `val/` without
    a `test/` is the test split. Raises DataError if a class has no images."""
    if not root.is_dir():
        raise DataError(f"{root} is not a folder; expected one with a sub-folder of images per class")
    folders = split_folders(root)
    classes = class_folders(folders["train"])
    return {split: partial(class_listing, folder, classes) for split, folder in folders.items()}


def split_folders(root: Path) -> dict[Split, Path]:
    if not (root / "train").is_dir():
        return {"train": root}
    found: dict[Split, Path] = {"train": root / "train"}
    validation = next((root / name for name in VALIDATION_FOLDERS if (root / name).is_dir()), None)
    if (root / "test").is_dir():
        found["test"] = root / "test"
        if validation:
            found["validation"] = validation
    elif validation:
        found["test"] = validation
    return found


def class_folders(root: Path) -> list[str]:
    """Names of the class folders, in the order of the labels. Raises DataError if there are not two."""
    names = sub_folders(root)
    if len(names) < 2:
        raise DataError(f"{root} has {len(names)} sub-folders; expected one per class, two or more")
    return names


def sub_folders(root: Path) -> list[str]:
    return sorted(f.name for f in root.iterdir() if f.is_dir() and not f.name.startswith("."))


def class_listing(root: Path, folders: Sequence[str]) -> Listing:
    """All images below the class folders. Class names are the folders', `_` read as space.

    Raises DataError if one is empty, or if there is one that is not in `folders`.
    """
    strange = sorted(set(sub_folders(root)) - set(folders))
    if strange:
        raise DataError(f"{root / strange[0]} is no class of the training images; remove it or add it there")
    items, labels = [], []
    for label, name in enumerate(folders):
        files = image_files(root / name)
        if not files:
            raise DataError(f"{root / name} holds no images ({', '.join(sorted(IMAGE_SUFFIXES))})")
        items += [File(str(file)) for file in files]
        labels += [label] * len(files)
    names = tuple(folder.replace("_", " ") for folder in folders)
    return Listing(items, as_labels(labels), names, keys=tuple(folders))
