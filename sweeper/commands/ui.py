"""`sweeper ui`."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import click

from sweeper.options import RUN, RUNS, examples

if TYPE_CHECKING:
    from sweeper.storage import Root


@click.command(epilog=examples("sweeper ui", "sweeper ui --port 5001"))
@RUN
@RUNS
@click.option("--port", default=5000, show_default=True)
def command(run: str | None, runs: Root, port: int) -> None:
    """Open MLflow's web page on a run."""
    from sweeper.redact import redacted
    from sweeper.run import Run
    from sweeper.tracking import tracking_uri

    uri = tracking_uri(Run.find(run, runs))
    if uri.startswith(("http:", "https:")):
        click.launch(redacted(uri))
        click.echo(redacted(uri))
        return
    server = [sys.executable, "-m", "mlflow", "ui", "--host", "127.0.0.1", "--port", str(port)]
    click.echo(f"MLflow on http://127.0.0.1:{port} (Ctrl-C ends it)")
    # not as an argument, which everybody on the machine can read
    own = {"MLFLOW_BACKEND_STORE_URI": uri, "MLFLOW_DISABLE_TELEMETRY": "true"}
    sys.exit(subprocess.call(server, env={**os.environ, **own}))
