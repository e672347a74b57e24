"""ImageNet-Vid-Robust: frames of videos, as its archive unpacks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import numpy as np

from trainables.data import templates
from trainables.data.sets.known import known
from trainables.data.tables import Table, in_range, read_json, tabled
from trainables.errors import DataError

if TYPE_CHECKING:
    from trainables.data.listing import Listing, Parts

FOLDER = "imagenet_vid_ytbb_robust/imagenet-vid-robust"
FRAMES, LABELS = f"{FOLDER}/val", f"{FOLDER}/metadata/labels.json"
ANCHORS = f"{FOLDER}/metadata/pmsets.json"
CLASSES = f"{FOLDER}/misc/imagenet_vid_class_index.json"


@known(
    "imagenet-vid-robust",
    archive="imagenet_vid_ytbb_robust.tar.gz",
    layout=(FRAMES, LABELS, ANCHORS, CLASSES),
    templates=templates.IMAGENET,
)
def imagenet_vid_robust(root: Path) -> Parts:
    """The anchor of each video, under ImageNet-VID's own thirty names. The frames round it, whose worst case
    the publication measures besides, are not used, and neither are anchors that show several classes."""
    shown, index = read_json(root / LABELS), read_json(root / CLASSES)
    keys, names = zip(*(index[str(label)] for label in range(len(index))), strict=True)
    anchors = sorted(read_json(root / ANCHORS))
    unknown = [anchor for anchor in anchors if not shown.get(anchor)]
    if unknown:
        raise DataError(f"{root / LABELS} has no class of {unknown[0]} ({len(unknown)} such images)")
    single = [anchor for anchor in anchors if len(set(shown[anchor])) == 1]
    labels = in_range(root / LABELS, np.array([shown[anchor][0] for anchor in single]), names)
    table = Table(root / ANCHORS, [anchor.removeprefix("val/") for anchor in single], labels)
    classes = tuple(name.replace("_", " ") for name in names)
    listed = tabled(root / FRAMES, {"test": table}, classes, keys, complete=False)["test"]
    several = len(anchors) - len(single)
    note = f"{several} frames of {root / ANCHORS} are not used, since they show several classes"

    def test() -> Listing:
        found = listed()
        _, video = np.unique([video_of(name) for name in table.names], return_inverse=True)
        return replace(found, together=video, notes=(*found.notes, *([note] if several else [])))

    return {"test": test}


def video_of(frame: str) -> str:
    """`ILSVRC2015_val_00007010/000237.JPEG` is of the snippet 010 of video 00007."""
    return PurePosixPath(frame).parent.name[:-3]
