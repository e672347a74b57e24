"""A run folder as a sweep leaves it, for tests of the report: records, metrics and decisions are made up, and
follow from the settings, so that there is something to be seen."""

from __future__ import annotations

import io
import math
import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sweeper import space, spec
from sweeper.files import write_json
from sweeper.hashes import trial_seed
from sweeper.run import Run
from sweeper.search import Suggestion
from sweeper.tree import Choice, Range
from sweeper.trial import Decision, Status, epoch_file
from tests import records as made_up
from trainables.metrics import intervals
from trainables.metrics.calibration import expected_calibration_error

SWEEP = """
name: tiny
trial:
  attack: {epsilon: !choice [4/255, 8/255, 12/255]}
  method: !choice
    - {name: tecoa}
    - {name: pmg, alpha: !loguniform [0.1, 10]}
    - {name: dirichlet, concentration_scale: !loguniform [2, 100]}
  optimizer: {learning_rate: !loguniform [1e-3, 1e-1]}
  epochs: 2
evaluation: {images: 40}
pareto: {maximize: [robust_accuracy, clean_accuracy], minimize: [robust_ece]}
search: {trials: 4, seed: 7, early_stopping: {grace_epochs: 1}}
"""
IMAGES = 40
SETS = {"fashion-mnist-8k": IMAGES, "digits": IMAGES}
EPOCH_SECONDS = 60
START = 1_700_000_000


def metrics_of(records: pd.DataFrame) -> tuple[dict[str, float], dict[str, Any]]:
    """Of the first set, and their intervals."""
    first = records[:IMAGES]
    metrics, ends = {}, {}
    for name, correct in (("clean", first.clean_correct), ("robust", first.broken_by == "")):
        value, *ends[f"{name}_accuracy"] = map(float, intervals.share(correct))
        metrics[f"{name}_accuracy"] = value
        for scaled in ("", "scaled_"):
            metrics[f"{name}_{scaled}ece"] = expected_calibration_error(
                first[f"{name}_{scaled}confidence"], first[f"{name}_correct"]
            )
    return metrics, ends


@lru_cache(None)
def measured(seed: int, clean: float, robust: float) -> tuple[bytes, dict[str, float], dict[str, Any]]:
    """A file of records with about those accuracies, its metrics and their intervals."""
    records, buffer = records_of(seed, clean, robust), io.BytesIO()
    records.to_parquet(buffer)
    return buffer.getvalue(), *metrics_of(records)


def records_of(seed: int, clean: float, robust: float) -> pd.DataFrame:
    records, draw = made_up.records(seed, SETS, skill=1.0), np.random.default_rng(seed)
    for version, skill in (("clean", clean), ("robust", robust)):
        records[f"{version}_correct"] = draw.random(len(records)) < skill
    records["robust_correct"] &= records["clean_correct"]
    records["broken_by"] = np.where(records["robust_correct"], "", "PGD-10")
    return records


@dataclass
class Maker:
    """Fills a run folder as a sweep would, one trial after another."""

    run: Run
    clock: float = START

    def measure(self, file: Path, seed: int, clean: float, robust: float, **more: Any) -> dict[str, float]:
        records, metrics, ends = measured(seed % 12, round(clean, 2), round(robust, 2))
        file.parent.mkdir(parents=True, exist_ok=True)
        file.with_suffix(".parquet").write_bytes(records)
        write_json(file, {"metrics": metrics, "intervals": ends, **more})
        return metrics

    def untrained(self) -> None:
        self.measure(self.run.baseline_file, 1000, 0.9, 0.05)

    def trial(
        self, number: int, status: Status | None = "completed", epochs: int = 2, reason: str = ""
    ) -> None:
        """A minute an epoch. What comes to the rung goes on if it has more epochs."""
        resolved = space.resolve(self.run.spec.space, Drawing(number))
        config = self.run.spec.trial(resolved.value)
        seed = trial_seed(self.run.spec.file.search.seed, config)
        record = self.run.add_trial(Suggestion(number, config, resolved.drawn, seed=seed))
        for epoch in range(1, epochs + 1):
            file = epoch_file(record.folder, epoch, "json")
            skills = skills_of(resolved.drawn, epoch)
            seconds = {"training_seconds": EPOCH_SECONDS - 10, "evaluation_seconds": 10}
            metrics = self.measure(file, 10 * number + epoch, *skills, epoch=epoch, **seconds)
            self.clock += EPOCH_SECONDS
            os.utime(file, (self.clock, self.clock))
            epoch_file(record.folder, epoch, "safetensors").touch()
            if epoch == 1:
                self.run.add_decision(Decision(number, epoch, metrics, epochs > 1))
        if status:
            self.run.end_trial(record, status, reason or None)

    def final(self) -> None:
        for split, start in (("validation", 2000), ("test", 3000)):
            rows = [row for row in self.run.pareto()["candidates"] if split == "validation" or row["pareto"]]
            for index, name in enumerate(["baseline", *(row["id"] for row in rows)]):
                self.measure(self.run.final_file(name, split), start + index, 0.8, 0.4)


class Drawing:
    """Settings of a trial, the same for its number."""

    def __init__(self, number: int) -> None:
        self.draw = np.random.default_rng(number)

    def __call__(self, _: str, distribution: Choice | Range) -> Any:
        if isinstance(distribution, Choice):
            return str(self.draw.choice(space.labels(distribution)))
        low, high = math.log(distribution.low), math.log(distribution.high)
        return math.exp(self.draw.uniform(low, high))


def skills_of(drawn: dict[str, Any], epoch: int) -> tuple[float, float]:
    """Clean and robust accuracy: a larger epsilon and rate trade the one for the other."""
    epsilon = int(str(drawn["attack.epsilon"]).partition("/")[0]) / 12
    learned = math.log(drawn["optimizer.learning_rate"] / 1e-3) / math.log(100) * (1 - 0.5**epoch)
    return 0.92 - 0.25 * epsilon * learned, 0.1 + 0.6 * epsilon * learned


def new_run(root: Path, sweep: str = SWEEP) -> Maker:
    about = {"seed": 7, "directory": str(root), "versions": {"python": "3.11", "ray": "2.60.0"}}
    return Maker(Run.create(root, spec.from_text(sweep, "tiny.yaml"), about))


def finished(root: Path, trials: Iterable[int], sweep: str = SWEEP) -> Run:
    """Of which every third trial was stopped early."""
    maker = new_run(root, sweep)
    maker.untrained()
    for number in trials:
        stopped = number % 3 == 2
        maker.trial(number, "stopped" if stopped else "completed", 1 if stopped else 2)
    maker.final()
    return maker.run
