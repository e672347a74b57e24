"""What a data set is here: decoded images, labels, class names, and which split they are from."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

from trainables.data.config import PROMPT
from trainables.data.role import TRANSFERRED, Role

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Rows = NDArray[np.int64] | slice

Split = Literal["train", "validation", "test"]


class Store(Protocol):
    """Decoded images that all trials share, or that are decoded when they are asked for."""

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(N, H, W, 3)."""

    @property
    def fingerprint(self) -> str:
        """Identifies the images."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What was found in the images when they were decoded."""

    def __getitem__(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """(B, H, W, 3) images of these rows."""


@dataclass(frozen=True)
class Held:
    """A store of an array in memory."""

    array: NDArray[np.uint8]
    notes: tuple[str, ...] = ()

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return self.array.shape

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(np.ascontiguousarray(self.array).reshape(-1).data).hexdigest()

    def __getitem__(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        return self.array[rows]


@dataclass(frozen=True)
class ImageSet:
    """Images of one split of one data set.

    store: where they are.  labels: (N,) int64 in [0, K).  classes: K class names as they stand in a
    prompt.  templates: prompts; the texts of several are averaged.
    split: where the images are from; the three have no image in common. origin: the same in words, as
    "20 % of the training images".
    numbers: (N,) which images of the original split these are, 0 to N - 1 where none are given; what is
    random about an image depends on its number.  rows: (N,) where they lie in the store.
    notes: what a user should know of these data.  digest: of what they were listed as, see `Listing.digest`.
    altered: the alteration of its pixels and its severity, where they are altered; see `pixels.batch`.
    role: what it is measured for.
    """

    name: str
    split: Split
    store: Store
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    templates: tuple[str, ...] = (PROMPT,)
    origin: str = ""
    numbers: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    rows: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    notes: tuple[str, ...] = ()
    digest: str = ""
    altered: tuple[str, int] | None = None
    role: Role = TRANSFERRED

    def __post_init__(self) -> None:
        for name in ("numbers", "rows"):
            if len(getattr(self, name)) != len(self.labels):
                object.__setattr__(self, name, np.arange(len(self.labels)))

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of every image."""
        return self.store.shape[1:3]

    def pixels(self, which: Rows = slice(None)) -> NDArray[np.uint8]:
        """(B, H, W, 3) uint8 copies of some of the images; of all by default."""
        return self.store[self.rows[which]]

    def take(self, indices: NDArray[np.int64]) -> ImageSet:
        return replace(
            self, labels=self.labels[indices], numbers=self.numbers[indices], rows=self.rows[indices]
        )

    def sample(self, count: int | None) -> ImageSet:
        """A fixed, stratified subset of `count` images; everything if `count` is None or too large.

        The same call gives the same images in every trial, so that trials are compared on them.
        """
        chosen = sampled(self.labels, count)
        return self if chosen is None else self.take(chosen)

    def about(self) -> dict[str, Any]:
        """What is recorded of the images that a number is from."""
        return {
            "set": self.name,
            "split": self.split,
            "origin": self.origin,
            "images": len(self),
            "classes": len(self.classes),
            "size": list(self.size),
            "templates": list(self.templates),
            "notes": list(self.notes),
            "digest": self.digest,
            "altered": None if self.altered is None else list(self.altered),
            "groups": list(self.role.groups),
        }

    def fingerprint(self) -> str:
        """Identifies images, what is altered of them, labels and class names."""
        about = self.name, self.split, self.classes, self.store.fingerprint, self.store.shape, self.altered
        digest = hashlib.sha256(repr(about).encode())
        for array in (self.labels, self.rows):
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()[:16]


SPLIT_SEED = 0


def stratified_order(labels: NDArray[np.int64], seed: int = SPLIT_SEED) -> NDArray[np.int64]:
    """A random order of all indices in which every prefix holds the classes as evenly as it can."""
    order = np.random.default_rng(seed).permutation(len(labels))
    seen: dict[int, int] = {}
    turn = np.empty(len(labels), dtype=np.int64)
    for position, index in enumerate(order):
        label = int(labels[index])
        turn[position] = seen[label] = seen.get(label, -1) + 1
    return order[np.argsort(turn, kind="stable")]


def sampled(labels: NDArray[np.int64], count: int | None) -> NDArray[np.int64] | None:
    """Which images a stratified sample of `count` has, in order; None where it has all."""
    if count is None or count >= len(labels):
        return None
    return np.sort(stratified_order(labels)[:count])


def cut(
    labels: NDArray[np.int64], fraction: float, together: NDArray[np.int64] | None = None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """A stratified `fraction` of all indices, and the others, each in order.

    It depends on the labels alone, so it is the same for every trial, sweep and machine.
    together: indices with the same number here are not parted; the fraction is of the numbers then.
    """
    if together is not None:
        _, first, number = np.unique(together, return_index=True, return_inverse=True)
        few = np.isin(number, cut(labels[first], fraction)[0])
        return np.flatnonzero(few), np.flatnonzero(~few)
    order = stratified_order(labels)
    count = round(fraction * len(order))
    return np.sort(order[:count]), np.sort(order[count:])
