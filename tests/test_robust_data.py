"""Data as people have them: what can't be used is named, what was done about the rest is told."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.archives import SIZE, Painter, write
from trainables.data import decode, registry
from trainables.data.config import DataSet
from trainables.data.fit import Fit
from trainables.data.listing import Member
from trainables.errors import DataError

SPLITS = ("train", "validation", "test")


pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture
def root(tmp_path):
    paint = Painter()
    for split, count in (("train", 5), ("test", 3)):
        for name in ("cat", "red_fox"):
            for i in range(count):
                paint(tmp_path / "pets" / split / name / f"{i}.png")
    return tmp_path / "pets"


def load(root, split="test", **options):
    registry._listed.cache_clear()
    return registry.load(DataSet(image_folder=root, **options), split, Fit(SIZE))


def saved(image, format, **options):
    stream = io.BytesIO()
    image.save(stream, format, **options)
    return stream.getvalue()


NOISE = Image.fromarray(Painter().array())
JPEG, PNG = saved(NOISE, "JPEG", quality=95), saved(NOISE, "PNG")

BROKEN = {
    "truncated.jpg": JPEG[: len(JPEG) * 2 // 3],
    "corrupt.png": PNG[:60] + b"\0\1\2\3" + PNG[64:],
    "bytes without a picture.jpg": b"",
    "page.jpg": b"<html>404</html>",
    "headless.jpeg": JPEG[2:],
    "cut.webp": saved(NOISE, "WEBP")[:100],
    "cut.gif": saved(NOISE.convert("P"), "GIF")[:20],
    "cut.bmp": saved(NOISE, "BMP")[:200],
    "float.tiff": saved(Image.fromarray(np.full(SIZE, 0.5, np.float32)), "TIFF"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_one_broken_image_is_named_and_nothing_is_left_out(root, name):
    file = root / "test" / "cat" / name
    file.write_bytes(BROKEN[name])
    with pytest.raises(DataError, match="1 of 7 images of 'pets' can't be read: ") as error:
        load(root)
    assert str(file) in str(error.value)
    assert "remove or replace them" in str(error.value)
    assert "\n" not in str(error.value)
    stream = registry.load(DataSet(image_folder=root), "test", Fit(SIZE), decode="always")
    with pytest.raises(DataError, match=name):
        stream.pixels()
    file.unlink()
    assert len(load(root)) == 6


def test_many_broken_images_are_listed_in_a_file(root):
    for i in range(5):
        (root / "test" / "cat" / f"page {i}.jpg").write_bytes(b"<html>")
    with pytest.raises(DataError, match=r"5 of 11 .*; and 2 more, listed in ") as error:
        load(root)
    file = Path(str(error.value).partition("listed in ")[2].partition(";")[0])
    assert len(file.read_text().splitlines()) == 5


def gradient():
    """Grey levels 0 to 191 and back, (24, 32)."""
    return np.arange(24 * 32).reshape(24, 32) % 192


def coloured(alpha):
    image = np.empty((24, 32, 4), np.uint8)
    image[...] = (10, 200, 30, 0)
    image[:, 16:, 3] = alpha
    return Image.fromarray(image, "RGBA")


def palette():
    image = Image.new("P", (32, 24), 1)
    image.putpalette([0, 0, 0, 10, 200, 30])
    return image


def grey_as_rgb(levels):
    return np.repeat(levels.astype(np.uint8)[..., None], 3, axis=-1)


GREEN = np.tile(np.array([10, 200, 30], np.uint8), (24, 32, 1))
GREY = Image.fromarray(gradient().astype(np.uint8))
DEEP = Image.fromarray((gradient() * 257).astype(np.uint16))
CMYK = Image.new("CMYK", (32, 24), (245, 55, 225, 0))
KINDS = {
    "grey.png": (saved(GREY, "PNG"), grey_as_rgb(gradient()), 0, "1 images in grey levels, taken as RGB"),
    "grey.jpg": (saved(GREY, "JPEG", quality=100), grey_as_rgb(gradient()), 60, "in grey levels"),
    "bits.png": (
        saved(Image.new("1", (32, 24), 1), "PNG"),
        np.full((24, 32, 3), 255, np.uint8),
        0,
        "in grey levels",
    ),
    "deep.png": (saved(DEEP, "PNG"), grey_as_rgb(gradient()), 0, "with 16-bit grey levels, scaled to 8 bits"),
    "deep.tiff": (saved(DEEP, "TIFF"), grey_as_rgb(gradient()), 0, "with 16-bit grey levels"),
    "alpha.png": (saved(coloured(128), "PNG"), GREEN, 0, "with an alpha channel, which was dropped"),
    "alpha.webp": (
        saved(coloured(255), "WEBP", lossless=True, exact=True),
        GREEN,
        0,
        "with an alpha channel",
    ),
    "grey alpha.png": (
        saved(Image.merge("LA", (GREY, GREY)), "PNG"),
        grey_as_rgb(gradient()),
        0,
        "with an alpha channel",
    ),
    "palette.png": (saved(palette(), "PNG"), GREEN, 0, "of mode P, converted to RGB"),
    "see-through.png": (saved(palette(), "PNG", transparency=1), GREEN, 0, "with an alpha channel"),
    "see-through.gif": (saved(palette(), "GIF", transparency=1), GREEN, 0, "with an alpha channel"),
    "print.jpg": (saved(CMYK, "JPEG", quality=100), GREEN, 2, "of mode CMYK, converted to RGB"),
    "film.gif": (
        saved(palette(), "GIF", save_all=True, append_images=[Image.new("P", (32, 24), 0)]),
        GREEN,
        0,
        "with several frames, of which the first was taken",
    ),
}


@pytest.mark.parametrize("name", KINDS)
def test_any_kind_of_image_becomes_rgb_and_is_told_of(root, name):
    data, expected, tolerance, note = KINDS[name]
    (root / "test" / "cat" / name).write_bytes(data)
    images = load(root)
    differences = np.abs(images.pixels().astype(int) - expected).reshape(len(images), -1).max(axis=1)
    assert differences.min() <= tolerance
    assert sorted(differences)[1] > 100
    assert any(note in found for found in images.notes)
    again = load(root)  # from the file that was written at first
    assert again.notes == images.notes


def test_what_there_is_nothing_to_say_of_has_no_notes(root):
    assert load(root).notes == ()


# Folders


@pytest.mark.parametrize("split", ["train", "test"])
def test_an_empty_class_folder_is_told(root, split):
    folder = root / split / "red_fox"
    for file in folder.iterdir():
        file.unlink()
    with pytest.raises(DataError, match=f"{folder} holds no images"):
        registry.check(DataSet(image_folder=root), SPLITS)


def test_a_class_that_the_training_images_lack_is_told(root):
    Painter()(root / "test" / "zebra" / "0.png")
    with pytest.raises(DataError, match="test/zebra is no class of this set"):
        registry.check(DataSet(image_folder=root), ("test",))


def test_classes_of_one_name_are_told(root):
    for split in ("train", "test"):
        Painter()(root / split / "red fox" / "0.png")
    assert load(root).notes == (
        "several classes have the same name: 'red fox'; prompts can't tell them apart",
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a cat\n", "has 1 names; expected one for each of the 2 classes"),
        ("a cat\na fox\na zebra\n", "has 3 names; expected one for each of the 2 classes"),
        ('{"cat": "a cat"}', "disagrees with the data set: 'red_fox' is missing"),
        ('{"cat": "a", "red_fox": "b", "zebra": "c"}', "'zebra' is no class"),
    ],
)
def test_a_file_of_names_that_disagrees_is_told_early(root, tmp_path, content, message):
    file = tmp_path / ("names.json" if content[0] == "{" else "names.txt")
    file.write_text(content)
    with pytest.raises(DataError, match=message):
        registry.check(DataSet(image_folder=root, classes=file), ("test",))


def test_a_file_of_prompts_that_will_not_do_is_told_before_anything_is_decoded(root, tmp_path, monkeypatch):
    monkeypatch.setattr(registry, "store_of", lambda *_: pytest.fail("decoded"))
    write(tmp_path / "prompts.txt", "a photo of a {c}.", "a photo")
    for act in (
        lambda: registry.check(DataSet(image_folder=root, templates=tmp_path / "prompts.txt"), ("test",)),
        lambda: load(root, templates=tmp_path / "prompts.txt"),
    ):
        with pytest.raises(
            DataError, match=r"prompts\.txt: 'a photo': a prompt needs exactly one placeholder"
        ):
            act()


def test_litter_is_not_looked_at(root):
    before = load(root).fingerprint()
    cat = root / "test" / "cat"
    for name in ("Thumbs.db", ".DS_Store", "._0.png", ".hidden.jpg", "desktop.ini", "__MACOSX/cat/._0.png"):
        write(cat / name, "litter")
    for folder in (root, root / "test"):
        write(folder / "__MACOSX" / "._0.png", "litter")
        write(folder / ".git" / "x.png", "litter")
    images = load(root)
    assert images.notes == ()
    assert images.fingerprint() == before


def test_files_that_are_not_read_are_told(root):
    write(root / "test" / "cat" / "notes.txt", "good cats")
    write(root / "test" / "red_fox" / "fox.heic", "?")
    Painter()(root / "test" / "stray.png")
    Painter()(root / "old" / "0.png")
    assert load(root).notes == (
        f"{root / 'old'} is no split and not read",
        f"files that are no images by their suffix are not read: 2, such as {root / 'test/cat/notes.txt'}",
        f"files in no class folder are not read: 1, such as {root / 'test/stray.png'}",
    )


def test_images_in_deeper_folders_and_with_capital_suffixes_count(root):
    paint = Painter()
    for _ in range(10):
        paint.array()
    paint(root / "test" / "cat" / "indoors" / "sleeping" / "0.png").rename(
        root / "test" / "cat" / "0.PNG.PNG"
    )
    paint(root / "test" / "cat" / "indoors" / "0.jpeg")
    assert len(load(root)) == 8


def test_a_folder_of_test_images_alone_can_be_evaluated_on(root):
    import shutil

    shutil.rmtree(root / "train")
    parts = [load(root, split) for split in ("validation", "test")]
    assert [len(part) for part in parts] == [1, 5]
    assert parts[1].classes == ("cat", "red fox")
    with pytest.raises(DataError, match="no training images"):
        load(root, "train")


def test_a_link_to_nowhere_is_named(root):
    os.symlink("/nowhere/x.png", root / "test" / "cat" / "x.png")
    with pytest.raises(DataError, match=r"cat/x\.png can't be read: No such file"):
        load(root)


def test_an_archive_that_was_cut_is_named(tmp_path):
    file = tmp_path / "x.tar"
    file.write_bytes(PNG[:50])
    with pytest.raises(DataError, match=r"x\.tar:0\.png \("):
        decode.read(Member(str(file), "0.png", 0, len(PNG)), Fit(SIZE))
