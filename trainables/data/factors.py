"""ImageNet-X: in what an image of ImageNet differs from those that are typical of its class.

Annotators compared each with three prototypes, and chose among sixteen factors those that differ and the one
that does most, its top factor. Idrissi et al. count an image under its top factor alone, and the prototypes
under none; so does `load_annotations()` of their package, and so is it here. The annotations (CC BY-NC 4.0)
are read where the user has installed them, and are no part of this project.
"""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from trainables.data.names import FACTORS
from trainables.data.tables import read_lines
from trainables.errors import DataError

if TYPE_CHECKING:
    from trainables.data.images import Split
    from trainables.data.listing import Listing

VARIABLE = "SWEEPER_IMAGENET_X"
PACKAGE = "imagenet_x"
ANNOTATIONS = ("imagenet_x_val_top_factor.jsonl", "imagenet_x_train_top_factor.jsonl")
"""Of nearly all validation images, and of some 11,000 training images, of which validation splits are cut."""
PROTOTYPES = "prototypical_paths.csv"
PAGE = "data.md#visual-factors"


def restricted(listing: Listing, split: Split, factor: str) -> Listing:
    """Of a split of ImageNet, the images with this top factor. Raises DataError.

    Splits are restricted after they were cut: no validation image is a test image of the whole set.
    """
    if split == "train":
        raise DataError("a `factor` has no training images; this set can only be evaluated on", PAGE)
    factor_of = top_factors(folder())
    names = [os.path.basename(str(item)) for item in listing.items]
    chosen = [index for index, name in enumerate(names) if factor_of.get(name) == factor]
    if not chosen:
        raise DataError(f"none of {listing.origin} has {factor!r} as its top factor in {folder()}", PAGE)
    taken = listing.take(np.array(chosen))
    return replace(taken, origin=f"{listing.origin}, if {factor} is their top factor")


def folder() -> Path:
    """Where the annotations lie. Raises DataError."""
    if os.environ.get(VARIABLE):
        given = Path(os.environ[VARIABLE]).expanduser().absolute()
        return given.parent if given.is_file() else given
    found = importlib.util.find_spec(PACKAGE)
    if found is None or not found.submodule_search_locations:
        files = ", ".join((*ANNOTATIONS, PROTOTYPES))
        raise DataError(
            "ImageNet-X is not installed, whose annotations say which images these are; `pip install "
            f"imagenet-x`, or set SWEEPER_IMAGENET_X to the folder with {files}",
            PAGE,
        )
    return Path(found.submodule_search_locations[0]) / "annotations"


@lru_cache(maxsize=1)
def top_factors(folder: Path) -> Mapping[str, str]:
    """Of each annotated image, by the file's name. Raises DataError."""
    prototypes = set(read_lines(folder / PROTOTYPES))
    annotated = (each for file in ANNOTATIONS for each in annotated_in(folder / file))
    return {name: factor for name, factor in annotated if name not in prototypes}


def annotated_in(file: Path) -> Iterator[tuple[str, str]]:
    """Names of images, each with its top factor; none if that is not among ours. Raises DataError."""
    for number, line in enumerate(read_lines(file), 1):
        try:
            row = json.loads(line)
            yield row["file_name"], next((factor for factor in FACTORS if row[factor]), "")
        except (ValueError, KeyError, TypeError):
            raise DataError(
                f"{file}, line {number}: expected `file_name` and a 0 or 1 for each factor; install "
                "imagenet-x anew",
                PAGE,
            ) from None
