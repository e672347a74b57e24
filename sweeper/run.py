"""A run: the folder in which everything about one sweep lies.

    sweep.yaml                  the sweep, profile and overrides applied
    run.json                    id, seed, format, versions, when and where it was started, how it was extended
    driver.lock                 held by the process that runs the sweep: its pid, host and start
    concurrency.json            trials side by side, on which a deterministic sweep's draws depend
    clock.json                  for how many seconds it was driven
    log.txt                     what its drivers had to say, a line each
    warm_start.json             what the sampler knows of earlier runs; absent without
    study.journal               the Optuna study (opens in optuna-dashboard)
    rungs.jsonl                 what early stopping decided, a line each, in the order of the decisions
    baseline/validation.json    the untrained model, and .parquet: its per-image records
    trials/t000/config.json     the trial's configuration and seed
               /epoch-001.json  metrics after each epoch, and .parquet: per-image records
               /epoch-001.safetensors   the weights, of those epochs that may stand on the front
               /checkpoint.safetensors  what training goes on from, and .previous: the one before it;
                                absent once it has ended
               /stuck.txt       where its worker hung, if it did
               /status.json     how it ended; absent while it has not
    seeds/t000-1/               as trials/t000: trained again with another seed
    final/validation/t000@2.json  candidates of the front, each a trial after an epoch, (and baseline.json)
                                under the final attack
    final/test/t000@2.json      what withstood it, (and baseline.json) on the test images
    pareto.json                 the result; pareto-1.json, ... what it was before each extension
    evaluations/                what `sweeper evaluate` measured
    exports/t000/               what `sweeper export` wrote
    report/  mlflow.db  mlartifacts/

It lies on a path that all processes share, or in a bucket: see `sweeper.storage`. Nothing else is needed to
resume, report or track a sweep. Beside the runs lies `cache`, which they share: what was computed of
pre-trained models, to be found by the next trial and the next sweep. It can be deleted at any time.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import shutil
import socket
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from functools import cached_property
from itertools import count, takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TextIO, overload

from sweeper import spec
from sweeper.errors import UserError
from sweeper.lease import Who, told
from sweeper.limits import full_disk
from sweeper.storage import Root, Storage, is_address

if TYPE_CHECKING:
    from sweeper.search import Suggestion

Split = Literal["validation", "test"]
Stage = Literal["validation", "final", "test"]
"""How a model is measured: as the search sees it, as `final` says on validation images, so on test images."""
Status = Literal["completed", "stopped", "failed", "unfinished"]
Metrics = dict[str, float]
Intervals = dict[str, tuple[float, float]]

FORMAT = 1
"""Of this folder. A change that an earlier version would misread, or that misreads an earlier version's, has
the next number."""
BASELINE = "baseline"
STAGES: tuple[Stage, ...] = ("validation", "final", "test")
SPLIT: dict[Stage, Split] = {"validation": "validation", "final": "validation", "test": "test"}


def write_json(path: Path, value: Any) -> None:
    """Writes strict JSON; a reader sees the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(value, indent=1, allow_nan=False))


def write_text(path: Path, text: str) -> None:
    """A reader sees the old file or the new one."""
    partial = path.with_name(f"{path.name}.partial")
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def drop_torn_line(file: Path) -> None:
    """Takes away a last line that its writer could not finish; there is nothing to be written for it."""
    with open(file, "rb+") as opened:
        opened.truncate(opened.read().rfind(b"\n") + 1)


def read_json(path: Path) -> Any:
    """The file's value; None if there is no such file."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None


class Reports(Sequence[dict[str, Any]]):
    """What a trial wrote after each epoch, read from its folder when it is first asked for: of ten thousand
    trials nobody asks for all."""

    def __init__(self, files: Sequence[Path]) -> None:
        self.files = files
        self.known: dict[int, dict[str, Any]] = {}

    def __len__(self) -> int:
        return len(self.files)

    @overload
    def __getitem__(self, index: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, index: slice) -> list[dict[str, Any]]: ...
    def __getitem__(self, index: int | slice) -> dict[str, Any] | list[dict[str, Any]]:
        if isinstance(index, slice):
            return [self[each] for each in range(len(self))[index]]
        place = range(len(self))[index]
        if place not in self.known:
            self.known[place] = read_json(self.files[place])
        return self.known[place]

    def __eq__(self, other: object) -> bool:
        return list(self) == list(other) if isinstance(other, Sequence) else NotImplemented

    __hash__ = None  # type: ignore[assignment]


@dataclass(frozen=True)
class Decision:
    """What early stopping decided after an epoch of a trial, on which metrics; later trials are compared
    with these."""

    trial: int
    epoch: int
    metrics: Metrics
    goes_on: bool


@dataclass
class TrialRecord:
    """One trial as it lies in the run folder.

    kept: the epochs whose weights are there, ascending.  wanted: of a trial that is another's with another
    seed, the epochs that it is trained for; it ends after the last of them.
    """

    number: int
    folder: Path
    config: dict[str, Any]
    drawn: dict[str, Any]
    seed: int
    status: Status = "unfinished"
    reason: str | None = None
    epochs: Sequence[dict[str, Any]] = field(default_factory=list)
    kept: list[int] = field(default_factory=list)
    wanted: list[int] = field(default_factory=list)

    @property
    def id(self) -> str:
        return self.folder.name

    @property
    def method(self) -> str:
        return str(self.config["method"]["name"])

    @property
    def metrics(self) -> Metrics | None:
        """Validation metrics after the last epoch; None before the first."""
        return self.epochs[-1]["metrics"] if self.epochs else None

    @property
    def last_epoch(self) -> int:
        """The one after which it has completed."""
        return max(self.wanted, default=self.config["epochs"])

    @property
    def checkpoints(self) -> list[Path]:
        """What its training goes on from, and what it went on from before, if the former is damaged; absent
        before the first epoch and after the last."""
        return sorted(self.folder.glob("checkpoint*.safetensors"))

    @property
    def stuck_file(self) -> Path:
        """Where its worker was when it was ended for taking too long."""
        return self.folder / "stuck.txt"

    @property
    def points(self) -> list[Point]:
        """What of it may stand on the front."""
        return [Point(self, epoch) for epoch in self.kept]

    def point(self, epoch: int | None = None) -> Point:
        """The trial after an epoch, the last one by default, kept or not."""
        return Point(self, epoch or len(self.epochs))

    def outline(self, metrics: Iterable[str]) -> TrialRecord:
        """What a driver keeps of every trial of a sweep: of its configuration the method's name and how many
        epochs it has, of each epoch the seconds and these metrics."""
        names = list(metrics)
        epochs = [
            {key: epoch[key] for key in ("epoch", "training_seconds", "evaluation_seconds") if key in epoch}
            | {"metrics": {name: epoch["metrics"][name] for name in names}}
            for epoch in self.epochs
        ]
        config = {"method": {"name": self.method}, "epochs": self.config["epochs"]}
        return replace(self, config=config, drawn={}, epochs=epochs)


@dataclass(frozen=True)
class Point:
    """A trial as it was after one of its epochs: one model, whose weights may still be there."""

    trial: TrialRecord
    epoch: int

    @property
    def id(self) -> str:
        return f"{self.trial.id}@{self.epoch}"

    @property
    def report(self) -> dict[str, Any]:
        """What the epoch wrote."""
        return self.trial.epochs[self.epoch - 1]

    @property
    def metrics(self) -> Metrics:
        metrics: Metrics = self.report["metrics"]
        return metrics

    @property
    def intervals(self) -> Intervals:
        """95 % intervals of those of `metrics` that have one."""
        return dict(self.report.get("intervals", {}))

    @property
    def records(self) -> Path:
        """Per-image validation records."""
        return epoch_file(self.trial.folder, self.epoch, "parquet")

    @property
    def weights(self) -> Path:
        return epoch_file(self.trial.folder, self.epoch, "safetensors")


def epoch_file(folder: Path, epoch: int, suffix: str) -> Path:
    """A file that a trial writes after an epoch; see the head of this module."""
    return folder / f"epoch-{epoch:03d}.{suffix}"


def numbers(names: Iterable[str], suffix: str) -> list[int]:
    """The epochs of those files that end so, ascending."""
    return sorted(int(name[6:].removesuffix(suffix)) for name in names if name.endswith(suffix))


def who_wrote(text: str) -> Who:
    """The content of a lock file; empty for one that says nothing, or was written by an earlier version."""
    try:
        who = json.loads(text or "{}")
    except ValueError:
        return {}
    return who if isinstance(who, dict) else {}


class Run:
    """A run folder, read and written. path: where this process finds it.  storage: where it lies."""

    def __init__(self, storage: Storage) -> None:
        self.storage, self.path = storage, storage.path

    def __str__(self) -> str:
        """As a user names it."""
        return str(self.storage)

    @classmethod
    def create(cls, root: Root, sweep: spec.SweepSpec, about: dict[str, Any]) -> Run:
        """A new run folder under `root`, named after the sweep and the time. Raises UserError."""
        stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
        name = f"{sweep.file.name}-{stamp}"
        for serial in count(2):
            storage = Storage.at(f"{root}/{name}")
            try:
                storage.create()
                break
            except FileExistsError:
                name = f"{sweep.file.name}-{stamp}-{serial}"
            except OSError as error:
                raise UserError(
                    f"{root} can't hold runs: {error.strerror}; choose another with --runs"
                ) from None
        run = cls(storage)
        run.write_sweep(sweep)
        run.write("run.json", {"id": name, "created": stamp, "format": FORMAT, **about})
        return run

    @classmethod
    def load(cls, place: Root | Storage) -> Run:
        """place: of the run itself. Raises UserError if there is none, or one of another format."""
        run = cls(place if isinstance(place, Storage) else Storage.at(place))
        if not run.storage.bring("run.json"):
            raise UserError(f"{run}: not a run folder (no run.json in it); `sweeper status` lists the runs")
        run.check_format()
        run.storage.refresh()
        return run

    @classmethod
    def all(cls, root: Root) -> list[Run]:
        """The runs under `root`, oldest first; of one in a bucket there is no more than `about`."""
        found = [cls(storage) for storage in Storage.all(root)]
        return sorted(found, key=lambda run: (run.about["created"], run.path.name))

    @classmethod
    def find(cls, name: str | None, root: Root) -> Run:
        """The run of that name, path or address; the latest under `root` if None. Raises UserError."""
        if name is not None:
            place = Storage.at(name if is_address(name) else f"{root}/{name}")
            return cls.load(place if place.bring("run.json") else Storage.at(name))
        runs = cls.all(root)
        if not runs:
            raise UserError(
                f"no runs under {root}; start one with `sweeper run search_spaces/quickstart.yaml`"
            )
        return cls.load(runs[-1].storage)

    def check_format(self) -> None:
        """Raises UserError if the folder is of another format than this version's. Those before formats were
        numbered are as the first one."""
        found = self.about.get("format", 1)
        if found != FORMAT:
            version = self.about.get("versions", {}).get("clip-sweeper", "another version")
            raise UserError(
                f"{self}: a run folder of format {found}, by clip-sweeper {version}, and this version reads "
                f"format {FORMAT}; go on with it by the version that made it"
            )

    @property
    def id(self) -> str:
        return self.path.name

    def write(self, name: str | Path, value: Any) -> None:
        """A JSON file of the run, by its path or its name in it: stored when this returns."""
        write_json(self.path / name, value)
        self.storage.push(self.path / name)

    def write_sweep(self, sweep: spec.SweepSpec) -> None:
        write_text(self.path / "sweep.yaml", sweep.text())
        self.storage.push(self.path / "sweep.yaml")

    @property
    def cache(self) -> Path:
        """Folder of what is computed once for all runs that are stored beside this one."""
        return self.path.parent / "cache"

    def concurrency(self, fits: int) -> int:
        """Trials side by side; a deterministic sweep's sampler lags behind by twice as many. The first
        driver's number stays, so that a resumed sweep draws what an uninterrupted one draws."""
        known = read_json(self.path / "concurrency.json")
        if known is None:
            self.write("concurrency.json", fits)
        return int(known or fits)

    def warm_start(self) -> dict[str, Any]:
        """What of earlier runs the sampler knows: see `sweeper.warm`."""
        return read_json(self.path / "warm_start.json") or {"lines": [], "trials": []}

    def write_warm_start(self, content: dict[str, Any]) -> None:
        self.write("warm_start.json", content)

    def driven_seconds(self) -> float:
        """For how long drivers searched, all of them together; see `sweeper.budget`."""
        return float(read_json(self.path / "clock.json") or 0)

    def write_driven_seconds(self, seconds: float) -> None:
        file = self.path / "clock.json"
        write_json(file, seconds)
        self.storage.push_later(file)

    @property
    def log_file(self) -> Path:
        return self.path / "log.txt"

    def log(self, line: str) -> None:
        """Adds a line to what `sweeper logs` reads, with the time; without it on a full disk, which is to be
        told by what matters."""
        try:
            with open(self.log_file, "a", encoding="utf-8") as file:
                file.write(f"{datetime.now():%Y-%m-%d %H:%M:%S} {line}\n")
        except OSError as error:
            if not full_disk(error):
                raise
        self.storage.push_later(self.log_file)

    @cached_property
    def about(self) -> dict[str, Any]:
        """Raises UserError if it can't be read."""
        try:
            about: dict[str, Any] = read_json(self.path / "run.json")
            about["created"]
        except (ValueError, TypeError, KeyError):
            raise UserError(f"{self}/run.json can't be read; restore it from a copy") from None
        return about

    @cached_property
    def spec(self) -> spec.SweepSpec:
        return spec.load(self.path / "sweep.yaml")

    @contextmanager
    def driving(self) -> Iterator[None]:
        """Holds the run for this process. Raises UserError if another one drives it."""
        with open(self.path / "driver.lock", "a+", encoding="utf-8") as lock:
            earlier = self._lock(lock)
            started = datetime.now().strftime("%Y%m%d-%H%M%S")
            who = {"pid": os.getpid(), "host": socket.gethostname(), "started": started}
            who["token"] = secrets.token_hex(8)
            lock.truncate(0)
            lock.write(json.dumps(who))
            lock.flush()
            with self.storage.held(who, earlier.get("token")):
                for known in ("about", "spec"):  # as another host may have extended it
                    vars(self).pop(known, None)
                yield

    def _lock(self, lock: TextIO) -> Who:
        """Locks the file and returns who held it before: empty if nobody did."""
        lock.seek(0)
        holder = who_wrote(lock.read())
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"{self.id} is being run by another process ({told(holder)}); stop that one first, "
                f"with: sweeper stop {self.id}"
            ) from None
        except OSError as error:
            raise UserError(f"{lock.name} can't be locked: {error.strerror}; see docs/storage.md") from None
        return holder

    def driver(self) -> Who | None:
        """`pid`, `host` and `started` of the process that runs this sweep now; None if there is none."""
        with open(self.path / "driver.lock", "a+", encoding="utf-8") as lock:
            try:
                self._lock(lock)
            except UserError:
                lock.seek(0)
                return who_wrote(lock.read())
        return self.storage.holder()

    def is_driven(self) -> bool:
        """Whether a process runs this sweep now."""
        return self.driver() is not None

    def trial_folder(self, number: int) -> Path:
        return self.path / "trials" / f"t{number:03d}"

    @property
    def journal(self) -> Path:
        """The study's file."""
        return self.path / "study.journal"

    def add_trial(self, new: Suggestion) -> TrialRecord:
        """A trial that the search, which has its place in the journal by now, suggests."""
        self.storage.push(self.journal)
        folder = self.trial_folder(new.number)
        return self._write_trial(TrialRecord(new.number, folder, new.config, new.drawn, new.seed))

    def _write_trial(self, trial: TrialRecord) -> TrialRecord:
        """Writes what a training starts from, and returns it with what its folder holds already."""
        content = {"number": trial.number, "seed": trial.seed, "drawn": trial.drawn, "trial": trial.config}
        wanted = {"wanted": trial.wanted} if trial.wanted else {}
        self.write(trial.folder / "config.json", content | wanted)
        return self.read_trial(trial.folder)

    def end_trial(self, trial: TrialRecord, status: Status, reason: str | None = None) -> TrialRecord:
        """Notes how it ended, and returns what it is then."""
        self.write(trial.folder / "status.json", {"status": status, "reason": reason})
        return self.read_trial(trial.folder)

    def seed_folder(self, trial: TrialRecord, index: int) -> Path:
        return self.path / "seeds" / f"{trial.id}-{index}"

    def add_seed(self, trial: TrialRecord, index: int, seed: int, wanted: list[int]) -> TrialRecord:
        """A trial with another seed, to be trained up to the last of the epochs that are wanted. One that
        ended before is to be trained once more: it gives the same."""
        folder = self.seed_folder(trial, index)
        twin = TrialRecord(trial.number, folder, trial.config, trial.drawn, seed, wanted=wanted)
        # it begins anew, for epochs that are gone
        self.storage.remove(*twin.checkpoints, folder / "status.json")
        return self._write_trial(twin)

    def seeds(self, trial: TrialRecord) -> list[TrialRecord]:
        """The trainings of a trial with other seeds, in their order."""
        folders = (self.seed_folder(trial, index) for index in count(1))
        known = takewhile(lambda folder: (folder / "config.json").exists(), folders)
        return [self.read_trial(folder) for folder in known]

    @property
    def rungs_file(self) -> Path:
        return self.path / "rungs.jsonl"

    def decisions(self) -> list[Decision]:
        """What early stopping decided, in its order. For the driver: a line that an earlier one could not
        finish is dropped, as it took no effect."""
        if not self.rungs_file.exists():
            return []
        drop_torn_line(self.rungs_file)
        lines = self.rungs_file.read_text(encoding="utf-8").splitlines()
        return [Decision(**json.loads(line)) for line in lines]

    def add_decision(self, decision: Decision) -> None:
        """To be called before the decision takes effect: once written it stands."""
        with open(self.rungs_file, "a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(decision), allow_nan=False) + "\n")
        self.storage.push(self.rungs_file)

    def keep_error(self, folder: str | None, error_file: str) -> None:
        """Copies a traceback into the folder of the failed training, or of the run for None."""
        kept = Path(folder or self.path) / "error.txt"
        shutil.copy(error_file, kept)
        self.storage.push(kept)

    def trial(self, number: int) -> TrialRecord:
        return self.read_trial(self.trial_folder(number))

    def trials(self) -> list[TrialRecord]:
        """All trials in order of their numbers."""
        return sorted(self._read_trials(), key=lambda trial: trial.number)

    def outlines(self) -> list[TrialRecord]:
        """As `trials`, for a driver that keeps them: see `TrialRecord.outline`."""
        return sorted(map(self.outline, self._read_trials()), key=lambda trial: trial.number)

    def outline(self, trial: TrialRecord) -> TrialRecord:
        return trial.outline(self.spec.file.pareto.deciding)

    def _read_trials(self) -> Iterator[TrialRecord]:
        return (self.read_trial(file.parent) for file in self.path.glob("trials/t*/config.json"))

    def read_trial(self, folder: Path) -> TrialRecord:
        """A trial, or one that was trained with another seed, as it lies in its folder."""
        config = read_json(folder / "config.json")
        trial = TrialRecord(config["number"], folder, config["trial"], config["drawn"], config["seed"])
        names = [name for name in os.listdir(folder) if name.startswith("epoch-")]
        trial.epochs = Reports([epoch_file(folder, epoch, "json") for epoch in numbers(names, ".json")])
        trial.kept = numbers(names, ".safetensors")
        trial.wanted = config.get("wanted", [])
        ended = read_json(folder / "status.json")
        if ended is not None:
            trial.status, trial.reason = ended["status"], ended["reason"]
        return trial

    @property
    def baseline_file(self) -> Path:
        return self.path / BASELINE / "validation.json"

    def final_file(self, name: str, split: Split) -> Path:
        """Of a point, by its id, or of the untrained model: measured as `final` says."""
        return self.path / "final" / split / f"{name}.json"

    def measured(self, point: Point | None, stage: Stage) -> dict[str, Any] | None:
        """What was measured of a point, or of the untrained model for None, in a stage: `metrics`,
        `intervals` and `sets`; None if it was not."""
        if stage == "validation":
            return point.report if point else read_json(self.baseline_file)
        return read_json(self.final_file(point.id if point else BASELINE, SPLIT[stage]))

    def baseline(self, stage: Stage = "validation") -> Metrics | None:
        """The untrained model's metrics in a stage; None until they were measured."""
        result = self.measured(None, stage)
        return None if result is None else result["metrics"]

    def sets(self, stage: Stage) -> list[dict[str, Any]]:
        """What the images of a stage are, of each set; empty until they were first measured on."""
        result = self.measured(None, stage)
        return [] if result is None else result.get("sets", [])

    def pareto(self) -> dict[str, Any]:
        """The result: see `sweeper.result`. Of a run that is complete, as it was written."""
        from sweeper.result import result

        return read_json(self.path / "pareto.json") or result(self)
