"""How far a worker is in its job, and the driver in its sweep: small files in the run folder, there only
while a sweep runs.

    progress.json         of the driver: `At`
    progress/t003.json    of the worker that does the job t003: `Told`

Whoever looks, the driver itself or `sweeper status` on another host, finds the same. A job that is done
within moments leaves nothing.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING, Protocol

from sweeper.files import read_json, write_json

if TYPE_CHECKING:
    from sweeper.run import Run

FOLDER, FILE = "progress", "progress.json"
JOB = re.compile(r"[\w@-]+")


@dataclass(frozen=True)
class Told:
    """What a worker is doing, and which share of that, in [0, 1], is done."""

    doing: str
    share: float


@dataclass
class At:
    """What a sweep is at.

    since: the time at which the stage began.  total: jobs of the stage, of which `done` are; 0 for a search,
    whose trials say it.  running: the jobs that have a worker.
    """

    stage: str = ""
    since: float = field(default_factory=time.time)
    done: int = 0
    total: int = 0
    running: list[str] = field(default_factory=list)


class Place(Protocol):
    """Where a worker says how far it is."""

    every: float

    def tell(self, told: Told | None) -> None: ...


class Reporter:
    """Says where a worker's job is, every few seconds and in a thread of its own: what works only calls this,
    which puts the news aside. To be closed with the job. What can't be said is not worth a failure."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.latest: Told | None = None
        self.said: Told | None = None
        self.closed = Event()
        self.thread = Thread(target=self._loop, name="progress", daemon=True)
        self.thread.start()

    def __call__(self, doing: str, share: float) -> None:
        self.latest = Told(doing, share)

    def close(self) -> None:
        self.closed.set()
        self.thread.join(5)
        if self.said is not None:
            with suppress(Exception):
                self.place.tell(None)

    def _loop(self) -> None:
        while not self.closed.wait(self.place.every):
            if self.latest is not None and self.latest != self.said:
                with suppress(Exception):
                    self.place.tell(self.latest)
                    self.said = self.latest


def file_of(run: Path, job: str) -> Path:
    return run / FOLDER / f"{job}.json"


def told(run: Run, jobs: Iterable[str]) -> dict[str, Told]:
    """What workers have said last, by job; without those that have said nothing."""
    found = {job: read_json(file_of(run.path, job)) for job in jobs}
    return {job: Told(**content) for job, content in found.items() if content}


def at(run: Run) -> At:
    """What the driver said last. A job's name is a file's here, so it is one, whoever wrote it."""
    what = At(**(read_json(run.path / FILE) or {}))
    return replace(what, running=[job for job in what.running if JOB.fullmatch(job)])


def say_at(run: Run, what: At) -> None:
    write_json(run.path / FILE, asdict(what))
    run.storage.push_later(run.path / FILE)


def forget(run: Run) -> None:
    """Takes it all away, what lost workers have left too."""
    run.storage.remove(*(run.path / FOLDER).glob("*"), run.path / FILE)
