"""The embedded sets, folders of images, TinyImageNet's layout, splits and the decode cache."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

import trainables
from trainables.data import decode, registry
from trainables.data.config import DataSet
from trainables.data.fit import Fit
from trainables.data.images import Held, ImageSet, stratified_order
from trainables.data.images import cut as cut_off
from trainables.data.listing import File, split_of
from trainables.data.sets.embedded import FASHION_FILE, digits
from trainables.errors import DataError

SPLITS = ("train", "validation", "test")
SIZE = Fit((28, 28))


@pytest.fixture(autouse=True)
def _fresh(tmp_path, monkeypatch):
    """No data and no cache but the test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("SWEEPER_DATA", str(tmp_path / "data"))
    registry._listed.cache_clear()


def contents(images):
    return {image.tobytes() for image in images.pixels()}


# Embedded


@pytest.mark.parametrize(
    ("name", "sizes"), [("fashion-mnist-8k", (4800, 1200, 2000)), ("digits", (1118, 279, 400))]
)
def test_embedded_sets_are_complete_stratified_and_disjoint(name, sizes):
    parts = [registry.load(name, split, SIZE) for split in SPLITS]
    assert tuple(map(len, parts)) == sizes
    for part, split in zip(parts, SPLITS, strict=True):
        assert part.split == split
        assert part.pixels().shape == (len(part), 28, 28, 3)
        assert part.pixels().dtype == np.uint8
        assert len(part.classes) == 10
        counts = np.bincount(part.labels, minlength=10)
        assert counts.max() - counts.min() <= (0 if name == "fashion-mnist-8k" else 15)
    train, validation, test = map(contents, parts)
    assert not train & validation
    assert not test & (train | validation)


def test_fashion_mnist_is_as_it_was_published():
    """The first class names and the labels' order of Xiao et al.; its licence comes with it."""
    train = registry.load("fashion-mnist-8k", "train", SIZE)
    assert train.classes[0] == "t-shirt"
    assert train.classes[9] == "ankle boot"
    assert (train.pixels()[..., 0] == train.pixels()[..., 2]).all()  # grey
    licence = FASHION_FILE.with_name("FASHION-MNIST-LICENSE").read_text()
    assert "MIT" in licence
    assert "Zalando" in licence


def test_digits_are_those_of_scikit_learn():
    from sklearn.datasets import load_digits

    parts = [registry.load("digits", split, SIZE) for split in SPLITS]
    labels = np.concatenate([part.labels for part in parts])
    assert np.array_equal(np.bincount(labels), np.bincount(load_digits().target))
    assert 120 < parts[0].pixels().astype(float).max() <= 255


def test_what_is_embedded_is_small():
    root = Path(trainables.__file__).parent / "embedded"
    assert (root / "fashion-mnist-8k.npz").stat().st_size <= 4e6
    assert sum(file.stat().st_size for file in (root / "clip-tiny").iterdir()) <= 10e6


# Samples and splits


def test_samples_are_nested_stratified_and_repeatable():
    whole = registry.load("fashion-mnist-8k", "validation", SIZE)
    small, again, large = whole.sample(50), whole.sample(50), whole.sample(200)
    assert np.array_equal(small.pixels(), again.pixels())
    assert contents(small) <= contents(large) <= contents(whole)
    assert set(np.bincount(small.labels)) == {5}
    assert whole.sample(None) is whole
    assert whole.sample(10**6) is whole


@given(arrays(np.int64, st.integers(1, 60), elements=st.integers(0, 4)))
@settings(max_examples=100)
def test_every_prefix_of_the_stratified_order_is_as_even_as_it_can_be(labels):
    order = stratified_order(labels)
    assert sorted(order) == list(range(len(labels)))
    total = np.bincount(labels, minlength=5)
    for cut in range(1, len(labels) + 1):
        counts = np.bincount(labels[order[:cut]], minlength=5)
        unfinished = counts[counts < total]
        if len(unfinished):  # a class with images left never lags another by more than one
            assert counts.max() - unfinished.min() <= 1


def test_a_split_that_is_missing_is_cut_from_another():
    """Of training images for validation, of test images where there are no others, else of everything."""
    whole = digits(Path())["test"]()
    cases = {
        ("train",): {"train": 256, "validation": 64, "test": 80},
        ("train", "test"): {"train": 320, "validation": 80, "test": 400},
        ("test",): {"validation": 80, "test": 320},
        ("train", "validation", "test"): {"train": 400, "validation": 400, "test": 400},
    }
    for own, expected in cases.items():
        found = {split: split_of(dict.fromkeys(own, lambda: whole), split) for split in expected}
        assert {split: len(listing) for split, listing in found.items()} == expected
        if len(own) == 1:
            numbers = np.concatenate([listing.numbers for listing in found.values()])
            assert sorted(numbers) == sorted(whole.numbers)
        for listing in found.values():
            counts = np.bincount(listing.labels)
            assert counts.max() - counts.min() <= 1
    assert found["test"].origin == "the test images"
    assert split_of({"test": lambda: whole}, "validation").origin == "20 % of the test images"
    with pytest.raises(DataError, match="no training images"):
        split_of({"test": lambda: whole}, "train")


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9)), min_size=1, max_size=60))
@settings(max_examples=100)
def test_what_belongs_together_is_not_parted(rows):
    labels, together = np.array(rows).T
    few, most = cut_off(labels, 0.2, together)
    assert sorted([*few, *most]) == list(range(len(rows)))
    assert not set(together[few]) & set(together[most])
    assert len(set(together[few])) == round(0.2 * len(set(together)))
    each_alone = cut_off(labels, 0.2, np.arange(len(rows)))
    assert all(map(np.array_equal, each_alone, cut_off(labels, 0.2)))


def test_the_fingerprint_is_of_the_content():
    whole = registry.load("digits", "test", SIZE)
    images, labels = whole.pixels(), whole.labels.copy()
    same = ImageSet(whole.name, whole.split, Held(images), labels, whole.classes)
    assert same.fingerprint() == whole.fingerprint()
    images[3, 2, 1, 0] ^= 1
    assert same.fingerprint() != whole.fingerprint()
    images[3, 2, 1, 0] ^= 1
    labels[0] += 1
    assert same.fingerprint() != whole.fingerprint()


# Folders of images


def paint(file, index, size=(40, 30)):
    """A tiny picture that tells which it is: its red channel is `index`."""
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (index, 100, 200)).save(file)


def make_folder(root, classes=("red_fox", "cat"), count=10, first=0):
    for c, name in enumerate(classes):
        for i in range(count):
            paint(root / name / f"{i}.png", first + 50 * c + i)
    return root


def load(root, split, size=SIZE):
    return registry.load(DataSet(image_folder=root), split, size)


def reds(images):
    return {int(image[14, 14, 0]) for image in images.pixels()}


def test_a_folder_without_splits_is_split(tmp_path):
    root = make_folder(tmp_path / "pets")
    parts = [load(root, split) for split in SPLITS]
    assert [len(part) for part in parts] == [13, 3, 4]
    assert parts[0].name == "pets"
    assert parts[0].classes == ("cat", "red fox")
    found = [reds(part) for part in parts]
    assert set.union(*found) == {*range(10), *range(50, 60)}
    assert sum(map(len, found)) == 20
    for part in parts:  # the label says the folder
        assert all(
            (image[0, 0, 0] < 50) == (label == 1)
            for image, label in zip(part.pixels(), part.labels, strict=True)
        )


@pytest.mark.parametrize("test_folder", ["test", "val", "validation"])
def test_a_folder_with_splits_keeps_them(tmp_path, test_folder):
    make_folder(tmp_path / "pets" / "train")
    make_folder(tmp_path / "pets" / test_folder, count=3, first=20)
    parts = [load(tmp_path / "pets", split) for split in SPLITS]
    assert [len(part) for part in parts] == [16, 4, 6]
    assert reds(parts[2]) == {20, 21, 22, 70, 71, 72}
    assert reds(parts[0]) | reds(parts[1]) == {*range(10), *range(50, 60)}


def test_images_are_resized_and_cropped_as_for_clip(tmp_path):
    """Shorter side to the model's, then the centre: the left and right quarters are gone."""
    root = make_folder(tmp_path / "pets", count=5)
    wide = np.zeros((20, 40, 3), np.uint8)
    wide[:, 10:30] = 250
    for file in (root / "cat").iterdir():
        Image.fromarray(wide).save(file)
    image = load(root, "test", Fit((14, 14))).pixels()[0]
    assert image.shape == (14, 14, 3)
    assert (image[:, 2:12] > 240).all()


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK"])
def test_any_colour_mode_becomes_rgb(tmp_path, mode):
    file = tmp_path / ("x.tiff" if mode == "CMYK" else "x.png")
    Image.new("RGB", (28, 28), (90, 90, 90)).convert(mode, palette=Image.Palette.ADAPTIVE).save(file)
    image = decode.read(File(str(file)), SIZE)
    assert image.shape == (28, 28, 3)
    assert np.abs(image.astype(int) - 90).max() <= 3


def test_a_set_of_one_size_is_enlarged_as_a_file_would_be(tmp_path):
    native = registry.load("fashion-mnist-8k", "test", Fit((56, 56))).take(np.arange(3))
    enlarged = registry.load("fashion-mnist-8k", "test", Fit((56, 56)), "model").take(np.arange(3))
    assert native.size == (28, 28)
    for small, large in zip(native.pixels(), enlarged.pixels(), strict=True):
        Image.fromarray(small).save(tmp_path / "image.png")
        assert np.array_equal(large, decode.read(File(str(tmp_path / "image.png")), Fit((56, 56))))
    assert (enlarged.labels == native.labels).all()


def test_images_keep_their_numbers():
    whole = registry.load("fashion-mnist-8k", "test", SIZE)
    assert (whole.numbers == np.arange(2000)).all()
    part = whole.sample(100).take(np.array([7, 3]))
    assert np.array_equal(whole.pixels()[part.numbers], part.pixels())


@pytest.mark.parametrize("split", SPLITS)
def test_the_decode_cache_is_a_shared_memory_map(tmp_path, monkeypatch, split):
    root = make_folder(tmp_path / "pets")
    first = load(root, split)
    assert isinstance(first.store.array, np.memmap)
    assert not first.store.array.flags.writeable
    assert tmp_path / "cache" in Path(first.store.array.filename).parents
    registry._listed.cache_clear()
    monkeypatch.setattr(decode, "as_rgb", lambda *_: pytest.fail("decoded again"))
    second = load(root, split)
    assert second.store.array.filename == first.store.array.filename
    assert np.array_equal(first.pixels(), second.pixels())


def test_a_changed_image_is_decoded_again(tmp_path):
    root = make_folder(tmp_path / "pets")
    before = load(root, "test").fingerprint()
    for file in root.rglob("*.png"):
        paint(file, 222, size=(50, 50))
    registry._listed.cache_clear()
    after = load(root, "test")
    assert after.fingerprint() != before
    assert reds(after) == {222}


def corruptions():
    """Ways in which a file may be broken; Pillow answers each with another exception."""
    return {
        "text": lambda _: b"not an image",
        "empty": lambda _: b"",
        "truncated": lambda data: data[: len(data) // 2],
        "bad chunk": lambda data: data.replace(b"IDAT", b"\xa8\xe4\x13\xfa"),
        "bad length": lambda data: data[:8] + b"\x00\x00\x00\x01" + data[12:],
        "bomb": lambda data: data[:16] + b"\x00\x0f\xff\xff\x00\x0f\xff\xff" + data[24:],
    }


@pytest.mark.parametrize("how", corruptions())
def test_a_broken_image_is_named_in_one_line(tmp_path, how):
    root = make_folder(tmp_path / "pets")
    for file in root.rglob("*.png"):
        file.write_bytes(corruptions()[how](file.read_bytes()))
    with pytest.raises(DataError, match=r"13 of 13 images of 'pets' can't be read: .*\.png \(") as error:
        load(root, "train")
    assert "\n" not in str(error.value)
    assert not list((tmp_path / "cache").rglob("*.n*"))  # nothing half-written is left or served


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda _: None, "is not a folder; expected one with a sub-folder of images per class"),
        (lambda root: root.mkdir(), "has 0 sub-folders; expected one per class"),
        (lambda root: make_folder(root, classes=("cat",)), "has 1 sub-folders; expected one per class"),
        (lambda root: (make_folder(root) / "empty").mkdir(), "empty holds no images"),
        (
            lambda root: (make_folder(root / "train"), make_folder(root / "test", classes=("cat",))),
            "test/red_fox holds no images",
        ),
    ],
)
def test_a_folder_that_will_not_do_is_told_early_and_on_loading(tmp_path, make, message):
    root = tmp_path / "pets"
    make(root)
    config = DataSet(image_folder=root)
    for act in (
        lambda: registry.check(config, SPLITS),
        lambda: [registry.load(config, s, SIZE) for s in SPLITS],
    ):
        with pytest.raises(DataError, match=message) as error:
            act()
        assert "\n" not in str(error.value)


def test_a_folder_that_will_do_passes(tmp_path):
    registry.check(DataSet(image_folder=make_folder(tmp_path / "pets")), SPLITS)


# TinyImageNet

WORDS = {
    "n01443537": "goldfish, Carassius auratus",
    "n01629819": "European fire salamander",
    "n01641577": "bullfrog",
}


@pytest.fixture
def tiny_imagenet(tmp_path):
    """As tiny-imagenet-200.zip unpacks, with three classes instead of 200."""
    root = tmp_path / "data" / "tiny-imagenet-200"
    annotations = []
    for c, wnid in enumerate(sorted(WORDS, reverse=True)):
        boxes = []
        for i in range(10):
            name = f"{wnid}_{i}.JPEG"
            paint(root / "train" / wnid / "images" / name, 60 * c + 5 * i, size=(64, 64))
            boxes.append(f"{name}\t0\t10\t63\t58\n")
        (root / "train" / wnid / f"{wnid}_boxes.txt").write_text("".join(boxes))
        for i in range(2):
            name = f"val_{len(annotations)}.JPEG"
            paint(root / "val" / "images" / name, 60 * c + 52 + 4 * i, size=(64, 64))
            annotations.append(f"{name}\t{wnid}\t0\t32\t44\t62\n")
    (root / "val" / "val_annotations.txt").write_text("".join(annotations))
    paint(root / "test" / "images" / "test_0.JPEG", 0, size=(64, 64))
    (root / "wnids.txt").write_text("\n".join(WORDS) + "\n")
    lines = [f"{wnid}\t{words}" for wnid, words in WORDS.items()]
    (root / "words.txt").write_text("\n".join(["n00001740\tentity", *lines]) + "\n")
    return root


def test_tiny_imagenet_is_read_as_its_archive_unpacks(tiny_imagenet):
    assert tiny_imagenet.is_dir()
    registry.check("tiny-imagenet", SPLITS)
    parts = [registry.load("tiny-imagenet", split, Fit((224, 224))) for split in SPLITS]
    assert [len(part) for part in parts] == [24, 6, 6]
    for part in parts:
        assert part.size == (64, 64)  # attacked at its native size
        assert part.classes == ("goldfish", "European fire salamander", "bullfrog")
        assert isinstance(part.store.array, np.memmap)
        for image, label in zip(part.pixels(), part.labels, strict=True):
            assert round(int(image[32, 32, 0]) // 60) == 2 - label
        assert registry.load("tiny-imagenet", part.split, Fit((224, 224)), "model").size == (224, 224)
    train, validation, test = map(contents, parts)
    assert (len(train), len(validation), len(test)) == (24, 6, 6)
    assert not train & validation
    assert not test & (train | validation)


@pytest.mark.parametrize("missing", ["train", "words.txt", "val/val_annotations.txt", "."])
def test_a_missing_part_of_tiny_imagenet_is_named(tiny_imagenet, missing):
    path = tiny_imagenet / missing
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    for act in (
        lambda: registry.check("tiny-imagenet", SPLITS),
        lambda: registry.load("tiny-imagenet", "train", Fit((224, 224))),
    ):
        with pytest.raises(DataError, match=r"tiny-imagenet.*SWEEPER_DATA") as error:
            act()
        assert "\n" not in str(error.value)
