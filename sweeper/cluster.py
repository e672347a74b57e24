"""The Ray cluster that a sweep runs on: connecting, and what fits on it."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import cached_property
from typing import Any

from sweeper import capacity
from sweeper.capacity import Capacity
from sweeper.errors import UserError
from sweeper.head import Watch, names_port, reach, refused
from sweeper.loopback import check_token, on_loopback, write_token
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

PATIENCE = 20 * 60  # seconds for the first node that can hold a trial
LOOK = 2  # seconds


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
            raise UserError(refused(f"at RAY_ADDRESS={address}")) from None
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
