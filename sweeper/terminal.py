"""What is written to a terminal, a file or another program, and how much of a terminal it is."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.console import Console


def console(*, stderr: bool = False) -> Console:
    """For tables and lines. Colours follow the terminal, NO_COLOR and FORCE_COLOR; brackets in a text are no
    markup."""
    from rich.console import Console

    return Console(stderr=stderr, markup=False, highlight=False, emoji=False)


def print_json(value: Any) -> None:
    """On stdout, for programs: strict JSON, in which a number that is not finite is null."""
    click.echo(json.dumps(strict(value), indent=1, allow_nan=False))


def strict(value: Any) -> Any:
    """The value without numbers that JSON does not know."""
    if isinstance(value, dict):
        return {key: strict(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [strict(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
