"""What a sweep would run, and how far a run is."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from sweeper import budget, kept, space
from sweeper.result import protocol
from sweeper.run import Run
from sweeper.spec import SearchConfig, SweepSpec

SHOWN_FAILED = 20
DRIVERLESS = 30
LOOK, LOOK_AWAY = 1.0, 2.0
"""Seconds between looks at a log; in a bucket it grows only with a driver's lease."""


def print_plan(sweep: SweepSpec) -> None:
    """The space, the trials and how they are measured; nothing is started or loaded."""
    console, file, search = Console(soft_wrap=True), sweep.file, sweep.file.search
    epochs = sweep.max_epochs()
    console.print(f"sweep {file.name}: {search.trials} trials, at most {search.trials * epochs} epochs")
    console.print(f"sampler: {search.sampler}, seed {search.seed}{coverage(sweep)}")
    console.print(f"deterministic: {determinism(search)}")
    if limits := budget.bounds(search.budget):
        console.print(f"budget: {limits}, whichever is used up first; trials that run then are finished")
    if search.warm_start:
        console.print(f"warm start from {', '.join(search.warm_start)}")
    for number, point in enumerate(sweep.known):
        shown = ", ".join(f"{name} {value}" for name, value in point.items())
        console.print(f"known point t{number:03d}: {shown}", highlight=False)
    if search.early_stopping:
        stopping = search.early_stopping
        rungs = ", ".join(map(str, sweep.rungs()))
        metrics = ", ".join(stopping.metrics or file.pareto.metrics)
        console.print(
            f"early stopping on {metrics}: one in {stopping.reduction_factor:g} goes on at epoch {rungs}"
        )
    if search.seeds > 1:
        console.print(f"then each configuration on the front is trained with {search.seeds - 1} more seeds")
    console.print(kept.bound(sweep))
    resources = file.resources
    console.print(f"each trial: {resources.cpus:g} CPUs, {resources.gpus:g} GPUs; {side_by_side(sweep)}")
    console.print(f"maximize {', '.join(file.pareto.maximize)}; minimize {', '.join(file.pareto.minimize)}")
    for constraint in file.pareto.constraints:
        console.print(f"subject to {constraint}")
    console.print(f"search sees: {protocol(sweep, 'validation')['text']}")
    console.print(f"candidates:  {protocol(sweep, 'final')['text']}")
    console.print(f"Pareto set:  {protocol(sweep, 'test')['text']}, once")
    table = Table(title="search space", title_justify="left", box=None)
    table.add_column("parameter")
    table.add_column("values")
    for name, distribution in space.distributions(sweep.space).items():
        table.add_row(name, Text(space.describe(distribution)))
    console.print(table)
    console.print("metrics: " + ", ".join(sweep.metrics))
    console.print("data and weights are looked for when the sweep is run", style="dim")


def print_memory(sweep: SweepSpec) -> None:
    """How much memory trials need, and what fits. Asks the trainable, so it takes seconds, not a moment."""
    console, resources = Console(soft_wrap=True), sweep.file.resources
    trials = [sweep.trial(probe.value) for probe in space.probes(sweep.space)]
    own = {"cpus": resources.cpus, "gpus": resources.gpus, "concurrent": sweep.file.search.concurrent}
    for line in sweep.trainable.memory(trials, **own):
        console.print(line, highlight=False)


def coverage(sweep: SweepSpec) -> str:
    if sweep.file.search.sampler == "grid":
        return (
            f", the first {sweep.file.search.trials} of the space's {space.count(sweep.space)} configurations"
        )
    combinations = len(space.grid(sweep.space))
    return f", every one of {combinations} grid combinations in turn" if combinations > 1 else ""


def determinism(search: SearchConfig) -> str:
    if search.deterministic:
        return "yes, the same trials and decisions whatever the timing, with as many side by side"
    return "no, every trial is drawn and decided on by what has ended until then"


def side_by_side(sweep: SweepSpec) -> str:
    wanted = sweep.file.search.concurrent
    return f"at most {wanted} side by side" if wanted else "as many side by side as fit"


def print_status(run: Run, runs: Sequence[Run]) -> None:
    """One run in a few lines, and the names of the others."""
    console, trials = Console(soft_wrap=True), run.trials()
    planned = budget.planned(run, trials)
    left = budget.left(run, trials, run.driven_seconds())
    counts: dict[str, int] = {}
    for trial in trials:
        counts[trial.status] = counts.get(trial.status, 0) + 1
    shown = ", ".join(f"{count} {status}" for status, count in sorted(counts.items())) or "none started"
    done = (run.path / "pareto.json").is_file()
    console.print(f"{run.name}: {len(trials)} of {planned} trials ({shown}); {progress(run, done)}")
    if left:
        console.print(f"budget: {left}")
    failed = [trial for trial in trials if trial.status == "failed"]
    for trial in failed[-SHOWN_FAILED:]:
        console.print(f"{trial.id} {trial.method} failed: {trial.reason}")
    if len(failed) > SHOWN_FAILED:
        console.print(
            f"and {len(failed) - SHOWN_FAILED} failed before these; `sweeper pareto --json` lists all"
        )
    for other in runs:
        console.print(f"{'*' if other.path == run.path else ' '} {other}", style="dim")


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


def progress(run: Run, done: bool) -> str:
    if done:
        return "finished"
    return "running" if run.is_driven() else f"interrupted; go on with: sweeper resume {run.name}"
