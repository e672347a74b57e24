"""MLflow as a mirror of the run folder.

The folder is the truth, and the spool: what a server misses while it is away lies there as it lies there
anyway, for as long as it takes. `Mirror.deliver` sends what MLflow does not have: while the sweep runs, after
a resume, or by `sweeper track RUN`.

Whatever cuts a delivery off, the next one goes on from it, because each step can be taken again. Runs are
found by their tags, and of two that are one trial's, made by a request whose answer was lost, one is deleted.
Parameters, metrics (with the time of the file that they are from) and artifacts take their own place. The tag
`complete` is a trial's last: nobody looks at it again, so that a delivery costs what has changed since the
last one. One process delivers at a time, and looks up what another one did in between.

One parent run per sweep, one child per trial, and one for the untrained model. Metrics carry their
split, `validation.robust_accuracy`, and the epoch as step.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from sweeper.files import read_json
from sweeper.redact import one_line, redacted
from sweeper.run import Run
from sweeper.tree import walk
from sweeper.trial import BASELINE, SPLIT, Metrics, Point, Stage, TrialRecord, epoch_file, read_trial

SWEEP, TRIAL, PARENT = "sweep_id", "trial_id", "mlflow.parentRunId"
EVERY_SECONDS, AT_MOST_SECONDS = 5.0, 60.0
"""Between deliveries; of a server that is away, longer each time."""
REQUEST_SECONDS = "15"
DATABASE = "mlflow.db"
REFUSALS = (401, 403)
CREDENTIALS = "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN,"
AT_A_TIME = 100, 800
"""Parameters and metrics of a request, beside up to 100 tags: MLflow's limits are 100, 1,000 and 1,000 in
all."""


def tracking_uri(run: Run) -> str:
    """MLFLOW_TRACKING_URI, or a SQLite file in the run folder. To be shown only as `redacted`."""
    return os.environ.get("MLFLOW_TRACKING_URI") or sqlite(run.path / DATABASE)


def sqlite(file: Path) -> str:
    return f"sqlite:///{file}"


def trouble(run: Run, error: Exception) -> str:
    """What a user is to know of an exception of MLflow's or its client's: which server, what it does, and
    what to do if it refuses."""
    server, reason = f"MLflow at {redacted(tracking_uri(run))}", one_line(error)
    if not refuses(error):
        return f"{server} can't be reached ({reason}): see MLFLOW_TRACKING_URI"
    return f"{server} refuses ({reason}): set {CREDENTIALS} to what it takes"


def refuses(error: Exception) -> bool:
    """Whether a server has answered that it does not take the credentials."""
    from mlflow.exceptions import MlflowException
    from requests import HTTPError

    if isinstance(error, MlflowException):
        return error.get_http_status_code() in REFUSALS
    answer = error.response if isinstance(error, HTTPError) else None
    return answer is not None and answer.status_code in REFUSALS


@dataclass
class Sent:
    """What MLflow has of a trial. parameters, epochs: how many.  pareto: whether it says that the trial is
    on the front."""

    run_id: str
    parameters: int = 0
    epochs: int = 0
    complete: str = ""
    pareto: bool = False


class Mirror:
    """Delivers one run to one MLflow server or database.

    After an exception, another mirror is to be used: this one does not know what has arrived.
    """

    def __init__(self, run: Run) -> None:
        # A request whose answer was lost must not be sent again before it was looked what it did.
        os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "0"
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", REQUEST_SECONDS)
        os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"  # of each trial, with its password
        from mlflow import MlflowClient

        for name in ("mlflow", "mlflow.store.db.utils", "alembic"):
            logging.getLogger(name).setLevel(logging.ERROR)

        self.run = run
        self.uri = tracking_uri(run)
        self.token = uuid.uuid4().hex
        with self._locked():
            self._make_database(run.path / DATABASE)
        self.client = MlflowClient(tracking_uri=self.uri)
        self.experiment = self._experiment()
        extended = len(run.about.get("extended", []))  # a run that was extended ends once more
        self.complete = f"after extension {extended}" if extended else "true"
        self.sent: dict[str, Sent] = {}
        self.begun: set[int] = set()  # trials before `next` that are not complete
        self.next = 0
        self.twins: set[str] = set()  # those that were delivered whole
        with self._turn():
            pass

    @property
    def ids(self) -> dict[str, str]:
        """MLflow's runs by trial; the parent is that of ""."""
        return {trial: sent.run_id for trial, sent in self.sent.items()}

    def _experiment(self) -> str:
        name = self.run.spec.file.tracking.experiment
        found = self.client.get_experiment_by_name(name)
        if found is not None:
            return str(found.experiment_id)
        own = self.uri.startswith("sqlite:") and "MLFLOW_TRACKING_URI" not in os.environ
        location = (self.run.path / "mlartifacts").as_uri() if own else None
        return str(self.client.create_experiment(name, artifact_location=location))

    def _make_database(self, file: Path) -> None:
        """The one in the run folder, whole or not at all: MLflow can't go on with one in whose making it was
        killed, or found no space."""
        from mlflow import MlflowClient

        if self.uri != sqlite(file) or file.exists():
            return
        partial = file.with_name(f"{file.name}.{self.token}.partial")
        try:
            MlflowClient(tracking_uri=sqlite(partial)).search_experiments(max_results=1)
            partial.replace(file)
        finally:
            for left in file.parent.glob(f"{file.name}.*"):  # those of the killed too
                left.unlink()

    @contextmanager
    def _locked(self) -> Iterator[TextIO]:
        """One mirror at a time."""
        with open(self.run.path / "mlflow.lock", "a+", encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield lock

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """As `_locked`. The file says which mirror was the last: what another one did is looked up."""
        with self._locked() as lock:
            lock.seek(0)
            if lock.read() != self.token:
                self._find_runs()
                lock.truncate(0)
                lock.write(self.token)
                lock.flush()
            yield

    def _find_runs(self) -> None:
        """Notes which runs of this sweep exist, and what of each has arrived."""
        self.sent, self.begun, self.next, token = {}, set(), 0, None
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
        tags, metrics = found.data.tags, found.data.metrics
        trial = tags.get(TRIAL, "")
        new = Sent(
            found.info.run_id,
            len(found.data.params),
            int(metrics.get("epoch", 0)),
            tags.get("complete", ""),
            tags.get("pareto") == "true",
        )
        known = self.sent.setdefault(trial, new)
        if known is not new:
            used, empty = (new, known) if new.parameters > known.parameters else (known, new)
            self.client.delete_run(empty.run_id)
            self.sent[trial] = used

    def _sent(self, trial: str, name: str, tags: dict[str, str]) -> Sent:
        """What is there of a trial (the parent for ""), whose run is made if need be."""
        if trial not in self.sent:
            parent = {TRIAL: trial, PARENT: self.sent[""].run_id} if trial else {}
            created = self.client.create_run(
                self.experiment, run_name=name, tags={SWEEP: self.run.id, **tags, **parent}
            )
            self.sent[trial] = Sent(created.info.run_id)
        return self.sent[trial]

    def _log(
        self,
        sent: Sent,
        *,
        parameters: dict[str, Any] | None = None,
        metrics: list[Any] | None = None,
        tags: dict[str, str] | None = None,
    ) -> None:
        """In as few requests as can be; the tags last."""
        from mlflow.entities import Param, RunTag

        left = [Param(key, str(value)) for key, value in (parameters or {}).items()]
        left = left if len(left) > sent.parameters else []
        numbers, marks = list(metrics or []), [RunTag(key, value) for key, value in (tags or {}).items()]
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

    def deliver(self) -> None:
        """Sends everything that MLflow does not have yet. Raises whatever MLflow does."""
        with self._turn():
            final = read_json(self.run.path / "pareto.json")  # written last, when the report is there too
            self._deliver_parent()
            self._deliver_baseline()
            for number in self._trials():
                self._deliver_trial(self.run.trial(number))
                if self.sent[self.run.trial_folder(number).name].complete:
                    self.begun.discard(number)
            for folder in sorted(self.run.path.glob("seeds/*/config.json")):
                self._deliver_twin(folder.parent)
            if final is not None and self.sent[""].complete != self.complete:
                self._deliver_result(final)

    def _trials(self) -> list[int]:
        """Those that may have something new: the ones that run, and the ones that were started since."""
        while ((folder := self.run.trial_folder(self.next)) / "config.json").exists():
            sent = self.sent.get(folder.name)
            if sent is None or not sent.complete:
                self.begun.add(self.next)
            self.next += 1
        return sorted(self.begun)

    def _deliver_parent(self) -> None:
        run, sent = self.run, self._sent("", self.run.name, {"kind": "sweep"})
        if sent.parameters == 0:
            sections = json.loads(run.spec.file.model_dump_json(include={"search", "pareto", "resources"}))
            settings = walk(sections) | walk({"evaluation": run.spec.evaluation, "final": run.spec.final})
            self.client.log_artifact(sent.run_id, str(run.path / "sweep.yaml"))
            self._log(sent, parameters=settings)

    def _deliver_baseline(self) -> None:
        validation = self.run.baseline()
        if validation is None:
            return
        sent = self._sent(BASELINE, "untrained", {"kind": "baseline", "method": "untrained"})
        if sent.epochs == 0:
            metrics = named("validation", validation) | {"epoch": 1}
            parameters = walk(self.run.spec.base_trial()["model"], "model")
            self._log(
                sent, parameters=parameters, metrics=numbers(metrics, step=0, file=self.run.baseline_file)
            )
            sent.epochs = 1

    def _deliver_trial(self, trial: TrialRecord, tags: dict[str, str] | None = None) -> None:
        parameters = {"seed": trial.seed, **walk(trial.config)}
        own = {"method": trial.method, **(tags or {})}
        sent = self._sent(trial.id, f"{trial.id} {trial.method}", own)
        if sent.parameters == 0:
            self.client.log_artifact(sent.run_id, str(trial.folder / "config.json"))
        metrics = [
            each for epoch in trial.epochs[sent.epochs :] for each in epoch_metrics(trial.folder, epoch)
        ]
        marks = {} if trial.status == "unfinished" else self._end(sent, trial)
        self._log(sent, parameters=parameters, metrics=metrics, tags=marks)
        sent.epochs = max(sent.epochs, len(trial.epochs))
        sent.complete = marks.get("complete", "")

    def _end(self, sent: Sent, trial: TrialRecord) -> dict[str, str]:
        """Sends what comes with the end of a trial, all but the tags, which are returned. Whether it is on
        the front is known at the end of the sweep; until then it is not."""
        for point in trial.points:
            self._log_records(sent, point.records, "records")
        ended = milliseconds(trial.folder / "status.json")
        self.client.set_terminated(
            sent.run_id, "FAILED" if trial.status == "failed" else "FINISHED", end_time=ended
        )
        reason = {"reason": trial.reason} if trial.reason else {}
        front = str(sent.pareto).lower()
        return {"status": trial.status, **reason, "pareto": front, "complete": "true"}

    def _deliver_twin(self, folder: Path) -> None:
        """A training with another seed. It may be made longer after it has ended, so that each mirror looks
        at it once."""
        if folder.name in self.twins:
            return
        twin = read_trial(folder)
        self._deliver_trial(twin, {"seed_of": self.run.trial_folder(twin.number).name})
        if twin.status != "unfinished":
            self.twins.add(folder.name)

    def _deliver_result(self, final: dict[str, Any]) -> None:
        """The Pareto set, and what was measured to find it. The parent's end comes last."""
        run, parent = self.run, self.sent[""]
        members: dict[str, list[int]] = {}
        for row in final["candidates"]:
            trial = run.trial(int(row["trial"][1:]))
            self._deliver_measured(self.sent[trial.id], trial.point(row["epoch"]))
            for twin in run.seeds(trial):
                for point in twin.points:
                    self._deliver_measured(self.sent[twin.id], point)
            if row["pareto"]:
                members.setdefault(trial.id, []).append(row["epoch"])
        self._deliver_front(members)
        baseline = self.sent[BASELINE]
        self._deliver_measured(baseline, None)
        self._log_records(baseline, run.baseline_file, "records")
        self.client.set_terminated(baseline.run_id)
        for file in ("pareto.json", "sweep.yaml"):  # the latter is another one if the run was extended
            self.client.log_artifact(parent.run_id, str(run.path / file))
        self.client.log_artifacts(parent.run_id, str(run.path / "report"), "report")
        self.client.set_terminated(parent.run_id)
        count = {"trials": float(len(final["trials"])), "pareto_set": float(sum(map(len, members.values())))}
        metrics = numbers(count, step=0, file=run.path / "pareto.json")
        self._log(parent, metrics=metrics, tags={"complete": self.complete})
        parent.complete = self.complete

    def _deliver_front(self, members: dict[str, list[int]]) -> None:
        """members: the epochs on the front, by trial. Before a run was extended, others may have been."""
        before = {trial for trial, sent in self.sent.items() if sent.pareto}
        for trial in sorted(before | set(members)):
            sent, epochs = self.sent[trial], members.get(trial, [])
            for plot in sorted((self.run.path / "report").glob(f"{trial}@*.png")):
                self.client.log_artifact(sent.run_id, str(plot), "plots")
            tags = {"pareto": str(bool(epochs)).lower(), "pareto_epochs": ", ".join(map(str, epochs))}
            self._log(sent, tags=tags)
            sent.pareto = bool(epochs)

    def _deliver_measured(self, sent: Sent, point: Point | None) -> None:
        """What `final` measured of a point, or of the untrained model, on either split."""
        stages: tuple[Stage, Stage] = ("final", "test")
        for stage in stages:
            if (measured := self.run.measured(point, stage)) is not None:
                file = self.run.final_file(point.id if point else BASELINE, SPLIT[stage])
                step = point.epoch if point else 0
                self._log(sent, metrics=numbers(named(stage, measured["metrics"]), step=step, file=file))
                self._log_records(sent, file, f"records/{stage}")

    def _log_records(self, sent: Sent, result: Path, folder: str) -> None:
        """The Parquet files that lie beside a result."""
        for file in sorted(result.parent.glob(f"{result.stem}*.parquet")):
            self.client.log_artifact(sent.run_id, str(self.run.storage.fetch(file)), folder)


def epoch_metrics(folder: Path, epoch: dict[str, Any]) -> list[Any]:
    """As MLflow has them. The number of the epoch comes last: it says that the others have arrived."""
    metrics = named("validation", epoch["metrics"]) | named("training", epoch["training"])
    metrics |= {"images_per_second": epoch["images_per_second"], "epoch": epoch["epoch"]}
    return numbers(metrics, step=epoch["epoch"], file=epoch_file(folder, epoch["epoch"], "json"))


def numbers(metrics: Metrics, *, step: int, file: Path) -> list[Any]:
    """MLflow's form of metrics that are from a file. Sent twice they are one, as their time is the file's."""
    from mlflow.entities import Metric

    time = milliseconds(file)
    return [Metric(name, float(value), time, step) for name, value in metrics.items()]


def milliseconds(file: Path) -> int:
    """When a file was written."""
    return file.stat().st_mtime_ns // 1_000_000


def named(prefix: str, metrics: Metrics) -> Metrics:
    return {f"{prefix}.{name}": value for name, value in metrics.items()}


class Tracker:
    """Delivers in the background while a sweep runs, and once more at its end. A context manager.

    A server that is away costs the sweep nothing: what it misses is delivered by the next attempt.
    say: shows the user a line.
    """

    def __init__(self, run: Run, say: Callable[[str], None]) -> None:
        self.run, self.say = run, say
        self.enabled = run.spec.file.tracking.mlflow
        self.wake, self.stop = threading.Event(), threading.Event()
        self.thread = threading.Thread(target=self._loop, name="mlflow", daemon=True)
        self.mirror: Mirror | None = None
        self.error: Exception | None = None
        self.pause = EVERY_SECONDS

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
            self.say(
                f"{trouble(self.run, self.error)} and lacks a part; nothing is lost, deliver it later with: "
                f"sweeper track {self.run}"
            )

    def notify(self) -> None:
        """Something new is in the run folder."""
        self.wake.set()

    def _loop(self) -> None:
        while not self.stop.is_set():
            before = self.error
            self._deliver()
            if self.error is not None and before is None:
                self.say(
                    f"{trouble(self.run, self.error)}; the sweep goes on, and what MLflow misses is "
                    "delivered when it answers"
                )
            if self.error is None and before is not None:
                server = redacted(tracking_uri(self.run))
                self.say(f"MLflow at {server} answers again and has all that it missed")
            if self.error is None:
                self.wake.wait()
                self.wake.clear()
            self.stop.wait(self.pause)

    def _deliver(self) -> None:
        try:
            self.mirror = self.mirror or Mirror(self.run)
            self.mirror.deliver()
            self.error, self.pause = None, EVERY_SECONDS
        except Exception as error:  # whatever a server or its client raises must not end the sweep
            self.mirror, self.error = None, error
            self.pause = min(2 * self.pause, AT_MOST_SECONDS)
