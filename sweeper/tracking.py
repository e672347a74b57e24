"""MLflow as a mirror of the run folder.

The folder is the truth. `Mirror.deliver` compares it with what MLflow has and sends the difference,
so it can be called at any time, any number of times: while the sweep runs, after a resume, or by
`sweeper track RUN` when a server was away. Runs are found again by their tags.

One parent run per sweep, one child per trial, and one for the untrained model. Metrics carry their
split, `validation.robust_accuracy`, and the epoch as step.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Collection
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console

from sweeper.run import BASELINE, SPLIT, Metrics, Point, Run, Stage, TrialRecord, read_json
from sweeper.tree import walk

SWEEP, TRIAL, PARENT = "sweep_id", "trial_id", "mlflow.parentRunId"
EVERY_SECONDS = 5.0


def tracking_uri(run: Run) -> str:
    """MLFLOW_TRACKING_URI, or a SQLite file in the run folder."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{run.path / 'mlflow.db'}"


class Mirror:
    """Delivers one run to one MLflow server or database."""

    def __init__(self, run: Run) -> None:
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")  # we come again ourselves
        from mlflow import MlflowClient

        for name in ("mlflow", "mlflow.store.db.utils", "alembic"):
            logging.getLogger(name).setLevel(logging.ERROR)

        self.run = run
        self.uri = tracking_uri(run)
        self.client = MlflowClient(tracking_uri=self.uri)
        self.experiment = self._experiment()
        extended = len(run.about.get("extended", []))  # a run that was extended is delivered once more
        self.complete = f"after extension {extended}" if extended else "true"
        self.ids: dict[str, str] = {}
        self.epochs: dict[str, int] = {}
        self.ended: set[str] = set()
        self._find_runs()

    def _experiment(self) -> str:
        name = self.run.spec.file.tracking.experiment
        found = self.client.get_experiment_by_name(name)
        if found is not None:
            return str(found.experiment_id)
        own = self.uri.startswith("sqlite:") and "MLFLOW_TRACKING_URI" not in os.environ
        location = (self.run.path / "mlartifacts").as_uri() if own else None
        return str(self.client.create_experiment(name, artifact_location=location))

    def _find_runs(self) -> None:
        """Notes which runs of this sweep exist, and up to which epoch each was delivered."""
        token = None
        while True:
            page = self.client.search_runs(
                [self.experiment], f"tags.{SWEEP} = '{self.run.id}'", max_results=1000, page_token=token
            )
            for found in page:
                trial = found.data.tags.get(TRIAL, "")
                self.ids[trial] = found.info.run_id
                self.epochs[trial] = int(found.data.metrics.get("epoch", 0))
                if found.data.tags.get("complete") == self.complete:
                    self.ended.add(trial)
            token = page.token
            if not token:
                return

    def _run_id(self, trial: str, name: str, tags: dict[str, str], params: dict[str, Any]) -> str:
        """The MLflow run of a trial (the parent for ""), created with its parameters if need be."""
        if trial not in self.ids:
            from mlflow.entities import Param

            identity = {SWEEP: self.run.id, **tags} | ({TRIAL: trial, PARENT: self.ids[""]} if trial else {})
            created = self.client.create_run(self.experiment, run_name=name, tags=identity)
            self.ids[trial], self.epochs[trial] = created.info.run_id, 0
            values = [Param(key, str(value)) for key, value in params.items()]
            for first in range(0, len(values), 100):
                self.client.log_batch(self.ids[trial], params=values[first : first + 100])
        return self.ids[trial]

    def deliver(self) -> None:
        """Sends everything that MLflow does not have yet."""
        run = self.run
        sections = json.loads(run.spec.file.model_dump_json(include={"search", "pareto", "resources"}))
        settings = walk(sections) | walk({"evaluation": run.spec.evaluation, "final": run.spec.final})
        new = "" not in self.ids
        parent = self._run_id("", run.id, {"kind": "sweep"}, settings)
        if new:
            self.client.log_artifact(parent, str(run.path / "sweep.yaml"))
        final = read_json(run.path / "pareto.json")  # written last, when the report is there too
        self._deliver_baseline(final is not None)
        members = {row["id"]: row for row in final["candidates"] if row["pareto"]} if final else None
        for trial in run.trials():
            if trial.id not in self.ended:
                self._deliver_trial(trial, members)
            for twin in run.seeds(trial):
                if twin.id not in self.ended:
                    self._deliver_trial(twin, members, {"seed_of": trial.id})
        if final is not None and "" not in self.ended:
            for file in ("pareto.json", "sweep.yaml"):  # the latter is another one if the run was extended
                self.client.log_artifact(parent, str(run.path / file))
            self.client.log_artifacts(parent, str(run.path / "report"), "report")
            self.client.log_metric(parent, "trials", len(final["trials"]))
            self.client.log_metric(parent, "pareto_set", len(members or ()))
            self._end("", "FINISHED")

    def _deliver_baseline(self, final: bool) -> None:
        validation = self.run.baseline()
        if validation is None or BASELINE in self.ended:
            return
        tags = {"kind": "baseline", "method": "untrained"}
        run_id = self._run_id(BASELINE, "untrained", tags, walk(self.run.spec.base_trial()["model"], "model"))
        if self.epochs[BASELINE] == 0:
            self._log(run_id, {"epoch": 1} | named("validation", validation), step=0)
            self.epochs[BASELINE] = 1
        if final:
            self._deliver_measured(run_id, None)
            self._log_records(run_id, self.run.baseline_file, "records")
            self._end(BASELINE, "FINISHED")

    def _deliver_trial(
        self, trial: TrialRecord, members: Collection[str] | None, tags: dict[str, str] | None = None
    ) -> None:
        """members: the ids of the points of the Pareto set; None before the end of the sweep."""
        params = {"seed": trial.seed, **walk(trial.config)}
        new = trial.id not in self.ids
        tags = {"method": trial.method, **(tags or {})}
        run_id = self._run_id(trial.id, f"{trial.id} {trial.method}", tags, params)
        if new:
            self.client.log_artifact(run_id, str(trial.folder / "config.json"))
        for epoch in trial.epochs[self.epochs[trial.id] :]:
            metrics = named("validation", epoch["metrics"]) | named("training", epoch["training"])
            metrics |= {"epoch": epoch["epoch"], "images_per_second": epoch["images_per_second"]}
            self._log(run_id, metrics, step=epoch["epoch"])
            self.epochs[trial.id] = epoch["epoch"]
        if trial.status == "unfinished" or members is None:
            return
        self.client.set_tag(run_id, "status", trial.status)
        epochs = [point.epoch for point in trial.points if point.id in members]
        self.client.set_tag(run_id, "pareto", str(bool(epochs)).lower())
        self.client.set_tag(run_id, "pareto_epochs", ", ".join(map(str, epochs)))
        if trial.reason:
            self.client.set_tag(run_id, "reason", trial.reason)
        for point in trial.points:
            self._deliver_measured(run_id, point)
            self._log_records(run_id, point.records, "records")
        for plot in sorted((self.run.path / "report").glob(f"{trial.id}@*.png")):
            self.client.log_artifact(run_id, str(plot), "plots")
        self._end(trial.id, "FAILED" if trial.status == "failed" else "FINISHED")

    def _deliver_measured(self, run_id: str, point: Point | None) -> None:
        """What `final` measured of a point, or of the untrained model, on either split."""
        stages: tuple[Stage, Stage] = ("final", "test")
        for stage in stages:
            if (measured := self.run.measured(point, stage)) is not None:
                self._log(run_id, named(stage, measured["metrics"]), step=point.epoch if point else 0)
                file = self.run.final_file(point.id if point else BASELINE, SPLIT[stage])
                self._log_records(run_id, file, f"records/{stage}")

    def _log(self, run_id: str, metrics: Metrics, step: int) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        values = [Metric(name, float(value), now, step) for name, value in metrics.items()]
        for first in range(0, len(values), 1000):
            self.client.log_batch(run_id, metrics=values[first : first + 1000])

    def _log_records(self, run_id: str, result: Path, folder: str) -> None:
        """The Parquet files that lie beside a result."""
        for file in sorted(result.parent.glob(f"{result.stem}*.parquet")):
            self.client.log_artifact(run_id, str(self.run.storage.fetch(file)), folder)

    def _end(self, trial: str, status: str) -> None:
        self.client.set_tag(self.ids[trial], "complete", self.complete)
        self.client.set_terminated(self.ids[trial], status)
        self.ended.add(trial)


def named(prefix: str, metrics: Metrics) -> Metrics:
    return {f"{prefix}.{name}": value for name, value in metrics.items()}


class Tracker:
    """Delivers in the background while a sweep runs, and once more at its end. A context manager.

    A server that is away costs the sweep nothing: what it misses is delivered by the next attempt.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        self.enabled = run.spec.file.tracking.mlflow
        self.wake, self.stop = threading.Event(), threading.Event()
        self.thread = threading.Thread(target=self._loop, name="mlflow", daemon=True)
        self.mirror: Mirror | None = None
        self.error: Exception | None = None

    def __enter__(self) -> Tracker:
        if self.enabled:
            self.thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self.enabled:
            return
        self.stop.set()
        self.wake.set()
        self.thread.join()
        self._deliver()
        if self.error is not None:
            reason = " ".join(str(self.error).split())[:200]
            Console(stderr=True).print(
                f"MLflow at {tracking_uri(self.run)} could not be reached ({reason}); nothing is lost, "
                f"deliver it later with: sweeper track {self.run.id}",
                markup=False,
                soft_wrap=True,
            )

    def notify(self) -> None:
        """Something new is in the run folder."""
        self.wake.set()

    def _loop(self) -> None:
        while not self.stop.is_set():
            self._deliver()
            self.wake.wait()
            self.wake.clear()
            self.stop.wait(EVERY_SECONDS)

    def _deliver(self) -> None:
        try:
            self.mirror = self.mirror or Mirror(self.run)
            self.mirror.deliver()
            self.error = None
        except Exception as error:  # whatever a server or its client raises must not end the sweep
            self.mirror, self.error = None, error
