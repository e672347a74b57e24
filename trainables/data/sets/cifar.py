"""CIFAR-10 and CIFAR-100, as their archives for Python unpack."""

from __future__ import annotations

import pickle
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainables.data import templates
from trainables.data.listing import Item, Listing, Parts, as_labels, rows_of
from trainables.data.sets.known import known
from trainables.data.tables import in_range
from trainables.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SIZE = (32, 32)
TEN, HUNDRED = "cifar-10-batches-py", "cifar-100-python"
TEN_TRAIN = tuple(f"data_batch_{number}" for number in range(1, 6))

SAFE = {
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("_codecs", "encode"),
}
"""What a pickled array is made of; nothing else in a pickle is run."""


@known(
    "cifar10",
    archive="cifar-10-python.tar.gz",
    layout=tuple(f"{TEN}/{name}" for name in (*TEN_TRAIN, "test_batch", "batches.meta")),
    templates=templates.CIFAR,
)
def cifar10(root: Path) -> Parts:
    classes = class_names(root / TEN / "batches.meta", "label_names")
    return {
        "train": partial(batches, root / TEN, TEN_TRAIN, "labels", classes),
        "test": partial(batches, root / TEN, ("test_batch",), "labels", classes),
    }


@known(
    "cifar100",
    archive="cifar-100-python.tar.gz",
    layout=tuple(f"{HUNDRED}/{name}" for name in ("train", "test", "meta")),
    templates=templates.CIFAR,
)
def cifar100(root: Path) -> Parts:
    """The 100 fine classes."""
    classes = class_names(root / HUNDRED / "meta", "fine_label_names")
    return {
        "train": partial(batches, root / HUNDRED, ("train",), "fine_labels", classes),
        "test": partial(batches, root / HUNDRED, ("test",), "fine_labels", classes),
    }


def class_names(file: Path, key: str) -> tuple[str, ...]:
    return tuple(read(file, key)[0])


def batches(folder: Path, names: tuple[str, ...], key: str, keys: tuple[str, ...]) -> Listing:
    items: list[Item] = []
    labels: list[int] = []
    for name in names:
        data, own = read(folder / name, "data", key)
        items += rows_of(folder / name, as_images(folder / name, data, len(own)))
        labels += in_range(folder / name, as_labels(own), keys).tolist()
    classes = tuple(key.replace("_", " ") for key in keys)
    return Listing(items, as_labels(labels), classes, keys, SIZE)


def as_images(file: Path, data: NDArray[np.uint8], count: int) -> NDArray[np.uint8]:
    """(N, 32, 32, 3) of rows of 3072 bytes, channel by channel."""
    if data.shape != (count, 3072) or data.dtype != "uint8":
        raise DataError(
            f"{file} has {data.dtype} data of shape {data.shape} for {count} labels; unpack it anew"
        )
    return data.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)


class Unpickler(pickle.Unpickler):
    """Reads arrays, numbers, texts, lists and dicts; refuses to import anything else."""

    def find_class(self, module: str, name: str, /) -> Any:
        if (module, name) not in SAFE:
            raise pickle.UnpicklingError(f"it wants {module}.{name}, which no image needs")
        return super().find_class(module, name)


def read(file: Path, *keys: str) -> list[Any]:
    """Values of a pickled dict, as Python 2 wrote it. Raises DataError."""
    try:
        with file.open("rb") as stream:
            content = Unpickler(stream, encoding="latin1").load()
        return [content[key] for key in keys]
    except Exception as error:  # a damaged pickle raises whatever its bytes happen to mean
        raise DataError(f"{file} is not a batch of CIFAR with {' and '.join(keys)} ({error})") from None
