"""The head of a Ray cluster: whether it answers, takes our token, and is still there."""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from collections.abc import Callable

from sweeper import pages
from sweeper.errors import UserError
from sweeper.redact import one_line

CLIENT = "ray://"
ANSWER_SECONDS = 10.0
WATCH_SECONDS, KNOCK_SECONDS, LOST_SECONDS = 1.0, 2.0, 20.0
"""Ray gives up after 60, or ends this process about a second after another head took the place."""


def reach(address: str) -> None:
    """Raises UserError within seconds unless a cluster answers at HOST:PORT, or ray://HOST:PORT, and takes
    our token. Ray itself would try for minutes, and say nothing of the token."""
    place = address.removeprefix(CLIENT)
    try:
        with knock(place, ANSWER_SECONDS):
            greet(place) if address.startswith(CLIENT) else identity(place)
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(
            f"no Ray cluster answers at RAY_ADDRESS={address}: {reason}", pages.CLUSTERS
        ) from None
    except Exception as error:
        if "token" not in str(error).lower():
            raise UserError(
                f"no Ray cluster answers at RAY_ADDRESS={address}: {one_line(error)}", pages.CLUSTERS
            ) from None
        raise UserError(refused(f"at RAY_ADDRESS={address}"), pages.CLUSTERS) from None


def refused(where: str) -> str:
    """What is said of a cluster that was started with another token."""
    return (
        f"the Ray cluster {where} refuses our token; set RAY_AUTH_MODE=token, and the token that it was "
        "started with as RAY_AUTH_TOKEN or in ~/.ray/auth_token (`ray up` copies the launching machine's)"
    )


def names_port(address: str) -> bool:
    """Whether it is HOST:PORT, or ray://HOST:PORT; Ray knows other addresses."""
    place = address.removeprefix(CLIENT)
    return "://" not in place and place.rpartition(":")[2].isdecimal()


def knock(address: str, seconds: float) -> socket.socket:
    """A connection to who listens at HOST:PORT. Raises OSError if nobody does, or not within so long."""
    host, _, port = address.rpartition(":")
    return socket.create_connection((host, int(port)), timeout=seconds)


def greet(address: str) -> None:
    """Raises TimeoutError unless who listens at HOST:PORT speaks as Ray's client server does."""
    import grpc

    with grpc.insecure_channel(address) as channel:
        try:
            grpc.channel_ready_future(channel).result(ANSWER_SECONDS)
        except grpc.FutureTimeoutError:
            raise TimeoutError(f"no answer in {ANSWER_SECONDS:g} s") from None


def identity(address: str) -> str:
    """The id of the cluster whose head answers at HOST:PORT. Raises whatever Ray does if none does."""
    from ray._raylet import GcsClient  # type: ignore[attr-defined]

    with silence:
        return str(GcsClient(address=address).cluster_id)


def nodes(address: str) -> list[dict[str, float]]:
    """What each node has of the cluster whose head answers at HOST:PORT, as Ray names it."""
    from ray._raylet import GcsClient  # type: ignore[attr-defined]
    from ray.core.generated.gcs_pb2 import GcsNodeInfo

    with silence:
        found = GcsClient(address=address).get_all_node_info(state_filter=GcsNodeInfo.GcsNodeState.ALIVE)
    return [dict(node.resources_total) for node in found.values()]


class Silence:
    """Inside, Ray's own lines, which come from outside of Python and can't be turned off, do not reach
    stderr, and Python's do. A context manager; several threads may be inside at once."""

    def __init__(self) -> None:
        self.lock, self.inside, self.kept = threading.Lock(), 0, -1

    def __enter__(self) -> None:
        with self.lock:
            self.inside += 1
            if self.inside == 1:
                self._begin()

    def __exit__(self, *_: object) -> None:
        with self.lock:
            self.inside -= 1
            if self.inside == 0:
                self._end()

    def _begin(self) -> None:
        self.kept = os.dup(2)
        self.shown = sys.stderr if sys.stderr is sys.__stderr__ else None  # another does not write to 2
        if self.shown:
            self.shown.flush()
            lines = os.fdopen(self.kept, "w", buffering=1, encoding=self.shown.encoding, closefd=False)
            sys.stderr = lines
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)

    def _end(self) -> None:
        os.dup2(self.kept, 2)
        if self.shown:
            sys.stderr = self.shown
        os.close(self.kept)


silence = Silence()


class Watch:
    """Calls `lost` when the head of the cluster `known` has ended, has been out of reach at HOST:PORT for
    `LOST_SECONDS`, or another one is there: Ray would end this process without a word that helps. A context
    manager."""

    def __init__(self, address: str, known: str, lost: Callable[[], None]) -> None:
        self.address, self.known, self.lost = address, known, lost
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._watch, name="cluster", daemon=True)

    def __enter__(self) -> Watch:
        self.thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.ended.set()
        if kind is not None and issubclass(kind, Exception) and self._gone():  # Ray found out first
            self.lost()

    def _gone(self) -> bool:
        try:
            with knock(self.address, KNOCK_SECONDS):
                return identity(self.address) != self.known
        except Exception:
            return True

    def _watch(self) -> None:
        self.seen = time.monotonic()
        while not self.ended.is_set() and time.monotonic() - self.seen < LOST_SECONDS:
            try:
                with knock(self.address, KNOCK_SECONDS) as line:
                    if identity(self.address) != self.known:
                        break
                    self._hold(line)
            except ConnectionRefusedError:  # its process has ended, and with it all that it knew
                break
            except Exception:  # out of reach; or just starting, when it listens but Ray raises several
                self.ended.wait(WATCH_SECONDS)
        if not self.ended.is_set():
            self.lost()

    def _hold(self, line: socket.socket) -> None:
        """Until the connection ends, as it does with the head's process at once: another may be there in a
        tenth of a second. Raises OSError if the head is out of reach."""
        line.settimeout(WATCH_SECONDS)
        while not self.ended.is_set():
            self.seen = time.monotonic()
            try:
                if not line.recv(1024):
                    return
            except TimeoutError:
                knock(self.address, KNOCK_SECONDS).close()
