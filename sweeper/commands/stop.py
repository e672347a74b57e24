"""`sweeper stop`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from sweeper.options import CLUSTER, JSON, RUN, RUNS, examples
from sweeper.terminal import print_json

if TYPE_CHECKING:
    from sweeper.storage import Root


@click.command(epilog=examples("sweeper stop", "sweeper stop quickstart-20261124-142522"))
@RUN
@RUNS
@JSON
@CLUSTER
def command(run: str | None, runs: Root, as_json: bool) -> None:
    """Stop a run that goes on, as Ctrl-C would.

    What it has finished stays, and `sweeper resume` goes on from there.
    """
    from sweeper.run import Run
    from sweeper.stopping import stop_driver

    found = Run.find(run, runs)
    stop_driver(found)
    go_on = f"sweeper resume {found}"
    if as_json:
        print_json({"run": found.name, "path": str(found), "resume": go_on})
    else:
        click.echo(f"{found.name} has stopped; go on with: {go_on}")
