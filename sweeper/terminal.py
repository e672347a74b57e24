"""What is written to a terminal, a file or another program, and how much of a terminal it is."""

from __future__ import annotations

import json
import math
import os
import sys
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.console import Console


def console(*, stderr: bool = False, quiet: bool = False) -> Console:
    """For tables and lines. Colours follow the terminal, NO_COLOR and FORCE_COLOR; brackets in a text are no
    markup."""
    from rich.console import Console

    return Console(  # a notebook would get a block of HTML for each line
        stderr=stderr, quiet=quiet, markup=False, highlight=False, emoji=False, force_jupyter=False
    )


def is_live(shown: Console) -> bool:
    """Whether what was written can be written over: on a terminal that can do it, and that somebody looks at.
    Not in CI, whose log keeps every frame, whatever FORCE_COLOR says."""
    stream = sys.stderr if shown.stderr else sys.stdout
    watched = os.environ.get("CI", "").lower() in ("", "0", "false")
    return watched and stream.isatty() and shown.is_terminal and shown.is_interactive


def stamped(line: str) -> str:
    """A line of a log, with the time of day."""
    return f"{datetime.now():%H:%M:%S} {line}"


def duration(seconds: float) -> str:
    """As `50 s`, `34 min`, `2 h 14 min`, `3 d 4 h`."""
    minutes, hours = round(seconds / 60), round(seconds / 3600)
    if seconds < 59.5:
        return f"{seconds:.0f} s"
    if minutes < 60:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min" if hours < 24 else f"{hours // 24} d {hours % 24} h"


def amount(number: float, what: str) -> str:
    """As `12 models`, `1 model`, `0.5 CPUs`; `what` is one of them."""
    shown = f"{number:g}" if number % 1 else f"{number:.0f}"
    return f"{shown} {what}{'' if number == 1 else 's'}"


def percent(share: float) -> str:
    """As `34 %`; not all before it is."""
    return f"{math.floor(100 * share)} %"


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
