"""A run: the folder in which everything about one sweep lies.

    sweep.yaml                  the sweep, profile and overrides applied
    run.json                    its id, seed, format, versions, when and where it was started and extended
    progress.json, progress/    how far driver and workers are, while they run: see `sweeper.progress`
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
    mlflow.json                 where MLflow shows the result
    report/  mlflow.db  mlartifacts/

It lies on a path that all processes share, or in a bucket: see `sweeper.storage`. Nothing else is needed to
resume, report or track a sweep. Beside the runs lies `cache`, which they share: what was computed of
pre-trained models, to be found by the next trial and the next sweep. It can be deleted at any time.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from functools import cached_property
from itertools import count, takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweeper import pages, spec
from sweeper.errors import UserError, suggestion
from sweeper.files import drop_torn_line, read_json, write_json, write_text
from sweeper.lease import Who
from sweeper.limits import full_disk
from sweeper.lock import locked, locked_by
from sweeper.objects import is_name
from sweeper.redact import redacted
from sweeper.storage import Root, Storage
from sweeper.trial import (
    BASELINE,
    SPLIT,
    Decision,
    Metrics,
    Point,
    Split,
    Stage,
    Status,
    TrialRecord,
    read_trial,
)

if TYPE_CHECKING:
    from sweeper.search import Suggestion

FORMAT = 1
"""Of this folder. A change that an earlier version would misread, or that misreads an earlier version's, has
the next number."""
ID = r"[A-Za-z0-9._-]+"


class Run:
    """A run folder, read and written. path: where this process finds it.  storage: where it lies."""

    def __init__(self, storage: Storage) -> None:
        self.storage, self.path = storage, storage.path

    def __str__(self) -> str:
        """As a user names it."""
        return str(self.storage)

    @classmethod
    def create(
        cls, root: Root, sweep: spec.SweepSpec, about: dict[str, Any], warm: dict[str, Any] | None = None
    ) -> Run:
        """A new run folder under `root`, named after the sweep and the time. warm: see `sweeper.warm`.
        Raises UserError."""
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
                    f"{root} can't hold runs: {error.strerror}; choose another with --runs", pages.STORAGE
                ) from None
        run = cls(storage)
        run.write_sweep(sweep)
        if warm is not None:
            run.write("warm_start.json", warm)
        own = f"{name}-{secrets.token_hex(3)}"
        # last: without it there is no run
        run.write("run.json", {"id": own, "created": stamp, "format": FORMAT, **about})
        return run

    @classmethod
    def load(cls, place: Root | Storage) -> Run:
        """place: of the run itself. Raises UserError if there is none, one of another format, or one with a
        link that leads out of it."""
        run = cls(place if isinstance(place, Storage) else Storage.at(place))
        if not run.storage.bring("run.json"):
            raise UserError(
                f"{run}: not a run folder (no run.json in it); `sweeper status` lists the runs", pages.STORAGE
            )
        run.check_format()
        run.storage.check_links()
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
            if not is_name(name):
                return cls.load(name)
            for place in (Storage.at(f"{root}/{name}"), Storage.at(name)):
                if place.bring("run.json"):
                    return cls.load(place)
            hint = suggestion(name, (run.name for run in cls.all(root)))
            raise UserError(f"no run {name!r} in {root}{hint or '; --runs names the folder'}", pages.STORAGE)
        runs = cls.all(root)
        if not runs:
            raise UserError(
                f"no runs under {root}; start one with `sweeper run quickstart`, or name their "
                "folder with --runs",
                pages.QUICKSTART,
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
                f"format {FORMAT}; go on with it by the version that made it",
                pages.STORAGE,
            )

    @property
    def name(self) -> str:
        """The folder's, by which users know the run."""
        return self.path.name

    @property
    def id(self) -> str:
        """No other run's, and the same wherever the folder is moved: the study and MLflow know the run by it.
        A copy has it, too. Of a folder without one, its name."""
        return str(self.about.get("id", self.name))

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
                file.write(f"{datetime.now():%Y-%m-%d %H:%M:%S} {redacted(line)}\n")
        except OSError as error:
            if not full_disk(error):
                raise
        self.storage.push_later(self.log_file)

    @cached_property
    def about(self) -> dict[str, Any]:
        """Raises UserError if it can't be read."""
        try:
            about: dict[str, Any] = read_json(self.path / "run.json")
            if not re.fullmatch(ID, about.get("id", "none")) or "created" not in about:
                raise ValueError
        except (ValueError, TypeError, AttributeError):
            raise UserError(f"{self}/run.json can't be read; restore it from a copy") from None
        return about

    @cached_property
    def spec(self) -> spec.SweepSpec:
        return spec.load(self.path / "sweep.yaml")

    @contextmanager
    def driving(self) -> Iterator[None]:
        """Holds the run for this process. Raises UserError if another one drives it."""
        with locked(self.path) as (who, before), self.storage.held(who, before.get("token")):
            for known in ("about", "spec"):  # as another host may have extended it
                vars(self).pop(known, None)
            yield

    def driver(self) -> Who | None:
        """`pid`, `host` and `started` of the process that runs this sweep now; None if there is none."""
        here = locked_by(self.path)
        return self.storage.holder() if here is None else here

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
        return read_trial(trial.folder)

    def end_trial(self, trial: TrialRecord, status: Status, reason: str | None = None) -> TrialRecord:
        """Notes how it ended, and returns what it is then."""
        shown = None if reason is None else redacted(reason)
        self.write(trial.folder / "status.json", {"status": status, "reason": shown})
        return read_trial(trial.folder)

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
        return [read_trial(folder) for folder in known]

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
        write_text(kept, redacted(Path(error_file).read_text(encoding="utf-8", errors="replace")))
        self.storage.push(kept)

    def trial(self, number: int) -> TrialRecord:
        return read_trial(self.trial_folder(number))

    def trials(self) -> list[TrialRecord]:
        """All trials in order of their numbers."""
        return sorted(self._read_trials(), key=lambda trial: trial.number)

    def outlines(self) -> list[TrialRecord]:
        """As `trials`, for a driver that keeps them: see `TrialRecord.outline`."""
        return sorted(map(self.outline, self._read_trials()), key=lambda trial: trial.number)

    def outline(self, trial: TrialRecord) -> TrialRecord:
        return trial.outline(self.spec.file.pareto.deciding)

    def _read_trials(self) -> Iterator[TrialRecord]:
        return (read_trial(file.parent) for file in self.path.glob("trials/t*/config.json"))

    @property
    def baseline_file(self) -> Path:
        return self.path / BASELINE / "validation.json"

    def final_file(self, name: str, split: Split) -> Path:
        """Of a point, by its id, or of the untrained model: measured as `final` says."""
        return self.path / "final" / split / f"{name}.json"

    def point(self, name: str) -> Point | None:
        """Of its id, as t003@5; None for the untrained model's name."""
        if name == BASELINE:
            return None
        trial, _, epoch = name.partition("@")
        return self.trial(int(trial.removeprefix("t"))).point(int(epoch))

    def measured(self, point: Point | None, stage: Stage) -> dict[str, Any] | None:
        """What was measured of a point, or of the untrained model for None, in a stage: `metrics`,
        `intervals` and `sets`; None if it was not."""
        if stage == "validation":
            return point.report if point else read_json(self.baseline_file)
        return read_json(self.final_file(point.id if point else BASELINE, SPLIT[stage]))

    def records(self, point: Point | None, stage: Stage) -> Path:
        """Where the per-image records of `measured` are, if there are any."""
        if stage != "validation":
            return self.final_file(point.id if point else BASELINE, SPLIT[stage]).with_suffix(".parquet")
        return point.records if point else self.baseline_file.with_suffix(".parquet")

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
