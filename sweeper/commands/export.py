"""`sweeper export`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from sweeper.options import CLUSTER, RUN, RUNS, examples

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
    "--trial", "trials", metavar="ID", multiple=True, help="As t003@5, t003; the Pareto set by default."
)
@click.option(
    "--to", type=click.Path(path_type=Path), help="Folder for the models' folders; RUN/exports by default."
)
@click.option("--register", "name", help="Also register them in MLflow's model registry, under this name.")
@CLUSTER
def command(run: str | None, runs: Root, trials: tuple[str, ...], to: Path | None, name: str | None) -> None:
    """Write models as folders that open_clip loads.

    Each has a model card: configuration, data, attacks, metrics with intervals, licence.
    """
    from sweeper.export import exported
    from sweeper.run import Run

    found = Run.find(run, runs)
    for point, folder in exported(found, trials, to):
        click.echo(f"{point.id}: {folder}")
        if name is not None:
            from sweeper.registry import register

            click.echo(f"{point.id}: {register(found, point, folder, name)}")
