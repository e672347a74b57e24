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

from trainables.data.images import ImageSet, Split, carve, stratified_order

if TYPE_CHECKING:
    from numpy.typing import NDArray

FASHION_FILE = Path(__file__).parents[1] / "embedded" / "fashion-mnist-8k.npz"
FASHION_CLASSES = (
    "t-shirt", "trouser", "pullover", "dress", "coat",
    "sandal", "shirt", "sneaker", "bag", "ankle boot",
)  # fmt: skip
DIGIT_CLASSES = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine",
)  # fmt: skip
DIGITS_TEST_IMAGES = 400
SIZE = 28


def gray_to_rgb(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.repeat(images[..., None], 3, axis=-1)


def fashion_mnist(split: Split) -> ImageSet:
    stored = "test" if split == "test" else "train"
    with np.load(FASHION_FILE, allow_pickle=False) as file:
        images, labels = file[f"{stored}_images"], file[f"{stored}_labels"]
    whole = ImageSet("fashion-mnist-8k", split, gray_to_rgb(images), labels.astype(np.int64), FASHION_CLASSES)
    return whole if split == "test" else carve(whole, split)


def enlarge(image: NDArray[np.float64]) -> NDArray[np.uint8]:
    """An 8 x 8 digit with grey levels 0 to 16, as 28 x 28 with grey levels 0 to 255."""
    levels = np.clip(image * (255 / 16), 0, 255).astype(np.uint8)
    return np.asarray(Image.fromarray(levels).resize((SIZE, SIZE), Image.Resampling.BICUBIC))


def digits(split: Split) -> ImageSet:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = gray_to_rgb(np.stack([enlarge(image) for image in bunch.images]))
    whole = ImageSet("digits", split, images, bunch.target.astype(np.int64), DIGIT_CLASSES)
    order = stratified_order(whole.labels)
    if split == "test":
        return whole.take(np.sort(order[:DIGITS_TEST_IMAGES]))
    return carve(whole.take(np.sort(order[DIGITS_TEST_IMAGES:])), split)
