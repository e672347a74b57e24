"""The Ray cluster that a sweep runs on: connecting, and what fits on it."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import cached_property
from typing import Any

from sweeper import capacity, pages
from sweeper.capacity import Capacity, NodeType
from sweeper.errors import UserError
from sweeper.head import CLIENT, Watch, names_port, nodes, reach, refused
from sweeper.loopback import check_token, on_loopback, write_token
from sweeper.redact import one_line
from sweeper.spec import Resources
from sweeper.terminal import amount

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


Have = Mapping[str, float]
"""What a node has, as Ray names it: `CPU`, `GPU`, and HEAD if it is the head."""
HEAD = "node:__internal_head__"


def located() -> str | None:
    """HOST:PORT of the head that RAY_ADDRESS names, or ray://HOST:PORT, if it names one. Raises UserError if
    it doesn't answer or refuses our token. Before Ray is imported, which reads its settings then."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    from ray._private import services

    given = os.environ.get("RAY_ADDRESS")
    if not given or given == "local":
        return None
    check_token()
    if not names_port(given):
        try:
            given = services.canonicalize_bootstrap_address_or_die(given)
        except (ConnectionError, ValueError) as error:
            raise UserError(
                f"no Ray cluster answers at RAY_ADDRESS={given}: {one_line(error)}", pages.CLUSTERS
            ) from None
    reach(given)
    return given


def _this_machine() -> Have:
    """What a Ray that is started here will have."""
    from ray._private.resource_and_label_spec import ResourceAndLabelSpec

    spec = ResourceAndLabelSpec(num_cpus=os.cpu_count()).resolve(is_head=True)
    return {"CPU": spec.num_cpus, "GPU": spec.num_gpus, HEAD: 1}


def _held(resources: Resources, have: Sequence[Have]) -> list[int]:
    """How many trials each node holds side by side."""
    return [capacity.slots(resources, each.get("CPU", 0), each.get("GPU", 0)) for each in have]


def _growth() -> Capacity | None:
    """What the cluster can grow to, if this is the head of one that `ray up` made."""
    ours = os.environ.get("RAY_ADDRESS") and capacity.ON_HEAD.expanduser().is_file()
    return capacity.read(capacity.ON_HEAD) if ours else None


def _awaited(resources: Resources, have: Sequence[Have]) -> list[NodeType]:
    """The kinds of node that can still come and hold a trial, which none of those can that are up. Raises
    UserError if there are none."""
    growth, up = _growth(), sum(HEAD not in each for each in have)
    if growth and (coming := growth.fitting(resources, up)):
        return coming
    cpus, gpus = (sum(each.get(name, 0) for each in have) for name in ("CPU", "GPU"))
    grown = f" and can grow by {capacity.listed(growth.workers)}" if growth and up < growth.most else ""
    raise UserError(
        f"resources: {capacity.need_of(resources)}, and the cluster has "
        f"{amount(cpus, 'CPU')} and {amount(gpus, 'GPU')} in all{grown}; "
        "lower `resources` or connect to a larger cluster with RAY_ADDRESS",
        pages.GPUS,
    )


class Cluster:
    """A connected cluster, and what one trial takes of it."""

    def __init__(self, resources: Resources) -> None:
        self.resources = resources

    @staticmethod
    def check(resources: Resources) -> None:
        """Raises UserError, before anything is connected, if no cluster answers at RAY_ADDRESS or it refuses
        our token, or if a trial fits on none of its nodes nor on any that it can grow by; without
        RAY_ADDRESS, if it doesn't fit on this machine."""
        address = located()
        if address and address.startswith(CLIENT):  # tells what it has once it is connected
            return
        have = nodes(address) if address else [_this_machine()]
        if not any(_held(resources, have)):
            _awaited(resources, have)

    @classmethod
    @contextmanager
    def connect(cls, resources: Resources, say: Callable[[str], None] = print) -> Iterator[Cluster]:
        """The cluster at RAY_ADDRESS if that is set, else this machine.

        Waits for a node that can hold a trial if the cluster can grow to one, and says so. Raises UserError
        if it can't, or if none has come in PATIENCE.
        """
        address = located()
        import ray

        local: dict[str, Any] = (
            {} if address else {"address": "local", "include_dashboard": False, "num_cpus": os.cpu_count()}
        )
        if not address:
            write_token()
            check_token()
        try:
            with nullcontext() if address else on_loopback():
                ray.init(log_to_driver=False, logging_level=logging.ERROR, configure_logging=True, **local)
        except ray.exceptions.AuthenticationError:
            raise UserError(refused(f"at RAY_ADDRESS={address}"), pages.CLUSTERS) from None
        except Exception as error:  # Ray's are of many classes
            where = f"connect to the cluster at RAY_ADDRESS={address}" if address else "start here"
            raise UserError(f"Ray can't {where}: {one_line(error)}", pages.CLUSTERS) from None
        logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
        logging.getLogger("ray.train").setLevel(logging.CRITICAL)
        try:
            cluster = cls(resources)
            cluster.withdraw()
            if not cluster._slots():
                cluster.wait(say)
            yield cluster
        finally:
            ray.shutdown()

    def watched(self, lost: Callable[[], None]) -> Watch:
        """Inside, `lost` is called once the cluster's head is gone."""
        import ray
        from ray._private.worker import global_worker

        known = str(global_worker.gcs_client.cluster_id)
        return Watch(ray.get_runtime_context().gcs_address, known, lost)

    @property
    def threads(self) -> int:
        """CPU threads that one trial computes with, so that trials don't fight for cores."""
        return max(1, int(self.resources.cpus))

    @cached_property
    def growth(self) -> Capacity | None:
        return _growth()

    def _nodes(self) -> list[Have]:
        import ray

        return [node["Resources"] for node in ray.nodes() if node["Alive"]]

    def _slots(self) -> int:
        """How many trials the nodes hold side by side."""
        return sum(_held(self.resources, self._nodes()))

    @property
    def _need(self) -> str:
        return capacity.need_of(self.resources)

    def lacking(self) -> str:
        """What is missing while no node can hold a trial; else empty."""
        return "" if self._slots() else f"{self._need}, and the cluster has no such node now"

    def request(self, trials: int) -> None:
        """Asks a cluster that can grow for nodes that hold so many trials, and keeps those that do. That
        outlives this process, until another number is asked for."""
        from ray.autoscaler.sdk import request_resources

        request_resources(bundles=[{"CPU": self.resources.cpus, "GPU": self.resources.gpus}] * trials)

    def withdraw(self) -> None:
        """Takes back what is asked for, also by a driver that was killed as it waited."""
        if self.growth:
            self.request(0)

    def wait(self, say: Callable[[str], None]) -> None:
        """Until a node has come that can hold a trial. Raises UserError if none has in PATIENCE, and as soon
        as none can come any more."""
        coming = capacity.listed(_awaited(self.resources, self._nodes()))
        say(f"{self._need}; waiting up to {PATIENCE // 60} minutes for {coming}")
        began = time.monotonic()
        try:
            while not any(_held(self.resources, have := self._nodes())):
                _awaited(self.resources, have)
                waited = time.monotonic() - began
                if waited > PATIENCE:
                    raise UserError(
                        f"resources: none of {coming} came in {PATIENCE // 60} minutes; `ray status` on the "
                        "head says why (quota, no spot capacity, failed setup); then: sweeper resume",
                        pages.CLUSTERS,
                    )
                # Again and again, as another driver that connects withdraws it. At length for more trials
                # than one kind of node holds: only so Ray tries another where AWS refuses the first.
                self.request(1 if waited < PATIENCE / 2 else self._most(unknown=1))
                time.sleep(LOOK)
        finally:
            self.withdraw()

    def concurrent(self, requested: int | None, trials: int) -> int:
        """Trials that run side by side: what fits or will, unless fewer are wanted or there are."""
        held = _held(self.resources, self._nodes())
        return max(1, min(max(sum(held), self._most(unknown=max(held))), requested or trials, trials))

    def _most(self, unknown: int) -> int:
        """Trials that run side by side once it has grown as far as it can; 0 if it can't grow."""
        return self.growth.side_by_side(self.resources, unknown) if self.growth else 0
