"""Arguments and options that several verbs of the `sweeper` command have."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sweeper import completions

if TYPE_CHECKING:
    from sweeper.storage import Root


class RootType(click.ParamType):
    """A folder of runs: a path, or an address in a bucket."""

    name = "folder"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Root:
        from sweeper import storage

        return storage.root(value)


def _forward(ctx: click.Context, _: click.Parameter, cluster: Path | None) -> None:
    """Runs the command on the cluster's head instead, and ends as it does there."""
    if cluster is None or ctx.resilient_parsing:  # as when a shell asks how a line may go on
        return
    from sweeper import remote

    arguments = iter(ctx.meta["arguments"])
    given = [each for each in arguments if each != "--cluster" or not next(arguments)]
    given = [each for each in given if not each.startswith("--cluster=")]
    ctx.exit(remote.forward(cluster, given + ["--submit"] * (given[0] == "resume")))


FILE = click.argument("file", type=click.Path(path_type=Path), shell_complete=completions.sweep_files)
RUN = click.argument("run", required=False, shell_complete=completions.runs)
RUNS = click.option(
    "--runs",
    type=RootType(),
    default="runs",
    envvar="SWEEPER_RUNS",
    show_default=True,
    show_envvar=True,
    help="Folder that holds the runs: a path, or s3://BUCKET/FOLDER.",
)
PROFILE = click.option(
    "--profile",
    help="Apply the overrides of this profile of the file.",
    shell_complete=completions.profiles,
)
SET = click.option(
    "--set", "overrides", metavar="KEY=VALUE", multiple=True, help="Override one key; may be repeated."
)
CLUSTER = click.option(
    "--cluster",
    type=click.Path(path_type=Path),
    is_eager=True,
    expose_value=False,
    callback=_forward,
    help="Do it on the head of the cluster that `ray up` made from this file; RUN and --runs are the head's.",
)
JSON = click.option("--json", "as_json", is_flag=True, help="Write JSON on stdout, and nothing else there.")


def examples(*lines: str) -> str:
    """The end of a verb's help; an example a line."""
    return "\b\nFor example:\n" + "\n".join(f"  {line}" for line in lines)
