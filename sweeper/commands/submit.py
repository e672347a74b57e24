"""`sweeper submit`: a sweep as a Ray job."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sweeper.options import FILE, JSON, PROFILE, SET, examples
from sweeper.terminal import print_json

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

    from sweeper.run import Run


@click.command(
    epilog=examples("sweeper submit search_spaces/dirichlet.yaml --cluster cluster.yaml --profile vit-b-32")
)
@FILE
@PROFILE
@SET
@click.option(
    "--cluster",
    type=click.Path(path_type=Path),
    help="The cluster that `ray up` made from this file; by default the one whose head this is.",
)
@click.option("--runs", help="The cluster's folder or bucket for runs, in place of its SWEEPER_RUNS.")
@JSON
def command(
    *,
    file: Path,
    profile: str | None,
    overrides: tuple[str, ...],
    cluster: Path | None,
    runs: str | None,
    as_json: bool,
) -> None:
    """Run the sweep in FILE as a job of a Ray cluster.

    Its driver is on the cluster, and this machine can be closed.
    """
    from sweeper import remote, runner, spec, storage, submission

    sweep = spec.load(file, profile, overrides)
    if cluster is not None:
        there = [*(["--runs", runs] if runs is not None else []), *(["--json"] if as_json else [])]
        sys.exit(remote.submit(cluster, sweep.text(), there))
    client = submission.connect()  # before a run folder is made
    run = runner.start(sweep, storage.root(runs or os.environ.get("SWEEPER_RUNS", "runs")))
    submit(run, client, as_json=as_json)


def submit(run: Run, client: JobSubmissionClient, *, as_json: bool = False) -> None:
    from sweeper import submission

    job = submission.submit(run, client)
    if as_json:
        print_json({"run": run.name, "path": str(run), "job": job})
        return
    click.echo(f"run {run.name} goes on as Ray job {job}; sweeper logs, status, stop, pareto {run.name}")
