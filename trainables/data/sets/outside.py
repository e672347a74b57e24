"""Images of none of the classes that are asked for: they are scored, never classified."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from trainables.data.folders import outside_listing
from trainables.data.sets import dtd
from trainables.data.sets.known import KNOWN, known

if TYPE_CHECKING:
    from trainables.data.listing import Listing, Parts


def outside(name: str, folder: str, archive: str) -> None:
    """Registers all images in a folder and below it."""
    register = known(name, archive=archive, layout=(folder,))
    register(lambda root: {"test": partial(outside_listing, root / folder)})


outside("inaturalist-ood", "iNaturalist/images", "iNaturalist.tar.gz")
outside("sun-ood", "SUN/images", "SUN.tar.gz")
outside("places-ood", "Places/images", "Places.tar.gz")
outside("imagenet-o", "imagenet-o", "imagenet-o.tar")
outside("ninco", "NINCO/NINCO_OOD_classes", "NINCO_all.tar.gz")


@known("textures", archive=KNOWN["dtd"].archive, into=KNOWN["dtd"].into, layout=KNOWN["dtd"].layout)
def textures(root: Path) -> Parts:
    """All images of `dtd`. Its validation images are the validation images here, too: a search sees none of
    its test images in either set."""
    parts = dtd.dtd(root)

    def test() -> Listing:
        train, test = parts["train"](), parts["test"]()
        labels = np.concatenate([train.labels, test.labels])
        return replace(test, items=[*train.items, *test.items], labels=labels).unclassified()

    return {"validation": lambda: parts["validation"]().unclassified(), "test": test}
