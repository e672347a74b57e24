"""What runs on the cluster: trials and measurements, one after another in a Ray Tune actor.

The trainable is found by its name, so that the driver imports nothing of what the workers need.
"""

from __future__ import annotations

from typing import Any

from ray import tune

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
    """

    def setup(self, config: dict[str, Any]) -> None:
        trainable = Trainable.find(config["trainable"])
        self.job: Any = (
            Measurement(trainable, config["measure"]) if "measure" in config else trainable.start(config)
        )

    def step(self) -> dict[str, Any]:
        return dict(self.job.step())

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        self.job.save(checkpoint_dir)

    def load_checkpoint(self, checkpoint: Any) -> None:
        self.job.load(checkpoint)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Makes this process ready for another job; what the trainable keeps for it, stays."""
        del self.job
        self.setup(new_config)
        return True
