"""`sweeper resume`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from sweeper.commands.run import drive, enter
from sweeper.commands.submit import submit as submit_run
from sweeper.options import CLUSTER, JSON, RUN, RUNS, SET, examples

if TYPE_CHECKING:
    from sweeper.storage import Root


@click.command(
    epilog=examples(
        "sweeper resume",
        "sweeper resume quickstart-20261124-142522 --trials 40",
        "sweeper resume --set search.budget.hours=12",
    )
)
@RUN
@RUNS
@click.option("--trials", type=int, help="Extend it to so many trials; short for --set search.trials=N.")
@SET
@click.option("--submit", is_flag=True, help="As a Ray job, like `sweeper submit`; so with --cluster.")
@CLUSTER
@JSON
def command(
    *,
    run: str | None,
    runs: Root,
    trials: int | None,
    overrides: tuple[str, ...],
    submit: bool,
    as_json: bool,
) -> None:
    """Go on with a run that was interrupted, or extend it.

    What can be extended is its budget, search.trials and search.budget; it goes on with the same study, and
    what it has finished stays.
    """
    from sweeper import runner, submission
    from sweeper.extend import extend
    from sweeper.run import Run

    found = Run.find(run, runs)
    client = submission.connect() if submit else None
    enter(found)
    given = overrides if trials is None else (*overrides, f"search.trials={trials}")
    found = extend(found, given) if given else found
    runner.preflight(found.spec)
    if client is not None:
        submit_run(found, client, as_json=as_json)
    else:
        drive(found, as_json=as_json)
