"""What a data set lists before anything is decoded: images, labels, class names, and its splits."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from PIL import Image

from trainables.data.images import Split, cut
from trainables.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm", ".pgm"}
)
LITTER = frozenset({"__MACOSX", "Thumbs.db", "desktop.ini"})
"""What systems leave in folders. It is not looked at, and neither are hidden files and folders."""
NO_CLASS = -1
"""The label of an image that is of no class."""
HELD_OUT = 0.2
"""Share of the images that becomes the validation or test split of a set that has none."""


class Item(Protocol):
    """One stored image."""

    def __str__(self) -> str:
        """Where it is, for people."""

    def stamp(self) -> str:
        """Changes when the image does."""

    def open(self) -> Image.Image:
        """Raises whatever Pillow raises if it can't be read."""


@dataclass(frozen=True, slots=True)
class File:
    """An image file."""

    path: str

    def __str__(self) -> str:
        return self.path

    def stamp(self) -> str:
        status = os.stat(self.path)
        return f"{self.path}\0{status.st_size}\0{status.st_mtime_ns}"

    def open(self) -> Image.Image:
        return Image.open(BytesIO(Path(self.path).read_bytes()))


@dataclass(frozen=True, slots=True)
class Member:
    """An image file within a tar archive. offset, size: where its bytes are."""

    archive: str
    name: str
    offset: int
    size: int

    def __str__(self) -> str:
        return f"{self.archive}:{self.name}"

    def stamp(self) -> str:
        status = os.stat(self.archive)
        return f"{self}\0{self.offset}\0{self.size}\0{status.st_mtime_ns}"

    def open(self) -> Image.Image:
        with open(self.archive, "rb") as archive:
            archive.seek(self.offset)
            return Image.open(BytesIO(archive.read(self.size)))


class Rows(Protocol):
    """(N, H, W, 3) uint8: an array, or what reads a row of a file when it is asked for."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a file that holds all images of a set.

    file: whose stamp is the row's.
    """

    file: str
    array: Rows = field(compare=False, repr=False)
    index: int

    def __str__(self) -> str:
        return f"{self.file} #{self.index}"

    def stamp(self) -> str:
        return f"{File(self.file).stamp()}\0{self.index}"

    def open(self) -> Image.Image:
        return Image.fromarray(np.ascontiguousarray(self.array[self.index]))


def rows_of(file: Path, array: Rows) -> list[Item]:
    """The rows of (N, H, W, 3) uint8 images, as items."""
    return [Row(str(file), array, index) for index in range(len(array))]


@dataclass(frozen=True)
class Listing:
    """The images of one split.

    items: where they are.  labels: (N,) int64 in [0, K).  classes: K names as they stand in a prompt; none
    of images that are scored and not classified, whose labels are NO_CLASS.
    keys: K names of the classes in the set's own files, as folders or WordNet ids; `classes` by default.
    size: (H, W), where all images have one size.  origin: of which images of the set these are.
    numbers: (N,) positions in the original split.  notes: what a user should know of these data.
    together: (N,) images with the same number are in the same split, as frames of one video.
    """

    items: Sequence[Item]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    keys: tuple[str, ...] = ()
    size: tuple[int, int] | None = None
    origin: str = ""
    numbers: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    notes: tuple[str, ...] = ()
    together: NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        if len(self.items) != len(self.labels):
            raise DataError(f"{len(self.items)} images and {len(self.labels)} labels; expected as many")
        if len(self.numbers) != len(self.labels):
            object.__setattr__(self, "numbers", np.arange(len(self.labels)))

    def __len__(self) -> int:
        return len(self.labels)

    def digest(self) -> str:
        """Changes when an image is added, taken away or renamed, not when the set is moved."""
        digest = hashlib.sha256(self.labels.tobytes() + self.numbers.tobytes())
        for item in self.items:
            digest.update(f"{os.path.basename(str(item))}\n".encode())
        return digest.hexdigest()[:16]

    def take(self, indices: NDArray[np.int64]) -> Listing:
        items = [self.items[i] for i in indices]
        together = None if self.together is None else self.together[indices]
        return replace(
            self,
            items=items,
            labels=self.labels[indices],
            numbers=self.numbers[indices],
            together=together,
        )

    def unclassified(self) -> Listing:
        """The same images, to be scored and not classified."""
        return replace(self, labels=np.full_like(self.labels, NO_CLASS), classes=(), keys=())


WORDS: dict[Split, str] = {"train": "training", "validation": "validation", "test": "test"}

Part = Callable[[], Listing]
Parts = Mapping[Split, Part]
"""The splits that a set itself has. Of those there must be `train` or `test`."""


def split_of(parts: Parts, split: Split) -> Listing:
    """The images of a split, which no other split has.

    A validation split that the set lacks is a fixed 20 % of the training images, of the test images where
    there are no training images; a test split that it lacks is a fixed 20 % of all images.
    Raises DataError for the training images of a set that has none.
    """
    if "test" not in parts:
        held_out, rest = divided(parts["train"](), "the images")
        parts = {**parts, "test": lambda: held_out, "train": lambda: rest}
    if split == "train" and "train" not in parts:
        raise DataError("there are no training images; this set can only be evaluated on")
    own_test = split == "test" and "train" in parts
    if own_test or (split in parts and "validation" in parts):
        return named(parts[split](), f"the {WORDS[split]} images")
    whole: Split = "train" if "train" in parts else "test"
    held_out, rest = divided(parts[whole](), f"the {WORDS[whole]} images")
    return held_out if split == "validation" else rest


def divided(listing: Listing, what: str) -> tuple[Listing, Listing]:
    """A fifth of the images, and the others."""
    what = listing.origin or what
    share = round(100 * HELD_OUT)
    few, most = cut(listing.labels, HELD_OUT, listing.together)
    return (
        replace(listing.take(few), origin=f"{share} % of {what}"),
        replace(listing.take(most), origin=f"{100 - share} % of {what}"),
    )


def named(listing: Listing, what: str) -> Listing:
    return replace(listing, origin=listing.origin or what)


def files_below(folder: Path) -> tuple[list[str], list[str]]:
    """Paths of the image files in a folder and below it, and of the other files, both in order.

    An image file is one by its suffix. Written for ImageNet's million of files.
    """
    images, others, folders = [], [], [str(folder)]
    while folders:
        with os.scandir(folders.pop()) as entries:
            for entry in entries:
                if entry.name.startswith(".") or entry.name in LITTER:
                    continue
                if entry.is_dir():
                    folders.append(entry.path)
                elif os.path.splitext(entry.name)[1].lower() in IMAGE_SUFFIXES:
                    images.append(entry.path)
                else:
                    others.append(entry.path)
    return sorted(images), sorted(others)


def as_labels(values: Sequence[Any]) -> NDArray[np.int64]:
    return np.asarray(values, dtype=np.int64)
