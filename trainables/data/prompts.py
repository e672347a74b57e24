"""Class names and prompts of a data set, the set's own or given in files."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

from trainables.data.config import OWN_TEMPLATES, DataSet, check_template
from trainables.data.tables import read_lines
from trainables.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from trainables.data.listing import Listing

SHOWN = 5


def templates_of(data: DataSet, prompt: str | list[str], own: tuple[str, ...]) -> tuple[str, ...]:
    """Those that the set was given, else `prompt`, which may say that it be the set's `own`.

    Raises DataError if a file of them is not as expected.
    """
    if isinstance(data.templates, list):
        return tuple(data.templates)
    if data.templates is not None:
        return read_templates(data.templates)
    if prompt == OWN_TEMPLATES:
        return own
    return (prompt,) if isinstance(prompt, str) else tuple(prompt)


def read_templates(file: Path) -> tuple[str, ...]:
    lines = read_lines(file)
    if not lines:
        raise DataError(f"{file} is empty; expected one prompt in a line")
    try:
        return tuple(map(check_template, lines))
    except ValueError as error:
        raise DataError(f"{file}: {error}") from None


def with_class_names(listing: Listing, file: Path) -> Listing:
    """The listing with the class names of a file in place of its own.

    A text file has a name in a line, in the order of the labels; JSON is a list of them or an object from
    the set's own keys (folders, ids, or else its own names) to names.  Raises DataError if it has not
    exactly one for each class.
    """
    lines = read_lines(file)
    keys = listing.keys or listing.classes
    content: object = lines
    if file.suffix == ".json":
        try:
            content = json.loads("\n".join(lines))
        except ValueError as error:
            raise DataError(f"{file} is no JSON: {error}") from None
    if isinstance(content, dict):
        disagree(file, "is missing", [key for key in keys if key not in content])
        disagree(file, "is no class", [key for key in content if key not in keys])
        names = [content[key] for key in keys]
    elif isinstance(content, list) and len(content) == len(keys):
        names = content
    else:
        found = f"{len(content)} names" if isinstance(content, list) else "neither a list nor an object"
        raise DataError(f"{file} has {found}; expected one for each of the {len(keys)} classes")
    if not all(isinstance(name, str) and name for name in names):
        raise DataError(f"{file}: every class name should be a text that is not empty")
    return replace(listing, classes=tuple(names))


def disagree(file: Path, what: str, keys: Sequence[str]) -> None:
    if keys:
        raise DataError(f"{file} disagrees with the data set: {keys[0]!r} {what} ({len(keys)} such classes)")


def duplicates(classes: Sequence[str]) -> tuple[str, ...]:
    """A note if several classes have one name: no prompt can tell them apart."""
    twice = [name for name, count in Counter(classes).items() if count > 1]
    if not twice:
        return ()
    shown = ", ".join(map(repr, twice[:SHOWN])) + (", ..." if len(twice) > SHOWN else "")
    return (f"several classes have the same name: {shown}; prompts can't tell them apart",)
