"""`sweeper track`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from sweeper.errors import UserError
from sweeper.options import CLUSTER, RUN, RUNS, examples

if TYPE_CHECKING:
    from sweeper.storage import Root


@click.command(epilog=examples("MLFLOW_TRACKING_URI=https://mlflow.example.org sweeper track"))
@RUN
@RUNS
@CLUSTER
def command(run: str | None, runs: Root) -> None:
    """Deliver to MLflow what it does not have yet."""
    from sweeper.run import Run
    from sweeper.tracking import Mirror, trouble

    found = Run.find(run, runs)
    try:
        Mirror(found).deliver()
    except Exception as error:  # whatever a server or its client raises
        raise UserError(trouble(found, error)) from error
