"""A worker that reports recorded metrics in the order of a trace. Imports little, as every worker does."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any

from ray import tune

PATIENCE = 60


class Replay(tune.Trainable):
    """Takes the place of `sweeper.worker.Worker`.

    The run folder holds `recording.json`: `trace`, pairs of trial and epoch, and `metrics` of each epoch of
    each trial; and `turn`: how many of the trace have been decided on.
    """

    def setup(self, config: dict[str, Any]) -> None:
        self.config = config

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.setup(new_config)
        return True

    def step(self) -> dict[str, Any]:
        if "measure" in self.config:
            target = Path(self.config["measure"]["target"])
            target.parent.mkdir(exist_ok=True, parents=True)
            target.write_text(json.dumps({"metrics": self.measured()}))
            return {"done": True, "epoch": 0, "failed": None}
        folder, number = Path(self.config["folder"]), self.config["number"]
        recording = json.loads((folder.parents[1] / "recording.json").read_text())
        epoch = len(list(folder.glob("epoch-*.json"))) + 1
        wait_for(folder.parents[1] / "turn", recording["trace"].index([number, epoch]))
        metrics: dict[str, float] = recording["metrics"][number][epoch - 1]
        if all(math.isfinite(value) for value in metrics.values()):
            seconds = {"training_seconds": 1.0, "evaluation_seconds": 0.0}
            content = json.dumps({"epoch": epoch, "metrics": metrics, **seconds})
            (folder / f"epoch-{epoch:03d}.json").write_text(content)
            (folder / f"epoch-{epoch:03d}.safetensors").touch()
        done = epoch == self.config["trial"]["epochs"]
        return {**metrics, "epoch": epoch, "images_per_second": 1.0, "failed": None, "done": done}

    def measured(self) -> dict[str, float]:
        """As in training: neither another attack nor other images make a difference here."""
        measure = self.config["measure"]
        untrained = Path(measure["target"]).parents[2] / "baseline" / "validation.json"
        file = Path(measure["weights"]).with_suffix(".json") if measure["weights"] else untrained
        metrics: dict[str, float] = json.loads(file.read_text())["metrics"]
        return metrics

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """The folder has it all."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """The folder has it all."""


def wait_for(file: Path, turn: int) -> None:
    deadline = time.monotonic() + PATIENCE
    while int(file.read_text()) < turn:
        assert time.monotonic() < deadline, "the sweep takes another way than the trace"
        time.sleep(0.01)
