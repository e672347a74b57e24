"""Data sets that `save_to_disk` of the library `datasets` wrote."""

from __future__ import annotations

import builtins

import datasets
import numpy as np
import pyarrow
import pytest
from PIL import Image

from tests.archives import SIZE, Painter
from trainables.data import registry
from trainables.data.config import DataSet
from trainables.data.fit import Fit
from trainables.errors import DataError

CLASSES = ["red_fox", "cat", "zebra"]


pytestmark = pytest.mark.usefixtures("own_cache")


def make(paint, count, **columns):
    images = [Image.fromarray(paint.array()) for _ in range(count)]
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=CLASSES)})
    content = {"image": images, "label": [i % 3 for i in range(count)]}
    saved = datasets.Dataset.from_dict(content, features)
    for name, (values, feature) in columns.items():
        saved = saved.add_column(name, values).cast_column(name, feature)
    return saved


def contents(saved):
    return {np.asarray(row["image"].convert("RGB")).tobytes(): row["label"] for row in saved}


def load(root, split, **options):
    return registry.load(DataSet(huggingface=root, **options), split, Fit(SIZE))


def by_content(images):
    return {image.tobytes(): int(label) for image, label in zip(images.pixels(), images.labels, strict=True)}


@pytest.fixture
def root(tmp_path):
    return tmp_path / "foxes"


@pytest.mark.parametrize("validation", [None, "validation"])
@pytest.mark.parametrize("test", ["test", None])
def test_splits_are_kept(root, validation, test):
    paint = Painter()
    names = {"train": 20, **({validation: 6} if validation else {}), **({test: 9} if test else {})}
    saved = datasets.DatasetDict({name: make(paint, count) for name, count in names.items()})
    saved.save_to_disk(root)
    train, val, tst = (load(root, split) for split in ("train", "validation", "test"))
    expected = {name: contents(part) for name, part in saved.items()}
    everything = by_content(train) | by_content(val) | by_content(tst)
    assert everything == {k: v for part in expected.values() for k, v in part.items()}
    assert len(train) + len(val) + len(tst) == len(everything)
    if test:
        assert by_content(tst) == expected["test"]
        assert tst.origin == "the test images"
    elif validation:  # the only held-out images are test images
        assert by_content(tst) == expected["validation"]
    if test and validation:
        assert by_content(val) == expected["validation"]
    assert train.classes == ("red fox", "cat", "zebra")


def test_a_data_set_without_splits_is_split(root):
    saved = make(Painter(), 20).shuffle(seed=0)  # rows that are not in the order of the table
    saved.save_to_disk(root, num_shards=3)
    parts = [load(root, split) for split in ("train", "validation", "test")]
    assert [len(part) for part in parts] == [13, 3, 4]
    assert by_content(parts[0]) | by_content(parts[1]) | by_content(parts[2]) == contents(saved)


def test_images_stay_on_disk(root):
    saved = make(Painter(), 100)
    saved.save_to_disk(root)
    assert sum(file.stat().st_size for file in root.glob("*.arrow")) > 200_000
    before = pyarrow.total_allocated_bytes()
    listing = registry.listed(DataSet(huggingface=root), "train")
    assert pyarrow.total_allocated_bytes() - before < 20_000
    stream = registry.load(DataSet(huggingface=root), "train", Fit(SIZE), decode="always")
    found = by_content(stream)
    assert found.items() <= contents(saved).items()
    assert len(found) == len(stream) == len(listing) == 64


def test_images_given_by_path_are_read(root, tmp_path):
    paint = Painter()
    files = [str(paint(tmp_path / "images" / f"{i}.png")) for i in range(6)]
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=CLASSES)})
    saved = datasets.Dataset.from_dict({"image": files, "label": [0, 1, 2] * 2}, features)
    saved.save_to_disk(root)
    found = [load(root, split) for split in ("train", "validation", "test")]
    assert by_content(found[0]) | by_content(found[1]) | by_content(found[2]) == contents(saved)


def test_a_set_that_was_saved_anew_is_decoded_anew(root):
    make(Painter(), 6).save_to_disk(root)
    first = load(root, "test").fingerprint()
    registry._listed.cache_clear()
    assert load(root, "test").fingerprint() == first
    registry._listed.cache_clear()
    paint = Painter()
    paint.array()
    make(paint, 6).save_to_disk(root)
    assert load(root, "test").fingerprint() != first


def test_columns_are_named_where_there_are_several(root):
    coarse = ([0, 1] * 5, datasets.ClassLabel(names=["wild", "tame"]))
    make(Painter(), 10, coarse_label=coarse).save_to_disk(root)
    with pytest.raises(
        DataError,
        match=r"has 2 columns of type ClassLabel \(image: Image, label: ClassLabel, coarse.*label_column",
    ):
        registry.check(DataSet(huggingface=root), ("train",))
    assert load(root, "test", label_column="coarse_label").classes == ("wild", "tame")
    assert load(root, "test", label_column="label").classes == ("red fox", "cat", "zebra")
    with pytest.raises(DataError, match="expected 'image' to be such a column"):
        registry.check(DataSet(huggingface=root, label_column="image"), ("train",))
    with pytest.raises(ValueError, match="those of `huggingface` alone"):
        DataSet(image_folder=root, label_column="x")


def without_labels(root):
    make(Painter(), 6).remove_columns("label").save_to_disk(root)


def text_labels(root):
    make(Painter(), 6).cast_column("label", datasets.Value("int64")).save_to_disk(root)


def unlabelled(root):
    saved = make(Painter(), 6).remove_columns("label").add_column("label", [0, 1, -1, 2, 0, None])
    saved.cast_column("label", datasets.ClassLabel(names=CLASSES)).save_to_disk(root)


def other_splits(root):
    datasets.DatasetDict({"rain": make(Painter(), 3)}).save_to_disk(root)


def damaged(root):
    make(Painter(), 6).save_to_disk(root)
    (file,) = root.glob("*.arrow")
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


MISTAKES = {
    "nothing": (lambda _: None, "is no data set that `save_to_disk`"),
    "folder": (lambda root: root.mkdir(), "is no data set that `save_to_disk`"),
    "no label": (without_labels, r"has 0 columns of type ClassLabel \(image: Image\); expected exactly one"),
    "text": (text_labels, r"has 0 columns of type ClassLabel \(image: Image, label: Value\)"),
    "unlabelled": (unlabelled, "2 of 6 images have no label; save the set without them"),
    "splits": (other_splits, "has the splits rain; expected train, validation or test"),
    "damaged": (damaged, "can't be read: "),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_one_line(root, mistake):
    act, message = MISTAKES[mistake]
    act(root)
    with pytest.raises(DataError, match=message) as error:
        registry.check(DataSet(huggingface=root), ("train",))
    assert "\n" not in str(error.value)


def test_a_missing_library_is_one_line(root, monkeypatch):
    make(Painter(), 6).save_to_disk(root)
    there = builtins.__import__

    def missing(name, *args, **kwargs):
        if name == "datasets":
            raise ImportError(name)
        return there(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(DataError, match="needs the package datasets: pip install datasets"):
        registry.check(DataSet(huggingface=root), ("train",))


def test_other_splits_are_told(root):
    paint = Painter()
    parts = {"train": make(paint, 10), "test": make(paint, 5), "unsupervised": make(paint, 3)}
    datasets.DatasetDict(parts).save_to_disk(root)
    assert load(root, "test").notes == ("the split 'unsupervised' is not used",)


def test_a_broken_image_is_named(root):
    broken = {"bytes": b"not an image", "path": None}
    features = datasets.Features(
        {"image": datasets.Image(decode=False), "label": datasets.ClassLabel(names=CLASSES)}
    )
    saved = datasets.Dataset.from_dict({"image": [broken, None] * 5, "label": [0, 1] * 5}, features)
    saved.save_to_disk(root)
    with pytest.raises(DataError, match=r"images of 'foxes' can't be read: .*foxes #\d \("):
        load(root, "train")
