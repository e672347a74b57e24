"""`sweeper ui`."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import click

from sweeper.options import RUN, RUNS, examples

if TYPE_CHECKING:
    from sweeper.run import Run
    from sweeper.storage import Root


@click.command(epilog=examples("sweeper ui", "sweeper ui --port 5001"))
@RUN
@RUNS
@click.option("--port", default=5000, show_default=True)
def command(run: str | None, runs: Root, port: int) -> None:
    """Open MLflow's web page on a run."""
    from sweeper.redact import redacted
    from sweeper.run import Run
    from sweeper.tracking.server import is_server, tracking_uri

    found = Run.find(run, runs)
    uri = tracking_uri(found)
    if is_server(uri):
        click.launch(redacted(uri))
        click.echo(redacted(uri))
        print_links(found)
        return
    server = [sys.executable, "-m", "mlflow", "ui", "--host", "127.0.0.1", "--port", str(port)]
    server += ["--workers", "1"]  # of four, each takes seconds to start
    click.echo(f"MLflow on http://127.0.0.1:{port} (Ctrl-C ends it)")
    print_links(found, port=port)
    # not as an argument, which everybody on the machine can read
    own = {"MLFLOW_BACKEND_STORE_URI": uri, "MLFLOW_DISABLE_TELEMETRY": "true"}
    own["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"  # several processes, for what no sweep has
    sys.exit(subprocess.call(server, env={**os.environ, **own}))


def print_links(run: Run, **own: int) -> None:
    """Where on MLflow's page the front is. own: a port that is not the default."""
    from sweeper.tracking.links import lines

    for line in lines(run, **own):
        click.echo(line)
