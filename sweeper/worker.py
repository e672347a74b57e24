"""What runs on the cluster: a trainable inside a Ray Tune actor, and a measurement as a Ray task.

Both find the trainable by its name, so that the driver imports nothing of what the workers need.
"""

from __future__ import annotations

from typing import Any

from ray import tune

from sweeper.trainable import Trainable


class Worker(tune.Trainable):
    """One trial after another in one process. Tune's checkpoints are the trainable's own."""

    def setup(self, config: dict[str, Any]) -> None:
        self.trial = Trainable.find(config["trainable"]).start(config)

    def step(self) -> dict[str, Any]:
        return dict(self.trial.step())

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        self.trial.save(checkpoint_dir)

    def load_checkpoint(self, checkpoint: Any) -> None:
        self.trial.load(checkpoint)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Makes this process ready for another trial; what the trainable keeps for it, stays."""
        del self.trial
        self.setup(new_config)
        return True


def measure(trainable: str, *arguments: Any) -> None:
    """Calls the trainable's `measure`."""
    Trainable.find(trainable).measure(*arguments)
