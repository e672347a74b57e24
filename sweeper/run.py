"""A run: the folder in which everything about one sweep lies.

    sweep.yaml                  the sweep, profile and overrides applied
    run.json                    id, seed, versions, when and where it was started, how it was extended
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
               /checkpoint.safetensors  what training goes on from; absent once it has ended
               /status.json     how it ended; absent while it has not
    seeds/t000-1/               as trials/t000: trained again with another seed
    final/validation/t000@2.json  candidates of the front, each a trial after an epoch, (and baseline.json)
                                under the final attack
    final/test/t000@2.json      what withstood it, (and baseline.json) on the test images
    pareto.json                 the result; pareto-1.json, ... what it was before each extension
    evaluations/                what `sweeper evaluate` measured
    exports/t000/               what `sweeper export` wrote
    report/  mlflow.db  mlartifacts/

Nothing else is needed to resume, report or track a sweep. Beside the runs lies `cache`, which they share:
what was computed of pre-trained models, to be found by the next trial and the next sweep. It can be
deleted at any time.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from functools import cached_property
from itertools import count, takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from sweeper import spec
from sweeper.errors import UserError

if TYPE_CHECKING:
    from sweeper.search import Suggestion

Split = Literal["validation", "test"]
Stage = Literal["validation", "final", "test"]
"""How a model is measured: as the search sees it, as `final` says on validation images, so on test images."""
Status = Literal["completed", "stopped", "failed", "unfinished"]
Metrics = dict[str, float]
Intervals = dict[str, tuple[float, float]]

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
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def read_json(path: Path) -> Any:
    """The file's value; None if there is no such file."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None


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
    epochs: list[dict[str, Any]] = field(default_factory=list)
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
    def checkpoint(self) -> Path:
        """What its training goes on from; absent before the first epoch and after the last."""
        return self.folder / "checkpoint.safetensors"

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


class Run:
    """The run folder `path`, read and written."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(cls, root: Path, sweep: spec.SweepSpec, about: dict[str, Any]) -> Run:
        """A new run folder under `root`, named after the sweep and the time. Raises UserError."""
        stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
        path = root / f"{sweep.file.name}-{stamp}"
        serial = 1
        while True:
            try:
                path.mkdir(parents=True)
                break
            except FileExistsError:
                serial += 1
                path = root / f"{sweep.file.name}-{stamp}-{serial}"
            except OSError as error:
                raise UserError(
                    f"{root} can't hold runs: {error.strerror}; choose another with --runs"
                ) from None
        (path / "sweep.yaml").write_text(sweep.text(), encoding="utf-8")
        write_json(path / "run.json", {"id": path.name, "created": stamp, **about})
        return cls(path.absolute())

    @classmethod
    def load(cls, path: Path) -> Run:
        """Raises UserError if `path` is no run folder."""
        if not (path / "run.json").is_file():
            raise UserError(f"{path}: not a run folder (no run.json in it); `sweeper status` lists the runs")
        return cls(path.absolute())

    @classmethod
    def all(cls, root: Path) -> list[Run]:
        """The runs under `root`, oldest first."""
        found = [cls(file.parent.absolute()) for file in root.glob("*/run.json")]
        return sorted(found, key=lambda run: (run.about["created"], run.path.name))

    @classmethod
    def find(cls, name: str | None, root: Path) -> Run:
        """The run of that name or path; the latest under `root` if None. Raises UserError."""
        if name is not None:
            return cls.load(root / name if (root / name / "run.json").is_file() else Path(name))
        runs = cls.all(root)
        if not runs:
            raise UserError(
                f"no runs under {root}; start one with `sweeper run search_spaces/quickstart.yaml`"
            )
        return runs[-1]

    @property
    def id(self) -> str:
        return self.path.name

    @property
    def cache(self) -> Path:
        """Folder of what is computed once for all runs that are stored beside this one."""
        return self.path.parent / "cache"

    def concurrency(self, fits: int) -> int:
        """Trials side by side; a deterministic sweep's sampler lags behind by twice as many. The first
        driver's number stays, so that a resumed sweep draws what an uninterrupted one draws."""
        file = self.path / "concurrency.json"
        known = read_json(file)
        if known is None:
            write_json(file, fits)
        return int(known or fits)

    def warm_start(self) -> dict[str, Any]:
        """What of earlier runs the sampler knows: see `sweeper.warm`."""
        return read_json(self.path / "warm_start.json") or {"lines": [], "trials": []}

    def write_warm_start(self, content: dict[str, Any]) -> None:
        write_json(self.path / "warm_start.json", content)

    def driven_seconds(self) -> float:
        """For how long drivers searched, all of them together; see `sweeper.budget`."""
        return float(read_json(self.path / "clock.json") or 0)

    def write_driven_seconds(self, seconds: float) -> None:
        write_json(self.path / "clock.json", seconds)

    @property
    def log_file(self) -> Path:
        return self.path / "log.txt"

    def log(self, line: str) -> None:
        """Adds a line to what `sweeper logs` reads, with the time."""
        with open(self.log_file, "a", encoding="utf-8") as file:
            file.write(f"{datetime.now():%Y-%m-%d %H:%M:%S} {line}\n")

    @cached_property
    def about(self) -> dict[str, Any]:
        about: dict[str, Any] = read_json(self.path / "run.json")
        return about

    @cached_property
    def spec(self) -> spec.SweepSpec:
        return spec.load(self.path / "sweep.yaml")

    @contextmanager
    def driving(self) -> Iterator[None]:
        """Holds the run for this process. Raises UserError if another one drives it."""
        with open(self.path / "driver.lock", "w", encoding="utf-8") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UserError(f"{self.id} is being run by another process; stop that one first") from None
            lock.write(str(os.getpid()))
            lock.flush()
            yield

    def is_driven(self) -> bool:
        """Whether a process runs this sweep now."""
        try:
            with self.driving():
                return False
        except UserError:
            return True

    def trial_folder(self, number: int) -> Path:
        return self.path / "trials" / f"t{number:03d}"

    def add_trial(self, new: Suggestion) -> TrialRecord:
        folder = self.trial_folder(new.number)
        return self._write_trial(TrialRecord(new.number, folder, new.config, new.drawn, new.seed))

    def _write_trial(self, trial: TrialRecord) -> TrialRecord:
        """Writes what a training starts from, and returns it with what its folder holds already."""
        content = {"number": trial.number, "seed": trial.seed, "drawn": trial.drawn, "trial": trial.config}
        wanted = {"wanted": trial.wanted} if trial.wanted else {}
        write_json(trial.folder / "config.json", content | wanted)
        return self.read_trial(trial.folder)

    def end_trial(self, trial: TrialRecord, status: Status, reason: str | None = None) -> TrialRecord:
        """Notes how it ended, and returns what it is then."""
        write_json(trial.folder / "status.json", {"status": status, "reason": reason})
        return self.read_trial(trial.folder)

    def seed_folder(self, trial: TrialRecord, index: int) -> Path:
        return self.path / "seeds" / f"{trial.id}-{index}"

    def add_seed(self, trial: TrialRecord, index: int, seed: int, wanted: list[int]) -> TrialRecord:
        """A trial with another seed, to be trained up to the last of the epochs that are wanted. One that
        ended before is to be trained once more: it gives the same."""
        folder = self.seed_folder(trial, index)
        twin = TrialRecord(trial.number, folder, trial.config, trial.drawn, seed, wanted=wanted)
        twin.checkpoint.unlink(missing_ok=True)  # it begins anew, for epochs that are gone
        (folder / "status.json").unlink(missing_ok=True)
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
        text = self.rungs_file.read_text(encoding="utf-8")
        whole = text[: text.rfind("\n") + 1]
        if whole != text:
            self.rungs_file.write_text(whole, encoding="utf-8")
        return [Decision(**json.loads(line)) for line in whole.splitlines()]

    def add_decision(self, decision: Decision) -> None:
        """To be called before the decision takes effect: once written it stands."""
        with open(self.rungs_file, "a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(decision), allow_nan=False) + "\n")

    def keep_error(self, folder: str | None, error_file: str) -> None:
        """Copies a traceback into the folder of the failed training, or of the run for None."""
        shutil.copy(error_file, Path(folder or self.path) / "error.txt")

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
        trial.epochs = [read_json(epoch_file(folder, epoch, "json")) for epoch in numbers(names, ".json")]
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
        """The result: see `sweeper.result`."""
        from sweeper.result import result

        return result(self)
