"""Deliveries to MLflow in the background of a sweep."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType

from sweeper.redact import redacted
from sweeper.run import Run
from sweeper.tracking.mirror import Mirror
from sweeper.tracking.server import tracking_uri, trouble

EVERY_SECONDS, AT_MOST_SECONDS = 5.0, 60.0
"""Between deliveries; of a server that is away, longer each time."""


class Tracker:
    """Delivers in the background while a sweep runs, and once more at its end. A context manager.

    A server that is away costs the sweep nothing: what it misses is delivered by the next attempt.
    say: shows the user a line.
    """

    def __init__(self, run: Run, say: Callable[[str], None]) -> None:
        self.run, self.say = run, say
        self.enabled = run.spec.file.tracking.mlflow
        self.wake, self.stop = threading.Event(), threading.Event()
        self.thread = threading.Thread(target=self._loop, name="mlflow", daemon=True)
        self.mirror: Mirror | None = None
        self.error: Exception | None = None
        self.pause = EVERY_SECONDS

    def __enter__(self) -> Tracker:
        if self.enabled:
            self.thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self.enabled:
            return
        self.stop.set()
        self.wake.set()
        self.thread.join()
        self._deliver()
        if self.error is not None:
            self.say(
                f"{trouble(self.run, self.error)} and lacks a part; nothing is lost, deliver it later with: "
                f"sweeper track {self.run}"
            )

    def notify(self) -> None:
        """Something new is in the run folder."""
        self.wake.set()

    def _loop(self) -> None:
        while not self.stop.is_set():
            before = self.error
            self._deliver()
            if self.error is not None and before is None:
                self.say(
                    f"{trouble(self.run, self.error)}; the sweep goes on, and what MLflow misses is "
                    "delivered when it answers"
                )
            if self.error is None and before is not None:
                server = redacted(tracking_uri(self.run))
                self.say(f"MLflow at {server} answers again and has all that it missed")
            if self.error is None:
                self.wake.wait()
                self.wake.clear()
            self.stop.wait(self.pause)

    def _deliver(self) -> None:
        try:
            self.mirror = self.mirror or Mirror(self.run)
            self.mirror.deliver()
            self.error, self.pause = None, EVERY_SECONDS
        except Exception as error:  # whatever a server or its client raises must not end the sweep
            self.mirror, self.error = None, error
            self.pause = min(2 * self.pause, AT_MOST_SECONDS)
