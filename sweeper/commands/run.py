"""`sweeper run`, and how any verb drives a run to its end."""

from __future__ import annotations

import os
import sys
from contextlib import nullcontext, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sweeper.commands.pareto import print_front
from sweeper.commands.ui import print_links
from sweeper.errors import Exit, Obstacle, UserError
from sweeper.options import FILE, JSON, PROFILE, RUNS, SET, examples
from sweeper.terminal import print_json

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
@JSON
def command(file: Path, profile: str | None, overrides: tuple[str, ...], runs: Root, as_json: bool) -> None:
    """Run the sweep in FILE and print its Pareto set."""
    from sweeper import runner, spec

    drive(runner.start(spec.load(file, profile, overrides), runs), as_json=as_json)


def drive(run: Run, *, as_json: bool = False) -> None:
    """as_json: what a program reads is on stdout, and the course of the sweep on stderr."""
    from sweeper import runner

    try:
        with redirect_stdout(sys.stderr) if as_json else nullcontext():
            runner.drive(run)
    except KeyboardInterrupt:
        _print(run, as_json, ended=False)
        click.echo(f"interrupted; go on with: sweeper resume {run}", err=True)
        sys.exit(Exit.INTERRUPTED)
    except Obstacle as error:
        raise UserError(f"{error}; nothing is lost, go on with: sweeper resume {run}", error.page) from error
    _print(run, as_json, ended=True)


def _print(run: Run, as_json: bool, *, ended: bool) -> None:
    page, content = run.path / "report" / "index.html", run.pareto()
    if as_json:
        own = {"run": run.name, "path": str(run), "finished": ended, "page": str(page) if ended else None}
        print_json({**own, "pareto": content})
        return
    print_front(content)
    if ended:
        click.echo(f"report: {page}\nmlflow: sweeper ui {run}")
        print_links(run)


def enter(run: Run) -> None:
    """To where a run was started, so that relative paths in its sweep file mean what they meant there."""
    directory = Path(run.about["directory"])
    if directory.is_dir():
        os.chdir(directory)
