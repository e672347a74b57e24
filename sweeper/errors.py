"""Errors a user can do something about: one line each, exit code 2, no traceback."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


class UserError(Exception):
    """One line: what, where, what was expected, what to do."""

    def _render_traceback_(self) -> list[str]:
        """What notebooks and IPython show of it: the line alone."""
        return [f"{type(self).__name__}: {self}"]


class Obstacle(UserError):
    """What a sweep can't go on for, through no fault of a trial; it loses nothing and can be resumed."""


class SpecError(UserError):
    """All that is wrong with a sweep file, one line per mistake."""

    def __init__(self, lines: Sequence[str]) -> None:
        super().__init__("\n".join(lines))
        self.lines = list(lines)


def suggestion(wrong: str, known: Iterable[str]) -> str:
    """`; did you mean 'epsilon'?` if something known is close, else what is known."""
    known = sorted(name for name in known if name != wrong)
    return near(wrong, known) or (f"; expected one of {', '.join(known)}" if known else "")


def near(wrong: str, known: Iterable[str]) -> str:
    """As `suggestion`, but empty if nothing is close: of names too many to list."""
    known = sorted(name for name in known if name != wrong)
    longer = [name for name in known if len(wrong) > 2 and name.startswith(wrong)]
    close = longer or difflib.get_close_matches(wrong, known, n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else ""
