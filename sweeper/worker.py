"""What runs on the cluster: trials and measurements, one after another in a Ray Tune actor.

The trainable is found by its name, so that the driver imports nothing of what the workers need.
"""

from __future__ import annotations

from typing import Any

from ray import tune

from sweeper.trainable import Trainable


class Measurement:
    """The evaluation of a finished or untrained model, as a trial of a single step."""

    def __init__(self, trainable: Trainable, arguments: dict[str, Any]) -> None:
        self.trainable, self.arguments = trainable, arguments

    def step(self) -> dict[str, Any]:
        try:
            self.trainable.measure(**self.arguments)
        except self.trainable.errors as error:
            return failed(error)
        return failed(None)


class Unstartable:
    """A trial that could not even start, for a reason that no second attempt changes."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def step(self) -> dict[str, Any]:
        return failed(self.error)


def failed(error: Exception | None) -> dict[str, Any]:
    """The only report of a job that has no epochs."""
    reason = None if error is None else " ".join(str(error).split())
    return {"done": True, "epoch": 0, "failed": reason}


def start(config: dict[str, Any]) -> Any:
    trainable = Trainable.find(config["trainable"])
    if "measure" in config:
        return Measurement(trainable, config["measure"])
    try:
        return trainable.start(config)
    except trainable.errors as error:
        return Unstartable(error)


class Worker(tune.Trainable):
    """One job after another in one process, so that starting it is paid once.

    config: what `sweeper.tune.Searcher.suggest` hands out. Tune's checkpoints are the trainable's.
    """

    def setup(self, config: dict[str, Any]) -> None:
        self.job: Any = start(config)

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
