"""Makes `fashion-mnist-8k.npz`, the embedded subset of Fashion-MNIST.

Fashion-MNIST: Xiao, Rasul, Vollgraf 2017, arXiv 1708.07747, MIT licence (FASHION-MNIST-LICENSE).
The original IDX files come with Debian's package `dataset-fashion-mnist`:

    apt-get install dataset-fashion-mnist
    python -m trainables.embedded.make_images [FOLDER]

The subset is stratified and seeded: 600 training and 200 test images of each class, each taken
from the split of the same name of the original. The other 54,000 training images, `remainder()`,
are what `pretrain.py` trains clip-tiny on, so the model has never seen an image of this file.
"""

from __future__ import annotations

import gzip
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

ORIGINAL = Path("/usr/share/datasets/fashion-mnist")
TARGET = Path(__file__).with_name("fashion-mnist-8k.npz")
PER_CLASS = {"train": 600, "test": 200}
FILES = {"train": "train", "test": "t10k"}
SEED = 0

Images = NDArray[np.uint8]
Labels = NDArray[np.uint8]


def read_idx(path: Path) -> NDArray[np.uint8]:
    """The array of a gzipped IDX file of unsigned bytes."""
    data = gzip.decompress(path.read_bytes())
    rank = data[3]
    shape = np.frombuffer(data, ">i4", count=rank, offset=4)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * rank).reshape(shape)


def read_split(folder: Path, split: str) -> tuple[Images, Labels]:
    """Images (N, 28, 28) and labels (N,) of the original `train` or `test` split."""
    prefix = FILES[split]
    return (
        read_idx(folder / f"{prefix}-images-idx3-ubyte.gz"),
        read_idx(folder / f"{prefix}-labels-idx1-ubyte.gz"),
    )


def chosen(labels: Labels, split: str) -> NDArray[np.int64]:
    """Indices of the subset, in random order: the same number of images of each class."""
    order = np.random.default_rng(SEED).permutation(len(labels))
    per_class = [order[labels[order] == c][: PER_CLASS[split]] for c in range(10)]
    return np.random.default_rng(SEED + 1).permutation(np.concatenate(per_class))


def remainder(folder: Path = ORIGINAL) -> tuple[Images, Labels]:
    """The 54,000 original training images that the subset leaves out."""
    images, labels = read_split(folder, "train")
    left = np.setdiff1d(np.arange(len(labels)), chosen(labels, "train"))
    return images[left], labels[left]


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else ORIGINAL
    arrays = {}
    for split in FILES:
        images, labels = read_split(folder, split)
        subset = chosen(labels, split)
        arrays[f"{split}_images"], arrays[f"{split}_labels"] = images[subset], labels[subset]
    np.savez_compressed(TARGET, allow_pickle=False, **arrays)
    print(f"{TARGET.name}: {TARGET.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
