"""`sweeper status`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from sweeper.options import CLUSTER, JSON, RUN, RUNS, examples
from sweeper.terminal import console, print_json

if TYPE_CHECKING:
    from sweeper.storage import Root


@click.command(
    epilog=examples(
        "sweeper status",
        "sweeper status quickstart-20261124-142522 --watch",
        "sweeper status --json | jq .trials",
    )
)
@RUN
@RUNS
@click.option("--watch", "live", is_flag=True, help="Go on until nobody drives the run.")
@JSON
@CLUSTER
def command(run: str | None, runs: Root, live: bool, as_json: bool) -> None:
    """Show how far a run is; list the runs.

    While it goes on: what runs, how far, how fast, and the front so far. It needs no more than the run's
    folder, so it works from another shell, or another host.
    """
    from sweeper.run import Run
    from sweeper.status import Looker, print_status, watch
    from sweeper.status import as_json as status_json

    found = Run.find(run, runs)
    if live:
        watch(console(), found)
    status, others = Looker(found).look(whole=as_json), Run.all(runs)
    if as_json:
        print_json(status_json(status, others))
    else:
        print_status(console(), status, others)
