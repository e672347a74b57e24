"""Stopping a run from outside of the process that drives it."""

from __future__ import annotations

import os
import signal
import socket
import time

from sweeper import pages
from sweeper.errors import UserError
from sweeper.lease import told
from sweeper.run import Run


def stop_driver(run: Run) -> None:
    """Does to the process that drives a run what Ctrl-C does, and waits until it has ended. Raises UserError
    if there is none, or if it is on another host."""
    driver = run.driver()
    if driver is None:
        raise UserError(f"{run.name} is not being run; nothing to stop", pages.STORAGE)
    if driver["host"] != socket.gethostname():
        raise UserError(
            f"{run.name} is run by {told(driver)}; stop it there, with: sweeper stop {run}", pages.DRIVERS
        )
    try:
        os.kill(driver["pid"], signal.SIGINT)
    except ProcessLookupError:
        raise UserError(
            f"{run.name} is run by {told(driver)}, which can't be seen from here; stop it there",
            pages.DRIVERS,
        ) from None
    while run.driver() == driver:
        time.sleep(0.2)
