"""Where a worker does a job: on the run folder itself, or on a copy of what the job needs.

The trainable sees local paths, whatever the storage. Of a trial in a bucket it finds all that was written to
its folder earlier but for the records and weights of single epochs; of a measurement, the weights.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import socket
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from sweeper.files import write_json
from sweeper.objects import PATIENCE, Objects, StorageError
from sweeper.progress import Told, file_of
from sweeper.storage import LARGE, beside, copy_of, scratch, within

Job = dict[str, Any]
Files = dict[Path, tuple[int, int]]
"""Size, and when it was changed."""


def of_job(job: Job) -> Site:
    """job: of `sweeper.jobs`. `run` is the driver's path of the run, `storage` its address or None."""
    return Site(job) if job["storage"] is None else BucketSite(job)


class Site:
    """On a run folder that all processes see.

    every: seconds between two reports of how far the job is.
    """

    every = 2.0

    def __init__(self, job: Job) -> None:
        self.run, self.job = Path(job["run"]), job
        self.files: Files = {}

    def begin(self) -> Job:
        """The job, as the trainable is to have it. Raises StorageError if it can't be done here."""
        if not (self.run / "run.json").is_file():
            raise StorageError(
                f"{socket.gethostname()} does not see the run folder {self.run}, which workers on it are to "
                "write to; give a path that all nodes share, or a bucket: --runs s3://BUCKET/FOLDER"
            )
        self.files = self._files()
        return self.job

    def written(self) -> list[str]:
        """Names, in the run, of the JSON files that were written since this was last asked: others are whole
        when these are there. They are stored."""
        before, self.files = self.files, self._files()
        new = [file for file, state in self.files.items() if before.get(file) != state]
        self._store(sorted(new, key=lambda file: (not file.name.startswith("epoch-"), self.files[file][1])))
        return [self._name(file) for file in new if file.suffix == ".json"]

    def tell(self, told: Told | None) -> None:
        """Says how far the job is; None when it has ended."""
        file = file_of(self.run, self.job["id"])
        if told is None:
            file.unlink(missing_ok=True)
        else:
            write_json(file, asdict(told))

    def close(self) -> None:
        """Takes away what is not needed any more."""

    def _store(self, new: list[Path]) -> None:
        """new: what commits an epoch, and is no file of it alone, comes last."""

    def _files(self) -> Files:
        if "measure" in self.job:
            found = beside(Path(self.job["measure"]["target"]))
        else:
            found = [*Path(self.job["folder"]).glob("*")]
        states = [(file, file.stat()) for file in found if file.suffix != ".partial"]
        return {file: (state.st_size, state.st_mtime_ns) for file, state in states}

    def _name(self, file: Path) -> str:
        return file.relative_to(self.run).as_posix()


class BucketSite(Site):
    """On a folder of the job's own, whose files are stored after each step."""

    every = 30.0  # a request each

    def __init__(self, job: Job) -> None:
        self.objects = Objects(job["storage"])
        self.folder, self.lock = own_folder(scratch() / "workers")
        super().__init__(moved(job, Path(job["run"]), self.folder))
        self.run = self.folder
        self.stored: set[str] = set()

    def begin(self) -> Job:
        if "measure" in self.job:
            self._bring_what_is_measured()
        else:
            self._bring_trial()
        self.objects.patience = PATIENCE
        self.files = self._files()
        return self.job

    def tell(self, told: Told | None) -> None:
        name = self._name(file_of(self.run, self.job["id"]))
        if told is None:
            self.objects.delete(name)
        else:
            self.objects.write(name, json.dumps(asdict(told)).encode())

    def close(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        self.lock.close()

    def _bring_trial(self) -> None:
        folder = self._name(Path(self.job["folder"]))
        for each in self.objects.listed(folder):
            file = within(self.run, each.name)
            if not is_of_epoch(file):
                self.objects.download(each.name, file)
                self.stored.add(each.name)

    def _bring_what_is_measured(self) -> None:
        measure = self.job["measure"]
        target = Path(measure["target"])
        target.parent.mkdir(parents=True, exist_ok=True)
        if (known := self.objects.read(self._name(target))) is not None:
            target.write_bytes(known)
        if measure["weights"] is not None:
            weights = Path(measure["weights"])
            for file in (weights, weights.with_suffix(".json")):
                self.objects.download(self._name(file), file)

    def _store(self, new: list[Path]) -> None:
        for file in new:
            self.objects.upload(self._name(file), file)
            if is_of_epoch(file):
                file.unlink()
                del self.files[file]
            else:
                self.stored.add(self._name(file))
        for name in [name for name in self.stored if not (self.run / name).exists()]:
            self.objects.delete(name)
            self.stored.remove(name)


def is_of_epoch(file: Path) -> bool:
    """Whether it is large and no training goes on from it."""
    return file.name.startswith("epoch-") and file.suffix in LARGE


def moved(job: Job, run: Path, folder: Path) -> Job:
    """The job with its paths in `folder` in place of `run`; the cache is the node's."""

    def here(path: str | None) -> str | None:
        return None if path is None else str(folder / Path(path).relative_to(run))

    cache = str(copy_of(job["storage"]).parent / "cache")
    if "measure" not in job:
        return job | {"folder": here(job["folder"]), "cache": cache}
    measure = job["measure"]
    own = {"target": here(measure["target"]), "weights": here(measure["weights"]), "cache": cache}
    return job | {"measure": measure | own}


def own_folder(place: Path) -> tuple[Path, IO[str]]:
    """A new folder and its lock, which ends with the process. Those of processes that have ended are taken
    away."""
    place.mkdir(parents=True, exist_ok=True)
    with open(place / "lock", "w", encoding="utf-8") as one_at_a_time:
        fcntl.flock(one_at_a_time, fcntl.LOCK_EX)
        for lock in place.glob("*.lock"):
            if is_free(lock):
                shutil.rmtree(lock.with_suffix(""), ignore_errors=True)
                lock.unlink()
        folder = Path(tempfile.mkdtemp(prefix=f"{os.getpid()}-", dir=place))
        lock_file = open(folder.with_suffix(".lock"), "w", encoding="utf-8")  # noqa: SIM115
        fcntl.flock(lock_file, fcntl.LOCK_EX)
    return folder, lock_file


def is_free(lock: Path) -> bool:
    with open(lock, "a", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True
