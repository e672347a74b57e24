"""`sweeper pareto`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from sweeper.options import CLUSTER, JSON, RUN, RUNS, examples
from sweeper.terminal import console, print_json

if TYPE_CHECKING:
    from sweeper.storage import Root


@click.command(epilog=examples("sweeper pareto", "sweeper pareto --json | jq '.candidates[].id'"))
@RUN
@RUNS
@JSON
@click.option("--csv", "as_csv", is_flag=True, help="Write CSV: the Pareto set, full precision.")
@CLUSTER
def command(run: str | None, runs: Root, as_json: bool, as_csv: bool) -> None:
    """Print the non-dominated configurations of a run."""
    from sweeper.result import to_csv
    from sweeper.run import Run

    found = Run.find(run, runs)
    if as_json:
        print_json(found.pareto())
    elif as_csv:
        click.echo(to_csv(found.pareto()), nl=False)
    else:
        print_front(found.pareto())


def print_front(content: dict[str, Any]) -> None:
    from sweeper.table import pareto_table

    console().print(pareto_table(content))
