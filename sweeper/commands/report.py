"""`sweeper report`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from sweeper.options import CLUSTER, JSON, RUN, RUNS, examples
from sweeper.terminal import print_json

if TYPE_CHECKING:
    from sweeper.storage import Root


@click.command(epilog=examples("sweeper report", "sweeper report quickstart-20261124-142522"))
@RUN
@RUNS
@JSON
@CLUSTER
def command(run: str | None, runs: Root, as_json: bool) -> None:
    """Write the HTML report and its pictures."""
    from sweeper.report import write_report
    from sweeper.run import Run

    page = write_report(Run.find(run, runs))
    if as_json:
        print_json({"page": str(page), "files": sorted(map(str, page.parent.iterdir()))})
    else:
        click.echo(page)
