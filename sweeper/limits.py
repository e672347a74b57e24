"""What ends a worker's job before its time: an epoch that takes too long, a full disk."""

from __future__ import annotations

import errno
import faulthandler
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from sweeper import pages
from sweeper.errors import UserError

if TYPE_CHECKING:
    from sweeper.run import Run

FULL = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def at_most(minutes: float, trace: Path) -> Iterator[None]:
    """Inside, this process ends after so many minutes, whatever it hangs in, and leaves in `trace` where each
    of its threads was. Ray then takes it for lost."""
    trace.parent.mkdir(parents=True, exist_ok=True)
    with open(trace, "w", encoding="utf-8") as file:
        faulthandler.dump_traceback_later(minutes * 60, exit=True, file=file)
        try:
            yield
        finally:
            faulthandler.cancel_dump_traceback_later()
            trace.unlink(missing_ok=True)


def was_stuck(trace: Path) -> bool:
    """Whether the last process that was given this file was ended by `at_most`."""
    return trace.is_file() and trace.stat().st_size > 0


def full_disk(error: BaseException | None) -> OSError | None:
    """The error of a full disk, or of a quota that is used up, that an error comes from, if it does."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in FULL:
            return error
        error = error.__cause__ or error.__context__
    return None


def no_space(run: Run, reason: str) -> UserError:
    return UserError(
        f"no space is left for {run.path}: {reason}; what was finished is there. Make space, and go on with: "
        f"sweeper resume {run}",
        pages.FAILURES,
    )


@contextmanager
def space_needed(run: Run | None = None) -> Iterator[None]:
    """Inside, a full disk is an error that a user can mend. run: which goes on when there is space again."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        full = full_disk(error)
        if full is None:
            raise
        if run is None:
            raise UserError(
                f"no space is left for what this writes: {full}; make space", pages.FAILURES
            ) from error
        raise no_space(run, str(full)) from error
