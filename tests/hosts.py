"""Sweeps of made-up results whose driver and workers are on hosts that share a bucket and nothing else."""

from __future__ import annotations

import itertools
import os
import random
from contextlib import AbstractContextManager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from sweeper import halving, kept, site
from sweeper.curves import Curves
from sweeper.files import read_json, write_json
from sweeper.objects import Objects
from sweeper.run import Run
from sweeper.trial import epoch_file
from sweeper.tune import Arrival
from tests.curves import BASELINE
from tests.timing import Killed, Tune

SCRATCH = "SWEEPER_SCRATCH"


class Hosts:
    """Scratch folders below `root`. `move` puts what follows on a new host."""

    def __init__(self, root: Path) -> None:
        self.root, self.names = root, (f"host-{number}" for number in itertools.count())

    def move(self) -> None:
        os.environ[SCRATCH] = str(self.root / next(self.names))


def withdraw_claims(run: Run) -> None:
    """Of a host that could not do it itself; else the next driver waits for them to grow old."""
    lost = Objects(str(run))
    for claim in lost.listed("driver"):
        lost.delete(claim.name)


class Spread(Tune):
    """Each epoch, each measurement is done on a host of its own, which finds its files as a worker does."""

    def __init__(self, address: str, hosts: Hosts, *arguments: Any, **faults: Any) -> None:
        self.hosts = hosts
        hosts.move()
        self.own = os.environ[SCRATCH]
        run = Run.load(address)
        self.driving: AbstractContextManager[None] = run.driving()
        self.driving.__enter__()
        super().__init__(run, *arguments, **faults)
        for trial in run.trials():
            kept.tidy(run, trial, run.baseline())

    def go(self) -> None:
        try:
            super().go()
        except Killed:
            self.run.storage.later.clear()  # type: ignore[attr-defined]
            raise
        finally:
            self.driving.__exit__(None, None, None)

    def _step(self, name: str) -> None:
        job = self.jobs[name]
        self.hosts.move()
        there = site.of_job(job)
        report = self._work(there.begin())
        names = there.written()
        lost = self.rng.random() < 0.5 * self.lost  # with all that it wrote stored, and nothing reported
        if self.rng.random() < 0.5:
            there.close()
        os.environ[SCRATCH] = self.own
        self._maybe_die()
        if lost:
            return
        Arrival(self.run)(name, report | {"wrote": names})
        trial = SimpleNamespace(config=job)
        if report["done"] or self.scheduler.on_trial_result(None, trial, report) == self.scheduler.STOP:
            del self.jobs[name]
            self.scheduler.on_trial_complete(None, trial, report)
            self.searcher.on_trial_complete(name, report)
        else:
            self.searcher.on_trial_result(name, report)

    def _work(self, job: dict[str, Any]) -> dict[str, Any]:
        """What a trainable does, in the folders that it is given."""
        if "measure" in job:
            if weights := job["measure"]["weights"]:
                assert read_json(Path(weights).with_suffix(".json"))["weights"] == Path(weights).read_text()
            write_json(Path(job["measure"]["target"]), {"metrics": BASELINE})
            return {"done": True, "failed": None}
        folder = Path(job["folder"])
        checkpoint = folder / "checkpoint.safetensors"
        epoch = int(checkpoint.read_text()) + 1 if checkpoint.exists() else 1
        epochs = job["trial"]["epochs"]
        epoch = min(epoch, epochs)  # the last one is reported again
        metrics = self.table.nearest(self.run.trial(job["number"]).drawn).metrics[epoch - 1]
        if not halving.not_finite(self.run.spec.file.pareto, metrics):
            content = {"epoch": epoch, "metrics": metrics, "weights": f"{job['id']}@{epoch}"}
            write_json(epoch_file(folder, epoch, "json"), content)
            epoch_file(folder, epoch, "safetensors").write_text(content["weights"])
            checkpoint.write_text(str(epoch))
        return {**metrics, "epoch": epoch, "failed": None, "done": epoch == epochs}


def sweep_on(address: str, hosts: Hosts, table: Curves, workers: int, seed: int, **faults: float) -> int:
    """To the end of the sweep, whatever is killed or lost; returns how many drivers it took."""
    rng = random.Random(seed)
    for drivers in itertools.count(1):
        try:
            Spread(address, hosts, table, workers, rng, **faults).go()
            return drivers
        except Killed:
            pass
    raise AssertionError
