"""EuroSAT, its RGB images, as EuroSAT.zip unpacks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from trainables.data import templates
from trainables.data.folders import class_listing
from trainables.data.sets.known import known

if TYPE_CHECKING:
    from trainables.data.listing import Listing, Parts

FOLDER = "eurosat/2750"
SIZE = (64, 64)
CLASSES = {
    "AnnualCrop": "annual crop land",
    "Forest": "forest",
    "HerbaceousVegetation": "brushland or shrubland",
    "Highway": "highway or road",
    "Industrial": "industrial buildings or commercial buildings",
    "Pasture": "pasture land",
    "PermanentCrop": "permanent crop land",
    "Residential": "residential buildings or homes or apartments",
    "River": "river",
    "SeaLake": "lake or sea",
}
"""Folders, and the names that CLIP's prompts have for them."""


@known("eurosat", archive="EuroSAT.zip", into="eurosat", layout=(FOLDER,), templates=templates.EUROSAT)
def eurosat(root: Path) -> Parts:
    """Has no splits of its own. clip_benchmark measures on all images; VTAB's split is an order of
    TensorFlow Datasets, which the archive does not tell."""

    def train() -> Listing:
        return replace(
            class_listing(root / FOLDER, tuple(CLASSES)), classes=tuple(CLASSES.values()), size=SIZE
        )

    return {"train": train}
