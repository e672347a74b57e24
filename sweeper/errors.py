"""Errors a user can do something about: one line each, exit code 2, no traceback."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from enum import IntEnum

from sweeper import pages


class Exit(IntEnum):
    """What the `sweeper` command ends with."""

    DONE = 0
    FAILED = 1
    USER = 2
    LOST = 3
    INTERRUPTED = 130


EXITS = {
    Exit.DONE: "Done.",
    Exit.FAILED: "A check of `evaluate --sanity` failed; with a traceback: a mistake of the program.",
    Exit.USER: "Something to mend, said in a line on stderr; what was finished is kept.",
    Exit.LOST: "The Ray cluster was lost; `sweeper resume` goes on.",
    Exit.INTERRUPTED: "Ended by Ctrl-C, SIGTERM or `sweeper stop`; `sweeper resume` goes on.",
}
"""What each of them says."""


class UserError(Exception):
    """One line: what, where, what was expected, what to do.

    page: of the documentation, that says more: a file under docs/, with #SECTION. Empty if there is none.
    """

    page = ""

    def __init__(self, message: str, page: str | None = None) -> None:
        super().__init__(message)
        if page is not None:
            self.page = page

    def told(self) -> str:
        """What is shown of it: the message, and where to read on."""
        return f"{self} (see docs/{self.page})" if self.page else str(self)

    def _render_traceback_(self) -> list[str]:
        """What notebooks and IPython show of it: the line alone."""
        return [f"{type(self).__name__}: {self.told()}"]


class Obstacle(UserError):
    """What a sweep can't go on for, through no fault of a trial; it loses nothing and can be resumed."""


class Line(str):
    """What is wrong, with the page that says more of it; empty if that is the sweep file's."""

    page: str

    def __new__(cls, text: str, page: str) -> Line:
        line = super().__new__(cls, text)
        line.page = page
        return line


class SpecError(UserError):
    """All that is wrong with a sweep file, one line per mistake.

    page: where no `Line` has one of its own, or several have different ones.
    """

    page = pages.SWEEP_FILE

    def __init__(self, lines: Sequence[str], page: str | None = None) -> None:
        own = {getattr(line, "page", "") for line in lines}
        super().__init__("\n".join(lines), page if own == {""} or len(own) > 1 else own.pop())
        self.lines = list(lines)


def suggestion(wrong: str, known: Iterable[str]) -> str:
    """`; did you mean 'epsilon'?` if something known is close, else what is known."""
    known = sorted(name for name in known if name != wrong)
    return near(wrong, known) or one_of(known)


def one_of(known: Sequence[str]) -> str:
    """`; expected one of epochs, trials`, in the order given; empty if there are none."""
    return f"; expected one of {', '.join(known)}" if known else ""


def near(wrong: str, known: Iterable[str]) -> str:
    """As `suggestion`, but empty if nothing is close: of names too many to list."""
    known = sorted(name for name in known if name != wrong)
    longer = [name for name in known if len(wrong) > 2 and name.startswith(wrong)]
    close = longer or difflib.get_close_matches(wrong, known, n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else ""
