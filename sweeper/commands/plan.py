"""`sweeper plan`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from sweeper import completions
from sweeper.errors import UserError
from sweeper.options import FILE, JSON, PROFILE, RUNS, SET, examples
from sweeper.terminal import print_json

if TYPE_CHECKING:
    from sweeper.storage import Root


@click.command(
    epilog=examples(
        "sweeper plan search_spaces/dirichlet.yaml --memory",
        "sweeper plan search_spaces/dirichlet.yaml --profile vit-b-32 --cluster cluster.yaml --like RUN",
    )
)
@FILE
@PROFILE
@SET
@click.option("--memory", is_flag=True, help="Say also how much memory a trial needs, and what fits.")
@click.option(
    "--cluster", type=click.Path(path_type=Path), help="Say also what of it this cluster can grow to hold."
)
@click.option(
    "--like",
    metavar="RUN",
    shell_complete=completions.runs,
    help="With --cluster: expect trials to take as long as this run's.",
)
@RUNS
@JSON
def command(
    *,
    file: Path,
    profile: str | None,
    overrides: tuple[str, ...],
    memory: bool,
    cluster: Path | None,
    like: str | None,
    runs: Root,
    as_json: bool,
) -> None:
    """Show what FILE would run, without running it."""
    from sweeper import capacity, expense, plan, spec
    from sweeper.run import Run

    if like is not None and cluster is None:
        raise UserError("--like RUN goes with --cluster FILE: how long trials take says what they cost there")
    sweep = spec.load(file, profile, overrides)
    if not as_json:
        plan.print_plan(sweep)
    asked: dict[str, list[str]] = {}
    if memory:
        asked["memory"] = plan.memory(sweep)
    if cluster is not None:
        earlier = Run.find(like, runs) if like else None
        asked["cluster"] = list(expense.lines(sweep, capacity.read(cluster), earlier))
    if as_json:
        print_json(plan.as_json(sweep) | asked)
        return
    for lines in asked.values():
        for line in lines:
            click.echo(line)
