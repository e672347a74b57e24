"""A trainable whose epochs take a moment: metrics follow from configuration, seed and epoch. It keeps to the
folder as the real one does, and needs neither torch nor images.

In a run whose name begins with `hanging`, the second epoch of t001 hangs. A run in whose `trials` lies `full`
has no space left.
"""

from __future__ import annotations

import errno
import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from trainables import FINETUNE
from trainables.data.cache import whole
from trainables.errors import DataError

SECONDS = 0.2
IMAGES = 20
SIZE = 100_000
"""Bytes of the checkpoint."""

LIGHT = FINETUNE | {
    "trainable": "tests.light:Light",
    "measure": "tests.light:measure",
    "check": "tests.light:nothing",
    "steps": "trainables.zoo_config:no_steps",
    "check_unchanged": "tests.light:nothing",
    "ready": "tests.light:nothing",
    "fall": "tests.light:nothing",
    "resample": "tests.light:no_records",
}


def installed(folder: Path) -> Path:
    """A folder for PYTHONPATH, on which this one takes the place of the real trainable."""
    about = folder / "clip_sweeper-0.1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: clip-sweeper\nVersion: 0.1.0\n")
    (about / "entry_points.txt").write_text("[sweeper.trainables]\nfinetune = tests.light:LIGHT\n")
    return folder


def nothing(*_: Any, **__: Any) -> None:
    """All is there, and nothing has changed."""


def no_records(*_: Any, **__: Any) -> None:
    raise DataError("made-up metrics have no records")


def metrics_of(trial: dict[str, Any], seed: int, epoch: int) -> dict[str, float]:
    rng, rate = np.random.default_rng([seed, epoch]), trial["optimizer"]["learning_rate"]
    learned = 1 - np.exp(-epoch * (0.5 + 100 * rate))
    return {
        "robust_accuracy": float(0.4 * learned + 0.1 * rng.random()),
        "clean_accuracy": float(0.9 - 0.2 * learned + 0.1 * rng.random()),
        "robust_ece": float(0.5 - 0.3 * learned + 0.1 * rng.random()),
    }


def write(file: Path, content: dict[str, Any]) -> None:
    run = file.parents[1]
    if any((folder / "full").exists() for folder in (run, run.parent)):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(file))
    with whole(file.with_suffix(".parquet")) as written:
        records().to_parquet(written)
    with whole(file) as written:
        written.write_text(json.dumps(content))


def records() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    columns: dict[str, Any] = {"set": ["fashion-mnist-8k"] * IMAGES, "index": range(IMAGES)}
    for version in ("clean", "robust"):
        columns[f"{version}_correct"] = rng.random(IMAGES) < 0.5
        columns[f"{version}_confidence"] = rng.uniform(0.1, 1, IMAGES)
    return pd.DataFrame(columns)


class Light:
    def __init__(self, config: dict[str, Any]) -> None:
        self.config, self.folder = config, Path(config["folder"])
        self.until = config.get("until") or config["trial"]["epochs"]
        self.state = self.folder / "checkpoint.safetensors"
        self.epoch = int(self.state.read_bytes()[:3]) if self.state.exists() else 0
        self.hangs = self.folder.parents[1].name.startswith("hanging") and self.folder.name == "t001"

    def step(self) -> dict[str, Any]:
        if self.epoch < self.until:
            self._train()
        metrics = metrics_of(self.config["trial"], self.config["seed"], self.epoch)
        own = {"epoch": self.epoch, "images_per_second": 100.0}
        return {**metrics, **own, "failed": None, "done": self.epoch >= self.until}

    def _train(self) -> None:
        time.sleep(3600 if self.hangs and self.epoch == 1 else SECONDS)
        self.epoch += 1
        metrics = metrics_of(self.config["trial"], self.config["seed"], self.epoch)
        more = {"training": {"loss": 1.0}, "images_per_second": 100.0, "intervals": {}, "sets": []}
        seconds = {"training_seconds": SECONDS, "evaluation_seconds": 0.0, "split": "validation"}
        file = self.folder / f"epoch-{self.epoch:03d}.json"
        write(file, {"epoch": self.epoch, "metrics": metrics, **more, **seconds})
        for target in (file.with_suffix(".safetensors"), self.state):
            with whole(target) as written:
                written.write_bytes(b"%03d" % self.epoch + bytes(SIZE))


def measure(*, target: str, weights: str | None, split: str, **_: Any) -> None:
    metrics = {"robust_accuracy": 0.1, "clean_accuracy": 0.9, "robust_ece": 0.8}
    if weights is not None:
        metrics = json.loads(Path(weights).with_suffix(".json").read_text())["metrics"]
    Path(target).parent.mkdir(parents=True, exist_ok=True)
    about = {"split": split, "intervals": {}, "sets": []}
    write(Path(target), {"metrics": metrics, **about})
