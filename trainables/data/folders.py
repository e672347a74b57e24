"""Data sets on disk: a folder of one's own, and TinyImageNet as its archive unpacks."""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from trainables.data.images import ImageSet, Split, carved, stratified_order
from trainables.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"})
TEST_FOLDERS = ("test", "val", "validation")
TEST_FRACTION = 0.2
TINY_IMAGENET_SIZE = (64, 64)

Listing = list[tuple[Path, int]]


def data_root() -> Path:
    """Where data sets known by name lie: $SWEEPER_DATA, or `data` under the current folder."""
    return Path(os.environ.get("SWEEPER_DATA", "data")).expanduser().absolute()


def cache_root() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "clip-sweeper"


def image_folder(root: Path, name: str, split: Split, image_size: tuple[int, int]) -> ImageSet:
    """A folder with one sub-folder per class. Class names are the sub-folders', `_` read as space.

    With `train/` and `test/` (or `val/`) in `root` those are the splits; otherwise a fixed 20 % of
    the images, stratified, is the test split, and `train` and `validation` come from the rest.
    """
    train_root, test_root = split_folders(root)
    classes = class_folders(train_root)
    if test_root is not None:
        listing = list_images(test_root if split == "test" else train_root, classes)
    else:
        listing = list_images(root, classes)
        labels = np.array([label for _, label in listing])
        order = stratified_order(labels)
        cut = round(TEST_FRACTION * len(order))
        part = order[:cut] if split == "test" else order[cut:]
        listing = [listing[i] for i in np.sort(part)]
    names = tuple(folder.replace("_", " ") for folder in classes)
    return decode(name, split, part_of(listing, split), names, image_size)


def part_of(listing: Listing, split: Split) -> Listing:
    """As `images.carve`, but before decoding: each split is then a memory map, not a copy of a part."""
    if split == "test":
        return listing
    return [listing[i] for i in carved(np.array([label for _, label in listing]), split)]


def split_folders(root: Path) -> tuple[Path, Path | None]:
    if (root / "train").is_dir():
        for test in TEST_FOLDERS:
            if (root / test).is_dir():
                return root / "train", root / test
    return root, None


def class_folders(root: Path) -> list[str]:
    return sorted(f.name for f in root.iterdir() if f.is_dir() and not f.name.startswith("."))


def list_images(root: Path, classes: Sequence[str]) -> Listing:
    return [
        (file, label)
        for label, name in enumerate(classes)
        for file in sorted((root / name).rglob("*"))
        if file.suffix.lower() in IMAGE_SUFFIXES
    ]


def check_image_folder(root: Path) -> None:
    if not root.is_dir():
        raise DataError(f"{root} is not a folder; expected one with a sub-folder of images per class")
    train_root, test_root = split_folders(root)
    for folder in filter(None, (train_root, test_root)):
        classes = class_folders(train_root)
        if len(classes) < 2:
            raise DataError(f"{folder} has {len(classes)} sub-folders; expected one per class, two or more")
        present = {label for _, label in list_images(folder, classes)}
        empty = [name for label, name in enumerate(classes) if label not in present]
        if empty:
            raise DataError(f"{folder / empty[0]} holds no images ({', '.join(sorted(IMAGE_SUFFIXES))})")


def tiny_imagenet(root: Path, split: Split, size: tuple[int, int] | None = None) -> ImageSet:
    """TinyImageNet as `tiny-imagenet-200.zip` unpacks, at 64 x 64 or resized to `size`. Its labelled
    `val` images are our test split; its own test images have no labels and are not used."""
    size = size or TINY_IMAGENET_SIZE
    folder = root / "tiny-imagenet-200"
    words = dict(
        line.split("\t", 1) for line in (folder / "words.txt").read_text().splitlines() if "\t" in line
    )
    ids = class_folders(folder / "train")
    classes = tuple(words[i].split(",")[0].strip() for i in ids)
    if split == "test":
        label = {wnid: k for k, wnid in enumerate(ids)}
        rows = (
            line.split("\t") for line in (folder / "val" / "val_annotations.txt").read_text().splitlines()
        )
        listing = [(folder / "val" / "images" / row[0], label[row[1]]) for row in rows]
        return decode("tiny-imagenet", split, listing, classes, size)
    listing = part_of(list_images(folder / "train", ids), split)
    return decode("tiny-imagenet", split, listing, classes, size)


LAYOUTS = {
    "tiny-imagenet": (
        "tiny-imagenet-200/train",
        "tiny-imagenet-200/words.txt",
        "tiny-imagenet-200/val/val_annotations.txt",
    ),
}


def check_layout(name: str, root: Path) -> None:
    for expected in LAYOUTS[name]:
        if not (root / expected).exists():
            raise DataError(
                f"data set {name!r} is not there: expected {root / expected}; "
                "unpack its archive there, or set SWEEPER_DATA to the folder that holds it"
            )


def decode(
    name: str, split: Split, listing: Listing, classes: tuple[str, ...], size: tuple[int, int]
) -> ImageSet:
    """All images of a listing as one memory-mapped uint8 array, decoded once per machine.

    The file lies in the cache folder under a name made of the paths, sizes and times of all images,
    and is renamed into place when complete, so concurrent trials share it and never half-read it.
    """
    digest = hashlib.sha256(repr(size).encode())
    for file, _ in listing:
        status = file.stat()
        digest.update(f"{file}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
    path = cache_root() / "decoded" / f"{name.replace('/', '_')}-{digest.hexdigest()[:24]}.npy"
    if not path.exists():
        write_decoded(path, [file for file, _ in listing], size)
    images: NDArray[np.uint8] = np.load(path, mmap_mode="r", allow_pickle=False)
    labels = np.array([label for _, label in listing], dtype=np.int64)
    return ImageSet(name, split, images, labels, classes)


def write_decoded(path: Path, files: Sequence[Path], size: tuple[int, int]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}.partial")
    array = np.lib.format.open_memmap(partial, mode="w+", dtype=np.uint8, shape=(len(files), *size, 3))
    try:
        for index, file in enumerate(files):
            array[index] = read_image(file, size)
        array.flush()
        partial.rename(path)
    finally:
        partial.unlink(missing_ok=True)


def read_image(file: Path, size: tuple[int, int]) -> NDArray[np.uint8]:
    """One RGB image as CLIP sees it: shorter side resized (bicubic), centre cropped. (H, W, 3)."""
    try:
        with Image.open(file) as opened:
            image = opened.convert("RGB")
    except Exception as error:  # Pillow's decoders raise SyntaxError, ValueError and others of their own
        reason = " ".join(str(error).split())
        raise DataError(f"{file} can't be read as an image ({reason}); remove or replace it") from error
    return np.asarray(fitted(image, size))


def resized(images: ImageSet, size: tuple[int, int]) -> ImageSet:
    """The same set at another size, each image as `read_image` would have read it."""
    if images.images.shape[1:3] == size:
        return images
    pixels = np.stack([np.asarray(fitted(Image.fromarray(image), size)) for image in images.images])
    return replace(images, images=pixels)


def fitted(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Shorter side resized (bicubic) to fill (H, W), centre cropped; to the pixel as torchvision, and so
    open_clip, rounds it."""
    height, width = size
    if width * image.height >= height * image.width:
        filling = (width, image.height * width // image.width)
    else:
        filling = (image.width * height // image.height, height)
    if filling != image.size:
        image = image.resize(filling, Image.Resampling.BICUBIC)
    left, top = round((image.width - width) / 2), round((image.height - height) / 2)
    return image.crop((left, top, left + width, top + height))
