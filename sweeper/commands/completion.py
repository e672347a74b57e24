"""`sweeper completion`."""

from __future__ import annotations

import click

from sweeper.options import examples


@click.command(
    epilog=examples(
        'eval "$(sweeper completion bash)"                         # in ~/.bashrc',
        'eval "$(sweeper completion zsh)"                          # in ~/.zshrc',
        "sweeper completion fish > ~/.config/fish/completions/sweeper.fish",
    )
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def command(shell: str) -> None:
    """Print what makes a shell complete what is typed.

    Verbs, options, sweep files and their profiles, runs, trials.
    """
    from click.shell_completion import get_completion_class

    from sweeper.cli import main

    found = get_completion_class(shell)
    assert found is not None
    click.echo(found(main, {}, "sweeper", "_SWEEPER_COMPLETE").source())
    if shell == "bash":
        click.echo("# t003@5 is one word\nCOMP_WORDBREAKS=${COMP_WORDBREAKS//@/}")
