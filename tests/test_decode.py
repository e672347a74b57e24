"""Decoding: once per machine and one copy of it, or anew at each use; and resizing on the device."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from sklearn.datasets import load_sample_image

from trainables import models
from trainables.data import decode, registry
from trainables.data.config import DataSet
from trainables.data.decode import Mapped, Stream
from trainables.data.fit import Fit
from trainables.errors import DataError
from trainables.models import PixelClip
from trainables.pixels import batches, prefetched, to_pixels

CLASSES, COUNT, SIZE = 3, 40, Fit((64, 64))


pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture
def folder(tmp_path):
    """Pieces of a photograph, of varying sizes, as JPEG files."""
    photo, rng = load_sample_image("china.jpg"), np.random.default_rng(0)
    for label in range(CLASSES):
        (tmp_path / "pieces" / f"class_{label}").mkdir(parents=True)
        for index in range(COUNT):
            height, width = rng.integers(70, 160, 2)
            top, left = rng.integers(0, 250, 2)
            piece = Image.fromarray(photo[top : top + height, left : left + width])
            piece.save(tmp_path / "pieces" / f"class_{label}" / f"{index}.jpg", quality=95)
    return tmp_path / "pieces"


def load(folder, how="once", split="train", fit=SIZE, count=None):
    return registry.load(DataSet(image_folder=folder), split, fit, decode=how, count=count)


# Once, or always


def test_a_stream_gives_what_the_file_holds(folder):
    once, always = load(folder), load(folder, "always")
    assert isinstance(once.store, Mapped)
    assert isinstance(always.store, Stream)
    assert np.array_equal(once.pixels(), always.pixels())
    rows = np.array([5, 0, 7, 5])
    assert np.array_equal(once.take(rows).pixels(), always.pixels(rows))
    assert always.size == once.size == (64, 64)
    assert always.fingerprint() == load(folder, "always").fingerprint()


def test_a_stream_is_known_by_its_files(folder):
    before = load(folder, "always").fingerprint()
    for file in folder.glob("*/*.jpg"):
        Image.new("RGB", (80, 80), (1, 2, 3)).save(file)
    registry._listed.cache_clear()
    assert load(folder, "always").fingerprint() != before


def test_what_would_fill_the_disk_is_streamed(folder, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9, 10**6))
    assert isinstance(load(folder, "auto", fit=Fit((32, 32))).store, Mapped)
    assert isinstance(load(folder, "auto").store, Stream)
    assert isinstance(load(folder, "once").store, Mapped)
    assert isinstance(load(folder, "auto").store, Mapped)  # it is there now


def test_a_full_disk_is_one_line_and_not_a_killed_process(folder, tmp_path, monkeypatch):
    """A memory map of a sparse file is written to by storing numbers: no call is there to fail."""

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(DataError, match="no room for 1 MiB of decoded images"):
        load(folder)
    assert not list((tmp_path / "cache").rglob("*.partial"))


@pytest.mark.parametrize("harm", [Path.unlink, lambda file: file.write_text("")], ids=["gone", "empty"])
def test_images_without_their_description_are_decoded_anew(folder, tmp_path, harm):
    before = load(folder)
    harm(next((tmp_path / "cache" / "clip-sweeper" / "decoded").glob("*.json")))
    after = load(folder)
    assert after.store.fingerprint == before.store.fingerprint
    assert np.array_equal(after.pixels(), before.pixels())


def test_only_the_sample_is_decoded(folder):
    sample = load(folder, count=6)
    assert sample.store.shape[0] == 6
    whole = load(folder)
    assert np.array_equal(sample.pixels(), whole.sample(6).pixels())
    assert np.array_equal(sample.numbers, whole.sample(6).numbers)


def test_a_broken_image_of_a_stream_is_named_when_it_is_wanted(folder):
    images = load(folder, "always")
    broken = Path(str(images.store.items[40]))
    broken.write_bytes(broken.read_bytes()[:300])
    images.pixels(slice(0, 40))
    with pytest.raises(DataError, match=rf"{broken} \("):
        images.pixels()
    with pytest.raises(DataError, match=rf"1 of 77 images of 'pieces' can't be read: {broken} \("):
        load(folder)


# One copy

PROCESS = """
import json, sys, time
from pathlib import Path
import trainables.data.decode as decode
from trainables.data import registry
from trainables.data.config import DataSet
from trainables.data.fit import Fit

folder, marks, name = map(Path, sys.argv[1:])
writing = decode.write
def noted(*arguments):
    (marks / f"wrote-{name}").touch()
    writing(*arguments)
decode.write = noted
images = registry.load(DataSet(image_folder=folder), "train", Fit((224, 224)))
total = int(images.store.array.sum())  # every page is touched
(marks / f"ready-{name}").touch()
while len(list(marks.glob("ready-*"))) < 2:
    time.sleep(0.01)
lines = Path("/proc/self/smaps").read_text().splitlines()
first = next(i for i, line in enumerate(lines) if line.endswith(".npy"))
sizes = dict(line.split(":") for line in lines[first + 1 : first + 20])
(marks / f"done-{name}").touch()
while len(list(marks.glob("done-*"))) < 2:
    time.sleep(0.01)
kilobytes = {key: int(sizes[key].split()[0]) for key in ("Rss", "Pss", "Private_Dirty", "Anonymous")}
print(json.dumps(kilobytes | {"total": total, "bytes": images.store.array.nbytes}))
"""


def test_two_processes_decode_once_and_hold_one_copy(folder, tmp_path):
    """By what Linux says of the pages: all are mapped in both, and each process is charged for a half."""
    marks = tmp_path / "marks"
    marks.mkdir()
    commands = [[sys.executable, "-c", PROCESS, str(folder), str(marks), name] for name in "ab"]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for command in commands]
    first, second = (json.loads(process.communicate(timeout=120)[0]) for process in running)
    assert len(list(marks.glob("wrote-*"))) == 1
    assert first["total"] == second["total"]
    size = first["bytes"] / 1024
    for found in (first, second):
        assert found["Rss"] >= size
        assert found["Private_Dirty"] == found["Anonymous"] == 0
    assert first["Pss"] + second["Pss"] <= 1.05 * size


def test_a_set_is_not_copied_by_taking_a_part_of_it(folder):
    whole = load(folder)
    for part in (whole.sample(10), whole.take(np.arange(5))):
        assert part.store is whole.store


# Batches


@pytest.mark.parametrize("how", ["once", "always"])
def test_batches_come_in_order_and_whole(folder, how):
    images = load(folder, how)
    found = list(batches(images, 7, torch.device("cpu")))
    assert [len(labels) for _, _, labels in found] == [7] * 11
    assert torch.equal(
        torch.cat([pixels for _, pixels, _ in found]), to_pixels(images.pixels(), torch.device("cpu"))
    )
    assert np.array_equal(torch.cat([labels for _, _, labels in found]), images.labels)
    assert [rows.start for rows, _, _ in found] == list(range(0, 77, 7))


def test_an_error_while_reading_ahead_is_raised_where_the_batch_is_wanted(folder):
    images = load(folder, "always")
    (folder / "class_0" / "0.jpg").write_bytes(b"")
    position = next(i for i, item in enumerate(images.store.items) if str(item).endswith("class_0/0.jpg"))
    rows = [np.array([row]) for row in range(position + 1)]
    with pytest.raises(DataError, match=r"class_0/0\.jpg"):
        list(prefetched(images, rows))


# Resizing


def pil_resized(image, size):
    return np.asarray(Image.fromarray(image).resize(size[::-1], Image.Resampling.BICUBIC))


class Recorder(torch.nn.Module):
    """An image tower that keeps what it is given."""

    def __init__(self, size):
        super().__init__()
        self.image_size = size
        self.preprocess_cfg = {"mean": (0.0,) * 3, "std": (1.0,) * 3, "interpolation": "bicubic"}


class Clip(torch.nn.Module):
    def __init__(self, size):
        super().__init__()
        self.visual = Recorder(size)

    def encode_image(self, pixels):
        self.seen = pixels
        return pixels.flatten(1)


@pytest.mark.parametrize("native", [(32, 32), (64, 64), (96, 96), (224, 224), (427, 427)])
@pytest.mark.parametrize("size", [(224, 224), (28, 28)])
def test_resizing_on_the_device_is_pils_antialiased_resizing(native, size):
    """Within 1/255 in the mean, as measured on a photograph, up and down; PIL rounds and clips twice."""
    photo = pil_resized(load_sample_image("flower.jpg")[:427, :427], native)
    model = PixelClip(Clip(size), None)
    model.features(to_pixels(photo[None], torch.device("cpu")))
    seen = model.clip.seen[0].permute(1, 2, 0).numpy() * 255
    difference = np.abs(seen - pil_resized(photo, size))
    assert difference.mean() <= 0.5


def test_images_fit_a_model_as_open_clip_preprocesses_them(folder):
    """For every resize mode of open_clip, to the last bit."""
    import open_clip

    for mode in ("shortest", "longest", "squash"):
        for size in ((48, 48), (40, 56)):
            transform = open_clip.image_transform(
                size, is_train=False, mean=(0, 0, 0), std=(1, 1, 1), resize_mode=mode, fill_color=7
            )
            file = folder / "class_0" / "1.jpg"
            image = Image.open(file).convert("RGB")
            ours = np.asarray(Fit(size, mode, fill=7)(image))
            assert ours.shape == (*size, 3)
            assert np.array_equal(ours, (transform(image).permute(1, 2, 0) * 255).round().byte().numpy())


def test_a_model_says_how_images_fit_it():
    tiny = models.load("clip-tiny", None, "cpu")
    assert tiny.fit == Fit((28, 28), "shortest", "bicubic", 0)


# Prompts


def test_several_templates_are_averaged_as_clips_classifier_is():
    """Against the definition, with numpy: unit vectors of each prompt, their mean, normalised."""
    tiny = models.load("clip-tiny", None, "cpu")
    classes, templates = ["bag", "coat"], ["a photo of a {}.", "a drawing of a {c}.", "the {c}"]
    expected = []
    for name in classes:
        tokens = tiny.tokens([t.replace("{c}", "{}").format(name) for t in templates])
        with torch.no_grad():
            vectors = tiny.clip.encode_text(tokens).double().numpy()
        mean = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).mean(0)
        expected.append(mean / np.linalg.norm(mean))
    np.testing.assert_allclose(tiny.encode_classes(classes, templates), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("names.txt", "ants\nbees\n\nwasps\n", ("ants", "bees", "wasps")),
        ("names.json", '["ants", "bees", "wasps"]', ("ants", "bees", "wasps")),
        (
            "names.json",
            '{"class_2": "wasps", "class_0": "ants", "class_1": "bees"}',
            ("ants", "bees", "wasps"),
        ),
    ],
)
def test_class_names_from_a_file(folder, tmp_path, name, content, expected):
    (tmp_path / name).write_text(content)
    assert (
        registry.load(DataSet(image_folder=folder, classes=tmp_path / name), "test", SIZE).classes == expected
    )


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("names.txt", "ants\nbees\n", r"names\.txt has 2 names; expected one for each of the 3 classes"),
        ("names.json", '{"class_0": "ants"}', r"'class_1' is missing \(2 such classes\)"),
        (
            "names.json",
            '{"class_0": "a", "class_1": "b", "class_2": "c", "class_3": "d"}',
            "'class_3' is no class",
        ),
        ("names.json", "[1, 2, 3]", "should be a text"),
        ("names.json", "{", "is no JSON"),
        ("names.json", "3", "neither a list nor an object"),
        ("missing.txt", None, r"missing\.txt can't be read: No such file"),
    ],
)
def test_class_names_that_do_not_fit_are_told_in_one_line(folder, tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_text(content)
    data = DataSet(image_folder=folder, classes=tmp_path / name)
    with pytest.raises(DataError, match=message) as error:
        registry.check(data, ("validation",))
    assert "\n" not in str(error.value)


def test_templates_of_a_set_come_before_those_of_all_sets(folder, tmp_path):
    file = tmp_path / "templates.txt"
    file.write_text("a photo of {c}, an insect.\nthe {}\n")
    for templates, expected in (
        (file, ("a photo of {c}, an insect.", "the {}")),
        (["one {}"], ("one {}",)),
        (None, ("for all {}",)),
    ):
        data = DataSet(image_folder=folder, templates=templates)
        assert registry.load(data, "test", SIZE, prompt="for all {}").templates == expected
    file.write_text("no placeholder\n")
    with pytest.raises(DataError, match=r"templates\.txt: 'no placeholder': a prompt needs exactly one"):
        registry.load(DataSet(image_folder=folder, templates=file), "test", SIZE)


def test_classes_of_one_name_are_noted(folder, tmp_path):
    file = tmp_path / "names.txt"
    file.write_text("bee\nwasp\nbee\n")
    images = registry.load(DataSet(image_folder=folder, classes=file), "test", SIZE)
    assert images.notes == ("several classes have the same name: 'bee'; prompts can't tell them apart",)
    assert images.about()["notes"] == list(images.notes)


def test_nothing_is_left_of_a_decoding_that_failed(folder, monkeypatch):
    monkeypatch.setattr(decode, "as_rgb", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        load(folder)
    assert not [file for file in decode.cache_root().rglob("*.*") if file.suffix != ".lock"]


def test_interpolation_is_the_models(monkeypatch):
    """A model that was trained on bilinearly resized images gets these."""
    used = []
    original = F.interpolate
    monkeypatch.setattr(F, "interpolate", lambda *a, **k: used.append(k["mode"]) or original(*a, **k))
    clip = Clip((28, 28))
    clip.visual.preprocess_cfg = clip.visual.preprocess_cfg | {"interpolation": "bilinear"}
    PixelClip(clip, None).features(torch.rand(1, 3, 40, 40))
    assert used == ["bilinear"]
