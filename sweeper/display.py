"""What the terminal shows while a sweep runs: the live view, or plain lines where nothing can be written
over. The plain lines also go to the run's log, for those who look from elsewhere."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any

from rich.live import Live
from rich.text import Text

from sweeper import front, progress
from sweeper.bars import Sparse
from sweeper.budget import Clock
from sweeper.jobs import SEARCHING
from sweeper.progress import At, Told
from sweeper.run import Run
from sweeper.state import State, rungs_of, state, summary
from sweeper.terminal import console, is_live, percent, stamped
from sweeper.trainable import MEASURING, TRAINING
from sweeper.trial import Point, TrialRecord, read_trial
from sweeper.view import About, screen

if TYPE_CHECKING:
    from rich.console import RenderableType

LOOK, LOOK_AWAY = 2.0, 30.0
"""Seconds between looks at what workers have said; in a bucket each takes a request."""
HEARTBEAT = 60.0, 300.0
"""Seconds, at least and at most, after which a log hears of a search again."""


class Display:
    """Progress, what runs, the front so far, time and budget left. A context manager."""

    def __init__(self, run: Run, concurrent: int, clock: Clock, *, quiet: bool = False) -> None:
        self.run, self.concurrent, self.clock = run, concurrent, clock
        self.console = console(quiet=quiet)
        self.trials: dict[int, TrialRecord] = {trial.number: trial for trial in run.outlines()}
        self.twins: dict[str, TrialRecord] = {}
        self.baseline = run.baseline()
        self.front: list[Point] = []
        self.turn = threading.Lock()  # of those who bring the front up to date
        self.new = [trial for trial in self.trials.values() if trial.status != "unfinished"]
        self.at = At()
        self.told: dict[str, Told] = {}
        self.rungs = rungs_of(run.spec)
        self.looked = float("-inf")
        self.away = time.monotonic()  # since what is in a bucket was last looked at
        self.heartbeat = Sparse(*HEARTBEAT)
        self.sparse: dict[tuple[str, str], Sparse] = {}  # by job and what it does
        self.about = About.of(run, concurrent)
        self.live: Live | None = None
        if not quiet and is_live(self.console):
            self.live = Live(
                console=self.console, get_renderable=self._render, refresh_per_second=2, transient=True
            )
        self.notes = self.console if self.live else console(stderr=True)

    def __enter__(self) -> Display:
        self._progress(self.about.title)
        self._progress(self.about.protocol)
        for line in self.run.warm_start()["lines"]:
            self.say(line)
        if left := self.state().budget:
            self._progress(f"budget: {left}")
        if self.live:
            self.live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        if kind is None or issubclass(kind, KeyboardInterrupt):  # else what has ended it may be in the way
            with suppress(Exception):
                progress.forget(self.run)

    def stop(self) -> None:
        if self.live:
            self.live.stop()

    def say(self, line: str) -> None:
        """To the terminal, above the live view if there is one, and to the log."""
        self.console.print(line if self.live else stamped(line), soft_wrap=True)
        self.run.log(line)

    def _progress(self, line: str) -> None:
        """What the live view shows by itself."""
        if self.live:
            self.run.log(line)
        else:
            self.say(line)

    def note(self, text: str) -> None:
        """A line to be noticed: above the live view or on stderr, and in the log."""
        self.notes.print(text, soft_wrap=True)
        self.run.log(text)

    def stage(self, name: str, total: int = 0) -> None:
        """What the sweep is at now. total: jobs of it; 0 for a search, and for what is none."""
        if name == self.at.stage:
            return
        self.at = At(name, time.time(), 0, total, self.at.running)
        self._progress(f"{name} ({total}) ..." if total > 1 else f"{name} ...")
        self._look()

    def begin(self, job: dict[str, Any]) -> None:
        """A job has a worker."""
        self.stage(job["stage"], job.get("of", int("measure" in job)))
        if job["id"] not in self.at.running:
            self.at.running.append(job["id"])

    def end(self, job: dict[str, Any], *, lost: bool = False) -> None:
        """It has none any more, as it is done, or the worker was lost."""
        name = job["id"]
        if name in self.at.running:
            self.at.running.remove(name)
        for known in (self.told, self.twins):
            known.pop(name, None)
        for key in [key for key in self.sparse if key[0] == name]:
            del self.sparse[key]
        if self.at.total and not lost:
            self.at.done += 1

    def update(self, trial: TrialRecord) -> None:
        """A trial of the search, as it is now."""
        self.baseline = self.baseline or self.run.baseline()
        before = self.trials.get(trial.number)
        self.trials[trial.number] = trial
        if trial.epochs and (before is None or len(before.epochs) < len(trial.epochs)):
            self._progress(self._line(trial))
        if trial.status != "unfinished" and (before is None or before.status == "unfinished"):
            self.new.append(trial)
            reason = f"failed: {trial.reason}" if trial.status == "failed" else trial.reason or trial.status
            self._progress(f"{trial.id} {trial.method}: {reason}")

    def _line(self, trial: TrialRecord) -> str:
        metrics = trial.metrics or {}
        names = [name for name in self.run.spec.file.pareto.metrics if name in metrics]
        shown = "".join(f", {name} {metrics[name]:.3f}" for name in names)
        return f"{trial.id} {trial.method}: epoch {len(trial.epochs)}/{trial.config['epochs']}{shown}"

    def tick(self) -> None:
        """To be called now and then: looks how far workers are, and tells those who see no live view."""
        if time.monotonic() - self.looked < LOOK:
            return
        self._look()
        for job, told in self.told.items():
            if told.doing not in (TRAINING, MEASURING):
                sparse = self.sparse.setdefault((job, told.doing), Sparse())
                if sparse.due(told.share):
                    self._progress(f"{job}: {told.doing}, {percent(told.share)}")
        now = self.state()
        if self.at.total and self.sparse.setdefault(("", self.at.stage), Sparse()).due(now.share):
            self._progress(f"{self.at.stage}: {summary(now)}")
        elif self.at.stage == SEARCHING and self.heartbeat.due(now.share):
            self._progress(summary(now))

    def _look(self) -> None:
        self.looked = time.monotonic()
        with suppress(Exception):  # as on a full disk
            if self.run.storage.address is not None and self.looked - self.away > LOOK_AWAY:
                self.away = self.looked
                self.run.storage.look(self.run.path / progress.FOLDER)
            self.told = progress.told(self.run, self.at.running)
            folders = {job: self.run.path / "seeds" / job for job in self.at.running}
            self.twins = {job: read_trial(folder) for job, folder in folders.items() if folder.is_dir()}
            progress.say_at(self.run, self.at)

    def state(self) -> State:
        """The sweep goes on while another thread draws."""
        return state(
            self.run,
            trials=list(self.trials.values()),
            twins=dict(self.twins),
            front=self._front(),
            untrained=self.baseline,
            what=replace(self.at, running=list(self.at.running)),
            told=dict(self.told),
            seconds=self.clock.seconds,
            rungs=self.rungs,
        )

    def _front(self) -> list[Point]:
        """What has ended since it was last looked at is compared with the front of then: what is dominated
        stays so."""
        with self.turn:
            if self.baseline:
                new, self.new = self.new, []
                found = [*self.front, *front.points(new)]
                best = front.best(self.run.spec, [point.metrics for point in found], self.baseline)
                self.front = [found[index] for index in best]
            return self.front

    def _render(self) -> RenderableType:
        width, height = self.console.size
        try:
            return screen(self.state(), self.about, width, height)
        except Exception as error:  # no sweep ends for the sake of what it shows
            return Text(f"the live view can't be drawn: {type(error).__name__}: {error}")
