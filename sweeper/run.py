"""A run: the folder in which everything about one sweep lies.

    sweep.yaml                  the sweep, profile and overrides applied
    run.json                    id, seed, versions, when and where it was started, how it was extended
    concurrency.json            trials side by side, on which a deterministic sweep's draws depend
    clock.json                  for how many seconds it was driven
    warm_start.json             what the sampler knows of earlier runs; absent without
    study.journal               the Optuna study (opens in optuna-dashboard)
    rungs.jsonl                 what early stopping decided, a line each, in the order of the decisions
    baseline/validation.json    the untrained model, and .parquet: its per-image records
    trials/t000/config.json     the trial's configuration and seed
               /epoch-001.json  metrics after each epoch, and .parquet: per-image records
               /checkpoint.safetensors
               /status.json     how it ended; absent while it has not
    final/t000.json             the Pareto candidates (and baseline.json) on the test images
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
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from sweeper import spec
from sweeper.errors import UserError

if TYPE_CHECKING:
    from sweeper.search import Suggestion

Split = Literal["validation", "test"]
Status = Literal["completed", "stopped", "failed", "unfinished"]
Metrics = dict[str, float]
Intervals = dict[str, tuple[float, float]]

BASELINE = "baseline"


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
    """One trial as it lies in the run folder."""

    number: int
    folder: Path
    config: dict[str, Any]
    drawn: dict[str, Any]
    seed: int
    status: Status = "unfinished"
    reason: str | None = None
    epochs: list[dict[str, Any]] = field(default_factory=list)
    final: Metrics | None = None
    final_intervals: Intervals | None = None

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
    def intervals(self) -> Intervals | None:
        """95 % intervals of those of `metrics` that have one."""
        return self.epochs[-1].get("intervals", {}) if self.epochs else None

    @property
    def records(self) -> Path:
        """Per-image validation records of the last epoch."""
        return self.folder / f"epoch-{self.epochs[-1]['epoch']:03d}.parquet"


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
        content = {"number": new.number, "seed": new.seed, "drawn": new.drawn, "trial": new.config}
        write_json(folder / "config.json", content)
        return self._read_trial(folder)

    def end_trial(self, number: int, status: Status, reason: str | None = None) -> None:
        write_json(self.trial_folder(number) / "status.json", {"status": status, "reason": reason})

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

    def keep_error(self, number: int | None, error_file: str) -> None:
        """Copies a traceback into the folder of the failed trial, or of the run for None."""
        folder = self.path if number is None else self.trial_folder(number)
        shutil.copy(error_file, folder / "error.txt")

    def trial(self, number: int) -> TrialRecord:
        return self._read_trial(self.trial_folder(number))

    def trials(self) -> list[TrialRecord]:
        """All trials in order of their numbers."""
        files = self.path.glob("trials/t*/config.json")
        return sorted((self._read_trial(file.parent) for file in files), key=lambda trial: trial.number)

    def _read_trial(self, folder: Path) -> TrialRecord:
        config = read_json(folder / "config.json")
        trial = TrialRecord(config["number"], folder, config["trial"], config["drawn"], config["seed"])
        trial.epochs = [read_json(file) for file in sorted(folder.glob("epoch-*.json"))]
        ended = read_json(folder / "status.json")
        if ended is not None:
            trial.status, trial.reason = ended["status"], ended["reason"]
        final = read_json(self.final_file(trial.id))
        if final is not None:
            trial.final, trial.final_intervals = final["metrics"], final.get("intervals", {})
        return trial

    @property
    def baseline_file(self) -> Path:
        return self.path / BASELINE / "validation.json"

    def final_file(self, trial_id: str) -> Path:
        return self.path / "final" / f"{trial_id}.json"

    def baseline(self, split: Split = "validation") -> Metrics | None:
        """The untrained model's metrics on a split; None until they were measured."""
        result = self._baseline(split)
        return None if result is None else result["metrics"]

    def baseline_intervals(self, split: Split) -> Intervals | None:
        """The 95 % intervals of those of `baseline` that have one."""
        result = self._baseline(split)
        return None if result is None else result.get("intervals", {})

    def sets(self, split: Split) -> list[dict[str, Any]]:
        """What the images of a split are, of each set; empty until they were first measured on."""
        result = self._baseline(split)
        return [] if result is None else result.get("sets", [])

    def _baseline(self, split: Split) -> Any:
        return read_json(self.baseline_file if split == "validation" else self.final_file(BASELINE))

    def pareto(self) -> dict[str, Any]:
        """The result: see `sweeper.result`."""
        from sweeper.result import result

        return result(self)
