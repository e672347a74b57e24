"""What runs on the cluster: trials and measurements, one after another in a Ray Tune actor.

The trainable is found by its name, so that the driver imports nothing of what the workers need.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ray import tune

from sweeper.limits import at_most, full_disk
from sweeper.trainable import Trainable


class Measurement:
    """The evaluation of a trained or untrained model, as a trial of a single step."""

    def __init__(self, trainable: Trainable, arguments: dict[str, Any]) -> None:
        self.trainable, self.arguments = trainable, arguments

    def step(self) -> dict[str, Any]:
        reason = None
        try:
            self.trainable.measure(**self.arguments)
        except self.trainable.errors as error:
            reason = " ".join(str(error).split())
        return {"done": True, "failed": reason}


class Worker(tune.Trainable):
    """One job after another in one process, so that starting it is paid once.

    config: what `sweeper.tune.Searcher.suggest` hands out. Tune's checkpoints are the trainable's.

    A full disk is no fault of the job: it is left as it is, and the report says so under `full`.
    """

    job: Any = None
    full: str | None = None

    def setup(self, config: dict[str, Any]) -> None:
        self.full = None
        with self._limited():
            self.job = self.begin(config)

    def begin(self, config: dict[str, Any]) -> Any:
        trainable = Trainable.find(config["trainable"])
        return Measurement(trainable, config["measure"]) if "measure" in config else trainable.start(config)

    def step(self) -> dict[str, Any]:
        report: dict[str, Any] = {}
        if self.full is None:
            with self._limited():
                report = dict(self.job.step())
        return report if self.full is None else {"done": True, "failed": self.full, "full": True}

    @contextmanager
    def _limited(self) -> Iterator[None]:
        trace = Path(self.config["stuck"])
        try:
            with at_most(self.config["minutes"], trace):
                yield
        except Exception as error:
            full = full_disk(error)
            if full is None:
                raise
            self.full = f"{full.strerror or full} ({trace.parent})"

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        self.job.save(checkpoint_dir)

    def load_checkpoint(self, checkpoint: Any) -> None:
        self.job.load(checkpoint)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Makes this process ready for another job; what the trainable keeps for it, stays."""
        self.job = None
        self.setup(new_config)
        return True
