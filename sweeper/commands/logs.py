"""`sweeper logs`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from sweeper.options import CLUSTER, RUN, RUNS, examples

if TYPE_CHECKING:
    from sweeper.storage import Root


@click.command(epilog=examples("sweeper logs", "sweeper logs -f"))
@RUN
@RUNS
@click.option("-f", "--follow", is_flag=True, help="Go on until the run has ended.")
@CLUSTER
def command(run: str | None, runs: Root, follow: bool) -> None:
    """Print what a run has said so far."""
    from sweeper.run import Run
    from sweeper.status import log_lines

    for line in log_lines(Run.find(run, runs), follow=follow):
        click.echo(line, nl=False)
