"""Data sets by name or folder: `load` is the one way in, `check` says early what is missing."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from trainables.data import factors, folders, huggingface, prompts, webdataset
from trainables.data.config import OWN_TEMPLATES, PROMPT, DataSet, OutsideSet, as_data_set, set_name
from trainables.data.decode import store_of
from trainables.data.fit import Fit
from trainables.data.images import ImageSet, Split, sampled
from trainables.data.listing import Listing, Parts, split_of
from trainables.data.sets import (  # noqa: F401
    aircraft,
    caltech,
    cars,
    cifar,
    dtd,
    embedded,
    eurosat,
    flowers,
    food101,
    imagenet,
    imagenet_vid,
    outside,
    pcam,
    pets,
    stl10,
    sun397,
    tiny_imagenet,
)
from trainables.data.sets.known import KNOWN, TEMPLATES, data_root
from trainables.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from trainables.attacks.config import AttackedAt


def load(
    config: str | DataSet,
    split: Split,
    fit: Fit,
    at: AttackedAt = "native",
    *,
    count: int | None = None,
    prompt: str | list[str] = PROMPT,
    decode: str = "auto",
) -> ImageSet:
    """The images of one split, decoded.

    fit: to the model's input, which images of varying sizes are decoded to; sets of one size keep it,
    unless `at` is `model`.  count: of a fixed, stratified sample; only these are decoded.
    prompt, decode: see `DataConfig`.  Raises DataError if the data are not there or not as expected.
    """
    data = as_data_set(config)
    listing = chosen(data, split, count)
    words = templates_of(data, prompt)
    if listing.size is not None and at == "native":
        fit = Fit(listing.size)
    store = store_of(set_name(data.plain), listing, fit, decode)
    return ImageSet(
        set_name(config),
        split,
        store,
        listing.labels,
        listing.classes,
        words,
        listing.origin,
        listing.numbers,
        notes=(*listing.notes, *store.notes, *prompts.duplicates(listing.classes)),
        digest=listing.digest(),
        altered=(data.altered, data.severity) if data.altered else None,
    )


def chosen(config: str | DataSet, split: Split, count: int | None) -> Listing:
    """The sample of a split that `load` decodes. Raises DataError."""
    listing = listed(as_data_set(config), split)
    sample = sampled(listing.labels, count)
    return listing if sample is None else listing.take(sample)


def check(config: str | DataSet, splits: Sequence[Split]) -> None:
    """Raises DataError unless the set has these splits and its files agree; nothing is decoded."""
    data = as_data_set(config)
    for split in splits:
        listed(data, split)
    templates_of(data, OWN_TEMPLATES)


def listed(data: DataSet, split: Split) -> Listing:
    """The images of one split, not decoded. Raises DataError."""
    return _listed(type(data), data.plain.model_dump_json(), data_root(), split)


@lru_cache(maxsize=32)
def _listed(kind: type[DataSet], data: str, root: Path, split: Split) -> Listing:
    config = kind.model_validate_json(data)
    if config.factor:
        whole = _listed(DataSet, DataSet(dataset=config.dataset).model_dump_json(), root, split)
    try:
        if config.factor:
            listing = factors.restricted(whole, split, config.factor)
        else:
            listing = split_of(parts_of(config, root, split), split)
    except DataError as error:
        raise DataError(f"data set {set_name(config)!r}: {error}", error.page) from error
    if isinstance(config, OutsideSet):
        return listing.unclassified()
    return prompts.with_class_names(listing, config.classes) if config.classes else listing


def vocabulary(config: str | DataSet, prompt: str | list[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Class names and templates of a set that can be trained on; nothing is decoded."""
    data = as_data_set(config)
    return listed(data, "train").classes, templates_of(data, prompt)


def templates_of(data: DataSet, prompt: str | list[str]) -> tuple[str, ...]:
    """Those given for the set, or for all, or its own. Raises DataError if a file of them is wrong."""
    own: tuple[str, ...] = TEMPLATES
    if data.dataset is not None:
        own = KNOWN[data.dataset].templates
    elif data.webdataset is not None:
        own = webdataset.templates_of(data.webdataset) or TEMPLATES
    return prompts.templates_of(data, prompt, own)


def parts_of(data: DataSet, root: Path, split: Split) -> Parts:
    """The splits that a set itself has. root: where known sets lie. split: which is wanted."""
    if data.dataset is not None:
        KNOWN[data.dataset].check(root, split)
        return KNOWN[data.dataset].parts(root)
    if data.webdataset is not None:
        return webdataset.webdataset(data.webdataset)
    if data.huggingface is not None:
        return huggingface.huggingface(data.huggingface, data.image_column, data.label_column)
    assert data.image_folder is not None
    if isinstance(data, OutsideSet):
        return folders.outside_folder(data.image_folder)
    return folders.image_folder(data.image_folder)
