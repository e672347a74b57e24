"""The two data sets that come with the project: no download, no account.

`fashion-mnist-8k`: 6,000 training and 2,000 test images of Fashion-MNIST (see
`trainables/embedded/make_images.py`), 28 x 28.
`digits`: the 1,797 handwritten digits of scikit-learn, 8 x 8 enlarged to 28 x 28; 400 of them,
40 a class, are the test split.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from trainables.data.images import stratified_order
from trainables.data.listing import Listing, Part, Parts, rows_of
from trainables.data.sets.known import known

if TYPE_CHECKING:
    from numpy.typing import NDArray

FASHION_FILE = Path(__file__).parents[2] / "embedded" / "fashion-mnist-8k.npz"
FASHION_CLASSES = (
    "t-shirt", "trouser", "pullover", "dress", "coat",
    "sandal", "shirt", "sneaker", "bag", "ankle boot",
)  # fmt: skip
DIGIT_CLASSES = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine",
)  # fmt: skip
DIGITS_TEST_IMAGES = 400
SIZE = (28, 28)


def gray_to_rgb(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.repeat(images[..., None], 3, axis=-1)


@known("fashion-mnist-8k")
def fashion_mnist(_: Path) -> Parts:
    def part(stored: str) -> Part:
        def listing() -> Listing:
            with np.load(FASHION_FILE, allow_pickle=False) as file:
                images, labels = file[f"{stored}_images"], file[f"{stored}_labels"].astype(np.int64)
            items = rows_of(FASHION_FILE, gray_to_rgb(images))
            return Listing(items, labels, FASHION_CLASSES, size=SIZE)

        return listing

    return {"train": part("train"), "test": part("test")}


def enlarge(image: NDArray[np.float64]) -> NDArray[np.uint8]:
    """An 8 x 8 digit with grey levels 0 to 16, as 28 x 28 with grey levels 0 to 255."""
    levels = np.clip(image * (255 / 16), 0, 255).astype(np.uint8)
    return np.asarray(Image.fromarray(levels).resize(SIZE, Image.Resampling.BICUBIC))


@known("digits")
def digits(_: Path) -> Parts:
    def part(test: bool) -> Part:
        def listing() -> Listing:
            import sklearn.datasets

            bunch = sklearn.datasets.load_digits()
            images = gray_to_rgb(np.stack([enlarge(image) for image in bunch.images]))
            file = Path(sklearn.datasets.__file__).parent / "data" / "digits.csv.gz"
            whole = Listing(rows_of(file, images), bunch.target.astype(np.int64), DIGIT_CLASSES, size=SIZE)
            order = stratified_order(whole.labels)
            part = order[:DIGITS_TEST_IMAGES] if test else order[DIGITS_TEST_IMAGES:]
            return whole.take(np.sort(part))

        return listing

    return {"train": part(False), "test": part(True)}
