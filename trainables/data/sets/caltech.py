"""Caltech-101 and Caltech-256, as their archives unpack. Neither has splits of its own, so a fixed 20 % of
the images are the test split; clip_benchmark measures on all images of Caltech-101."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from trainables.data import templates
from trainables.data.folders import class_folders, class_listing
from trainables.data.sets.known import known

if TYPE_CHECKING:
    from collections.abc import Callable

    from trainables.data.listing import Listing, Parts

FOLDER_101, FOLDER_256 = "caltech101/101_ObjectCategories", "caltech256/256_ObjectCategories"
CALLED = {
    "BACKGROUND_Google": "background",
    "Faces": "off-center face",
    "Faces_easy": "centered face",
    "Leopards": "leopard",
    "Motorbikes": "motorbike",
    "airplanes": "airplane",
    "car_side": "side of a car",
    "cougar_body": "body of a cougar cat",
    "cougar_face": "face of a cougar cat",
    "crocodile_head": "head of a crocodile",
    "flamingo_head": "head of a flamingo",
    "snoopy": "snoopy (cartoon beagle)",
    "yin_yang": "yin and yang symbol",
}
"""Folders of Caltech-101 whose classes CLIP's prompts call otherwise."""


@known(
    "caltech101",
    archive="caltech-101.zip, and the 101_ObjectCategories.tar.gz in it,",
    into="caltech101",
    layout=(FOLDER_101,),
    templates=templates.CALTECH,
)
def caltech101(root: Path) -> Parts:
    """102 classes: the background counts, as in clip_benchmark."""
    return {"train": partial(listing, root / FOLDER_101, lambda key: CALLED.get(key, key.replace("_", " ")))}


@known(
    "caltech256",
    archive="256_ObjectCategories.tar",
    into="caltech256",
    layout=(FOLDER_256,),
    templates=templates.CALTECH,
)
def caltech256(root: Path) -> Parts:
    """257 classes: `257.clutter`, its background, counts as that of Caltech-101 does. Names are the folders'
    without number, hyphens and the `-101` of those that are Caltech-101's too."""
    return {"train": partial(listing, root / FOLDER_256, called_256)}


def called_256(key: str) -> str:
    return key.partition(".")[2].removesuffix("-101").replace("-", " ")


def listing(folder: Path, called: Callable[[str], str]) -> Listing:
    keys = class_folders(folder)
    return replace(class_listing(folder, keys), classes=tuple(map(called, keys)))
