"""How far a run is, from its folder alone: for who looks from another shell, or from another host."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live

from sweeper import budget, front, progress
from sweeper.jobs import SEARCHING
from sweeper.lease import Who, told
from sweeper.progress import At
from sweeper.run import Run
from sweeper.state import State, Task, rungs_of, state, summary
from sweeper.terminal import is_live, stamped
from sweeper.trial import Point, TrialRecord, read_trial
from sweeper.view import About, fitting, screen, tables

SHOWN_FAILED, SHOWN_LINES, SHOWN_ROWS = 20, 5, 40
DRIVERLESS = 30
LOOK, LOOK_AWAY = 1.0, 2.0
"""Seconds between looks at a log; in a bucket it grows only with a driver's lease."""
WATCH, WATCH_AWAY, WATCH_PLAIN = 2.0, 30.0, 30.0
"""Seconds between looks at a run; in a bucket; and where what was said can't be written over."""
FINISHED, RUNNING, INTERRUPTED = "finished", "running", "interrupted"


@dataclass(frozen=True)
class Status:
    """How far a run is. driver: who runs it now."""

    run: Run
    driver: Who | None
    trials: Sequence[TrialRecord]
    state: State

    @property
    def word(self) -> str:
        if (self.run.path / "pareto.json").is_file():
            return FINISHED
        return RUNNING if self.driver is not None else INTERRUPTED

    @property
    def failed(self) -> list[TrialRecord]:
        return [trial for trial in self.trials if trial.status == "failed"]


class Looker:
    """Looks at a run, again and again: what has ended is read once, and epochs only where they are wanted."""

    def __init__(self, run: Run) -> None:
        self.run, self.rungs = run, rungs_of(run.spec)
        self.ended: dict[str, TrialRecord] = {}

    def look(self, *, whole: bool = False) -> Status:
        """whole: with the front of a run that nobody drives, too."""
        run, driver = self.run, self.run.driver()
        trials = sorted(self._trials(), key=lambda trial: trial.number)
        what = progress.at(run) if driver is not None else At()
        folders = {job: run.path / "seeds" / job for job in what.running}
        untrained = run.baseline()
        now = state(
            run,
            trials=trials,
            twins={job: read_trial(folder) for job, folder in folders.items() if folder.is_dir()},
            front=front.candidates(run.spec, trials, untrained) if untrained and (driver or whole) else [],
            untrained=untrained,
            what=what,
            told=progress.told(run, what.running),
            seconds=searched(run, what),
            rungs=self.rungs,
        )
        return Status(run, driver, trials, now)

    def _trials(self) -> Iterator[TrialRecord]:
        for file in self.run.path.glob("trials/t*/config.json"):
            name = file.parent.name
            trial = self.ended[name] if name in self.ended else read_trial(file.parent)
            if trial.status != "unfinished":
                self.ended[name] = trial
            yield trial


def searched(run: Run, what: At) -> float:
    """For how many seconds drivers searched. The present one writes it down when a trial reports."""
    if what.stage != SEARCHING:
        return run.driven_seconds()
    written = what.since
    with suppress(FileNotFoundError):
        written = max(written, (run.path / "clock.json").stat().st_mtime)
    return run.driven_seconds() + max(time.time() - written, 0)


def print_status(console: Console, status: Status, runs: Sequence[Run]) -> None:
    """One run in a few lines, and the names of the others."""
    run, now = status.run, status.state
    planned = budget.planned(run, status.trials)
    shown = ", ".join(f"{count} {name}" for name, count in sorted(now.counts.items())) or "none started"
    say(console, f"{run.name}: {now.started} of {planned} trials ({shown}); {in_words(status)}")
    if status.word == RUNNING and status.driver is not None:
        say(console, f"driver: {told(status.driver)}")
        say(console, f"{now.stage or 'starting'}: {summary(now)}")
    if now.budget:
        say(console, f"budget: {now.budget}")
    if status.word == RUNNING:
        about = About.of(run, None)
        if now.running or now.front:
            console.print(Group(*tables(now, about, console.width, SHOWN_ROWS)))
        say(console, about.protocol, style="dim")
    for trial in status.failed[-SHOWN_FAILED:]:
        say(console, f"{trial.id} {trial.method} failed: {trial.reason}")
    if len(status.failed) > SHOWN_FAILED:
        hidden = len(status.failed) - SHOWN_FAILED
        say(console, f"and {hidden} failed before these; `sweeper pareto --json` lists all")
    if status.word != FINISHED:
        for line in last_lines(run):
            say(console, fitting(line, console.width) if console.is_terminal else line, style="dim")
    for other in runs:
        say(console, f"{'*' if other.path == run.path else ' '} {other}", style="dim")


def say(console: Console, line: str, style: str | None = None) -> None:
    console.print(line, style=style, soft_wrap=True)


def in_words(status: Status) -> str:
    go_on = f"; go on with: sweeper resume {status.run.name}"
    return status.word + (go_on if status.word == INTERRUPTED else "")


def last_lines(run: Run) -> list[str]:
    """Of its log."""
    try:
        return run.log_file.read_text(encoding="utf-8", errors="replace").splitlines()[-SHOWN_LINES:]
    except FileNotFoundError:
        return []


def as_json(status: Status, runs: Sequence[Run]) -> dict[str, Any]:
    """What `sweeper status --json` prints; docs/scripts.md says what the keys are."""
    run, now = status.run, status.state
    limits, spent = budget.limits(run), budget.spent(run, status.trials, searched(run, At()))
    return {
        "run": run.name,
        "path": str(run),
        "status": status.word,
        "driver": status.driver and {key: status.driver.get(key) for key in ("pid", "host", "started")},
        "stage": now.stage or None,
        "stage_done": now.done,
        "stage_total": now.total,
        "trials": {
            "planned": budget.planned(run, status.trials),
            "started": now.started,
            **{name: now.counts.get(name, 0) for name in ("completed", "stopped", "failed", "unfinished")},
        },
        "images_per_second": now.images_per_second,
        "trials_per_hour": now.trials_per_hour,
        "seconds_left": now.seconds_left,
        "budget": {name: {"limit": limits[name], "spent": spent[name]} for name in limits},
        "running": [of_task(task) for task in now.running],
        "untrained": now.untrained,
        "front": [of_point(point) for point in now.front],
        "measured_on": About.of(run, None).protocol,
        "failed": [{"id": each.id, "method": each.method, "reason": each.reason} for each in status.failed],
        "log": last_lines(run),
        "runs": [str(each) for each in runs],
    }


def of_task(task: Task) -> dict[str, Any]:
    return asdict(task) | {"doing": task.doing or None, "done": task.done}


def of_point(point: Point) -> dict[str, Any]:
    return {"id": point.id, "method": point.trial.method, "epoch": point.epoch, "metrics": point.metrics}


def watch(console: Console, run: Run) -> None:
    """The live view, as its driver shows it, or a line now and then, until nobody drives the run."""
    looker = Looker(run)
    about = About.of(run, None)
    away = run.storage.address is not None
    status = looker.look()

    def rendered() -> RenderableType:
        return screen(status.state, about, *console.size)

    live = Live(console=console, get_renderable=rendered, auto_refresh=False, transient=True)
    if is_live(console):
        with live:
            while status.driver is not None:
                live.refresh()
                time.sleep(WATCH_AWAY if away else WATCH)
                run.storage.refresh()
                status = looker.look()
    while status.driver is not None:
        say(console, stamped(f"{status.state.stage or 'starting'}: {summary(status.state)}"))
        time.sleep(WATCH_PLAIN)
        run.storage.refresh()
        status = looker.look()


def log_lines(run: Run, *, follow: bool) -> Iterator[str]:
    """What the run's log holds; with `follow` also what is added until it is finished, or has had no driver
    for DRIVERLESS seconds: a job that was submitted takes a while to start."""
    seen, driven, ended = 0, time.monotonic(), not follow
    while True:
        if run.log_file.exists():
            text = run.log_file.read_text(encoding="utf-8")
            yield text[seen:]
            seen = len(text)
        if ended:
            return
        time.sleep(LOOK if run.storage.address is None else LOOK_AWAY)
        if run.is_driven():
            driven = time.monotonic()
        else:  # what it said last is there when it is gone
            ended = run.storage.bring("pareto.json") or time.monotonic() - driven > DRIVERLESS
        run.storage.follow(run.log_file)
