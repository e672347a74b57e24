"""Errors a user can do something about: one line, what is missing and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'fog'?` of a name that is close to a known one, or nothing."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


class DataError(Exception):
    """Data that are not there or not as expected. page: see `sweeper.errors.UserError`."""

    page = "data.md"

    def __init__(self, message: str, page: str | None = None) -> None:
        super().__init__(message)
        if page is not None:
            self.page = page


class ModelError(Exception):
    """A model that can't be loaded."""

    page = "models.md"


class AttackError(ValueError):
    """An attack that is not there, or does not take what it is given."""

    page = "evaluation.md#attacks"


class MethodError(Exception):
    """A method that can't be used as it is written."""

    page = "your-method.md#messages"


class MetricError(Exception):
    """A metric from which something is asked that it does not have."""


class DeviceError(Exception):
    """A device that is not there."""

    page = "gpus.md"


class Diverged(Exception):
    """The loss or the model's output is not finite; the weights are of no use any more."""


class MemoryShortage(Exception):
    """A trial that needs more memory than it may use, whatever its micro-batch."""

    page = "gpus.md#memory"


EXPECTED = (AttackError, DataError, Diverged, MemoryShortage, MethodError, MetricError, ModelError)
"""What can go wrong with a trial that is no mistake of the program."""
