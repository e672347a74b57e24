"""What a sweep would run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from sweeper import budget, kept, space
from sweeper.result import protocol
from sweeper.spec import EarlyStopping, SearchConfig, SweepSpec
from sweeper.terminal import amount, console
from sweeper.trial import STAGES


def print_plan(sweep: SweepSpec) -> None:
    """The space, the trials and how they are measured; nothing is started or loaded."""
    file, search, out = sweep.file, sweep.file.search, console()

    def say(line: str, style: str | None = None) -> None:
        out.print(line, style=style, soft_wrap=True)

    most = search.trials * sweep.max_epochs()
    say(f"sweep {file.name}: {amount(search.trials, 'trial')}, at most {amount(most, 'epoch')}")
    steps, warnings = sweep.trainable.steps(sweep.probes())
    if steps:
        say(f"a trial of all its epochs has {span(steps)}")
    for line in warnings:
        say(line)
    say(f"sampler: {search.sampler}, seed {search.seed}{coverage(sweep)}")
    say(f"deterministic: {determinism(search)}")
    if limits := budget.bounds(search.budget):
        say(f"budget: {limits}, whichever is used up first; trials that run then are finished")
    if search.warm_start:
        say(f"warm start from {', '.join(search.warm_start)}")
    for number, point in enumerate(sweep.known):
        shown = ", ".join(f"{name} {value}" for name, value in point.items())
        say(f"known point t{number:03d}: {shown}")
    if search.early_stopping:
        say(f"early stopping on {stopped_by(sweep, search.early_stopping)}")
    if search.seeds > 1:
        say(f"then each configuration on the front is trained with {search.seeds - 1} more seeds")
    say(kept.bound(sweep))
    need = f"{amount(file.resources.cpus, 'CPU')}, {amount(file.resources.gpus, 'GPU')}"
    say(f"each trial: {need}; {side_by_side(sweep)}")
    say(f"maximize {', '.join(file.pareto.maximize)}; minimize {', '.join(file.pareto.minimize)}")
    for constraint in file.pareto.constraints:
        say(f"subject to {constraint}")
    say(f"search sees: {protocol(sweep, 'validation')['text']}")
    say(f"candidates:  {protocol(sweep, 'final')['text']}")
    say(f"Pareto set:  {protocol(sweep, 'test')['text']}, once")
    table = Table(title="search space", title_justify="left", box=None)
    table.add_column("parameter")
    table.add_column("values")
    for name, distribution in space.distributions(sweep.space).items():
        table.add_row(name, Text(space.describe(distribution)))
    out.print(table)
    say("metrics: " + ", ".join(sweep.metrics))
    say("data and weights are looked for when the sweep is run", style="dim")


def memory(sweep: SweepSpec) -> list[str]:
    """How much memory trials need, and what fits. Asks the trainable, so it takes seconds, not a moment."""
    resources = sweep.file.resources
    own = {"cpus": resources.cpus, "gpus": resources.gpus, "concurrent": sweep.file.search.concurrent}
    return sweep.trainable.memory(sweep.probes(), **own)


def as_json(sweep: SweepSpec) -> dict[str, Any]:
    """What `sweeper plan --json` prints; docs/scripts.md says what the keys are."""
    file, search = sweep.file, sweep.file.search
    steps, warnings = sweep.trainable.steps(sweep.probes())
    return {
        "name": file.name,
        "trials": search.trials,
        "epochs": sweep.max_epochs(),
        "steps": [min(steps), max(steps)] if steps else None,
        "warnings": warnings,
        "sampler": search.sampler,
        "seed": search.seed,
        "seeds": search.seeds,
        "concurrent": search.concurrent,
        "deterministic": search.deterministic,
        "budget": search.budget.given(),
        "rungs": sweep.rungs(),
        "warm_start": search.warm_start,
        "known": sweep.known,
        "parameters": {
            name: space.describe(distribution)
            for name, distribution in space.distributions(sweep.space).items()
        },
        "maximize": file.pareto.maximize,
        "minimize": file.pareto.minimize,
        "subject_to": [str(constraint) for constraint in file.pareto.constraints],
        "resources": file.resources.model_dump(),
        "measured_on": {stage: protocol(sweep, stage)["text"] for stage in STAGES},
        "metrics": sweep.metrics,
    }


def span(steps: Sequence[int]) -> str:
    """`15 to 75 steps`, or how many all trials have."""
    low, high = min(steps), max(steps)
    return amount(low, "step") if low == high else f"{low} to {high} steps"


def coverage(sweep: SweepSpec) -> str:
    if sweep.file.search.sampler == "grid":
        return (
            f", the first {sweep.file.search.trials} of the space's {space.count(sweep.space)} configurations"
        )
    combinations, size = len(space.grid(sweep.space)), space.count(sweep.space)
    found = f", every one of {combinations} grid combinations in turn" if combinations > 1 else ""
    if size is not None and (again := sweep.file.search.trials - size) > 0:
        found += f"; the space has {amount(size, 'configuration')}: "
        found += f"{amount(again, 'trial')} or more train one again"
    return found


def stopped_by(sweep: SweepSpec, stopping: EarlyStopping) -> str:
    rungs = ", ".join(map(str, sweep.rungs()))
    metrics = ", ".join(stopping.metrics or sweep.file.pareto.metrics)
    spared = f", and the first front of fewer than {stopping.protect}" if stopping.protect else ""
    return f"{metrics}: one in {stopping.reduction_factor:g} goes on at epoch {rungs}{spared}"


def determinism(search: SearchConfig) -> str:
    if search.deterministic:
        return "yes, the same trials and decisions whatever the timing, with as many side by side"
    return "no, every trial is drawn and decided on by what has ended until then"


def side_by_side(sweep: SweepSpec) -> str:
    wanted = sweep.file.search.concurrent
    return f"at most {wanted} side by side" if wanted else "as many side by side as fit"
