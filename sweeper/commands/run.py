"""`sweeper run`, and how any verb drives a run to its end."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sweeper.commands.pareto import print_front
from sweeper.commands.ui import print_links
from sweeper.errors import Exit, Obstacle, UserError
from sweeper.options import FILE, PROFILE, RUNS, SET, examples

if TYPE_CHECKING:
    from sweeper.run import Run
    from sweeper.storage import Root


@click.command(
    epilog=examples(
        "sweeper run search_spaces/quickstart.yaml",
        "sweeper run search_spaces/dirichlet.yaml --profile vit-b-32 --set search.trials=40",
    )
)
@FILE
@PROFILE
@SET
@RUNS
def command(file: Path, profile: str | None, overrides: tuple[str, ...], runs: Root) -> None:
    """Run the sweep in FILE and print its Pareto set."""
    from sweeper import runner, spec

    drive(runner.start(spec.load(file, profile, overrides), runs))


def drive(run: Run) -> None:
    from sweeper import runner
    from sweeper.files import read_json

    try:
        runner.drive(run)
    except KeyboardInterrupt:
        print_front(run.pareto())
        click.echo(f"interrupted; go on with: sweeper resume {run}", err=True)
        sys.exit(Exit.INTERRUPTED)
    except Obstacle as error:
        raise UserError(f"{error}; nothing is lost, go on with: sweeper resume {run}", error.page) from error
    print_front(read_json(run.path / "pareto.json"))
    click.echo(f"report: {run.path / 'report' / 'index.html'}\nmlflow: sweeper ui {run}")
    print_links(run)


def enter(run: Run) -> None:
    """To where a run was started, so that relative paths in its sweep file mean what they meant there."""
    directory = Path(run.about["directory"])
    if directory.is_dir():
        os.chdir(directory)
