"""Errors a user can do something about: one line, what is missing and what to do."""

from __future__ import annotations


class DataError(Exception):
    """Data that are not there or not as expected."""


class ModelError(Exception):
    """A model that can't be loaded."""


class AttackError(ValueError):
    """An attack that is not there, or does not take what it is given."""


class MetricError(Exception):
    """A metric from which something is asked that it does not have."""


class DeviceError(Exception):
    """A device that is not there."""


class Diverged(Exception):
    """The loss or the model's output is not finite; the weights are of no use any more."""


class MemoryShortage(Exception):
    """A trial that needs more memory than it may use, whatever its micro-batch."""


EXPECTED = (AttackError, DataError, Diverged, MemoryShortage, MetricError, ModelError)
"""What can go wrong with a trial that is no mistake of the program."""
