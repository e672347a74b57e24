"""Stanford Cars, in the layout of its four archives that torchvision expects."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from trainables.data import templates
from trainables.data.sets.known import known
from trainables.data.tables import Table, in_range, read_mat, tabled

if TYPE_CHECKING:
    from trainables.data.images import Split
    from trainables.data.listing import Part, Parts

FOLDER = "stanford_cars"
TRAIN, TEST = "devkit/cars_train_annos.mat", "cars_test_annos_withlabels.mat"


@known(
    "cars",
    archive="cars_train.tgz, cars_test.tgz, car_devkit.tgz and cars_test_annos_withlabels.mat",
    into=FOLDER,
    layout=tuple(
        f"{FOLDER}/{name}" for name in ("cars_train", "cars_test", "devkit/cars_meta.mat", TRAIN, TEST)
    ),
    templates=templates.CARS,
)
def cars(root: Path) -> Parts:
    folder = root / FOLDER
    (names,) = read_mat(folder / "devkit" / "cars_meta.mat", "class_names")
    classes = tuple(map(str, names))

    def part(split: Split, file: Path, images: Path) -> dict[Split, Part]:
        (rows,) = read_mat(file, "annotations")
        labels = in_range(file, rows["class"].astype("int64") - 1, classes)
        return tabled(images, {split: Table(file, [str(name) for name in rows["fname"]], labels)}, classes)

    return {
        **part("train", folder / TRAIN, folder / "cars_train"),
        **part("test", folder / TEST, folder / "cars_test"),
    }
