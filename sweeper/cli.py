"""The `sweeper` command. Its verbs are the files of `sweeper.commands`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module

import click
from click.exceptions import NoArgsIsHelpError

from sweeper.errors import EXITS, Exit, UserError
from sweeper.limits import space_needed

VERBS = {
    "Search": ("run", "plan", "resume", "stop"),
    "Look": ("status", "logs", "pareto", "compare", "leaderboard", "report", "ui"),
    "Use what was found": ("evaluate", "export", "track"),
    "Clusters": ("submit", "down"),
    "Shell": ("completion",),
}
"""By what they are for, in the order of the help."""


@contextmanager
def ended(ctx: click.Context) -> Iterator[None]:
    """Inside, what a user can mend, or has ended by Ctrl-C, ends as `EXITS` says."""
    try:
        yield
    except NoArgsIsHelpError:
        raise
    except click.UsageError as error:
        verb = (error.ctx or ctx).command_path
        click.echo(f"{verb}: {error.format_message()} `{verb} --help` says what there is.", err=True)
        ctx.exit(Exit.USER)
    except UserError as error:
        click.echo(error.told(), err=True)
        ctx.exit(Exit.USER)
    except KeyboardInterrupt:
        ctx.exit(Exit.INTERRUPTED)


class Commands(click.Group):
    """Reports errors a user can mend as they are, without a traceback. Keeps the arguments, for a verb that
    runs elsewhere."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta["arguments"] = list(args)
        with ended(ctx):
            return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> object:
        with ended(ctx), space_needed():
            return super().invoke(ctx)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title, names in VERBS.items():
            with formatter.section(title):
                formatter.write_dl([(name, self.commands[name].get_short_help_str(62)) for name in names])

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Exit codes"):
            formatter.write_dl([(str(int(code)), meaning) for code, meaning in EXITS.items()])


@click.group(
    name="sweeper",
    cls=Commands,
    subcommand_metavar="VERB [ARGUMENTS]",
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(package_name="clip-sweeper")
def main() -> None:
    """Sweeps of adversarial CLIP fine-tuning: search, compare, take the Pareto set.

    \b
    The first one, and what it is at from another shell:
      sweeper run search_spaces/quickstart.yaml
      sweeper status

    FILE is a sweep file; RUN a folder, an s3:// address or a name under --runs, the latest run when left
    out. `sweeper VERB --help` has examples.
    """


for _names in VERBS.values():
    for _name in _names:
        main.add_command(import_module(f"sweeper.commands.{_name}").command, _name)
