"""Files that come with a data set and say which images it has, of which class and in which split."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trainables.data.listing import File, Listing, as_labels, files_below
from trainables.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from trainables.data.images import Split
    from trainables.data.listing import Part


@dataclass(frozen=True)
class Table:
    """The images of a split as a file of the set lists them.

    names: (N,) paths below the folder of the images, without a leading `/`.  labels: (N,) int64.
    """

    file: Path
    names: Sequence[str]
    labels: NDArray[np.int64]


def tabled(
    folder: Path,
    tables: Mapping[Split, Table],
    classes: tuple[str, ...],
    keys: tuple[str, ...] = (),
    *,
    size: tuple[int, int] | None = None,
    complete: bool = True,
) -> dict[Split, Part]:
    """The splits of a set whose images lie in `folder`.

    complete: the tables are to list every image in the folder; a note tells of those that are in none
    otherwise.  Raises DataError where tables and folder disagree, or an image is listed twice.
    """
    files = [table.file for table in tables.values()]
    notes = check_agreement(files, folder, [n for table in tables.values() for n in table.names], complete)

    def part(table: Table) -> Listing:
        items = [File(os.path.join(folder, name)) for name in table.names]
        return Listing(items, table.labels, classes, keys, size, notes=notes)

    return {split: partial(part, table) for split, table in tables.items()}


def check_agreement(
    tables: Sequence[Path], folder: Path, listed: Iterable[str], complete: bool = True
) -> tuple[str, ...]:
    """Raises DataError unless tables list the images of a folder, by their paths below it, once each.

    Images that are in none are a note where the tables need not be complete.
    """
    where = " and ".join(map(str, tables))
    counts = Counter(listed)
    twice = [name for name, count in counts.items() if count > 1]
    if twice:
        raise DataError(f"{where} list {min(twice)} twice ({len(twice)} such images); no split may share any")
    below = len(str(folder)) + 1
    there = {file[below:] for file in files_below(folder)[0]}
    missing, unlisted = counts.keys() - there, there - counts.keys()
    if missing:
        raise disagreement(where, folder, missing, "listed, but not there")
    if unlisted and complete:
        raise disagreement(where, folder, unlisted, "there, but not listed")
    if unlisted:
        return (f"{len(unlisted)} images in {folder} are not used, since {where} do not list them",)
    return ()


def disagreement(where: str, folder: Path, names: Iterable[str], what: str) -> DataError:
    names = sorted(names)
    return DataError(
        f"{where} and {folder} disagree: {names[0]} is {what} ({len(names)} such images); "
        "unpack the archive anew"
    )


def numbered(file: Path, keys: Iterable[str], classes: Sequence[str], where: str) -> NDArray[np.int64]:
    """(N,) labels of class names in a file. where: the classes are from. Raises DataError."""
    number = {name: label for label, name in enumerate(classes)}
    keys = list(keys)
    strange = sorted(set(keys) - number.keys())
    if strange:
        raise DataError(
            f"{file} names {strange[0]!r}, which is no class in {where} ({len(strange)} such classes)"
        )
    return as_labels([number[key] for key in keys])


def in_range(file: Path, labels: NDArray[np.int64], classes: Sequence[str]) -> NDArray[np.int64]:
    """The labels. Raises DataError unless each is one of the classes."""
    strange = np.unique(labels[(labels < 0) | (labels >= len(classes))])
    if len(strange):
        raise DataError(
            f"{file} has the label {strange[0]}; expected 0 to {len(classes) - 1} for its classes"
        )
    return labels


def read_lines(file: Path) -> list[str]:
    """Lines that are not empty, without surrounding spaces. Raises DataError."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file} can't be read: {getattr(error, 'strerror', None) or error}") from None
    return [line.strip() for line in lines if line.strip()]


def read_columns(file: Path, count: int, separator: str | None = None) -> list[list[str]]:
    """The first `count` fields of each line; the last of them goes to the end of the line where no more
    are separated. Raises DataError for lines with fewer."""
    rows = [line.split(separator) for line in read_lines(file)]
    for number, row in enumerate(rows, 1):
        if len(row) < count:
            raise DataError(f"{file}, line {number}: expected {count} fields, got {' '.join(row)!r}")
    return [row[:count] for row in rows]


def read_json(file: Path) -> Any:
    """Raises DataError."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{file} is no JSON: {error}") from None


def read_mat(file: Path, *names: str) -> list[NDArray[Any]]:
    """Variables of a MATLAB file, without axes of length 1. Raises DataError."""
    from scipy.io import loadmat

    try:
        content = loadmat(file, squeeze_me=True)
        return [np.atleast_1d(content[name]) for name in names]
    except Exception as error:  # a damaged file raises whatever the bytes happen to mean
        raise DataError(f"{file} is not a MATLAB file with {' and '.join(names)} ({error})") from None
