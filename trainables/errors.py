"""Errors a user can do something about: one line, what is missing and what to do."""

from __future__ import annotations


class DataError(Exception):
    """Data that are not there or not as expected."""


class ModelError(Exception):
    """A model that can't be loaded."""
