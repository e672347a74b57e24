"""Who drives a run in a bucket, where files can't be locked: a claim that is renewed as long as it is meant.

A driver writes an object of its own and then looks for others'. A list has all that was written before it (S3
keeps that since 2020), so of two drivers at least one sees the other, and who sees another withdraws: two at
the same moment may both withdraw, and try again, but never do both go on. Writing on a condition, which not
every server knows, is not needed. A claim that was not renewed for `STALE` seconds is void, and taken away.
"""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from sweeper import pages
from sweeper.errors import UserError
from sweeper.objects import Object, Objects, StorageError

FOLDER = "driver"
EVERY = 15.0  # seconds between renewals
LATE = 45.0  # seconds without one, after which a driver looks whether another took over
STALE = 60.0
ROUNDS = 5

Who = dict[str, Any]
"""`pid`, `host`, `started` and, of no driver twice, `token`."""


def told(who: Who) -> str:
    return f"pid {who.get('pid', '?')} on {who.get('host', '?')}, started {who.get('started', '?')}"


def holder(objects: Objects) -> Who | None:
    """Who drives the run now, by this host's clock; None if nobody does."""
    live = [claim for claim in objects.listed(FOLDER) if time.time() - claim.changed < STALE]
    return read(objects, live[0]) if live else None


def read(objects: Objects, claim: Object) -> Who:
    """Empty if it was withdrawn meanwhile."""
    return dict(json.loads(objects.read(claim.name) or b"{}"))


class Lease:
    """The claim of one driver. A context manager that holds it. Entering raises UserError if another does.

    dead: the token of a driver that is known to be gone, although its claim may be fresh.  meanwhile: what is
    to be done with every renewal.
    """

    def __init__(self, objects: Objects, who: Who, dead: str | None, meanwhile: Callable[[], None]) -> None:
        self.objects, self.who, self.meanwhile = objects, who, meanwhile
        self.name, self.dead = claim_name(who["token"]), claim_name(dead or "")
        self.renewed = float("-inf")
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._loop, name="lease", daemon=True)

    def __enter__(self) -> Lease:
        for _ in range(ROUNDS):
            self._refuse(self._others(time.time()))  # before it claims: who is refused disturbs nobody
            self._renew()
            if not self._others():
                self.thread.start()
                return self
            self.objects.delete(self.name)
            time.sleep(random.uniform(0.1, 2.0))
        raise UserError(
            f"{self.objects.url} is being claimed by several processes at once; try again", pages.DRIVERS
        )

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        self.thread.join()
        with suppress(StorageError):  # it becomes void by itself
            self.objects.delete(self.name)

    def check(self) -> None:
        """Raises StorageError if another driver took over, as it may when this one was not heard of. To be
        called before anything is written."""
        if clock() - self.renewed > LATE:
            self._renew()
            if others := self._others():
                raise StorageError(
                    f"{self.objects.url}: {told(read(self.objects, others[0]))}, took the run over, as "
                    f"this process was not heard of for more than {STALE:.0f} seconds"
                )

    def _refuse(self, others: list[Object]) -> None:
        if others:
            age = max(0.0, time.time() - others[0].changed)
            raise UserError(
                f"{self.objects.url} is being run by another process ({told(read(self.objects, others[0]))}; "
                f"heard of {age:.0f} seconds ago); stop that one first, or if it is gone, wait until it was "
                f"silent for {STALE:.0f} seconds",
                pages.DRIVERS,
            )

    def _renew(self) -> None:
        asked = clock()
        self.objects.write(self.name, json.dumps(self.who).encode())
        self.renewed = asked

    def _others(self, now: float | None = None) -> list[Object]:
        """Claims of others that are not void. now: by the server's clock if None, which says when the own
        claim was written; void ones are then taken away."""
        claims = {claim.name: claim for claim in self.objects.listed(FOLDER)}
        own = claims.pop(self.name, None)
        time_there = now if now is not None else own.changed if own else time.time()
        void = [
            claim
            for claim in claims.values()
            if claim.name == self.dead or time_there - claim.changed >= STALE
        ]
        if now is None:
            for claim in void:
                self.objects.delete(claim.name)
        return [claim for claim in claims.values() if claim not in void]

    def _loop(self) -> None:
        while not self.ended.wait(EVERY):
            # what can't be renewed, whatever the reason, becomes late, and whoever writes next says why
            with suppress(Exception):
                self.check()
                self._renew()
                self.meanwhile()


def claim_name(token: str) -> str:
    return f"{FOLDER}/{token}.json"


def clock() -> float:
    """Seconds, those in which the host was suspended included."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
