"""Shards of a WebDataset, as clip_benchmark lays them out and exports its sets.

Each image is a member `NAME.webp`, `.png`, `.jpg` or `.jpeg` of a tar archive, its label the member
`NAME.cls`. Images are read from the archives where they are wanted.
"""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from trainables.data import prompts
from trainables.data.cache import cache_root, whole
from trainables.data.folders import splits_of, sub_folders
from trainables.data.listing import File, Listing, Member, as_labels
from trainables.data.tables import in_range, read_lines
from trainables.errors import DataError

if TYPE_CHECKING:
    from typing import IO

    from trainables.data.listing import Parts

SUFFIXES = ("webp", "png", "jpg", "jpeg")
CLASSES, TEMPLATES = "classnames.txt", "zeroshot_classification_templates.txt"
LAYOUT = f"expected shards 0.tar, 1.tar, ... in it or in its folders train and test, and {CLASSES}"

Sample = tuple[str, int, int, int]
"""Name of the image's member, its offset and size, and the label."""


def webdataset(root: Path) -> Parts:
    """`train/`, `val/` and `test/` as in a folder of images, or shards without splits.
    Raises DataError if it is none."""
    if not (root / CLASSES).is_file():
        raise DataError(f"{root} is no WebDataset: {LAYOUT}")
    kind = root / "dataset_type.txt"
    if kind.exists() and read_lines(kind) not in ([], ["classification"]):
        raise DataError(f"{kind} says that these images have no single class each; expected classification")
    folders = {split: root / name for split, name in splits_of(sub_folders(root)).items()}
    classes = tuple(read_lines(root / CLASSES))
    if len(classes) < len((root / CLASSES).read_text(encoding="utf-8").strip().splitlines()):
        raise DataError(f"{root / CLASSES} has an empty line; expected a class name in each")
    return {
        split: partial(listing, folder, classes) for split, folder in (folders or {"train": root}).items()
    }


def templates_of(root: Path) -> tuple[str, ...] | None:
    """The set's own prompts, if it has any. Raises DataError."""
    file = root / TEMPLATES
    return prompts.read_templates(file) if file.exists() else None


def listing(folder: Path, classes: tuple[str, ...]) -> Listing:
    items: list[Member] = []
    labels: list[int] = []
    for archive in shards(folder):
        samples = index(archive)
        own = in_range(archive, as_labels([label for *_, label in samples]), classes)
        items += [Member(str(archive), name, offset, size) for name, offset, size, _ in samples]
        labels += own.tolist()
    return Listing(items, as_labels(labels), classes)


def shards(folder: Path) -> list[Path]:
    """In order. Raises DataError unless they are as many as nshards.txt says, where it is there."""
    found = sorted(folder.glob("*.tar"), key=lambda file: (len(file.stem), file.stem))
    if not found:
        raise DataError(f"{folder} holds no .tar files; {LAYOUT}")
    count = folder / "nshards.txt"
    if count.exists():
        (said,) = read_lines(count)[:1] or [""]
        names = [f"{number}.tar" for number in range(int(said))] if said.isdigit() else []
        if [file.name for file in found] != names:
            raise DataError(
                f"{count} says {said!r}, but {folder} holds {len(found)} shards; copy the set anew"
            )
    return found


def index(archive: Path) -> list[Sample]:
    """The images of an archive, from the cache if it did not change since. Raises DataError."""
    key = hashlib.sha256(File(str(archive)).stamp().encode()).hexdigest()[:24]
    file = cache_root() / "shards" / f"{key}.json"
    try:
        return [(name, offset, size, label) for name, offset, size, label in json.loads(file.read_text())]
    except (OSError, ValueError):  # not there, or not whole
        pass
    found = read_index(archive)
    with suppress(OSError):  # where nothing can be written it is read anew the next time
        file.parent.mkdir(parents=True, exist_ok=True)
        with whole(file) as written:
            written.write_text(json.dumps(found))
    return found


def read_index(archive: Path) -> list[Sample]:
    """As `index`, from the archive's own headers."""
    images: dict[str, tuple[str, int, int]] = {}
    labels: dict[str, int] = {}
    try:
        with archive.open("rb") as stream, tarfile.open(fileobj=stream, mode="r:") as tar:
            for member in tar:
                folder, name = os.path.split(member.name)
                base, _, suffix = name.partition(".")
                key = f"{folder}/{base}"
                if not member.isfile() or not base:
                    continue
                if suffix.lower() == "cls":
                    labels[key] = label_in(archive, member, stream)
                elif suffix.lower() in SUFFIXES:
                    if key in images:
                        raise DataError(f"{archive}: {images[key][0]} and {member.name} are one sample")
                    images[key] = (member.name, member.offset_data, member.size)
            stream.seek(tar.offset)
            if not stream.read(1):
                raise tarfile.ReadError("its end mark is missing")
    except (tarfile.TarError, OSError) as error:
        raise DataError(f"{archive} is no whole tar archive without compression ({error})") from None
    unlabelled, without = sorted(images.keys() - labels.keys()), sorted(labels.keys() - images.keys())
    if unlabelled:
        raise DataError(f"{archive}: {images[unlabelled[0]][0]} has no .cls ({len(unlabelled)} such images)")
    if without:
        raise DataError(f"{archive}: {without[0].strip('/')}.cls has no image ({len(without)} such labels)")
    if not images:
        raise DataError(f"{archive} holds no images ({', '.join(SUFFIXES)})")
    return [(*images[key], labels[key]) for key in images]


def label_in(archive: Path, member: tarfile.TarInfo, stream: IO[bytes]) -> int:
    place = stream.tell()
    stream.seek(member.offset_data)
    text = stream.read(member.size).decode("ascii", "replace").strip()
    stream.seek(place)
    if not text.isdigit():
        raise DataError(f"{archive}: {member.name} is {text[:20]!r}; expected the number of a class")
    return int(text)
