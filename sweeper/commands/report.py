"""`sweeper report`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from sweeper.errors import UserError
from sweeper.options import CLUSTER, JSON, RUN, RUNS, examples
from sweeper.terminal import print_json

if TYPE_CHECKING:
    from sweeper.report.files import Wish
    from sweeper.run import Run
    from sweeper.storage import Root


@click.command(
    epilog=examples(
        "sweeper report",
        "sweeper report --figure front --format pdf",
        "sweeper report --table latex --to front.tex",
    )
)
@RUN
@RUNS
@click.option(
    "--figure",
    "figures",
    metavar="NAME",
    multiple=True,
    help="Write a figure as a file instead: front, reliability, importance, ... as below each in the report.",
)
@click.option(
    "--format",
    "formats",
    type=click.Choice(["pdf", "svg", "png", "html"]),
    multiple=True,
    help="Of figures, pdf by default; without --figure all of them.",
)
@click.option(
    "--table", type=click.Choice(["latex", "markdown", "csv"]), help="Print the Pareto set instead."
)
@click.option(
    "--stage",
    type=click.Choice(["search", "final", "test"]),
    help="Whose numbers: of figures the search's by default, of tables the last's.",
)
@click.option(
    "--trial",
    "trials",
    metavar="ID",
    multiple=True,
    help="The models in figures with a row for each: t003@5, t003, baseline.",
)
@click.option(
    "--to", type=click.Path(path_type=Path), help="Folder, or file for one; RUN/report/figures by default."
)
@JSON
@CLUSTER
def command(
    *,
    run: str | None,
    runs: Root,
    figures: tuple[str, ...],
    formats: tuple[str, ...],
    table: str | None,
    stage: str | None,
    trials: tuple[str, ...],
    to: Path | None,
    as_json: bool,
) -> None:
    """Write the HTML report; or its figures and tables, for papers."""
    from sweeper.report import write_report
    from sweeper.report.files import Wish, write_table
    from sweeper.run import Run

    found = Run.find(run, runs)
    if table is not None:
        if figures or formats or trials or as_json:
            raise UserError("--table goes with --stage and --to alone; ask for figures by themselves")
        click.echo(write_table(found, table, stage, to), nl=to is not None)
        return
    if figures or formats:
        _figures(found, Wish(figures, formats, stage, trials, to), as_json)
        return
    if stage or trials or to:
        raise UserError("--stage, --trial and --to go with --figure NAME, --format or --table")
    page = write_report(found)
    if as_json:
        print_json({"page": str(page), "files": sorted(map(str, page.parent.iterdir()))})
    else:
        click.echo(page)


def _figures(run: Run, wish: Wish, as_json: bool) -> None:
    from sweeper.report.files import write_figures

    written = []
    for file, caption in write_figures(run, wish):
        written.append(str(file))
        if not as_json:
            click.echo(f"{file}\n    {caption}")
    if as_json:
        print_json({"files": written})
