"""How far the long work of this process is, for whoever wants to show it.

    with named("decoding digits"):
        for index, chunk in enumerate(chunks):
            ...
            report(index + 1, len(chunks))

Nothing happens unless somebody listens. A listener is told at every step of a training, so it has to return
at once: it puts aside what it is told, and shows it from elsewhere. Work inside of work has its own name, or
as `part` is a share of the work around it. One piece of work at a time: threads don't report.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")
Listener = Callable[[str, float], None]
"""Is told what is being done and which share of it, in [0, 1], is."""

TRAINING, MEASURING = "training", "measuring"
"""What an epoch consists of; everything else comes before the first."""


@dataclass
class Work:
    """What reports are about: the share from `low` to `high` of something. at: the last that was told."""

    name: str
    low: float = 0.0
    high: float = 1.0
    at: float = 0.0


_listener: Listener | None = None
_works: list[Work] = []
"""The innermost last."""


def listen(listener: Listener | None) -> None:
    """From now on the listener is told, in place of any other; nobody for None."""
    global _listener  # noqa: PLW0603
    _listener = listener


def report(done: int, total: int) -> None:
    """So much of the innermost work is done."""
    if _listener is None or not _works:
        return
    work = _works[-1]
    work.at = work.low + (work.high - work.low) * min(done / max(total, 1), 1)
    _listener(work.name, work.at)


@contextmanager
def named(name: str) -> Iterator[None]:
    """Inside, reports are about this; afterwards about the work around it again."""
    with _inside(Work(name)):
        report(0, 1)
        yield


@contextmanager
def part(start: int, stop: int, total: int) -> Iterator[None]:
    """Inside, reports are about the share from `start` to `stop` of the work around it."""
    if not _works:
        yield
        return
    around = _works[-1]
    each = (around.high - around.low) / max(total, 1)
    low, high = (around.low + each * min(end, total) for end in (start, stop))
    with _inside(Work(around.name, low, high, at=low)):
        yield
        around.at = high


@contextmanager
def _inside(work: Work) -> Iterator[None]:
    _works.append(work)
    try:
        yield
    finally:
        _works.pop()
        if _listener is not None and _works:
            _listener(_works[-1].name, _works[-1].at)


def counted(items: Sequence[T]) -> Iterator[T]:
    """The items, each reported as done when the next is asked for."""
    for index, item in enumerate(items):
        yield item
        report(index + 1, len(items))
