"""`sweeper stop`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from sweeper.options import CLUSTER, RUN, RUNS, examples

if TYPE_CHECKING:
    from sweeper.storage import Root


@click.command(epilog=examples("sweeper stop", "sweeper stop quickstart-20261124-142522"))
@RUN
@RUNS
@CLUSTER
def command(run: str | None, runs: Root) -> None:
    """Stop a run that goes on, as Ctrl-C would.

    What it has finished stays, and `sweeper resume` goes on from there.
    """
    from sweeper.run import Run
    from sweeper.stopping import stop_driver

    found = Run.find(run, runs)
    stop_driver(found)
    click.echo(f"{found.name} has stopped; go on with: sweeper resume {found}")
