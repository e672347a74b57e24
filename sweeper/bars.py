"""Long work that a verb does by itself, as a bar, or as a few lines where nothing can be written over."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sweeper.terminal import console, is_live, percent, stamped

if TYPE_CHECKING:
    from sweeper.trainable import Trainable


@dataclass
class Sparse:
    """Says when there is something to tell: every tenth of the work, but not within `least` seconds of the
    last time, and after `most` whatever came of it. Work that is done sooner is never told of."""

    least: float = 5.0
    most: float = 30.0
    share: float = 0.0
    told: float = field(default_factory=time.monotonic)

    def due(self, share: float) -> bool:
        elapsed = time.monotonic() - self.told
        due = elapsed >= self.most or (elapsed >= self.least and share - self.share >= 0.1)
        if due:
            self.told, self.share = time.monotonic(), share
        return due


@contextmanager
def shown(trainable: Trainable) -> Iterator[None]:
    """Inside, what the trainable does in this process is shown on stderr."""
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    err = console(stderr=True)
    if is_live(err):
        columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
        with Progress(*columns, console=err, transient=True) as bars:
            bar = bars.add_task("at work", total=None)

            def update(doing: str, share: float) -> None:
                if bars.tasks[0].description != doing:
                    bars.reset(bar, total=1, description=doing)
                bars.update(bar, completed=share)

            with listened(trainable, update):
                yield
        return
    lines: dict[str, Sparse] = {}

    def tell(doing: str, share: float) -> None:
        if lines.setdefault(doing, Sparse()).due(share):
            err.print(stamped(f"{doing}, {percent(share)}"), soft_wrap=True)

    with listened(trainable, tell):
        yield


@contextmanager
def listened(trainable: Trainable, listener: Callable[[str, float], None]) -> Iterator[None]:
    trainable.listen(listener)
    try:
        yield
    finally:
        trainable.listen(None)
