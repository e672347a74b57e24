"""`sweeper track`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from sweeper import pages
from sweeper.commands.ui import print_links
from sweeper.errors import UserError
from sweeper.options import CLUSTER, JSON, RUN, RUNS, examples
from sweeper.terminal import print_json

if TYPE_CHECKING:
    from sweeper.storage import Root


@click.command(epilog=examples("MLFLOW_TRACKING_URI=https://mlflow.example.org sweeper track"))
@RUN
@RUNS
@JSON
@CLUSTER
def command(run: str | None, runs: Root, as_json: bool) -> None:
    """Deliver to MLflow what it does not have yet."""
    from sweeper.redact import redacted
    from sweeper.run import Run
    from sweeper.tracking import Mirror, trouble

    found = Run.find(run, runs)
    try:
        mirror = Mirror(found)
        mirror.deliver()
    except Exception as error:  # whatever a server or its client raises
        raise UserError(trouble(found, error), pages.MLFLOW) from error
    if as_json:
        sent = mirror.ids
        parent = sent.pop("", None)
        print_json({"tracking_uri": redacted(mirror.uri), "parent": parent, "trials": sent})
    else:
        print_links(found)
