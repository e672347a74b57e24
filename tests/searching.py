"""Drives the searcher of a run without Ray: metrics follow the configuration."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from sweeper.budget import Clock
from sweeper.files import read_json, write_json
from sweeper.jobs import Jobs
from sweeper.run import Run
from sweeper.search import of_run
from sweeper.trial import BASELINE, epoch_file, read_trial
from sweeper.tune import Searcher

UNTRAINED = {"clean_accuracy": 0.9, "robust_accuracy": 0.1, "robust_ece": 0.8}


def metrics_of(config: dict[str, Any]) -> dict[str, float]:
    """A made-up result that depends on the configuration alone."""
    rate = config["optimizer"]["learning_rate"]
    strong = config["attack"]["epsilon"] == "8/255"
    return {
        "robust_accuracy": rate * 200 + 0.1 * strong,
        "clean_accuracy": 0.9 - rate * 100,
        "robust_ece": 0.5 - 0.1 * strong,
    }


class Workers:
    """`side` workers that end one epoch each, in turn, or as `rng` has it. measured: what was measured on
    test images."""

    def __init__(
        self, run: Run, side: int = 1, seconds: float = 10, rng: random.Random | None = None
    ) -> None:
        self.run, self.side, self.seconds, self.rng = run, side, seconds, rng
        self.clock = Clock(run)
        self.measured: list[str] = []
        self.jobs: dict[str, Any] = {}
        self.started = 0
        write_json(run.baseline_file, {"metrics": UNTRAINED})
        self.searcher = Searcher(run, of_run(run, side), Jobs(run, threads=1, concurrent=side), self.clock)

    def go(self, epochs: int = 10_000) -> None:
        """Until the sweep is finished, or that many epochs were trained; then it is abandoned."""
        while not self.searcher.finished and epochs > 0:
            while len(self.jobs) < self.side:
                self.started += 1
                job = self.searcher.suggest(str(self.started))
                if not isinstance(job, dict):
                    break
                self.jobs[str(self.started)] = job
            name = self.rng.choice(list(self.jobs)) if self.rng else next(iter(self.jobs))
            epochs -= self._step(name, self.jobs.pop(name))
        if self.searcher.finished:
            self.searcher.search.finish()

    def _step(self, name: str, job: Any) -> int:
        if "measure" in job:
            write_json(Path(job["measure"]["target"]), {"metrics": self._measured(job["measure"])})
            if job["measure"]["split"] == "test":
                self.measured.append(job["id"].removesuffix("-test"))
            self.searcher.on_trial_complete(name, {"failed": None})
            return 0
        trial = read_trial(Path(job["folder"]))
        epoch, metrics = len(trial.epochs) + 1, metrics_of(trial.config)
        report = {
            "epoch": epoch,
            "metrics": metrics,
            "training_seconds": self.seconds,
            "evaluation_seconds": 0,
        }
        write_json(epoch_file(trial.folder, epoch, "json"), report)
        epoch_file(trial.folder, epoch, "safetensors").touch()
        (trial.folder / "checkpoint.safetensors").touch()
        result = {**metrics, "epoch": epoch, "failed": None}
        if epoch < trial.last_epoch:
            self.jobs[name] = job
            self.searcher.on_trial_result(name, result)
        else:
            self.searcher.on_trial_complete(name, result)
        return 1

    def _measured(self, measure: dict[str, Any]) -> dict[str, float]:
        """As in training: neither another attack nor other images make a difference here."""
        if measure["weights"] is None:
            return UNTRAINED
        metrics: dict[str, float] = read_json(Path(measure["weights"]).with_suffix(".json"))["metrics"]
        return metrics


def members(run: Run) -> list[str]:
    return [BASELINE, *(row["id"] for row in run.pareto()["candidates"] if row["pareto"])]
