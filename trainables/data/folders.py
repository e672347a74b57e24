"""A folder of one's own with one sub-folder of images per class, or with images of no class."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from functools import partial
from typing import TYPE_CHECKING

from trainables.data.listing import (
    IMAGE_SUFFIXES,
    LITTER,
    NO_CLASS,
    File,
    Listing,
    Parts,
    as_labels,
    files_below,
)
from trainables.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from trainables.data.images import Split

VALIDATION_NAMES = ("val", "validation", "valid")
SPLIT_NAMES = ("train", "test", *VALIDATION_NAMES)
PAGE = "data.md#sets-of-your-own"


def image_folder(root: Path) -> Parts:
    """`train/`, `val/` and `test/` where they are there, all of it as `train` otherwise.
    Raises DataError if a class has no images."""
    if not root.is_dir():
        raise DataError(f"{root} is not a folder; expected one with a sub-folder of images per class", PAGE)
    splits, notes = own_splits(root)
    if not splits:
        return {"train": partial(class_listing, root, class_folders(root))}
    classes = class_folders(root / next(iter(splits.values())))
    return {split: partial(class_listing, root / name, classes, notes) for split, name in splits.items()}


def outside_folder(root: Path) -> Parts:
    """`train/`, `val/` and `test/` where they are there, all of it as `test` otherwise; whatever lies in them
    is of no class. Raises DataError if there are no images."""
    if not root.is_dir():
        raise DataError(f"{root} is not a folder; expected one with images", PAGE)
    splits, notes = own_splits(root)
    if not splits:
        return {"test": partial(outside_listing, root)}
    return {split: partial(outside_listing, root / name, notes) for split, name in splits.items()}


def own_splits(root: Path) -> tuple[Mapping[Split, str], tuple[str, ...]]:
    """The folders of a folder's splits, if it has any, and notes on what else lies beside them."""
    there = sub_folders(root)
    without_splits = "train" not in there and bool(set(there) - set(SPLIT_NAMES))
    splits: Mapping[Split, str] = {} if without_splits else splits_of(there)
    unused = [name for name in there if splits and name not in splits.values()]
    return splits, tuple(f"{root / name} is no split and not read" for name in unused)


def splits_of(names: Sequence[str]) -> dict[Split, str]:
    """Which of these names, of folders or of what else has splits, is which split, training first.

    A validation split without a test split is the test split.
    """
    validation = next((name for name in VALIDATION_NAMES if name in names), None)
    found: dict[Split, str] = {"train": "train"} if "train" in names else {}
    if "test" in names:
        found["test"] = "test"
        if validation:
            found["validation"] = validation
    elif validation:
        found["test"] = validation
    return found


def class_folders(root: Path) -> list[str]:
    """Names of the class folders, in the order of the labels. Raises DataError if there are not two."""
    names = sub_folders(root)
    if len(names) < 2:
        raise DataError(f"{root} has {len(names)} sub-folders; expected one per class, two or more", PAGE)
    return names


def sub_folders(root: Path) -> list[str]:
    return sorted(
        f.name for f in root.iterdir() if f.is_dir() and not f.name.startswith(".") and f.name not in LITTER
    )


def class_listing(
    root: Path, folders: Sequence[str], notes: tuple[str, ...] = (), unused: Collection[str] = ()
) -> Listing:
    """All images below the class folders. Class names are the folders', `_` read as space.

    unused: folders that may be there besides.
    Raises DataError if a class has no images, or if there is a folder that is none of these.
    """
    strange = sorted(set(sub_folders(root)) - set(folders) - set(unused))
    if strange:
        raise DataError(
            f"{root / strange[0]} is no class of this set; remove it, or add it to the training images",
            PAGE,
        )
    items: list[File] = []
    labels: list[int] = []
    unread: list[str] = []
    for label, name in enumerate(folders):
        files, others = files_below(root / name) if (root / name).is_dir() else ([], [])
        if not files:
            raise no_images(root / name)
        items += map(File, files)
        labels += [label] * len(files)
        unread += others
    beside = [entry.path for entry in os.scandir(root) if is_image(entry)]
    names = tuple(folder.replace("_", " ") for folder in folders)
    notes += not_read(unread, "that are no images by their suffix") + not_read(
        sorted(beside), "in no class folder"
    )
    return Listing(items, as_labels(labels), names, keys=tuple(folders), notes=notes)


def outside_listing(root: Path, notes: tuple[str, ...] = ()) -> Listing:
    """All images in a folder and below it, of no class. Raises DataError if there are none."""
    files, others = files_below(root)
    if not files:
        raise no_images(root)
    notes += not_read(others, "that are no images by their suffix")
    return Listing(list(map(File, files)), as_labels([NO_CLASS] * len(files)), (), notes=notes)


def no_images(root: Path) -> DataError:
    return DataError(f"{root} holds no images ({', '.join(sorted(IMAGE_SUFFIXES))})", PAGE)


def is_image(entry: os.DirEntry[str]) -> bool:
    return entry.is_file() and os.path.splitext(entry.name)[1].lower() in IMAGE_SUFFIXES


def not_read(files: Sequence[str], why: str) -> tuple[str, ...]:
    return (f"files {why} are not read: {len(files)}, such as {files[0]}",) if files else ()
