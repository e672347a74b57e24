"""`sweeper report`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from sweeper.options import CLUSTER, RUN, RUNS, examples

if TYPE_CHECKING:
    from sweeper.storage import Root


@click.command(epilog=examples("sweeper report", "sweeper report quickstart-20261124-142522"))
@RUN
@RUNS
@CLUSTER
def command(run: str | None, runs: Root) -> None:
    """Write the HTML report and its pictures."""
    from sweeper.report import write_report
    from sweeper.run import Run

    click.echo(write_report(Run.find(run, runs)))
