"""`sweeper leaderboard`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from sweeper import completions
from sweeper.options import CLUSTER, JSON, RUNS, examples
from sweeper.terminal import console, print_json

if TYPE_CHECKING:
    from sweeper.storage import Root
    from sweeper.trial import Split


@click.command(
    epilog=examples(
        "sweeper leaderboard tecoa-20261124-142522",
        "sweeper leaderboard evaluations --suite shifts --metric clean_accuracy --to leaderboard",
        "sweeper leaderboard RUN model_info/cifar10/Linf benchmark.csv --metric cifar10.robust_accuracy",
    )
)
@click.argument("places", metavar="RUN|FOLDER|FILE...", nargs=-1, shell_complete=completions.results)
@RUNS
@click.option(
    "--suite",
    "suites",
    metavar="NAME",
    multiple=True,
    shell_complete=completions.suites,
    help="A table of this suite, group of sets or set; may be repeated. All by default.",
)
@click.option(
    "--metric",
    "metrics",
    metavar="NAME",
    multiple=True,
    help="A column, in place of those that a suite shows; as SUITE.NAME of one alone. May be repeated.",
)
@click.option(
    "--split",
    type=click.Choice(["test", "validation"]),
    help="Whose images count; by default all, and of runs the test images.",
)
@JSON
@click.option(
    "--to",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for leaderboard.html, .md, .tex and .csv.",
)
@CLUSTER
def command(
    *,
    places: tuple[str, ...],
    runs: Root,
    suites: tuple[str, ...],
    metrics: tuple[str, ...],
    split: Split | None,
    as_json: bool,
    to: Path | None,
) -> None:
    """Rank models by suite, with ties within noise.

    A RUN is shown by its Pareto set and untrained model, and by what `sweeper evaluate` measured in it. A
    FOLDER is what `sweeper evaluate --to` wrote, or holds records of clip_benchmark or RobustBench, as a FILE
    does; these are marked, and have no rank.
    """
    from sweeper.leaderboard import leaderboard
    from sweeper.measured import find
    from sweeper.standing import tables

    content = leaderboard(find(places, runs, split), suites, metrics)
    written = []
    if to is not None:
        from sweeper.report.leaderboard import write

        written = write(content, to)
    if as_json:
        print_json(content)
        return
    console().print(tables(content))
    for file in written:
        click.echo(f"written to {file}")
