"""What a data set is here: decoded images, labels, class names, and which split they are from."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

Split = Literal["train", "validation", "test"]

VALIDATION_FRACTION = 0.2
SPLIT_SEED = 0


@dataclass(frozen=True)
class ImageSet:
    """Decoded images of one split of one data set.

    images: (N, H, W, 3) uint8, possibly a read-only memory map.  labels: (N,) int64 in [0, K).
    classes: K class names as they stand in a prompt.  split: where the images are from;
    `train` and `validation` are disjoint parts of the original training images.
    numbers: (N,) which images of the whole set these are, 0 to N - 1 where none are given; what is
    random about an image depends on its number.
    """

    name: str
    split: Split
    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    numbers: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))

    def __post_init__(self) -> None:
        if len(self.numbers) != len(self.labels):
            object.__setattr__(self, "numbers", np.arange(len(self.labels)))

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: NDArray[np.int64]) -> ImageSet:
        return replace(
            self,
            images=self.images[indices],
            labels=self.labels[indices],
            numbers=self.numbers[indices],
        )

    def sample(self, count: int | None) -> ImageSet:
        """A fixed, stratified subset of `count` images; everything if `count` is None or too large.

        The same call gives the same images in every trial, so that trials are compared on them.
        """
        if count is None or count >= len(self):
            return self
        return self.take(np.sort(stratified_order(self.labels)[:count]))

    def fingerprint(self) -> str:
        """Identifies images, labels and class names, by content."""
        digest = hashlib.sha256(repr((self.name, self.split, self.classes)).encode())
        digest.update(np.ascontiguousarray(self.labels).tobytes())
        digest.update(np.ascontiguousarray(self.images).reshape(-1).data)
        return digest.hexdigest()[:16]


def stratified_order(labels: NDArray[np.int64], seed: int = SPLIT_SEED) -> NDArray[np.int64]:
    """A random order of all indices in which every prefix holds the classes as evenly as it can."""
    order = np.random.default_rng(seed).permutation(len(labels))
    seen: dict[int, int] = {}
    turn = np.empty(len(labels), dtype=np.int64)
    for position, index in enumerate(order):
        label = int(labels[index])
        turn[position] = seen[label] = seen.get(label, -1) + 1
    return order[np.argsort(turn, kind="stable")]


def carve(training: ImageSet, split: Split) -> ImageSet:
    """The `train` or `validation` part of the original training images: 80 % and 20 %.

    The cut depends on the labels alone, so it is the same for every trial, sweep and machine,
    and a model selected on `validation` was never trained on it.
    """
    return replace(training.take(carved(training.labels, split)), split=split)


def carved(labels: NDArray[np.int64], split: Split) -> NDArray[np.int64]:
    """Which of the original training images `carve` takes."""
    order = stratified_order(labels)
    cut = round(VALIDATION_FRACTION * len(order))
    return np.sort(order[:cut] if split == "validation" else order[cut:])
