"""How many copies of the decoded images a machine holds while two trials run side by side.

    python -m benchmarks.memory --images 60000

Writes a data set in TinyImageNet's layout (pieces of two photographs that scikit-learn brings), sweeps
clip-tiny over it twice, with one trial at a time and with two, and samples what Linux charges all trial
processes for (proportional set size, so that a page shared by two counts half in each). `data` is the
memory-mapped files of decoded images in it. Exits with 1 unless the peak with two trials stays below
1.15 times the data of one trial, and two trials without data.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_image

CLASSES = ("n01443537", "n01629819", "n01641577", "n01644900", "n01698640")
TEST_IMAGES = 50
ALLOWED = 1.15

SWEEP = """
name: memory
trial:
  data: {train: tiny-imagenet}
  attack: {epsilon: 4/255, steps: 1}
  method: {name: tecoa}
  optimizer: {name: adamw, learning_rate: !choice [1e-4, 3e-4]}
  epochs: 1
evaluation: {attack: {epsilon: 4/255, steps: 1}, images: 100}
search: {trials: 2, sampler: random, concurrent: 1}
resources: {cpus: 1}
tracking: {mlflow: false}
"""


def write_fixture(root: Path, images: int) -> None:
    """A data set as `tiny-imagenet-200.zip` unpacks, with five classes."""
    photos = [load_sample_image(name) for name in ("china.jpg", "flower.jpg")]
    rng = np.random.default_rng(0)

    def write(file: Path) -> None:
        photo = photos[rng.integers(2)]
        top, left = rng.integers(0, photo.shape[0] - 64), rng.integers(0, photo.shape[1] - 64)
        Image.fromarray(photo[top : top + 64, left : left + 64]).save(file, quality=75)

    annotations = []
    (root / "val" / "images").mkdir(parents=True)
    for wnid in CLASSES:
        (root / "train" / wnid / "images").mkdir(parents=True)
        for index in range(images // len(CLASSES)):
            write(root / "train" / wnid / "images" / f"{wnid}_{index}.JPEG")
        for index in range(TEST_IMAGES):
            name = f"val_{wnid}_{index}.JPEG"
            write(root / "val" / "images" / name)
            annotations.append(f"{name}\t{wnid}\t0\t0\t63\t63\n")
    (root / "val" / "val_annotations.txt").write_text("".join(annotations))
    (root / "words.txt").write_text("".join(f"{wnid}\tclass {wnid}\n" for wnid in CLASSES))


class Sample(NamedTuple):
    """Bytes that all trial processes are charged for: of everything, and of decoded images."""

    total: int
    data: int
    processes: int


def sample() -> Sample:
    total = data = processes = 0
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if not (folder / "cmdline").read_bytes().startswith(b"ray::ResourceTrainable"):
                continue
            rollup = (folder / "smaps_rollup").read_text()
            maps = (folder / "smaps").read_text()
        except OSError:
            continue  # it has just ended
        processes += 1
        total += pss(rollup.splitlines())
        blocks = maps.split(".npy\n")[1:]
        data += sum(pss(block.splitlines()[:20]) for block in blocks)
    return Sample(total, data, processes)


def pss(lines: list[str]) -> int:
    """Of the first mapping in lines of /proc/PID/smaps."""
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


def peak(folder: Path, concurrent: int) -> Sample:
    """The sample of highest total while the sweep runs."""
    file = folder / "sweep.yaml"
    file.write_text(SWEEP)
    command = [sys.executable, "-m", "sweeper", "run", str(file), "--runs", str(folder / "runs")]
    command += ["--set", f"search.concurrent={concurrent}"]
    environment = os.environ | {"SWEEPER_DATA": str(folder), "XDG_CACHE_HOME": str(folder / "cache")}
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) as running:
        highest = Sample(0, 0, 0)
        while running.poll() is None:
            now = sample()
            if now.processes == concurrent:
                highest = max(highest, now)
            time.sleep(0.25)
    if running.returncode:
        sys.exit(f"the sweep ended with exit code {running.returncode}")
    return highest


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=60000, help="training images")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        write_fixture(Path(name) / "tiny-imagenet-200", options.images)
        one, two = peak(Path(name), 1), peak(Path(name), 2)
    for found in (one, two):
        print(
            f"{found.processes} trials side by side: peak {found.total / 1e6:.0f} MB, "
            f"of these decoded images {found.data / 1e6:.0f} MB"
        )
    model = one.total - one.data
    bound = ALLOWED * one.data + 2 * model
    print(
        f"two trials' peak is {two.total / bound:.3f} of the bound, "
        f"1.15 x data + 2 trials without data = {bound / 1e6:.0f} MB"
    )
    sys.exit(two.total > bound)


if __name__ == "__main__":
    main()
