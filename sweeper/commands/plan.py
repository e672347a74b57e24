"""`sweeper plan`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from sweeper.errors import UserError
from sweeper.options import FILE, PROFILE, RUNS, SET, examples

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
@click.option("--like", metavar="RUN", help="With --cluster: expect trials to take as long as this run's.")
@RUNS
def command(
    *,
    file: Path,
    profile: str | None,
    overrides: tuple[str, ...],
    memory: bool,
    cluster: Path | None,
    like: str | None,
    runs: Root,
) -> None:
    """Show what FILE would run, without running it."""
    from sweeper import capacity, expense, spec
    from sweeper.plan import print_memory, print_plan
    from sweeper.run import Run

    sweep = spec.load(file, profile, overrides)
    print_plan(sweep)
    if memory:
        print_memory(sweep)
    if cluster is not None:
        for line in expense.lines(sweep, capacity.read(cluster), Run.find(like, runs) if like else None):
            click.echo(line)
    elif like is not None:
        raise UserError("--like RUN goes with --cluster FILE: how long trials take says what they cost there")
