"""What the terminal shows while a sweep runs: one live table, or plain lines where there is none. The plain
lines also go to the run's log, for those who look from elsewhere."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from sweeper import budget, front
from sweeper.budget import Clock
from sweeper.run import Run
from sweeper.trial import Point, TrialRecord

FRONT_ROWS = 8


class Display:
    """Progress, running trials, the front so far and the time left. A context manager."""

    def __init__(self, run: Run, concurrent: int, clock: Clock, *, quiet: bool = False) -> None:
        self.run, self.concurrent, self.clock = run, concurrent, clock
        self.console = Console(quiet=quiet)
        self.trials: dict[int, TrialRecord] = {trial.number: trial for trial in run.outlines()}
        self.stage_name = ""
        self.started = time.monotonic()
        self.epochs_before = sum(len(trial.epochs) for trial in self.trials.values())
        self.baseline = run.baseline()
        self.front: list[Point] = []
        self.new = [trial for trial in self.trials.values() if trial.status != "unfinished"]
        self.live: Live | None = None
        if self.console.is_terminal and not quiet:
            self.live = Live(console=self.console, get_renderable=self._render, refresh_per_second=2)
        self.notes = self.console if self.live else Console(stderr=True)

    def __enter__(self) -> Display:
        self.say(f"run {self.run.name}, {self.concurrent} trials at a time, seed {self._seed}")
        for line in self.run.warm_start()["lines"]:
            self.say(line)
        if left := self._budget_left(list(self.trials.values())):
            self.say(f"budget: {left}")
        if self.live:
            self.live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        if self.live:
            self.live.stop()

    def say(self, line: str) -> None:
        """To the terminal, above the table if there is one, and to the log."""
        self.console.print(line, soft_wrap=True, highlight=False)
        self.run.log(line)

    def _progress(self, line: str) -> None:
        """What the table shows by itself."""
        if self.live:
            self.run.log(line)
        else:
            self.say(line)

    @property
    def _seed(self) -> int:
        return int(self.run.spec.file.search.seed)

    @property
    def _planned(self) -> int:
        return int(self.run.spec.file.search.trials)

    def stage(self, name: str) -> None:
        """What the sweep is at now."""
        if name == self.stage_name:
            return
        self.stage_name = name
        if name == "searching":
            self.started = time.monotonic()
        self._progress(f"{name} ...")

    def note(self, text: str) -> None:
        """A line to be noticed: above the live table or on stderr, and in the log."""
        self.notes.print(text, markup=False, highlight=False, soft_wrap=True)
        self.run.log(text)

    def update(self, trial: TrialRecord) -> None:
        self.baseline = self.baseline or self.run.baseline()
        before = self.trials.get(trial.number)
        self.trials[trial.number] = trial
        changed = before is None or (len(before.epochs), before.status) != (len(trial.epochs), trial.status)
        if changed and trial.status != "unfinished":
            self.new.append(trial)
        if changed and trial.epochs:
            self._progress(self._line(trial))

    def _line(self, trial: TrialRecord) -> str:
        metrics = trial.metrics or {}
        shown = ", ".join(f"{name} {metrics[name]:.3f}" for name in self.run.spec.file.pareto.metrics)
        state = "" if trial.status == "unfinished" else f", {trial.status}"
        return (
            f"{trial.id} {trial.method}: epoch {len(trial.epochs)}/{trial.config['epochs']}, {shown}{state}"
        )

    def _time_left(self, trials: list[TrialRecord]) -> str:
        """From the epochs done by this driver; trials that end early count as done."""
        done = sum(len(trial.epochs) for trial in trials) - self.epochs_before
        if not done or self.stage_name != "searching":
            return "time left: -"
        per_trial = max(int(trial.config["epochs"]) for trial in trials)
        unfinished = [trial for trial in trials if trial.status == "unfinished"]
        left = sum(int(trial.config["epochs"]) - len(trial.epochs) for trial in unfinished)
        left += per_trial * (self._planned - len(trials))
        seconds = left * (time.monotonic() - self.started) / done
        return f"time left: {int(seconds // 60)}:{int(seconds % 60):02d}"

    def _budget_left(self, trials: list[TrialRecord]) -> str:
        return budget.left(self.run, trials, self.clock.seconds)

    def _render(self) -> RenderableType:
        trials = list(self.trials.values())  # the sweep goes on while this thread draws
        ended = sum(trial.status != "unfinished" for trial in trials)
        progress = Progress(
            TextColumn("{task.description}"), BarColumn(bar_width=30), MofNCompleteColumn(),
            TextColumn("trials, {task.fields[left]}"), console=self.console,
        )  # fmt: skip
        left = ", budget: ".join(filter(None, (self._time_left(trials), self._budget_left(trials))))
        progress.add_task(self.stage_name, total=self._planned, completed=ended, left=left)
        running = [trial for trial in trials if trial.status == "unfinished"]
        lines = [Text(self._line(t)) for t in running if t.epochs] or [Text("")]
        return Group(progress, self._front(), *lines)

    def _front(self) -> Table:
        """What has ended since it was last drawn is compared with the front of then: what is dominated stays
        so."""
        metrics = self.run.spec.file.pareto.metrics
        table = Table(title="Front so far (validation images)", title_justify="left", box=None)
        for name in ("trial", "method", *metrics):
            table.add_column(name, justify="left" if name in ("trial", "method") else "right")
        if self.baseline:
            table.add_row("", "untrained", *(f"{self.baseline[name]:.3f}" for name in metrics), style="dim")
            new, self.new = self.new, []
            found = [*self.front, *front.points(new)]
            best = front.best(self.run.spec, [point.metrics for point in found], self.baseline)
            self.front = [found[index] for index in best]
            shown = sorted(self.front, key=lambda point: -point.metrics[metrics[0]])
            for point in shown[:FRONT_ROWS]:
                values = (f"{point.metrics[name]:.3f}" for name in metrics)
                table.add_row(point.id, point.trial.method, *values)
        return table
