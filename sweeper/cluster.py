"""The Ray cluster that a sweep runs on: connecting, and what fits on it."""

from __future__ import annotations

import logging
import os
import secrets
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import cached_property
from pathlib import Path
from typing import Any

from sweeper import capacity
from sweeper.capacity import Capacity
from sweeper.errors import UserError
from sweeper.redact import one_line
from sweeper.spec import Resources

# Read by Ray when it is imported; what a user has set stays.
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_SCHEDULER_EVENTS": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # relative paths mean the same in workers as here
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # a measurement reports no metric of a trial
    "TUNE_GLOBAL_CHECKPOINT_S": "inf",  # we never restore Tune's snapshots, which grow with the trials
    "RAY_py_gcs_connect_timeout_s": "10",  # for a head that listens and does not answer
}

REFUSED = (
    "the cluster refuses this machine's token: ~/.ray/auth_token here is not the one it was started with; "
    "`ray up` hands out the launching machine's"
)
PATIENCE = 20 * 60  # seconds for the first node that can hold a trial
LOOK = 2  # seconds

CLIENT = "ray://"
ANSWER_SECONDS = 10.0
WATCH_SECONDS, LOST_SECONDS = 2.0, 20.0
"""Ray gives up after 60."""


def reach(address: str) -> None:
    """Raises UserError within seconds unless a cluster answers at HOST:PORT, or ray://HOST:PORT, and takes
    our token. Ray itself would try for minutes, and say nothing of the token."""
    try:
        knock(address.removeprefix(CLIENT), ANSWER_SECONDS)
        if not address.startswith(CLIENT):
            identity(address)
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(f"no Ray cluster answers at RAY_ADDRESS={address}: {reason}") from None
    except Exception as error:
        if "token" not in str(error).lower():
            raise UserError(f"no Ray cluster answers at RAY_ADDRESS={address}: {one_line(error)}") from None
        raise UserError(
            f"the Ray cluster at RAY_ADDRESS={address} refuses our token; set RAY_AUTH_MODE=token, and the "
            "cluster's own token as RAY_AUTH_TOKEN or in ~/.ray/auth_token"
        ) from None


def names_port(address: str) -> bool:
    """Whether it is HOST:PORT, or ray://HOST:PORT; Ray knows other addresses."""
    place = address.removeprefix(CLIENT)
    return "://" not in place and place.rpartition(":")[2].isdecimal()


def knock(address: str, seconds: float) -> None:
    """Raises OSError unless somebody listens at HOST:PORT."""
    host, _, port = address.rpartition(":")
    socket.create_connection((host, int(port)), timeout=seconds).close()


def identity(address: str) -> str:
    """The id of the cluster whose head answers at HOST:PORT. Raises whatever Ray does if none does."""
    from ray._raylet import GcsClient  # type: ignore[attr-defined]

    with silent():
        return str(GcsClient(address=address).cluster_id)


@contextmanager
def silent() -> Iterator[None]:
    """Inside, nothing reaches stderr: Ray's own lines, from outside of Python, can't be turned off."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


class Watch:
    """Calls `lost` when the cluster's head has been away for `LOST_SECONDS`, or is another one: Ray would
    end this process without a word that helps. A context manager."""

    def __init__(self, address: str, lost: Callable[[], None]) -> None:
        self.address, self.lost = address, lost
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._watch, name="cluster", daemon=True)

    def __enter__(self) -> Watch:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()

    def _watch(self) -> None:
        known, away = identity(self.address), 0.0
        while not self.ended.wait(WATCH_SECONDS):
            if self._answers():
                if away and identity(self.address) != known:
                    break
                away = 0.0
            else:
                away += WATCH_SECONDS
                if away >= LOST_SECONDS:
                    break
        if not self.ended.is_set():
            self.lost()

    def _answers(self) -> bool:
        try:
            knock(self.address, WATCH_SECONDS)
        except OSError:
            return False
        return True


class Cluster:
    """A connected cluster, and what one trial takes of it."""

    def __init__(self, resources: Resources) -> None:
        self.resources = resources

    @classmethod
    @contextmanager
    def connect(cls, resources: Resources, say: Callable[[str], None] = print) -> Iterator[Cluster]:
        """The cluster at RAY_ADDRESS if that is set, else this machine.

        Waits for a node that can hold a trial if the cluster can grow to one, and says so. Raises UserError
        if it can't, or if none has come in PATIENCE.
        """
        for name, value in QUIET.items():
            os.environ.setdefault(name, value)
        import ray

        address = os.environ.get("RAY_ADDRESS")
        local: dict[str, Any] = (
            {} if address else {"address": "local", "include_dashboard": False, "num_cpus": os.cpu_count()}
        )
        if not address:
            write_token()
        check_token()
        if address and names_port(address):
            reach(address)
        try:
            with nullcontext() if address else on_loopback():
                ray.init(log_to_driver=False, logging_level=logging.ERROR, configure_logging=True, **local)
        except (ConnectionError, ValueError) as error:
            raise UserError(f"no Ray cluster answers at RAY_ADDRESS={address}: {one_line(error)}") from None
        except ray.exceptions.AuthenticationError:
            raise UserError(REFUSED) from None
        logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
        logging.getLogger("ray.train").setLevel(logging.CRITICAL)
        try:
            cluster = cls(resources)
            if not cluster._slots():
                cluster.wait(say)
            yield cluster
        finally:
            ray.shutdown()

    def watched(self, lost: Callable[[], None]) -> Watch:
        """Inside, `lost` is called once the cluster's head is gone."""
        import ray

        return Watch(ray.get_runtime_context().gcs_address, lost)

    @property
    def threads(self) -> int:
        """CPU threads that one trial computes with, so that trials don't fight for cores."""
        return max(1, int(self.resources.cpus))

    def _slots(self) -> int:
        """How many trials the nodes hold side by side."""
        return sum(self._of_each_node())

    def _of_each_node(self) -> list[int]:
        import ray

        have = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        return [capacity.slots(self.resources, each.get("CPU", 0), each.get("GPU", 0)) for each in have]

    @property
    def _need(self) -> str:
        return capacity.need_of(self.resources)

    def lacking(self) -> str:
        """What is missing while no node can hold a trial; else empty."""
        return "" if self._slots() else f"{self._need}, and the cluster has no such node now"

    @cached_property
    def growth(self) -> Capacity | None:
        """What it can grow to, if this is the head of a cluster that `ray up` made."""
        return capacity.read(capacity.ON_HEAD) if self._is_ours() else None

    @staticmethod
    def _is_ours() -> bool:
        return "RAY_ADDRESS" in os.environ and capacity.ON_HEAD.expanduser().is_file()

    def wait(self, say: Callable[[str], None]) -> None:
        """Until a node has come that can hold a trial. Raises UserError."""
        import ray
        from ray.autoscaler.sdk import request_resources

        coming = self.growth.fitting(self.resources) if self.growth else []
        if not coming:
            have = ray.cluster_resources()
            grown = f", and can grow by {capacity.listed(self.growth.workers)}" if self.growth else ""
            raise UserError(
                f"resources: {self._need}, and the cluster has {have.get('CPU', 0):g} CPUs and "
                f"{have.get('GPU', 0):g} GPUs in all{grown}; lower `resources` or connect to a larger "
                "cluster with RAY_ADDRESS"
            )
        say(f"{self._need}; waiting up to {PATIENCE // 60} minutes for {capacity.listed(coming)}")
        request_resources(bundles=[{"CPU": self.resources.cpus, "GPU": self.resources.gpus}])
        try:
            deadline = time.monotonic() + PATIENCE
            while not self._slots():
                if time.monotonic() > deadline:
                    raise UserError(
                        f"resources: none of {capacity.listed(coming)} came in {PATIENCE // 60} minutes; "
                        "`ray status` on the head says why (quota, no spot capacity, failed setup); then: "
                        "sweeper resume"
                    )
                time.sleep(LOOK)
        finally:
            request_resources(bundles=[])

    def concurrent(self, requested: int | None, trials: int) -> int:
        """Trials that run side by side: what fits or will, unless fewer are wanted or there are."""
        of_each = self._of_each_node()
        grown = self.growth.side_by_side(self.resources, max(of_each)) if self.growth else 0
        return max(1, min(max(sum(of_each), grown), requested or trials, trials))


@contextmanager
def on_loopback() -> Iterator[None]:
    """Inside, a Ray that is started here listens on the loopback address alone, not on all of the machine's.

    Ray does so by itself where it makes no clusters, on macOS and Windows, and has no other switch for it: a
    `_node_ip_address` of 127.0.0.1 is replaced by the machine's.
    """
    from ray._private import ray_constants

    before = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


def token_file() -> Path:
    """Where Ray looks for the token unless RAY_AUTH_TOKEN is set."""
    return Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or "~/.ray/auth_token").expanduser()


def check_token() -> None:
    """Raises UserError if Ray is to use a token and finds none: it would end this process without a word."""
    wanted = os.environ.get("RAY_AUTH_MODE", "").lower() == "token" or "RAY_AUTH_TOKEN_PATH" in os.environ
    if wanted and not os.environ.get("RAY_AUTH_TOKEN") and not token_file().is_file():
        raise UserError(
            f"there is no token for the Ray cluster: {token_file()} is missing; copy it from the cluster's "
            "head, or set RAY_AUTH_TOKEN to what it holds"
        )


def write_token() -> None:
    """Makes the token that Ray asks every client for, unless there is one. Ray would make it readable for
    every user of the machine, and two sweeps that start at once would make two."""
    file = token_file()
    if file.exists() or "RAY_AUTH_TOKEN" in os.environ or "RAY_AUTH_TOKEN_PATH" in os.environ:
        return
    file.parent.mkdir(mode=0o700, exist_ok=True)
    own = file.with_name(f"auth_token.{os.getpid()}")
    with open(os.open(own, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="ascii") as stream:
        stream.write(secrets.token_hex(32))
    try:
        os.link(own, file)  # the first one counts, and is whole
    except FileExistsError:
        pass
    finally:
        own.unlink()
