"""`sweeper compare`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from sweeper import completions
from sweeper.options import CLUSTER, JSON, RUNS, examples
from sweeper.terminal import console, print_json

if TYPE_CHECKING:
    from sweeper.storage import Root


@click.command(
    epilog=examples(
        "sweeper compare tecoa-20261124-142522 dirichlet-20261125-091500",
        "sweeper compare A B --metrics 'clean_accuracy,minimize clean_nll' --stage test --to joint.html",
    )
)
@click.argument("names", metavar="RUN RUN...", nargs=-1, shell_complete=completions.runs)
@RUNS
@click.option(
    "--metrics",
    metavar="NAME,NAME",
    help="Compare by these objectives, in place of the runs' own; of another metric say 'minimize NAME'.",
)
@click.option(
    "--stage",
    type=click.Choice(["search", "final", "test"]),
    help="Whose numbers; final's by default if there are any of all candidates.",
)
@JSON
@click.option("--csv", "as_csv", is_flag=True, help="Write CSV: every model, full precision.")
@click.option(
    "--to",
    type=click.Path(path_type=Path),
    help="Write also a page, FILE.html, or the joint front for a paper: FILE.pdf, .svg, .png.",
)
@CLUSTER
def command(
    *,
    names: tuple[str, ...],
    runs: Root,
    metrics: str | None,
    stage: str | None,
    as_json: bool,
    as_csv: bool,
    to: Path | None,
) -> None:
    """Compare runs: joint front, contributions, hypervolume gained."""
    from sweeper import compare
    from sweeper.report.files import stage_named
    from sweeper.run import Run

    found = [Run.find(name, runs) for name in names]
    asked = None if stage is None else stage_named(stage)
    content = compare.compare(found, metrics.split(",") if metrics else (), asked)
    if to is not None:
        from sweeper.report.compare import write_comparison

        write_comparison(content, to)
    if as_json:
        print_json(content)
    elif as_csv:
        click.echo(compare.to_csv(content), nl=False)
    else:
        console().print(compare.compare_table(content))
        if to is not None:
            click.echo(f"written to {to}")
