"""Tiny data sets, laid out as the original archives unpack, for tests."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
from PIL import Image

SIZE = (24, 32)
"""(H, W) of pictures whose size is not the set's own."""


class Painter:
    """Writes pictures of noise, no two alike."""

    def __init__(self) -> None:
        self.random = np.random.default_rng(0)

    def array(self, size=SIZE):
        return self.random.integers(0, 256, (*size, 3), dtype=np.uint8)

    def __call__(self, file: Path, size=SIZE) -> Path:
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(self.array(size)).save(file)
        return file


def write(file: Path, *lines: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(f"{line}\n" for line in lines))


def wordnet_ids():
    from timm.data import ImageNetInfo

    return ImageNetInfo("imagenet-1k").label_names()


def tiny_imagenet(root):
    paint, root = Painter(), root / "tiny-imagenet-200"
    wnids, annotations = ["n01443537", "n01629819", "n01641577"], []
    for wnid in wnids:
        for i in range(5):
            paint(root / "train" / wnid / "images" / f"{wnid}_{i}.JPEG", (64, 64))
        write(
            root / "train" / wnid / f"{wnid}_boxes.txt",
            *(f"{wnid}_{i}.JPEG\t0\t10\t63\t58" for i in range(5)),
        )
        for _ in range(2):
            name = f"val_{len(annotations)}.JPEG"
            paint(root / "val" / "images" / name, (64, 64))
            annotations.append(f"{name}\t{wnid}\t0\t32\t44\t62")
    write(root / "val" / "val_annotations.txt", *annotations)
    paint(root / "test" / "images" / "test_0.JPEG", (64, 64))
    write(root / "wnids.txt", *reversed(wnids))
    write(
        root / "words.txt",
        "n00001740\tentity",
        "n01443537\tgoldfish, Carassius auratus",
        "n01629819\tEuropean fire salamander, Salamandra salamandra",
        "n01641577\tbullfrog, Rana catesbeiana",
    )


def imagenet(root):
    paint = Painter()
    for number, wnid in enumerate(wordnet_ids()):
        paint(root / "imagenet" / "train" / wnid / f"{wnid}_{number}.JPEG")
        paint(root / "imagenet" / "val" / wnid / f"ILSVRC2012_val_{number + 1:08d}.JPEG")


def imagenet_v2(variant):
    def written(root):
        paint = Painter()
        for label in range(1000):
            name = "0af3f1b55de791c4144e2fb6d7dfe96dfc22d3fc.jpeg"
            paint(root / f"imagenetv2-{variant}-format-val" / str(label) / name)

    return written


IMAGENET_X = ("pose", "background", "pattern", "color", "smaller", "shape", "partial_view", "subcategory",
              "texture", "larger", "darker", "object_blocking", "person_blocking", "style", "brighter",
              "multiple_objects")  # fmt: skip


def imagenet_x(folder, top, prototypes=()):
    """ImageNet-X's annotations as its package has them. top: a factor, or None, for each image's name."""
    lines = {"val": [], "train": []}
    for name, factor in top.items():
        row = {"file_name": name, "class": 7, **{each: int(each == factor) for each in IMAGENET_X}}
        lines["val" if "_val_" in name else "train"].append(
            json.dumps(row | {"justification": "close up of a fish. ", "one_word": "close up"})
        )
    for split, rows in lines.items():
        write(folder / f"imagenet_x_{split}_top_factor.jsonl", *rows)
    write(folder / "prototypical_paths.csv", "file_name", *prototypes)


def imagenet_a(root):
    paint, root = Painter(), root / "imagenet-a"
    for wnid in wordnet_ids()[::5]:
        for i in range(2):
            paint(root / wnid / f"0.00{i}_fox squirrel _ sea lion_0.99.jpg")
    write(root / "README.txt", "We introduce natural adversarial examples.")


def imagenet_r(root):
    paint, root = Painter(), root / "imagenet-r"
    for wnid in wordnet_ids()[:200]:
        for i in range(2):
            paint(root / wnid / f"art_{i}.jpg")
    write(root / "README.txt", "This is ImageNet-R(endition).")


def imagenet_sketch(root):
    paint = Painter()
    for wnid in wordnet_ids():
        paint(root / "sketch" / wnid / "sketch_0.JPEG")


OBJECTNET = {"air_freshener": "Air freshener", "alarm_clock": "Alarm clock", "bills_money": "Bills (money)",
             "backpack": "Backpack"}  # fmt: skip


def objectnet(root):
    paint, root = Painter(), root / "objectnet-1.0"
    for folder in OBJECTNET:
        for i in range(5):
            paint(root / "images" / folder / f"00{i}5e9b.png")
    mappings = root / "mappings"
    write(mappings / "folder_to_objectnet_label.json", json.dumps(OBJECTNET))
    shared = {"Alarm clock": "analog clock; digital clock", "Backpack": "backpack, back pack, knapsack"}
    write(mappings / "objectnet_to_imagenet_1k.json", json.dumps(shared))
    write(mappings / "pytorch_to_imagenet_2012_id.json", "{}")
    write(mappings / "imagenet_to_label_2012_v2")


def imagenet_vid(root):
    """Twelve videos; one has two snippets, the anchor of another shows two classes."""
    paint, root = Painter(), root / "imagenet_vid_ytbb_robust" / "imagenet-vid-robust"
    classes = [["n02691156", "airplane"], ["n02121808", "domestic_cat"], ["n02510455", "giant_panda"]]
    snippets = [f"ILSVRC2015_val_{1000 * video:08d}" for video in range(12)] + ["ILSVRC2015_val_00003001"]
    labels, anchors = {}, {}
    for number, snippet in enumerate(snippets):
        frames = [f"val/{snippet}/{frame:06d}.JPEG" for frame in (10, 11, 12)]
        for frame in frames:
            paint(root / frame)
            labels[frame] = [number % 3, (number + 1) % 3] if number == 7 else [number % 3]
        anchors[frames[1]] = [frames[0], frames[2]]
    write(root / "metadata" / "labels.json", json.dumps(labels))
    write(root / "metadata" / "pmsets.json", json.dumps(anchors))
    write(root / "misc" / "imagenet_vid_class_index.json", json.dumps(dict(enumerate(classes))))
    write(root / "misc" / "wnid_map.json", "{}")


def flat(folder, name):
    def written(root):
        paint = Painter()
        for i in range(10):
            paint(root / folder / name.format(i))

    return written


def imagenet_o(root):
    paint, root = Painter(), root / "imagenet-o"
    for wnid in wordnet_ids()[::300]:
        for i in range(3):
            paint(root / wnid / f"n01843383_{i}.JPEG")
    write(root / "README.txt", "ImageNet-O")


def ninco(root):
    paint, root = Painter(), root / "NINCO"
    for name in ("amphiuma_means", "caracal caracal caracal", "creme_brulee"):
        for i in range(4):
            paint(root / "NINCO_OOD_classes" / name / f"{name}_000_{i}.jpg")
    paint(root / "NINCO_OOD_unit_tests" / "black" / "0.png")


def python_2_pickle(file: Path, content: dict) -> None:
    """As numpy of that time called its modules."""
    file.parent.mkdir(parents=True, exist_ok=True)
    data = pickle.dumps(content, protocol=2)
    file.write_bytes(data.replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n"))


def cifar_rows(paint, count):
    return np.stack([paint.array((32, 32)).transpose(2, 0, 1).reshape(-1) for _ in range(count)])


def cifar10(root):
    paint, root = Painter(), root / "cifar-10-batches-py"
    names = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    python_2_pickle(root / "batches.meta", {"num_cases_per_batch": 10, "label_names": names, "num_vis": 3072})
    for name in [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]:
        python_2_pickle(
            root / name,
            {
                "batch_label": f"batch {name}",
                "labels": [3, 1, 4, 1, 5, 9, 2, 6],
                "data": cifar_rows(paint, 8),
                "filenames": [f"{i}.png" for i in range(8)],
            },
        )
    write(root / "readme.html", "<html>")


def cifar100(root):
    paint, root = Painter(), root / "cifar-100-python"
    names = ["apple", "aquarium_fish", "baby", "bear"]
    python_2_pickle(root / "meta", {"fine_label_names": names, "coarse_label_names": ["fish", "fruit"]})
    for name, count in (("train", 20), ("test", 8)):
        python_2_pickle(
            root / name,
            {
                "filenames": [f"{i}.png" for i in range(count)],
                "batch_label": "batch 1 of 1",
                "fine_labels": [i % 4 for i in range(count)],
                "coarse_labels": [i % 2 for i in range(count)],
                "data": cifar_rows(paint, count),
            },
        )


def stl10(root):
    paint, root = Painter(), root / "stl10_binary"
    classes = ["airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck"]
    write(root / "class_names.txt", *classes)
    for name, count in (("train", 20), ("test", 10)):
        images = np.stack([paint.array((96, 96)).transpose(2, 1, 0) for _ in range(count)])
        images.tofile(root / f"{name}_X.bin")
        np.array([1 + i % 10 for i in range(count)], np.uint8).tofile(root / f"{name}_y.bin")
    paint.array((96, 96)).tofile(root / "unlabeled_X.bin")
    write(root / "fold_indices.txt", "0 1 2")


def sun397(root):
    paint, root = Painter(), root / "SUN397"
    keys = ["/a/abbey", "/a/airport_terminal", "/a/apartment_building/outdoor"]
    lists = {"Training_01.txt": [], "Testing_01.txt": []}
    for key in keys:
        for i in range(8):
            name = f"{key}/sun_{key[3:6]}{i}.jpg"
            paint(root / name[1:])
            if i < 7:
                lists["Training_01.txt" if i < 5 else "Testing_01.txt"].append(name)
    write(root / "ClassName.txt", *keys)
    for file, names in lists.items():
        write(root / file, *names)


def food101(root):
    paint, root = Painter(), root / "food-101"
    classes, lists = ["apple_pie", "baby_back_ribs", "waffles"], {"train": {}, "test": {}}
    for label, name in enumerate(classes):
        for i in range(7):
            paint(root / "images" / name / f"{label}{i}05.jpg")
            lists["train" if i < 5 else "test"].setdefault(name, []).append(f"{name}/{label}{i}05")
    for split, names in lists.items():
        write(root / "meta" / f"{split}.json", json.dumps(names))
        write(root / "meta" / f"{split}.txt", *(n for own in names.values() for n in own))
    write(root / "meta" / "classes.txt", *classes)
    write(root / "meta" / "labels.txt", "Apple pie", "Baby back ribs", "Waffles")


def pets(root):
    paint, root = Painter(), root / "oxford-iiit-pet"
    breeds, lists = ["Abyssinian", "american_bulldog", "english_cocker_spaniel"], {"trainval": [], "test": []}
    for number, breed in enumerate(breeds, 1):
        for i in range(7):
            paint(root / "images" / f"{breed}_{i}.jpg")
            lists["trainval" if i < 5 else "test"].append(f"{breed}_{i} {number} {1 if number == 1 else 2} 1")
    paint(root / "images" / "Abyssinian_104.jpg")  # in neither list, as some of the archive's are
    write(root / "images" / "Abyssinian_100.mat", "MATLAB")
    for split, lines in lists.items():
        write(root / "annotations" / f"{split}.txt", *lines)
    write(root / "annotations" / "list.txt", "#Image CLASS-ID SPECIES BREED ID")
    paint(root / "annotations" / "trimaps" / "Abyssinian_0.png")


def flowers(root):
    from scipy.io import savemat

    paint, root = Painter(), root / "flowers-102"
    for i in range(1, 21):
        paint(root / "jpg" / f"image_{i:05d}.jpg")
    labels = np.array([[1 + 7 * i % 102 for i in range(20)]], np.uint8)
    savemat(root / "imagelabels.mat", {"labels": labels})
    ids = np.random.default_rng(0).permutation(np.arange(1, 21, dtype=np.uint16))[None]
    savemat(root / "setid.mat", {"trnid": ids[:, :7], "valid": ids[:, 7:12], "tstid": ids[:, 12:]})


def dtd(root):
    paint, root = Painter(), root / "dtd" / "dtd"
    for name in ("banded", "chequered", "polka-dotted"):
        for i in range(9):
            paint(root / "images" / name / f"{name}_000{i}.jpg")
    write(root / "images" / "banded" / ".directory", "[Dolphin]")
    names = [f"{c}/{c}_000{{}}.jpg" for c in ("banded", "chequered", "polka-dotted")]
    for partition in range(1, 11):
        for start, split in enumerate(("train", "val", "test")):
            lines = [name.format((3 * start + partition + i) % 9) for name in names for i in range(3)]
            write(root / "labels" / f"{split}{partition}.txt", *lines)
    write(root / "labels" / "labels_joint_anno.txt", "banded/banded_0000.jpg banded")


def eurosat(root):
    paint = Painter()
    for name in (
        "AnnualCrop", "Forest", "HerbaceousVegetation", "Highway", "Industrial", "Pasture", "PermanentCrop",
        "Residential", "River", "SeaLake",
    ):  # fmt: skip
        for i in range(1, 11):
            paint(root / "eurosat" / "2750" / name / f"{name}_{i}.jpg", (64, 64))


def aircraft(root):
    paint, root = Painter(), root / "fgvc-aircraft-2013b" / "data"
    variants = ["707-320", "727-200", "A300B4", "F/A-18", "Model B200"]
    write(root / "variants.txt", *variants)
    write(root / "families.txt", "Boeing 707")
    write(root / "manufacturers.txt", "Boeing")
    lists = {"train": [], "val": [], "test": []}
    for label, variant in enumerate(variants):
        for i, split in enumerate(("train", "val", "test", "test")):
            paint(root / "images" / f"00{label}{i}309.jpg")
            lists[split].append(f"00{label}{i}309 {variant}")
    lists["trainval"] = lists["train"] + lists["val"]
    for split, lines in lists.items():
        write(root / f"images_variant_{split}.txt", *lines)


def caltech101(root):
    paint, root = Painter(), root / "caltech101" / "101_ObjectCategories"
    for name in ("BACKGROUND_Google", "Faces", "Leopards", "accordion", "sea_horse", "yin_yang"):
        for i in range(1, 6):
            paint(root / name / f"image_{i:04d}.jpg")
    write(root / "BACKGROUND_Google" / "tmp", "")
    write(root.parent / "Annotations" / "accordion" / "annotation_0001.mat", "")


def caltech256(root):
    paint, root = Painter(), root / "caltech256" / "256_ObjectCategories"
    for number, name in enumerate(("ak47", "american-flag", "dog", "car-side-101", "clutter"), 1):
        for i in range(1, 6):
            paint(root / f"{number:03d}.{name}" / f"{number:03d}_{i:04d}.jpg")
    (root / "003.dog" / "greg" / "vision309").mkdir(parents=True)
    write(root / "002.american-flag" / "RENAME2", "")


def cars(root):
    from scipy.io import savemat

    paint, root = Painter(), root / "stanford_cars"
    classes = ["AM General Hummer SUV 2000", "Acura RL Sedan 2012", "smart fortwo Convertible 2012"]
    boxes = ["bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2"]

    def annotations(count, fields):
        rows = np.zeros((1, count), dtype=[(name, object) for name in fields])
        for i in range(count):
            for name in boxes:
                rows[name][0, i] = np.array([[30]], np.uint8)
            rows["fname"][0, i] = f"{i + 1:05d}.jpg"
            if "class" in fields:
                rows["class"][0, i] = np.array([[1 + i % 3]], np.uint8)
        return {"annotations": rows}

    for name, count in (("cars_train", 12), ("cars_test", 9)):
        for i in range(count):
            paint(root / name / f"{i + 1:05d}.jpg")
    (root / "devkit").mkdir()
    names = np.empty((1, 3), dtype=object)
    names[0] = classes
    savemat(root / "devkit" / "cars_meta.mat", {"class_names": names})
    savemat(root / "devkit" / "cars_train_annos.mat", annotations(12, [*boxes, "class", "fname"]))
    savemat(root / "devkit" / "cars_test_annos.mat", annotations(9, [*boxes, "fname"]))
    savemat(root / "cars_test_annos_withlabels.mat", annotations(9, [*boxes, "class", "fname"]))


def pcam(root):
    import h5py

    paint, root = Painter(), root / "pcam"
    root.mkdir(parents=True)
    for name, count in (("train", 20), ("valid", 6), ("test", 8)):
        stem = f"camelyonpatch_level_2_split_{name}"
        images = np.stack([paint.array((96, 96)) for _ in range(count)])
        with h5py.File(root / f"{stem}_x.h5", "w") as file:
            file.create_dataset("x", data=images, chunks=(4, 96, 96, 3), compression="gzip")
        with h5py.File(root / f"{stem}_y.h5", "w") as file:
            labels = (np.arange(count) % 2).astype(np.uint8).reshape(-1, 1, 1, 1)
            file.create_dataset("y", data=labels)


WRITERS = {
    "tiny-imagenet": tiny_imagenet,
    "imagenet1k": imagenet,
    "imagenetv2": imagenet_v2("matched-frequency"),
    "imagenetv2-threshold": imagenet_v2("threshold0.7"),
    "imagenetv2-top-images": imagenet_v2("top-images"),
    "imagenet-a": imagenet_a,
    "imagenet-r": imagenet_r,
    "imagenet_sketch": imagenet_sketch,
    "objectnet": objectnet,
    "imagenet-vid-robust": imagenet_vid,
    "cifar10": cifar10,
    "cifar100": cifar100,
    "stl10": stl10,
    "sun397": sun397,
    "food101": food101,
    "pets": pets,
    "flowers": flowers,
    "dtd": dtd,
    "eurosat": eurosat,
    "fgvc_aircraft": aircraft,
    "caltech101": caltech101,
    "caltech256": caltech256,
    "cars": cars,
    "pcam": pcam,
    "inaturalist-ood": flat("iNaturalist/images", "0{}eba707ea91a73f899c6105471b89d70.jpg"),
    "sun-ood": flat("SUN/images", "sun_aaaenaoynzhoyhe{}.jpg"),
    "places-ood": flat("Places/images", "b_badlands_0000000{}.jpg"),
    "textures": dtd,
    "imagenet-o": imagenet_o,
    "ninco": ninco,
}
