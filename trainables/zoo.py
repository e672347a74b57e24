"""The evaluation-only trainable: a trial is a model as it is, measured once.

What the model says is kept in the trial's folder so many images at a time (see `trainables.outputs`), so
that a trial which is interrupted goes on where it was.
"""

from __future__ import annotations

import json
import math
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from trainables import checkpoints, finetune
from trainables.config import EvaluationConfig, trial_metrics
from trainables.errors import EXPECTED
from trainables.evaluate import evaluate
from trainables.finetune import (
    BASELINE,
    baseline_key,
    epoch_file,
    evaluation_sets,
    fine_tuned,
    store_at,
    write_results,
)
from trainables.training import default_device
from trainables.usage import Usage
from trainables.zoo_config import ZooConfig

if TYPE_CHECKING:
    Report = dict[str, Any]


class Zoo:
    """One model, measured in its first and only step. config: see `finetune.Finetune`."""

    def __init__(self, config: dict[str, Any]) -> None:
        torch.set_num_threads(config["threads"])
        self.folder = Path(config["folder"])
        self.folder.mkdir(parents=True, exist_ok=True)
        self.trial = ZooConfig.model_validate(config["trial"])
        self.evaluation = EvaluationConfig.model_validate(config["evaluation"])
        self.store = store_at(config.get("cache"))

    def step(self) -> Report:
        file = epoch_file(self.folder, 1)
        if not file.with_suffix(".safetensors").exists():  # else it was measured, and then restarted
            try:
                self._measure(file)
            except (*EXPECTED, torch.OutOfMemoryError) as error:
                return self._failure(str(error).splitlines()[0])
        epoch = json.loads(file.read_text())
        return {
            **epoch["metrics"],
            "epoch": 1,
            "images_per_second": epoch["images_per_second"],
            "failed": None,
            "done": True,
        }

    def _measure(self, file: Path) -> None:
        """Records and metrics, then weights: none, as none were trained."""
        parts = self.folder / "parts"
        usage, started = Usage(torch.device(default_device())), time.perf_counter()
        with usage:
            model = fine_tuned(self.trial.model, None, store=self.store)
            sets = evaluation_sets(self.trial.data, self.evaluation, "validation", model)
            # under the baseline's key, as a sweep's first model is that, too
            key = baseline_key(model, sets, None, self.evaluation)
            result = self.store.get(
                BASELINE, key, lambda: evaluate(model, sets, self.evaluation, store=store_at(str(parts)))
            )
        seconds = time.perf_counter() - started
        epoch = {
            "epoch": 1,
            "split": "validation",
            **result.report(),
            "sets": [images.about() for images in sets],
            "training": {},
            "images_per_second": len(result.records) / seconds,
            "training_seconds": 0.0,
            "evaluation_seconds": seconds,
            "system": usage.means(),
        }
        write_results(file, epoch, result)
        checkpoints.save(file.with_suffix(".safetensors"), {})
        shutil.rmtree(parts, ignore_errors=True)

    def _failure(self, reason: str) -> Report:
        return {
            **dict.fromkeys(trial_metrics(self.trial, self.evaluation), math.nan),
            "epoch": 0,
            "images_per_second": math.nan,
            "failed": reason,
            "done": True,
        }

    def save(self, folder: str) -> None:
        """Nothing beside what the trial's folder holds."""

    def load(self, folder: str) -> None:
        """The same."""


def measure(*, target: str, **own: Any) -> None:
    """As `finetune.measure`; the weights of a trial are the model's own."""
    parts = {"parts": str(Path(target).with_suffix(".parts"))}
    finetune.measure(target=target, **parts | own | {"weights": None})


def sanity(**own: Any) -> list[tuple[str, bool | None, str]]:
    """As `finetune.sanity`."""
    return finetune.sanity(**own | {"weights": None})
