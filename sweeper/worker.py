"""What runs on the cluster: trials and measurements, one after another in a Ray Tune actor.

The trainable is found by its name, so that the driver imports nothing of what the workers need.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from ray import tune

from sweeper import site
from sweeper.errors import UserError
from sweeper.limits import at_most, full_disk
from sweeper.progress import Reporter
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
    A report says which files it `wrote`; of a job that can't be done here, `refused` says why.

    A full disk is no fault of the job: it is left as it is, and the report says so under `full`.
    """

    job: Any = None
    site: Any = None  # of a worker whose disk is full there may be none
    reporter: Reporter | None = None
    full: str | None = None
    refused: str | None = None

    def setup(self, config: dict[str, Any]) -> None:
        self.full = self.refused = self.site = None
        with self._stored():
            self.site = site.of_job(config)
            job = self.site.begin()
            with self._limited():
                self.job = self.start(job)

    def start(self, job: dict[str, Any]) -> Any:
        trainable = Trainable.find(job["trainable"])
        trainable.check_worker(job["gpus"])
        self.reporter = Reporter(self.site)
        trainable.listen(self.reporter)
        return Measurement(trainable, job["measure"]) if "measure" in job else trainable.start(job)

    def step(self) -> dict[str, Any]:
        report: dict[str, Any] = {}
        if not (self.refused or self.full):
            with self._stored(), self._limited():
                report = dict(self.job.step())
                report["wrote"] = self.site.written()
        if self.refused:
            return {"done": True, "failed": self.refused, "refused": self.refused}
        return {"done": True, "failed": self.full, "full": True} if self.full else report

    def _limited(self) -> AbstractContextManager[None]:
        return at_most(self.site.job["minutes"], Path(self.site.job["stuck"]))

    @contextmanager
    def _stored(self) -> Iterator[None]:
        """Inside, what keeps a job from being done, or files from being stored, is noted."""
        try:
            yield
        except UserError as error:
            self.refused = str(error)
        except Exception as error:
            full = full_disk(error)
            if full is None:
                raise
            self.full = f"{full}, on {socket.gethostname()}"

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        self.job.save(checkpoint_dir)

    def load_checkpoint(self, checkpoint: Any) -> None:
        self.job.load(checkpoint)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Makes this process ready for another job; what the trainable keeps for it, stays."""
        self.cleanup()
        self.setup(new_config)
        return True

    def cleanup(self) -> None:
        """Takes away what is not needed of the job."""
        self.job = None
        if self.reporter is not None:
            self.reporter.close()
            self.reporter = None
        if self.site is not None:  # as it is where no space was left for one
            self.site.close()
