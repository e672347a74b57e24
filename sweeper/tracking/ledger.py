"""Which runs MLflow has of a sweep, and what of each has arrived.

Whatever cuts a delivery off, the next one goes on from it, because each step can be taken again. Runs are
found by their tags, and of two that are one trial's, made by a request whose answer was lost, one is deleted.
Parameters, metrics (with the time of the file that they are from), data sets and artifacts take their own
place. The tag `complete` is a trial's last: nobody looks at it again, so that a delivery costs what has
changed since the last one. One process delivers at a time, and looks up what another one did in between.
"""

from __future__ import annotations

import fcntl
import os
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from sweeper.run import Run
from sweeper.tracking.metrics import PROBABILITY
from sweeper.tracking.server import DATABASE, client_at, sqlite, tracking_uri

SWEEP, TRIAL, PARENT = "sweep_id", "trial_id", "mlflow.parentRunId"
NOT_ON_FRONT = {"pareto": "false", "pareto_epochs": "", PROBABILITY: ""}
"""Tags of a trial until the end of a sweep, where they get their values; an extension may change them."""
AT_A_TIME = 100, 800
"""Parameters and metrics of a request, beside up to 100 tags: MLflow's limits are 100, 1,000 and 1,000 in
all."""
EXPERIMENT = {
    "mlflow.experimentKind": "custom_model_development",
    "mlflow.note.content": (
        "Sweeps of adversarial CLIP fine-tuning, by clip-sweeper\n\n"
        "A run is a sweep; its children are the trials, and the untrained model. **Views**, above the table, "
        "has two of each sweep: its trials, and its front, with the objectives and what was searched as "
        'columns and charts. `tags.pareto = "true"` finds the Pareto-optimal ones of all sweeps. A metric '
        "says which images it is from: `validation/`, as the search saw them; `final/`, the same split under "
        "the final attack; `test/`. What attack, images, bins and seed these are is in each sweep's "
        "description.\n"
    ),
}
"""Tags of an experiment that is made here."""


@dataclass
class Sent:
    """What MLflow has of a trial. artifacts: where they belong.  parameters, epochs: how many.  front: its
    tags as in `NOT_ON_FRONT`."""

    run_id: str
    artifacts: str
    parameters: int = 0
    epochs: int = 0
    complete: str = ""
    front: Mapping[str, str] = field(default_factory=lambda: NOT_ON_FRONT)

    @classmethod
    def of(cls, found: Any) -> Sent:
        tags, metrics = found.data.tags, found.data.metrics
        return cls(
            found.info.run_id,
            found.info.artifact_uri,
            len(found.data.params),
            int(metrics.get("epoch", 0)),
            tags.get("complete", ""),
            {name: tags.get(name, value) for name, value in NOT_ON_FRONT.items()},
        )


class Ledger:
    """MLflow's runs of one sweep, on one server or in one database. sent: by trial; the parent's is that of
    "".

    After an exception, another one is to be used: this one does not know what has arrived.
    """

    def __init__(self, run: Run) -> None:
        self.run, self.uri = run, tracking_uri(run)
        self.token = uuid.uuid4().hex
        with self._locked():
            self._make_database(run.path / DATABASE)
        self.client = client_at(self.uri)
        self.experiment = self._experiment()
        self.sent: dict[str, Sent] = {}

    def _experiment(self) -> str:
        name = self.run.spec.file.tracking.experiment
        found = self.client.get_experiment_by_name(name)
        if found is not None:
            return str(found.experiment_id)
        own = self.uri.startswith("sqlite:") and "MLFLOW_TRACKING_URI" not in os.environ
        location = (self.run.path / "mlartifacts").as_uri() if own else None
        return str(self.client.create_experiment(name, artifact_location=location, tags=EXPERIMENT))

    def _make_database(self, file: Path) -> None:
        """The one in the run folder, whole or not at all: MLflow can't go on with one in whose making it was
        killed, or found no space."""
        if self.uri != sqlite(file) or file.exists():
            return
        partial = file.with_name(f"{file.name}.{self.token}.partial")
        try:
            client_at(sqlite(partial)).search_experiments(max_results=1)
            partial.replace(file)
        finally:
            for left in file.parent.glob(f"{file.name}.*"):  # those of the killed too
                left.unlink()

    @contextmanager
    def _locked(self) -> Iterator[TextIO]:
        """One deliverer at a time."""
        with open(self.run.path / "mlflow.lock", "a+", encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield lock

    @contextmanager
    def turn(self) -> Iterator[bool]:
        """As `_locked`. The file says which one was the last: what another one did is looked up, and gives
        True."""
        with self._locked() as lock:
            lock.seek(0)
            others = lock.read() != self.token
            if others:
                self._find_runs()
                lock.truncate(0)
                lock.write(self.token)
                lock.flush()
            yield others

    def _find_runs(self) -> None:
        """Notes which runs of this sweep exist, and what of each has arrived."""
        self.sent, token = {}, None
        while True:
            page = self.client.search_runs(
                [self.experiment],
                f"tags.{SWEEP} = '{self.run.id}'",
                max_results=200,
                order_by=["attributes.start_time ASC"],
                page_token=token,
            )
            for found in page:
                self._note(found)
            token = page.token
            if not token:
                return

    def _note(self, found: Any) -> None:
        trial, new = found.data.tags.get(TRIAL, ""), Sent.of(found)
        known = self.sent.setdefault(trial, new)
        if known is not new:
            used, empty = (new, known) if new.parameters > known.parameters else (known, new)
            self.client.delete_run(empty.run_id)
            self.sent[trial] = used

    def open(self, trial: str, name: str, tags: Mapping[str, str], started: int) -> Sent:
        """What is there of a trial (the parent for ""), whose run is made if need be. started: in
        milliseconds."""
        if trial not in self.sent:
            parent = {TRIAL: trial, PARENT: self.sent[""].run_id} if trial else {}
            created = self.client.create_run(
                self.experiment,
                start_time=started,
                run_name=name,
                tags={SWEEP: self.run.id, **tags, **parent},
            )
            self.sent[trial] = Sent(created.info.run_id, created.info.artifact_uri)
        return self.sent[trial]

    def log(
        self,
        sent: Sent,
        *,
        parameters: Mapping[str, Any] | None = None,
        metrics: Sequence[Any] = (),
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """In as few requests as can be; the tags last."""
        from mlflow.entities import Param, RunTag

        left = [Param(key, str(value)) for key, value in (parameters or {}).items()]
        left = left if len(left) > sent.parameters else []
        numbers, marks = list(metrics), [RunTag(key, value) for key, value in (tags or {}).items()]
        sent.parameters = max(sent.parameters, len(left))
        while left or numbers or marks:
            last = len(left) <= AT_A_TIME[0] and len(numbers) <= AT_A_TIME[1]
            self.client.log_batch(
                sent.run_id,
                params=left[: AT_A_TIME[0]],
                metrics=numbers[: AT_A_TIME[1]],
                tags=marks if last else [],
            )
            left, numbers = left[AT_A_TIME[0] :], numbers[AT_A_TIME[1] :]
            marks = [] if last else marks

    def upload(self, sent: Sent, path: Path, folder: str | None = None) -> None:
        """A file, or what is in a folder, as artifacts, if it is there. MLflow's client would ask first where
        they belong."""
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        place = get_artifact_repository(sent.artifacts, tracking_uri=self.uri)
        if path.is_dir():
            place.log_artifacts(str(path), folder)
        elif path.is_file():
            place.log_artifact(str(path), folder)

    def inputs(self, sent: Sent, datasets: Sequence[Any]) -> None:
        """Which images it is from. Sent twice they are there once."""
        if datasets:
            self.client.log_inputs(sent.run_id, datasets)

    def end(self, sent: Sent, at: int, *, failed: bool = False) -> None:
        """at: in milliseconds."""
        self.client.set_terminated(sent.run_id, "FAILED" if failed else "FINISHED", end_time=at)
