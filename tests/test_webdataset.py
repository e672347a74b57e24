"""WebDataset shards as clip_benchmark writes them."""

from __future__ import annotations

import gzip
import io
import os
import tarfile

import pytest
from PIL import Image

from tests.archives import SIZE, Painter, write
from trainables.data import registry, webdataset
from trainables.data.config import DataSet
from trainables.data.fit import Fit
from trainables.errors import DataError

CLASSES = ("red fox", "cat", "zebra")
SUFFIXES = ("png", "webp", "PNG")


pytestmark = pytest.mark.usefixtures("own_cache")


def encoded(image, suffix):
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, suffix.lower(), lossless=True)
    return stream.getvalue()


def add(tar, name, data):
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


def write_shards(folder, counts, paint):
    """Returns {image: label}. The sample's name, label first, as the library writes it."""
    folder.mkdir(parents=True)
    found, index = {}, 0
    for shard, count in enumerate(counts):
        with tarfile.open(folder / f"{shard}.tar", "w") as tar:
            for _ in range(count):
                image, label = paint.array(), index % len(CLASSES)
                add(tar, f"s{index:07d}.cls", str(label).encode())
                suffix = SUFFIXES[index % len(SUFFIXES)]
                add(tar, f"s{index:07d}.{suffix}", encoded(image, suffix))
                found[image.tobytes()] = label
                index += 1
    write(folder / "nshards.txt", str(len(counts)))
    return found


@pytest.fixture
def root(tmp_path):
    return tmp_path / "wds_foxes"


@pytest.fixture
def shards(root):
    """Twelve shards, so that their order is not that of their names as texts."""
    paint = Painter()
    found = {
        "train": write_shards(root / "train", [2] * 12, paint),
        "test": write_shards(root / "test", [4, 5], paint),
    }
    write(root / "classnames.txt", *CLASSES)
    write(root / "zeroshot_classification_templates.txt", "a drawing of a {c}.", "{c}")
    return found


def load(root, split, **options):
    return registry.load(DataSet(webdataset=root), split, Fit(SIZE), **options)


def by_content(images):
    pixels = images.pixels()
    return {image.tobytes(): int(label) for image, label in zip(pixels, images.labels, strict=True)}


def test_images_labels_and_splits(root, shards):
    train, validation, test = (load(root, split) for split in ("train", "validation", "test"))
    assert by_content(train) | by_content(validation) == shards["train"]
    assert by_content(test) == shards["test"]
    assert (len(train), len(validation), len(test)) == (19, 5, 9)
    assert test.classes == CLASSES
    assert test.name == "wds_foxes"
    assert test.origin == "the test images"
    assert validation.origin == "20 % of the training images"


@pytest.mark.usefixtures("shards")
def test_shards_are_in_the_order_of_their_numbers(root):
    listing = registry.listed(DataSet(webdataset=root), "test")
    assert [item.name[:8] for item in listing.items] == [f"s{i:07d}" for i in range(9)]
    assert [path.name for path in webdataset.shards(root / "train")] == [f"{i}.tar" for i in range(12)]


@pytest.mark.usefixtures("shards")
def test_prompts_are_the_sets_own_when_asked_for(root):
    assert load(root, "test", prompt="clip_benchmark").templates == ("a drawing of a {c}.", "{c}")
    assert load(root, "test", prompt="a {c}").templates == ("a {c}",)
    (root / "zeroshot_classification_templates.txt").unlink()
    assert load(root, "test", prompt="clip_benchmark").templates == ("a photo of a {c}.",)


def test_shards_without_splits_are_split(root):
    found = write_shards(root, [10, 10], Painter())
    write(root / "classnames.txt", *CLASSES)
    parts = [load(root, split) for split in ("train", "validation", "test")]
    assert [len(part) for part in parts] == [13, 3, 4]
    assert by_content(parts[0]) | by_content(parts[1]) | by_content(parts[2]) == found


def test_test_images_alone_can_be_evaluated_on(root, shards):
    import shutil

    shutil.rmtree(root / "train")
    assert by_content(load(root, "test")) | by_content(load(root, "validation")) == shards["test"]
    with pytest.raises(DataError, match="no training images"):
        load(root, "train")


def test_the_index_is_kept_until_the_archive_changes(root, shards, monkeypatch):
    load(root, "test")
    read = webdataset.read_index
    monkeypatch.setattr(webdataset, "read_index", lambda _: pytest.fail("read again"))
    registry._listed.cache_clear()
    assert by_content(load(root, "test")) == shards["test"]
    registry._listed.cache_clear()
    os.utime(root / "test" / "1.tar", (1, 1))
    again = []
    monkeypatch.setattr(webdataset, "read_index", lambda archive: again.append(archive.name) or read(archive))
    load(root, "test")
    assert again == ["1.tar"]


def test_a_stream_reads_from_the_archives_too(root, shards):
    assert by_content(load(root, "test", decode="always")) == shards["test"]


def rewritten(name, change):
    """Writes a shard of the test split anew, with other members."""

    def act(root):
        file = root / "test" / name
        with tarfile.open(file) as tar:
            members = [(m.name, tar.extractfile(m).read()) for m in tar]
        with tarfile.open(file, "w") as tar:
            for member in change(members):
                add(tar, *member)

    return act


def compressed(root):
    file = root / "test" / "0.tar"
    file.write_bytes(gzip.compress(file.read_bytes()))


def truncated(root):
    file = root / "test" / "0.tar"
    file.write_bytes(file.read_bytes()[:5000])


def cut_between_members(root):
    """Nothing in what is left says that there was more, but the end mark is missing."""
    file = root / "test" / "0.tar"
    with tarfile.open(file) as tar:
        end = [member.offset for member in tar][2]
    file.write_bytes(file.read_bytes()[:end])


MISTAKES = {
    "cut": (cut_between_members, "0.tar is no whole tar archive without compression"),
    "no names": (lambda root: (root / "classnames.txt").unlink(), "is no WebDataset: expected shards 0.tar"),
    "a name left out": (
        lambda root: write(root / "classnames.txt", CLASSES[0], "", *CLASSES[1:]),
        r"classnames\.txt has an empty line",
    ),
    "no shards": (
        lambda root: [file.unlink() for file in (root / "test").glob("*.tar")],
        "holds no .tar files; expected shards",
    ),
    "a shard missing": (lambda root: (root / "test/1.tar").unlink(), "says '2', but .*test holds 1 shards"),
    "a shard too many": (lambda root: write(root / "test/x.tar"), "says '2', but .* holds 3 shards"),
    "count": (lambda root: write(root / "test/nshards.txt", "two"), "says 'two', but"),
    "no label": (rewritten("0.tar", lambda m: m[1:]), r"s0000000.png has no .cls \(1 such images\)"),
    "no image": (rewritten("1.tar", lambda m: m[:-1]), r"s0000008.cls has no image \(1 such labels\)"),
    "label": (
        rewritten("0.tar", lambda m: [(m[0][0], b"cat"), *m[1:]]),
        "s0000000.cls is 'cat'; expected the",
    ),
    "range": (rewritten("0.tar", lambda m: [(m[0][0], b"3"), *m[1:]]), "has the label 3; expected 0 to 2"),
    "twice": (rewritten("0.tar", lambda m: [*m, m[1]]), "s0000000.png and s0000000.png are one sample"),
    "empty": (rewritten("0.tar", lambda _: []), "0.tar holds no images"),
    "compressed": (compressed, "0.tar is no whole tar archive without compression"),
    "truncated": (truncated, "0.tar is no whole tar archive without compression"),
    "multilabel": (
        lambda root: write(root / "dataset_type.txt", "multilabel"),
        "no single class each; expected classification",
    ),
    "retrieval": (lambda root: write(root / "dataset_type.txt", "retrieval"), "expected classification"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
@pytest.mark.usefixtures("shards")
def test_mistakes_are_one_line_before_anything_is_decoded(root, mistake):
    act, message = MISTAKES[mistake]
    act(root)
    with pytest.raises(DataError, match=message) as error:
        registry.check(DataSet(webdataset=root), ("test",))
    assert "\n" not in str(error.value)


@pytest.mark.usefixtures("shards")
def test_a_broken_image_names_archive_and_member(root):
    rewritten("0.tar", lambda m: [m[0], (m[1][0], m[1][1][:60]), *m[2:]])(root)
    with pytest.raises(
        DataError, match=r"1 of 9 images of 'wds_foxes' can't be read: .*0\.tar:s0000000\.png \("
    ):
        load(root, "test")
