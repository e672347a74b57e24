"""`sweeper export`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from sweeper import completions
from sweeper.options import CLUSTER, JSON, RUN, RUNS, examples
from sweeper.terminal import print_json

if TYPE_CHECKING:
    from sweeper.storage import Root


@click.command(
    epilog=examples(
        "sweeper export",
        "sweeper export --trial t003@5 --to models --register robust-clip",
    )
)
@RUN
@RUNS
@click.option(
    "--trial",
    "trials",
    metavar="ID",
    multiple=True,
    help="As t003@5, t003; the Pareto set by default.",
    shell_complete=completions.kept_trials,
)
@click.option(
    "--to", type=click.Path(path_type=Path), help="Folder for the models' folders; RUN/exports by default."
)
@click.option("--register", "name", help="Also register them in MLflow's model registry, under this name.")
@JSON
@CLUSTER
def command(
    *,
    run: str | None,
    runs: Root,
    trials: tuple[str, ...],
    to: Path | None,
    name: str | None,
    as_json: bool,
) -> None:
    """Write models as folders that open_clip loads.

    Each has a model card: configuration, data, attacks, metrics with intervals, licence.
    """
    from sweeper.export import exported
    from sweeper.run import Run

    def say(line: str) -> None:
        click.echo(line, err=as_json)

    found, written = Run.find(run, runs), []
    for point, folder in exported(found, trials, to):
        say(f"{point.id}: {folder}")
        model = None
        if name is not None:
            from sweeper.registry import register

            model = register(found, point, folder, name)
            say(f"{point.id}: {model}")
        written.append({"id": point.id, "folder": str(folder.absolute()), "model": model})
    if as_json:
        print_json(written)
