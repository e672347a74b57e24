"""Every known data set as its archive unpacks, against torchvision's own class on the same folder."""

from __future__ import annotations

import json
import re
import shutil
import tarfile
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torchvision.datasets as tv
import yaml
from PIL import Image

from tests.archives import (
    IMAGENET_X,
    OBJECTNET,
    SIZE,
    WRITERS,
    Painter,
    imagenet_x,
    python_2_pickle,
    wordnet_ids,
    write,
)
from trainables.config import EvaluationConfig
from trainables.data import factors, registry, templates
from trainables.data.config import PLACEHOLDERS, DataConfig, DataSet, OutsideSet, known_set, set_name
from trainables.data.fit import Fit
from trainables.data.listing import NO_CLASS, WORDS, split_of
from trainables.data.names import ALIASES, FACTORS, NAMES, ON_DISK, OUTSIDE, ZERO_SHOT
from trainables.data.sets import flowers
from trainables.data.sets.known import KNOWN
from trainables.errors import DataError

SPLITS = ("train", "validation", "test")
SMALL = [name for name in ON_DISK if not name.startswith("imagenet") or name == "imagenet-vid-robust"]
V2 = ("imagenetv2", "imagenetv2-threshold", "imagenetv2-top-images")


pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture(scope="session")
def archives(tmp_path_factory):
    """The folder that holds a set, written when it is first asked for, not to be changed."""
    written = {}

    def folder(name):
        if name not in written:
            written[name] = tmp_path_factory.mktemp("sets")
            WRITERS[name](written[name])
        return written[name]

    return folder


@pytest.fixture
def use(archives, monkeypatch):
    """Makes a set the one that is found under its name."""

    def use(name, root=None):
        root = root or archives(name)
        monkeypatch.setenv("SWEEPER_DATA", str(root))
        return root

    return use


def own(name, root, split):
    return KNOWN[name].parts(root)[split]()


def decoded(item):
    with item.open() as image:
        return np.asarray(image.convert("RGB"))


def by_content(pairs):
    found = {}
    for image, label in pairs:
        found[np.asarray(image.convert("RGB")).tobytes()] = int(label)
    return found


def ours(listing):
    found = {decoded(i).tobytes(): int(label) for i, label in zip(listing.items, listing.labels, strict=True)}
    assert len(found) == len(listing)  # no image twice
    return found


# Against torchvision

TORCHVISION = {
    ("cifar10", "train"): lambda root: tv.CIFAR10(root, train=True),
    ("cifar10", "test"): lambda root: tv.CIFAR10(root, train=False),
    ("cifar100", "train"): lambda root: tv.CIFAR100(root, train=True),
    ("cifar100", "test"): lambda root: tv.CIFAR100(root, train=False),
    ("stl10", "train"): lambda root: tv.STL10(root, "train"),
    ("stl10", "test"): lambda root: tv.STL10(root, "test"),
    ("food101", "train"): lambda root: tv.Food101(root, "train"),
    ("food101", "test"): lambda root: tv.Food101(root, "test"),
    ("pets", "train"): lambda root: tv.OxfordIIITPet(root, "trainval"),
    ("pets", "test"): lambda root: tv.OxfordIIITPet(root, "test"),
    ("flowers", "train"): lambda root: tv.Flowers102(root, "train"),
    ("flowers", "validation"): lambda root: tv.Flowers102(root, "val"),
    ("flowers", "test"): lambda root: tv.Flowers102(root, "test"),
    ("dtd", "train"): lambda root: tv.DTD(root, "train"),
    ("dtd", "validation"): lambda root: tv.DTD(root, "val"),
    ("dtd", "test"): lambda root: tv.DTD(root, "test"),
    ("eurosat", "train"): tv.EuroSAT,
    ("fgvc_aircraft", "train"): lambda root: tv.FGVCAircraft(root, "train"),
    ("fgvc_aircraft", "validation"): lambda root: tv.FGVCAircraft(root, "val"),
    ("fgvc_aircraft", "test"): lambda root: tv.FGVCAircraft(root, "test"),
    ("cars", "train"): lambda root: tv.StanfordCars(root, "train"),
    ("cars", "test"): lambda root: tv.StanfordCars(root, "test"),
    ("pcam", "train"): lambda root: tv.PCAM(root, "train"),
    ("pcam", "validation"): lambda root: tv.PCAM(root, "val"),
    ("pcam", "test"): lambda root: tv.PCAM(root, "test"),
    ("imagenet-a", "test"): lambda root: tv.ImageFolder(root / "imagenet-a"),
    ("imagenet-r", "test"): lambda root: tv.ImageFolder(root / "imagenet-r"),
    ("imagenet_sketch", "test"): lambda root: tv.ImageFolder(root / "sketch"),
    ("tiny-imagenet", "train"): lambda root: tv.ImageFolder(root / "tiny-imagenet-200" / "train"),
}


@pytest.fixture
def _any_checksum(monkeypatch):
    """The archives' checksums are not those of fixtures."""
    for module in (tv.cifar, tv.stl10, tv.flowers102, tv.imagenet):
        monkeypatch.setattr(module, "check_integrity", lambda path, *_: Path(path).exists())


@pytest.mark.parametrize(("name", "split"), TORCHVISION)
@pytest.mark.usefixtures("_any_checksum")
def test_images_and_labels_are_torchvisions(archives, name, split):
    theirs = TORCHVISION[name, split](archives(name))
    listing = own(name, archives(name), split)
    assert len(listing) == len(theirs)
    assert ours(listing) == by_content(theirs)
    if listing.size:
        assert all(image.size == listing.size[::-1] for image, _ in theirs)


@pytest.mark.parametrize("name", ["cifar10", "stl10", "food101", "pets", "dtd", "fgvc_aircraft", "cars"])
@pytest.mark.usefixtures("_any_checksum")
def test_class_names_are_torchvisions_in_words(archives, name):
    theirs = TORCHVISION[name, "test"](archives(name)).classes
    assert own(name, archives(name), "test").classes == tuple(c.replace("_", " ") for c in theirs)


@pytest.mark.usefixtures("_any_checksum")
def test_imagenet_is_torchvisions(archives):
    import torch

    root, wnids = archives("imagenet1k"), wordnet_ids()
    torch.save(({wnid: (wnid,) for wnid in wnids}, []), root / "imagenet" / "meta.bin")
    for split, theirs in (("train", "train"), ("test", "val")):
        assert ours(own("imagenet1k", root, split)) == by_content(tv.ImageNet(root / "imagenet", theirs))


@pytest.mark.usefixtures("_any_checksum")
def test_imagenets_validation_images_as_the_archive_unpacks(tmp_path, use):
    """All in one folder, with labels from the devkit; torchvision sorts them by the devkit's archive."""
    from scipy.io import savemat

    folder, wnids, random = tmp_path / "imagenet", wordnet_ids(), np.random.default_rng(0)
    fields = ["ILSVRC2012_ID", "WNID", "words", "gloss", "num_children", "children"]
    synsets = np.zeros((1001, 1), dtype=[(name, object) for name in fields])
    for row, (number, name) in enumerate([*enumerate(random.permutation(wnids), 1), (1001, "n00001740")]):
        synsets[row, 0] = (number, str(name), "tench, Tinca tinca", "a fish", int(number == 1001), 0)
    data = folder / "ILSVRC2012_devkit_t12" / "data"
    truth = random.integers(1, 1001, 12)
    write(data / "ILSVRC2012_validation_ground_truth.txt", *map(str, truth))
    savemat(data / "meta.mat", {"synsets": synsets})
    paint = Painter()
    for number in range(1, 13):
        paint(folder / "val" / f"ILSVRC2012_val_{number:08d}.JPEG")
    listing = own("imagenet1k", tmp_path, "test")
    with tarfile.open(folder / "ILSVRC2012_devkit_t12.tar.gz", "w:gz") as tar:
        tar.add(data.parent, "ILSVRC2012_devkit_t12")
    tv.imagenet.parse_devkit_archive(folder)
    _, their_wnids = tv.imagenet.load_meta_file(folder)
    files = sorted((folder / "val").iterdir())
    assert [item.path for item in listing.items] == list(map(str, files))
    assert [wnids[label] for label in listing.labels] == their_wnids
    use("imagenet1k", tmp_path)
    with pytest.raises(DataError, match=r"expected .*imagenet/train; unpack ILSVRC2012_img_train.tar"):
        registry.check("imagenet1k", ("train",))
    validation, test = (registry.load("imagenet1k", s, Fit(SIZE)) for s in ("validation", "test"))
    assert (len(validation), len(test)) == (2, 10)
    assert test.origin == "80 % of the test images"
    shutil.rmtree(data)
    registry._listed.cache_clear()
    with pytest.raises(DataError, match=r"no folder for each class.*unpack ILSVRC2012_devkit_t12\.tar"):
        registry.check("imagenet1k", ("test",))


def test_class_names_of_imagenets_family_are_clips(archives):
    wnids = wordnet_ids()
    for name in ("imagenet1k", *V2, "imagenet_sketch"):
        assert own(name, archives(name), "test").classes == tuple(open_clip.IMAGENET_CLASSNAMES)
    for name in ("imagenet-a", "imagenet-r"):
        listing = own(name, archives(name), "test")
        assert len(listing.classes) == 200
        for wnid, called in zip(listing.keys, listing.classes, strict=True):
            assert called == open_clip.IMAGENET_CLASSNAMES[wnids.index(wnid)]
    assert wnids[1] == "n01443537"
    assert open_clip.IMAGENET_CLASSNAMES[1] == "goldfish"


@pytest.mark.parametrize("name", V2)
def test_imagenet_v2_is_labelled_by_its_folders(archives, name):
    listing = own(name, archives(name), "test")
    assert [int(Path(item.path).parent.name) for item in listing.items] == listing.labels.tolist()
    assert sorted(listing.labels) == list(range(1000))


def test_objectnet_has_the_classes_that_imagenet_has(archives):
    root = archives("objectnet")
    listing = own("objectnet", root, "test")
    assert listing.classes == ("alarm clock", "backpack")
    expected = {
        np.asarray(Image.open(file).convert("RGB")).tobytes(): label
        for label, folder in enumerate(["alarm_clock", "backpack"])
        for file in (root / "objectnet-1.0" / "images" / folder).iterdir()
    }
    assert ours(listing) == expected
    assert len(listing.classes) < len(OBJECTNET)
    assert "2 classes of" in listing.notes[0]


def test_tiny_imagenets_test_images_are_its_validation_images(archives):
    root = archives("tiny-imagenet")
    rows = [
        line.split("\t")
        for line in (root / "tiny-imagenet-200/val/val_annotations.txt").read_text().splitlines()
    ]
    listing = own("tiny-imagenet", root, "test")
    assert {
        Path(item.path).name: listing.keys[label]
        for item, label in zip(listing.items, listing.labels, strict=True)
    } == {row[0]: row[1] for row in rows}
    assert listing.classes == ("goldfish", "European fire salamander", "bullfrog")


def test_sun397_has_the_images_of_its_first_partition(archives):
    """torchvision's class has all images, without splits."""
    root = archives("sun397")
    train, test = (own("sun397", root, split) for split in ("train", "test"))
    theirs = tv.SUN397(root)
    assert train.classes == ("abbey", "airport terminal", "apartment building outdoor")
    both = ours(train) | ours(test)
    everything = by_content(theirs)
    assert both.items() < everything.items()
    assert (len(train), len(test), len(everything)) == (15, 6, 24)
    listed = (root / "SUN397" / "Testing_01.txt").read_text().split()
    assert [item.path.removeprefix(str(root / "SUN397")) for item in test.items] == listed
    assert "3 images in" in test.notes[0]


def test_caltech101_is_torchvisions_and_the_background(archives):
    root = archives("caltech101")
    listing = own("caltech101", root, "train")
    background = listing.labels == 0
    assert listing.classes == (
        "background", "off-center face", "leopard", "accordion", "sea horse", "yin and yang symbol",
    )  # fmt: skip
    theirs = by_content(tv.Caltech101(root))
    assert ours(listing.take(np.flatnonzero(~background))) == {
        key: label + 1 for key, label in theirs.items()
    }
    assert {Path(listing.items[i].path).parent.name for i in np.flatnonzero(background)} == {
        "BACKGROUND_Google"
    }


def test_caltech256_is_torchvisions(archives):
    listing = own("caltech256", archives("caltech256"), "train")
    assert ours(listing) == by_content(tv.Caltech256(archives("caltech256")))
    assert listing.classes == ("ak47", "american flag", "dog", "car side", "clutter")


def test_flowers_are_called_as_in_clips_prompts():
    """Three names differ from torchvision's, which are the publishers'."""
    other = [(a, b) for a, b in zip(flowers.CLASSES, tv.Flowers102.classes, strict=True) if a != b]
    assert other == [
        ("globe flower", "globe-flower"),
        ("pink and yellow dahlia", "pink-yellow dahlia?"),
        ("air plant", "ball moss"),
    ]


def test_imagenet_vid_has_the_anchors_of_one_class(archives):
    root = archives("imagenet-vid-robust") / "imagenet_vid_ytbb_robust" / "imagenet-vid-robust"
    labels = json.loads((root / "metadata" / "labels.json").read_text())
    anchors = json.loads((root / "metadata" / "pmsets.json").read_text())
    listing = own("imagenet-vid-robust", archives("imagenet-vid-robust"), "test")
    found = {
        item.path.removeprefix(f"{root}/"): [label]
        for item, label in zip(listing.items, listing.labels, strict=True)
    }
    assert found == {anchor: labels[anchor] for anchor in anchors if len(labels[anchor]) == 1}
    assert (len(found), len(anchors), len(labels)) == (12, 13, 39)
    assert listing.classes == ("airplane", "domestic cat", "giant panda")
    assert listing.keys == ("n02691156", "n02121808", "n02510455")
    unused, several = listing.notes
    assert unused.startswith("27 images in")
    assert several.startswith("1 frames of")


def test_frames_of_a_video_are_not_parted(use):
    use("imagenet-vid-robust")
    splits = [registry.chosen("imagenet-vid-robust", split, None) for split in ("validation", "test")]
    assert [listing.origin for listing in splits] == ["20 % of the test images", "80 % of the test images"]
    validation, test = ({Path(i.path).parent.name[:-3] for i in listing.items} for listing in splits)
    assert (len(validation), len(test)) == (2, 9)
    assert not validation & test


# Outside all classes


@pytest.mark.parametrize("name", OUTSIDE)
def test_images_outside_all_classes_are_all_that_there_are(use, name):
    root = use(name)
    pictures = root / KNOWN[name].layout[0]
    there = sorted(str(file) for file in pictures.rglob("*") if file.suffix in (".jpg", ".JPEG"))
    splits = [registry.chosen(name, split, None) for split in ("validation", "test")]
    assert sorted(item.path for listing in splits for item in listing.items) == there
    for listing in splits:
        assert listing.classes == listing.keys == ()
        assert set(listing.labels) == {NO_CLASS}
    with pytest.raises(DataError, match="there are no training images"):
        registry.check(name, ("train",))


@pytest.mark.parametrize(("name", "folder"), [("imagenet-o", ""), ("ninco", "NINCO_OOD_classes")])
def test_folders_of_images_outside_all_classes_are_torchvisions(archives, name, folder):
    root = archives(name) / ("NINCO" if folder else name) / folder
    listing = own(name, archives(name), "test")
    assert [item.path for item in listing.items] == [path for path, _ in tv.ImageFolder(root).samples]


@pytest.mark.usefixtures("_any_checksum")
def test_a_search_sees_no_test_image_of_dtd_in_textures(use):
    root = use("textures")
    validation = ours(registry.chosen("textures", "validation", None))
    assert validation.keys() == by_content(tv.DTD(root, "val")).keys()
    test = ours(registry.chosen("textures", "test", None)).keys()
    assert test == by_content(tv.DTD(root, "train")).keys() | by_content(tv.DTD(root, "test")).keys()
    as_dtd = registry.chosen(OutsideSet(dataset="dtd"), "test", None)
    assert ours(as_dtd).keys() == by_content(tv.DTD(root, "test")).keys()
    assert as_dtd.classes == ()


@pytest.mark.parametrize("name", OUTSIDE)
@pytest.mark.parametrize("written", [lambda name: name, lambda name: {"dataset": name}])
def test_images_outside_all_classes_are_not_measured_on(name, written):
    refused = rf"'{name}' has no classes to be measured on: it belongs under `ood`, whose images are"
    for content in ({"train": written(name)}, {"evaluate": ["digits", written(name)]}):
        with pytest.raises(ValueError, match=refused):
            DataConfig.model_validate(content)
    with pytest.raises(ValueError, match=refused):
        EvaluationConfig.model_validate({"further_sets": [written(name)]})
    assert set_name(OutsideSet.model_validate(written(name))) == name


def test_a_set_that_is_scored_is_not_asked_for_in_words(tmp_path):
    for words in ({"classes": tmp_path / "names.txt"}, {"templates": ["a {}"]}):
        with pytest.raises(ValueError, match="have no `classes` and `templates`"):
            OutsideSet(dataset="cifar10", **words)
    with pytest.raises(ValueError, match="unknown data set 'nincoo'; did you mean 'ninco'"):
        OutsideSet.model_validate("nincoo")


def test_any_folder_of_images_can_be_scored(tmp_path):
    paint, config = Painter(), OutsideSet(image_folder=tmp_path / "noise")
    with pytest.raises(DataError, match="noise is not a folder; expected one with images"):
        registry.check(config, ("test",))
    (tmp_path / "noise").mkdir()
    with pytest.raises(DataError, match=r"data set 'noise-ood': .*noise holds no images \("):
        registry.check(config, ("test",))
    names = ("0.png", "1.png", "a/2.png", "a/b/3.png", "c/4.png")
    files = [paint(tmp_path / "noise" / name) for name in names]
    write(tmp_path / "noise" / "about.txt", "noise")
    registry.check(config, ("validation", "test"))
    validation, test = (registry.load(config, split, Fit(SIZE)) for split in ("validation", "test"))
    assert (len(validation), len(test), test.name, test.classes) == (1, 4, "noise-ood", ())
    assert test.origin == "80 % of the test images"
    assert "are not read: 1, such as" in test.notes[0]
    found = {image.tobytes() for images in (validation, test) for image in images.pixels()}
    assert found == {np.asarray(Image.open(file)).tobytes() for file in files}
    with pytest.raises(DataError, match="no training images"):
        registry.check(config, ("train",))


def test_a_folder_that_is_scored_keeps_its_splits(tmp_path):
    paint = Painter()
    for split, count in (("val", 2), ("test", 3)):
        for i in range(count):
            paint(tmp_path / split / f"{i}.png")
    for split, count in (("validation", 2), ("test", 3)):
        listing = registry.chosen(OutsideSet(image_folder=tmp_path), split, None)
        assert (len(listing), listing.origin) == (count, f"the {split} images")


# ImageNet-X


@pytest.fixture
def annotated(use, tmp_path, monkeypatch):
    """All images of ImageNet but a few, with one factor after the other, and which image has which."""
    root = use("imagenet1k")
    names = [file.name for file in sorted((root / "imagenet").rglob("*.JPEG"))]
    top = {name: (*IMAGENET_X, None)[i % 17] for i, name in enumerate(names) if i % 50}
    prototypes = [name for name in names if name.endswith(("21.JPEG", "22.JPEG", "23.JPEG"))]
    imagenet_x(tmp_path / "annotations", top, prototypes)
    monkeypatch.setenv(factors.VARIABLE, str(tmp_path / "annotations"))
    return {name: factor for name, factor in top.items() if name not in prototypes}


def named(listing):
    return dict(zip((Path(item.path).name for item in listing.items), listing.labels, strict=True))


@pytest.mark.parametrize("factor", FACTORS)
def test_a_factor_has_its_images_of_each_split_of_imagenet(annotated, factor):
    config = DataSet(dataset="imagenet1k", factor=factor)
    for split, origin in (("validation", "20 % of the training images"), ("test", "the test images")):
        whole = registry.chosen("imagenet1k", split, None)
        listing = registry.chosen(config, split, None)
        expected = {name: label for name, label in named(whole).items() if annotated.get(name) == factor}
        assert named(listing) == expected
        assert len(expected) > 5
        assert listing.classes == whole.classes
        assert listing.origin == f"{origin}, if {factor} is their top factor"


def test_a_factor_without_training_images_is_cut_as_imagenet_is(annotated, archives, tmp_path, monkeypatch):
    (tmp_path / "imagenet").mkdir()
    (tmp_path / "imagenet" / "val").symlink_to(archives("imagenet1k") / "imagenet" / "val")
    monkeypatch.setenv("SWEEPER_DATA", str(tmp_path))
    config = DataSet(dataset="imagenet1k", factor="pose")
    splits = ("validation", "test")
    validation, test = (named(registry.chosen(config, split, None)) for split in splits)
    searched, tested = (named(registry.chosen("imagenet1k", split, None)) for split in splits)
    assert validation.items() < searched.items()
    assert test.items() < tested.items()
    assert not searched.keys() & tested.keys()
    assert {*validation, *test} == {n for n, f in annotated.items() if f == "pose" and "_val_" in n}


def test_a_factor_is_a_set_of_its_own_name():
    config = DataConfig.model_validate(
        {"evaluate": ["imagenet1k", *({"dataset": "imagenet1k", "factor": factor} for factor in FACTORS)]}
    )
    assert [set_name(each) for each in config.evaluate[:3]] == [
        "imagenet1k",
        "imagenet1k-pose",
        "imagenet1k-background",
    ]
    assert config.evaluate[1].images == "imagenet1k-pose"
    assert set_name(DataSet(dataset="imagenet1k", factor="pose", name="posed")) == "posed"
    assert IMAGENET_X[:10] == FACTORS
    with pytest.raises(ValueError, match="factor is one of `dataset: imagenet1k` alone"):
        DataSet(dataset="imagenetv2", factor="pose")
    with pytest.raises(ValueError, match="should be 'pose'"):
        DataSet(dataset="imagenet1k", factor="posture")


@pytest.mark.usefixtures("annotated")
def test_a_factor_is_not_trained_on():
    with pytest.raises(DataError, match="'imagenet1k-pose': a `factor` has no training images"):
        registry.check(DataSet(dataset="imagenet1k", factor="pose"), ("train",))


def test_annotations_are_found_where_pip_puts_them(use, tmp_path, monkeypatch):
    use("imagenet1k")
    monkeypatch.delenv(factors.VARIABLE, raising=False)
    monkeypatch.setattr(factors, "PACKAGE", "imagenet_x_that_is_not_there")
    config = DataSet(dataset="imagenet1k", factor="pose")
    with pytest.raises(DataError, match=r"`pip install imagenet-x`, or set SWEEPER_IMAGENET_X to") as error:
        registry.check(config, ("test",))
    assert "\n" not in str(error.value)
    assert error.value.page == "data.md#visual-factors"
    monkeypatch.setattr(factors, "PACKAGE", "imagenet_x_that_is_there")
    package = tmp_path / "imagenet_x_that_is_there"
    write(package / "__init__.py", "raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    imagenet_x(package / "annotations", {"ILSVRC2012_val_00000007.JPEG": "pose"})
    assert list(named(registry.chosen(config, "test", None)).values()) == [6]


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (shutil.rmtree, "prototypical_paths.csv can't be read: No such file"),
        (lambda folder: write(folder / factors.ANNOTATIONS[0], "{}"), "line 1: expected `file_name` and"),
        (lambda folder: write(folder / factors.ANNOTATIONS[1], "pose"), "line 1: expected `file_name` and"),
        (lambda folder: imagenet_x(folder, {}), "none of the test images has 'pose' as its top factor"),
    ],
)
@pytest.mark.usefixtures("annotated")
def test_annotations_that_will_not_do_are_one_line(tmp_path, act, message):
    factors.top_factors.cache_clear()
    act(tmp_path / "annotations")
    with pytest.raises(DataError, match=message) as error:
        registry.check(DataSet(dataset="imagenet1k", factor="pose"), ("test",))
    assert "\n" not in str(error.value)
    assert str(error.value).startswith("data set 'imagenet1k-pose': ")


# Of every set


def test_names_are_those_of_the_sets():
    assert set(KNOWN) == set(NAMES)
    assert set(WRITERS) == set(ON_DISK)
    assert len(set(NAMES)) == len(NAMES)
    assert set(ALIASES.values()) <= set(ON_DISK)
    assert not set(ALIASES) & set(NAMES)
    assert known_set("vtab/pets") == "pets"
    assert known_set("imagenetv2-matched-frequency") == "imagenetv2"
    assert not any("." in name for name in NAMES)  # metrics are called `<set>.<metric>`
    assert ZERO_SHOT == (
        "tiny-imagenet", "imagenet1k", "cifar10", "cifar100", "stl10", "sun397", "food101", "pets", "flowers",
        "dtd", "eurosat", "fgvc_aircraft", "caltech101", "caltech256", "cars", "pcam",
    )  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_prompts_have_one_placeholder_and_are_not_twice_there(name):
    prompts = KNOWN[name].templates
    assert all(sum(map(prompt.count, PLACEHOLDERS)) == 1 for prompt in prompts)
    assert len(set(prompts)) == len(prompts) > 0


def test_imagenets_prompts_are_open_clips():
    assert tuple(template("{c}") for template in open_clip.OPENAI_IMAGENET_TEMPLATES) == templates.IMAGENET


@pytest.mark.parametrize("name", ON_DISK)
def test_splits_share_no_image_and_say_what_they_are(use, name):
    root = use(name)
    parts = KNOWN[name].parts(root)
    splits = [split for split in SPLITS if split != "train" or {"train"} & set(parts)]
    registry.check(name, splits)
    loaded = [registry.load(name, split, Fit(SIZE)) for split in splits]
    contents = [{image.tobytes() for image in images.pixels()} for images in loaded]
    assert len(set.union(*contents)) == sum(map(len, contents)) == sum(map(len, loaded))
    assert sum(map(len, loaded)) == sum(len(part()) for part in parts.values())
    for images, split in zip(loaded, splits, strict=True):
        assert images.split == split
        assert len(images) > 0
        official = (split == "test" and "train" in parts) or (split in parts and "validation" in parts)
        if official and "test" in parts:
            assert images.origin == f"the {WORDS[split]} images"
        else:
            assert images.origin.startswith(("20 % of", "80 % of"))
        assert images.labels.min() >= (NO_CLASS if name in OUTSIDE else 0)
        assert images.labels.max() < len(images.classes)
        assert images.size == (split_of(parts, split).size or SIZE)


@pytest.mark.parametrize("name", ON_DISK)
def test_a_set_that_is_not_there_is_one_line_that_names_the_layout(tmp_path, monkeypatch, name):
    monkeypatch.setenv("SWEEPER_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(DataError) as error:
        registry.check(name, ("test",))
    message = str(error.value)
    assert "\n" not in message
    assert message.startswith(f"data set '{name}': not there: expected {tmp_path / 'nowhere'}")
    assert all(part in message for part in KNOWN[name].layout)
    assert f"unpack {KNOWN[name].archive}" in message
    assert "SWEEPER_DATA" in message


@pytest.mark.parametrize("name", SMALL)
def test_every_part_of_the_layout_is_needed(archives, tmp_path, name):
    for number, part in enumerate(KNOWN[name].layout):
        root = tmp_path / str(number)
        shutil.copytree(archives(name), root)
        path = root / part
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        with pytest.raises(DataError, match=f"not there: expected {path}"):
            KNOWN[name].check(root, "test")


# Files that disagree


def edit(file, old, new):
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))


def picture(file):
    return lambda root: Painter()(root / file)


def remove(file):
    return lambda root: (root / file).unlink()


def change(file, old, new):
    return lambda root: edit(root / file, old, new)


def cut_file(file):
    return lambda root: (root / file).write_bytes((root / file).read_bytes()[:-100])


def replaced(file, content=b"not what it was"):
    return lambda root: (root / file).write_bytes(content)


def mat(file, **values):
    def act(root):
        from scipy.io import loadmat, savemat

        savemat(root / file, {k: v for k, v in loadmat(root / file).items() if k[0] != "_"} | values)

    return act


FOOD, FLOWER, AIR = "food-101/meta", "flowers-102", "fgvc-aircraft-2013b/data"
VID = "imagenet_vid_ytbb_robust/imagenet-vid-robust"
DISAGREEMENTS = [
    (
        "tiny-imagenet",
        remove("tiny-imagenet-200/val/images/val_1.JPEG"),
        "val_1.JPEG is listed, but not there",
    ),
    ("tiny-imagenet", picture("tiny-imagenet-200/val/images/x.JPEG"), "x.JPEG is there, but not listed"),
    (
        "tiny-imagenet",
        change("tiny-imagenet-200/val/val_annotations.txt", "n01443537", "n9"),
        "names 'n9', which",
    ),
    (
        "tiny-imagenet",
        change("tiny-imagenet-200/val/val_annotations.txt", "val_1.", "val_0."),
        "val_0.JPEG twice",
    ),
    ("tiny-imagenet", change("tiny-imagenet-200/words.txt", "n01641577\t", "n2\t"), "no name for n01641577"),
    ("sun397", remove("SUN397/a/abbey/sun_abb6.jpg"), "a/abbey/sun_abb6.jpg is listed, but not there"),
    ("sun397", change("SUN397/Testing_01.txt", "/a/abbey/", "/a/abattoir/"), "names '/a/abattoir', which"),
    ("sun397", change("SUN397/Testing_01.txt", "sun_abb5", "sun_abb1"), "list a/abbey/sun_abb1.jpg twice"),
    ("food101", remove("food-101/images/waffles/2105.jpg"), "waffles/2105.jpg is listed, but not there"),
    ("food101", picture("food-101/images/waffles/1.jpg"), "waffles/1.jpg is there, but not listed"),
    ("food101", change(f"{FOOD}/test.json", "apple_pie/", "waffles/"), "disagree|twice"),
    (
        "food101",
        change(f"{FOOD}/test.json", '"waffles":', '"waffle":'),
        "only one of them has the class 'waffle'",
    ),
    ("food101", replaced(f"{FOOD}/train.json"), "train.json is no JSON"),
    ("pets", remove("oxford-iiit-pet/images/Abyssinian_0.jpg"), "Abyssinian_0.jpg is listed, but not there"),
    (
        "pets",
        change("oxford-iiit-pet/annotations/test.txt", "Abyssinian_5 1", "Abyssinian_5 2"),
        "class 2, but",
    ),
    (
        "pets",
        change("oxford-iiit-pet/annotations/test.txt", "Abyssinian_5", "Sphynx_5"),
        "names 'Sphynx', which",
    ),
    (
        "pets",
        change("oxford-iiit-pet/annotations/test.txt", "Abyssinian_5", "Abyssinian_4"),
        "Abyssinian_4.jpg twice",
    ),
    (
        "pets",
        change("oxford-iiit-pet/annotations/test.txt", "Abyssinian_5 1 1 1", "Abyssinian_5"),
        "line 1: expected 2",
    ),
    ("flowers", remove(f"{FLOWER}/jpg/image_00003.jpg"), "image_00003.jpg is listed, but not there"),
    ("flowers", picture(f"{FLOWER}/jpg/image_00099.jpg"), "image_00099.jpg is there, but not listed"),
    (
        "flowers",
        mat(f"{FLOWER}/imagelabels.mat", labels=[[103] * 20]),
        "has the label 102; expected 0 to 101",
    ),
    ("flowers", mat(f"{FLOWER}/imagelabels.mat", labels=[[1] * 19]), "images beyond the 19 labels"),
    ("flowers", mat(f"{FLOWER}/setid.mat", tstid=[[1, 2, 3, 4, 5, 6, 7, 8]]), "twice"),
    ("flowers", cut_file(f"{FLOWER}/setid.mat"), "setid.mat is not a MATLAB file with trnid"),
    ("dtd", remove("dtd/dtd/images/banded/banded_0001.jpg"), "banded_0001.jpg is listed, but not there"),
    ("dtd", picture("dtd/dtd/images/banded/banded_1.jpg"), "banded_1.jpg is there, but not listed"),
    ("dtd", change("dtd/dtd/labels/val1.txt", "banded/", "braided/"), "names 'braided', which is no class"),
    ("dtd", change("dtd/dtd/labels/val1.txt", "banded_0004", "banded_0001"), "twice"),
    ("fgvc_aircraft", remove(f"{AIR}/images/0000309.jpg"), "0000309.jpg is listed, but not there"),
    ("fgvc_aircraft", picture(f"{AIR}/images/1.jpg"), "1.jpg is there, but not listed"),
    (
        "fgvc_aircraft",
        change(f"{AIR}/images_variant_val.txt", "A300B4", "A300"),
        "names 'A300', which is no class",
    ),
    ("cars", remove("stanford_cars/cars_test/00002.jpg"), "00002.jpg is listed, but not there"),
    ("cars", picture("stanford_cars/cars_train/00099.jpg"), "00099.jpg is there, but not listed"),
    ("cars", cut_file("stanford_cars/devkit/cars_train_annos.mat"), "not a MATLAB file with annotations"),
    ("eurosat", lambda root: shutil.rmtree(root / "eurosat/2750/River"), "River holds no images"),
    ("eurosat", picture("eurosat/2750/Moon/Moon_1.jpg"), "Moon is no class of this set"),
    (
        "caltech101",
        lambda root: (root / "caltech101/101_ObjectCategories/ant").mkdir(),
        "ant holds no images",
    ),
    ("objectnet", picture("objectnet-1.0/images/anvil/1.png"), "has no name for .*anvil"),
    (
        "objectnet",
        lambda root: shutil.rmtree(root / "objectnet-1.0/images/backpack"),
        "backpack holds no images",
    ),
    (
        "imagenet-vid-robust",
        remove(f"{VID}/val/ILSVRC2015_val_00002000/000011.JPEG"),
        "ILSVRC2015_val_00002000/000011.JPEG is listed, but not there",
    ),
    (
        "imagenet-vid-robust",
        change(f"{VID}/metadata/labels.json", "val_00000000/000011", "val_00000000/000013"),
        "has no class of val/ILSVRC2015_val_00000000/000011.JPEG",
    ),
    (
        "imagenet-vid-robust",
        change(f"{VID}/metadata/labels.json", '00000000/000011.JPEG": [0]', '00000000/000011.JPEG": [3]'),
        "has the label 3; expected 0 to 2",
    ),
    ("cifar10", cut_file("cifar-10-batches-py/data_batch_2"), "data_batch_2 is not a batch of CIFAR"),
    ("cifar10", replaced("cifar-10-batches-py/test_batch", b""), "test_batch is not a batch of CIFAR"),
    (
        "stl10",
        cut_file("stl10_binary/train_X.bin"),
        "train_X.bin has .* bytes; expected 27648 for each of the 20",
    ),
    ("stl10", replaced("stl10_binary/test_y.bin", b"\x0b" * 10), "has the label 10; expected 0 to 9"),
    ("pcam", replaced("pcam/camelyonpatch_level_2_split_test_x.h5"), "test_x.h5 is no HDF5 file"),
    ("pcam", cut_file("pcam/camelyonpatch_level_2_split_valid_y.h5"), "valid_y.h5 is no HDF5 file"),
]


@pytest.mark.parametrize(
    "case", DISAGREEMENTS, ids=[f"{name}-{i}" for i, (name, *_) in enumerate(DISAGREEMENTS)]
)
def test_files_that_disagree_are_told_before_anything_is_decoded(archives, use, tmp_path, case):
    name, act, message = case
    root = tmp_path / "data"
    shutil.copytree(archives(name), root)
    act(root)
    use(name, root)
    with pytest.raises(DataError, match=message) as error:
        registry.check(name, ("test", "validation", "train"))
    assert "\n" not in str(error.value)
    assert str(error.value).startswith(f"data set '{name}': ")


def test_a_pickle_that_wants_to_run_something_is_refused(archives, use, tmp_path):
    root = tmp_path / "data"
    shutil.copytree(archives("cifar100"), root)
    use("cifar100", root)

    class Evil:
        def __reduce__(self):
            return (write, (tmp_path / "evil", "was here"))

    python_2_pickle(root / "cifar-100-python" / "test", {"data": Evil(), "fine_labels": []})
    with pytest.raises(DataError, match=r"wants tests\.archives\.write, which no image needs"):
        registry.check("cifar100", ("test",))
    assert not (tmp_path / "evil").exists()


def test_images_of_imagenets_subsets_are_complete(tmp_path, use, archives):
    root = tmp_path / "data"
    shutil.copytree(archives("imagenet-r"), root)
    use("imagenet-r", root)
    folders = sorted((root / "imagenet-r").glob("n*"))
    folders[0].rename(root / "imagenet-r" / "n99999999")
    with pytest.raises(DataError, match="n99999999 is none of ImageNet's 1000 classes"):
        registry.check("imagenet-r", ("test",))
    shutil.rmtree(root / "imagenet-r" / "n99999999")
    with pytest.raises(DataError, match="has 199 class folders; expected 200"):
        registry.check("imagenet-r", ("test",))


def test_pcam_is_read_by_several_threads(archives):
    from concurrent.futures import ThreadPoolExecutor

    listing = own("pcam", archives("pcam"), "train")
    expected = [decoded(item) for item in listing.items]
    with ThreadPoolExecutor(8) as threads:
        for _ in range(5):
            found = list(threads.map(decoded, listing.items))
            assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))


def test_names_given_by_a_file_go_by_the_sets_own_keys(use, tmp_path):
    use("food101")
    file = tmp_path / "names.json"
    file.write_text(
        json.dumps({"apple_pie": "pie of apples", "waffles": "Belgian waffles", "baby_back_ribs": "ribs"})
    )
    images = registry.load(DataSet(dataset="food101", classes=file), "test", Fit(SIZE))
    assert images.classes == ("pie of apples", "ribs", "Belgian waffles")


# docs/data.md

DOCS = (Path(__file__).parents[1] / "docs" / "data.md").read_text()
EXAMPLES = re.findall(r"```yaml\n(.*?)```", DOCS, flags=re.DOTALL)


@pytest.mark.parametrize("example", EXAMPLES)
def test_examples_are_what_a_sweep_file_takes(example):
    content = yaml.safe_load(example)
    assert list(content) == ["data"]
    DataConfig.model_validate(content["data"])


def test_the_table_lists_every_set_with_its_splits():
    rows = [line.split("|")[1:] for line in DOCS.splitlines() if line.startswith("| `")]
    splits = {name: row[3] for row in rows for name in re.findall("`([^`]+)`", row[0])}
    assert list(splits) == list(NAMES)
    assert len(EXAMPLES) == 6


@pytest.mark.parametrize("name", ON_DISK)
def test_the_table_says_which_splits_are_cut(archives, name):
    row = next(
        line for line in DOCS.splitlines() if line.startswith("| `") and f"`{name}`" in line.split("|")[1]
    )
    said = [part.strip() for part in row.split("|")[4].split(" / ")]
    there = KNOWN[name].parts(archives(name))
    assert said[0] == "none" if "train" not in there else said[0][0].isdigit()
    assert (said[1] == "cut") == ("validation" not in there)
    assert (said[2] == "cut") == ("test" not in there)
