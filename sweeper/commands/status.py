"""`sweeper status`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from sweeper.options import CLUSTER, RUN, RUNS, examples

if TYPE_CHECKING:
    from sweeper.storage import Root


@click.command(epilog=examples("sweeper status", "sweeper status quickstart-20261124-142522"))
@RUN
@RUNS
@CLUSTER
def command(run: str | None, runs: Root) -> None:
    """Show how far a run is; list the runs."""
    from sweeper.plan import print_status
    from sweeper.run import Run

    print_status(Run.find(run, runs), Run.all(runs))
