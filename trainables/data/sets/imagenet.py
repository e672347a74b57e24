"""ImageNet, and the sets of other images of its classes: V2, A, R, Sketch and ObjectNet.

Their class names are those that OpenAI chose for CLIP, in the order of the WordNet ids.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from trainables.data import templates
from trainables.data.folders import class_folders, class_listing, sub_folders
from trainables.data.sets.known import known
from trainables.data.tables import Table, numbered, read_json, read_lines, read_mat, tabled
from trainables.errors import DataError

if TYPE_CHECKING:
    from trainables.data.listing import Listing, Parts

TRAIN, VAL = "imagenet/train", "imagenet/val"
DEVKIT = Path("ILSVRC2012_devkit_t12") / "data"
SUBSET = 200
"""Classes of ImageNet-A and ImageNet-R."""


@known(
    "imagenet1k",
    archive="ILSVRC2012_img_train.tar (and the archives in it, a folder each) and ILSVRC2012_img_val.tar",
    into="imagenet/train and imagenet/val",
    layout=(VAL,),
    training=(TRAIN,),
    templates=templates.IMAGENET,
)
def imagenet(root: Path) -> Parts:
    """Its validation images are our test split. Without training images it can be evaluated on.

    `val` has the images in a folder for each WordNet id, or all in one, as the archive unpacks; then
    ILSVRC2012_devkit_t12.tar.gz has to be unpacked beside it, for their labels.
    """
    folder = root / "imagenet"
    parts = dict(validation_images(folder))
    if (root / TRAIN).is_dir():
        parts["train"] = partial(of_folders, root / TRAIN, wordnet_ids())
    return parts


def validation_images(folder: Path) -> Parts:
    if sub_folders(folder / "val"):
        return {"test": partial(of_folders, folder / "val", wordnet_ids())}
    truth, synsets = folder / DEVKIT / "ILSVRC2012_validation_ground_truth.txt", folder / DEVKIT / "meta.mat"
    if not truth.exists():
        raise DataError(
            f"{folder / 'val'} has no folder for each class, and {truth} is not there; sort the images into "
            f"folders named by WordNet ids, or unpack ILSVRC2012_devkit_t12.tar.gz in {folder}"
        )
    wnid_of = {
        int(synset["ILSVRC2012_ID"]): str(synset["WNID"]) for synset in read_mat(synsets, "synsets")[0]
    }
    ids = read_lines(truth)
    strange = sorted({number for number in ids if not number.isdigit() or int(number) not in wnid_of})
    if strange:
        raise DataError(f"{truth} has the class {strange[0]!r}, which {synsets} does not")
    wnids = wordnet_ids()
    labels = numbered(synsets, [wnid_of[int(number)] for number in ids], wnids, "ImageNet")
    names = [f"ILSVRC2012_val_{number:08d}.JPEG" for number in range(1, len(ids) + 1)]
    return tabled(folder / "val", {"test": Table(truth, names, labels)}, class_names(wnids), wnids)


def imagenet_v2(name: str, variant: str) -> None:
    """Registers a variant. Which images it has depends on how many annotators saw the class in them. Its
    folders are named by the label."""
    folder = f"imagenetv2-{variant}-format-val"

    def test(root: Path) -> Listing:
        wnids = wordnet_ids()
        found = class_listing(root / folder, [str(label) for label in range(len(wnids))])
        return replace(found, classes=class_names(wnids))

    register = known(
        name, archive=f"imagenetv2-{variant}.tar.gz", layout=(folder,), templates=templates.IMAGENET
    )
    register(lambda root: {"test": partial(test, root)})


imagenet_v2("imagenetv2", "matched-frequency")
imagenet_v2("imagenetv2-threshold", "threshold0.7")
imagenet_v2("imagenetv2-top-images", "top-images")


@known("imagenet-a", archive="imagenet-a.tar", layout=("imagenet-a",), templates=templates.IMAGENET)
def imagenet_a(root: Path) -> Parts:
    """200 classes; no others are asked for."""
    return {"test": partial(of_subset, root / "imagenet-a")}


@known("imagenet-r", archive="imagenet-r.tar", layout=("imagenet-r",), templates=templates.IMAGENET)
def imagenet_r(root: Path) -> Parts:
    """200 classes; no others are asked for."""
    return {"test": partial(of_subset, root / "imagenet-r")}


@known("imagenet_sketch", archive="ImageNet-Sketch.zip", layout=("sketch",), templates=templates.IMAGENET)
def imagenet_sketch(root: Path) -> Parts:
    return {"test": partial(of_folders, root / "sketch", wordnet_ids())}


@known(
    "objectnet",
    archive="objectnet-1.0.zip",
    layout=(
        "objectnet-1.0/images",
        "objectnet-1.0/mappings/folder_to_objectnet_label.json",
        "objectnet-1.0/mappings/objectnet_to_imagenet_1k.json",
    ),
    templates=templates.IMAGENET,
)
def objectnet(root: Path) -> Parts:
    """The images of the classes that ImageNet has too, under ObjectNet's names in lower case. No others
    are asked for. The red frame of one pixel round each image stays, as clip_benchmark leaves it."""
    images, mappings = root / "objectnet-1.0" / "images", root / "objectnet-1.0" / "mappings"
    name_of = read_json(mappings / "folder_to_objectnet_label.json")
    shared = read_json(mappings / "objectnet_to_imagenet_1k.json")
    unnamed = sorted(set(sub_folders(images)) - set(name_of))
    if unnamed:
        raise DataError(
            f"{mappings / 'folder_to_objectnet_label.json'} has no name for {images / unnamed[0]}"
        )
    folders = sorted(folder for folder, name in name_of.items() if name in shared)
    others = len(set(name_of) - set(folders))
    note = f"{others} classes of {images} are not used, since ImageNet lacks them"

    def test() -> Listing:
        found = class_listing(images, folders, (note,) if others else (), unused=name_of)
        return replace(found, classes=tuple(name_of[folder].lower() for folder in folders))

    return {"test": test}


def of_folders(folder: Path, wnids: tuple[str, ...]) -> Listing:
    return replace(class_listing(folder, wnids), classes=class_names(wnids))


def of_subset(folder: Path) -> Listing:
    wnids = tuple(class_folders(folder))
    if len(wnids) != SUBSET:
        raise DataError(
            f"{folder} has {len(wnids)} class folders; expected {SUBSET}; unpack the archive anew"
        )
    return of_folders(folder, wnids)


def wordnet_ids() -> tuple[str, ...]:
    """The ids of ImageNet's 1000 classes, in order."""
    from timm.data import ImageNetInfo

    return tuple(ImageNetInfo("imagenet-1k").label_names())


def class_names(wnids: tuple[str, ...]) -> tuple[str, ...]:
    """CLIP's names. Raises DataError for an id that is not ImageNet's."""
    from open_clip import IMAGENET_CLASSNAMES

    name_of = dict(zip(wordnet_ids(), IMAGENET_CLASSNAMES, strict=True))
    strange = [wnid for wnid in wnids if wnid not in name_of]
    if strange:
        raise DataError(f"{strange[0]} is none of ImageNet's 1000 classes")
    return tuple(name_of[wnid] for wnid in wnids)
