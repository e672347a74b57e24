"""Listed images as uint8 arrays: decoded once per machine into a file that all processes map, or anew
at each use.

A memory-mapped file is one copy in the machine's page cache, however many trials read it, and stays for
the next sweep. It lies in the cache folder under a name made of what identifies its images, is written by
one process while others wait, and renamed into place when complete.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from trainables.data.cache import cache_root, locked, whole
from trainables.data.fit import Fit
from trainables.data.images import Held
from trainables.errors import DataError
from trainables.progress import named, report

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from trainables.data.images import Store
    from trainables.data.listing import Item, Listing

CHUNK = 1024
"""Images decoded between two looks at what came out."""
LARGEST_SHARE = 0.5
"""Of the free space that a file may take where nobody asked for it."""
SHOWN = 3


def cores() -> int:
    return len(os.sched_getaffinity(0))


@dataclass(frozen=True)
class Mapped(Held):
    """A store in a file that `write` wrote.  sha256: of the images, which need not be read for it."""

    sha256: str = ""

    @property
    def fingerprint(self) -> str:
        return self.sha256


class Stream:
    """A store that decodes an image whenever it is asked for, in threads: Pillow lets them run."""

    notes = ()

    def __init__(self, listing: Listing, fit: Fit, fingerprint: str) -> None:
        self.items, self.fit, self.fingerprint = listing.items, fit, fingerprint
        self.shape = (len(listing), *fit.size, 3)
        self._threads = ThreadPoolExecutor(cores(), "decode")

    def __getitem__(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        return np.stack(list(self._threads.map(lambda row: read(self.items[row], self.fit), rows)))


def store_of(name: str, listing: Listing, fit: Fit, how: str) -> Store:
    """The images of a listing at one size.

    how: `once`, `always`, or `auto`, which is the first unless the file would take too much space.
    Raises DataError if any of them can't be read; with `always` not before it is wanted.
    """
    folder, fingerprint = cache_root() / "decoded", identity(listing, fit)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if how == "once":
            raise DataError(f"decode: once: {folder} can't be made ({error.strerror})") from error
        return Stream(listing, fit, fingerprint)
    file = folder / f"{name.replace('/', '_')}-{fingerprint[:24]}.npy"
    if how == "auto" and not file.exists():
        needed = len(listing) * fit.size[0] * fit.size[1] * 3
        how = "once" if needed <= LARGEST_SHARE * shutil.disk_usage(folder).free else "always"
    return Stream(listing, fit, fingerprint) if how == "always" else mapped(name, listing, fit, file)


def identity(listing: Listing, fit: Fit) -> str:
    """A digest of where all images are, when they were last changed, and what becomes of them.
    Raises DataError if one is not there any more, or a link to nowhere."""
    digest = hashlib.sha256(repr(fit).encode())
    for item in listing.items:
        try:
            digest.update(item.stamp().encode() + b"\n")
        except OSError as error:
            raise DataError(f"{item} can't be read: {error.strerror}; remove or replace it") from None
    return digest.hexdigest()


def mapped(name: str, listing: Listing, fit: Fit, file: Path) -> Mapped:
    if described(file) is None:
        with locked(file.with_suffix(".lock")):
            if described(file) is None:
                write(name, listing.items, fit, file)
    about = described(file)
    array: NDArray[np.uint8] = np.load(file, mmap_mode="r", allow_pickle=False)
    return Mapped(array, tuple(about["notes"]), about["sha256"])


def described(file: Path) -> Any:
    """What is written beside a file of images; None if either is not there, or not whole: a machine that
    went down may have left it empty."""
    try:
        return json.loads(file.with_suffix(".json").read_text()) if file.exists() else None
    except (FileNotFoundError, ValueError):
        return None


def write(name: str, items: Sequence[Item], fit: Fit, file: Path) -> None:
    """Decodes all images into `file`, with digest and notes beside it. Raises DataError, with a list of
    them in a file, if any can't be read, and if there is no room for them."""
    found: Counter[str] = Counter()
    failures: list[str] = []

    def decode(index: int) -> str:
        try:
            image, kind = as_rgb(items[index])
            array[index] = np.asarray(fit(image))
        except DataError as error:
            failures.append(str(error))
            return ""
        return kind

    with whole(file) as partial, named(f"decoding {name}"):
        shape, digest = (len(items), *fit.size, 3), hashlib.sha256()
        array = np.lib.format.open_memmap(partial, mode="w+", dtype=np.uint8, shape=shape)
        reserve(partial)
        with ThreadPoolExecutor(cores(), "decode") as threads:
            for first in range(0, len(items), CHUNK):
                chunk = range(first, min(first + CHUNK, len(items)))
                found.update(threads.map(decode, chunk))
                digest.update(array[chunk.start : chunk.stop].reshape(-1).data)
                report(chunk.stop, len(items))
        if failures:
            raise unreadable(name, sorted(failures), len(items), file.with_suffix(".unreadable.txt"))
        array.flush()
        notes = [f"{count} images {kind}" for kind, count in sorted(found.items()) if kind]
        file.with_suffix(".json").write_text(json.dumps({"sha256": digest.hexdigest(), "notes": notes}))


def reserve(file: Path) -> None:
    """Takes the space of a sparse file, for a process that writes to a map of it is killed where there is
    none left. Raises DataError."""
    with file.open("r+b") as opened:
        size = file.stat().st_size
        try:
            os.posix_fallocate(opened.fileno(), 0, size)
        except OSError as error:
            raise DataError(
                f"{file.parent} has no room for {size / 2**20:,.0f} MiB of decoded images "
                f"({error.strerror}); free some, set XDG_CACHE_HOME to another folder, or decode: always"
            ) from error


def unreadable(name: str, failures: list[str], count: int, file: Path) -> DataError:
    shown, rest = "; ".join(failures[:SHOWN]), len(failures) - SHOWN
    if rest > 0:
        file.write_text("\n".join(failures) + "\n", encoding="utf-8")
        shown += f"; and {rest} more, listed in {file}"
    return DataError(
        f"{len(failures)} of {count} images of {name!r} can't be read: {shown}; remove or replace them",
        "data.md#what-is-wrong-with-the-data-is-told",
    )


def read(item: Item, fit: Fit) -> NDArray[np.uint8]:
    """(H, W, 3) as the model sees it. Raises DataError if it can't be read."""
    return np.asarray(fit(as_rgb(item)[0]))


def as_rgb(item: Item) -> tuple[Image.Image, str]:
    """The image in RGB, and what had to be done about it, in words; nothing for RGB images."""
    try:
        with item.open() as opened:
            opened.load()
            image, kind = converted(opened)
            if getattr(opened, "n_frames", 1) > 1:
                kind = f"{kind}, and " * bool(kind) + "with several frames, of which the first was taken"
            return image, kind
    except UnidentifiedImageError:
        raise DataError(f"{item} (no image format that Pillow knows)") from None
    except Exception as error:  # Pillow's decoders raise SyntaxError, ValueError and others of their own
        raise DataError(f"{item} ({' '.join(str(error).split())})") from error


def converted(image: Image.Image) -> tuple[Image.Image, str]:
    if image.mode == "RGB":
        return image, ""
    if image.mode.startswith(("I", "F")):  # Pillow would cut all values above 255
        return from_deep(image), "with 16-bit grey levels, scaled to 8 bits"
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        # an alpha channel is dropped, as by everything that open_clip's models were trained and measured with
        return image.convert("RGB"), "with an alpha channel, which was dropped"
    if image.mode in ("L", "1"):
        return image.convert("RGB"), "in grey levels, taken as RGB"
    return image.convert("RGB"), f"of mode {image.mode}, converted to RGB"


def from_deep(image: Image.Image) -> Image.Image:
    """Grey levels of 16 bits, as Pillow has them in modes I and I;16; others are refused."""
    levels = np.asarray(image)
    if image.mode.startswith("F") or levels.min() < 0 or levels.max() > 65535:
        raise ValueError(f"mode {image.mode} has no grey levels between 0 and 65535")
    return Image.fromarray(np.rint(levels / 257).astype(np.uint8)).convert("RGB")
