"""Data sets by name or folder: `load` is the one way in, `check` says early what is missing."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING

from trainables.config import AttackedAt, DataSetConfig, set_name
from trainables.data import embedded, folders
from trainables.data.images import ImageSet, Split

if TYPE_CHECKING:
    from pathlib import Path

Loader = Callable[[Split], ImageSet]

BUILT_IN: dict[str, Loader] = {"fashion-mnist-8k": embedded.fashion_mnist, "digits": embedded.digits}
ON_DISK: dict[str, Callable[[Path, Split, tuple[int, int] | None], ImageSet]] = {
    "tiny-imagenet": folders.tiny_imagenet,
}


def load(
    config: DataSetConfig, split: Split, image_size: tuple[int, int], at: AttackedAt = "native"
) -> ImageSet:
    """The images of one split.

    image_size: (H, W) of the model's input, to which images of varying sizes are decoded; sets of
    one size keep it, unless `at` is `model`. Raises DataError if the data are not there or not as
    expected.
    """
    return _load(config, split, image_size, at)


@lru_cache(maxsize=16)
def _load(config: DataSetConfig, split: Split, image_size: tuple[int, int], at: AttackedAt) -> ImageSet:
    check(config)
    if not isinstance(config, str):
        return folders.image_folder(config.image_folder, set_name(config), split, image_size)
    if config in BUILT_IN:
        images = BUILT_IN[config](split)
        return images if at == "native" else folders.resized(images, image_size)
    return ON_DISK[config](folders.data_root(), split, image_size if at == "model" else None)


def check(config: DataSetConfig) -> None:
    """Raises DataError unless the set's files are where they are expected."""
    if not isinstance(config, str):
        folders.check_image_folder(config.image_folder)
    elif config not in BUILT_IN:
        folders.check_layout(config, folders.data_root())
