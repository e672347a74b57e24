"""Trials that train nothing, for what measures or tests the sweeper itself.

A made-up worker reports learning curves that follow from a trial's configuration, and writes the files that a
real one writes, as large; but for the weights, which are empty.
"""

from __future__ import annotations

import io
import math
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sweeper import worker
from sweeper.files import write_json
from sweeper.trial import epoch_file

SWEEP = """
name: orchestration
trial:
  data: {train: fashion-mnist-8k, evaluate: [fashion-mnist-8k, digits]}
  attack: {epsilon: !choice [4/255, 8/255], steps: 2}
  method: !choice
    - {name: tecoa}
    - {name: pmg, alpha: !loguniform [0.1, 10], beta: !loguniform [0.1, 10]}
    - {name: carot, average_every: 1}
    - {name: dirichlet, weight_normalisation: evidence, concentration_scale: !loguniform [2, 100]}
  optimizer: {name: adamw, learning_rate: !loguniform [1e-4, 3e-3]}
  epochs: !int [3, 9]
evaluation: {attack: {epsilon: 8/255, steps: 10}, images: 600}
pareto:
  maximize: [robust_accuracy, clean_accuracy]
  minimize: [robust_ece]
  subject_to: {clean_accuracy: ">= 0.5 * baseline"}
search: {trials: 2000, early_stopping: {grace_epochs: 1}}
tracking: {mlflow: false}
"""
IMAGES = 100
ABOUT_IMAGES = {"set": "digits", "origin": "the test images", "images": 600, "digest": "0" * 64, "notes": []}
CLASSES = [f"class {index}" for index in range(10)]


class MadeUp(worker.Worker):
    """Takes the place of the worker: a trial and a measurement, without a model."""

    def start(self, job: dict[str, Any]) -> Any:
        return Measured(job["measure"]) if "measure" in job else Trained(job)


class Measured:
    """The untrained model, or a member of the front on the test images."""

    def __init__(self, arguments: dict[str, Any]) -> None:
        self.target = Path(arguments["target"])

    def step(self) -> dict[str, Any]:
        epoch = content(0, {"learning_rate": 1e-3, "effect": 0.0, "noise": 0.0})
        write_json(self.target, epoch)
        write_records(self.target.with_suffix(".parquet"), epoch["metrics"])
        return {"done": True, "failed": None}


class Trained:
    """A trial whose metrics follow from its configuration, its seed and the epoch."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.folder, self.epochs = Path(config["folder"]), config["trial"]["epochs"]
        rng = np.random.default_rng(config["seed"])
        strong = config["trial"]["attack"]["epsilon"] == "8/255"
        self.about = {
            "learning_rate": config["trial"]["optimizer"]["learning_rate"],
            "effect": 0.05 * strong,
            "noise": rng.normal(0, 0.02),
        }
        self.epoch = 0

    def step(self) -> dict[str, Any]:
        self.epoch += 1
        epoch = content(self.epoch, self.about)
        write_records(epoch_file(self.folder, self.epoch, "parquet"), epoch["metrics"])
        write_json(epoch_file(self.folder, self.epoch, "json"), epoch)
        epoch_file(self.folder, self.epoch, "safetensors").touch()
        return {
            **epoch["metrics"],
            "epoch": self.epoch,
            "images_per_second": 1000.0,
            "failed": None,
            "done": self.epoch == self.epochs,
        }


def content(epoch: int, about: dict[str, float]) -> dict[str, Any]:
    """As large as what a real epoch leaves."""
    rate = math.log(about["learning_rate"] / 1e-4) / math.log(30)
    learned = 1 - math.exp(-epoch * (0.2 + rate))
    metrics = {
        f"{part}_metric_{index:02d}": learned + index / 7
        for part in ("clean", "robust")
        for index in range(23)
    }
    metrics |= {
        "robust_accuracy": 0.05 + (0.3 + 0.2 * rate + about["effect"]) * learned + about["noise"],
        "clean_accuracy": 0.9 - (0.2 * rate + about["effect"]) * learned + about["noise"],
        "robust_ece": 0.8 - 0.6 * learned + 0.1 * rate - about["noise"],
    }
    return {
        "epoch": epoch,
        "split": "validation",
        "metrics": metrics,
        "intervals": {name: [value - 1 / 30, value + 1 / 30] for name, value in list(metrics.items())[-34:]},
        "sets": [ABOUT_IMAGES, ABOUT_IMAGES],
        "training_set": ABOUT_IMAGES | {"class_names": CLASSES},
        "training": {"loss": 1 - learned / 3, "loss.cross_entropy": 1 - learned / 3},
        "images_per_second": 1000.0,
        "training_seconds": 1.25,
        "micro_batch": 64,
        "out_of_memory": 0,
        "evaluation_seconds": 0.75,
    }


def write_records(file: Path, metrics: dict[str, float]) -> None:
    """Of `IMAGES` images, on which about as many are right as the metrics say."""
    shares = (metrics["clean_accuracy"], metrics["robust_accuracy"])
    file.write_bytes(parquet(*(round(100 * share) for share in shares)))


@cache
def parquet(clean: int, robust: int) -> bytes:
    """A file of records with so many images in a hundred right, clean and attacked. The columns are those
    that a report and P(optimal) need."""
    rng = np.random.default_rng([clean, robust])
    columns: dict[str, Any] = {"set": "digits", "split": "validation", "index": np.arange(IMAGES)}
    for version, share in (("clean", clean), ("robust", robust)):
        columns[f"{version}_correct"] = rng.random(IMAGES) < share / 100
        columns[f"{version}_confidence"] = rng.uniform(0.3, 1, IMAGES)
    columns["broken_by"] = np.where(columns["robust_correct"], "", "PGD-10")
    buffer = io.BytesIO()
    pd.DataFrame(columns).to_parquet(buffer)
    return buffer.getvalue()
