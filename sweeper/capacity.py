"""What a cluster can grow to, told from its file: the one that `ray up` takes, and that its head keeps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from sweeper import pages
from sweeper.errors import UserError
from sweeper.spec import Resources
from sweeper.terminal import amount

ON_HEAD = Path("~/ray_bootstrap_config.yaml")  # where `ray up` puts the file, filled in
MOST = 2  # workers, where a file doesn't say: Ray's default
PRICES = "price_per_hour"  # under `metadata`, which is ours: Ray doesn't read it


def slots(resources: Resources, cpus: float, gpus: float) -> int:
    """How many trials a node holds side by side."""
    per_cpu = int(cpus / resources.cpus)
    return min(per_cpu, int(gpus / resources.gpus)) if resources.gpus else per_cpu


def need_of(resources: Resources) -> str:
    return f"a trial needs {amount(resources.cpus, 'CPU')} and {amount(resources.gpus, 'GPU')} on one node"


@dataclass(frozen=True)
class NodeType:
    """A kind of node: how many there can be, and what one has; None for what Ray sees only when it is up."""

    name: str
    most: int
    cpus: float | None
    gpus: float | None

    def slots(self, resources: Resources) -> int | None:
        return None if self.cpus is None else slots(resources, self.cpus, self.gpus or 0)

    def __str__(self) -> str:
        have = (
            "of unknown size"
            if self.cpus is None
            else f"of {amount(self.cpus, 'CPU')} and {amount(self.gpus or 0, 'GPU')}"
        )
        return f"{self.most} x {self.name} {have}"


@dataclass(frozen=True)
class Capacity:
    """The nodes a cluster can have beside its head, `most` of them at a time. prices: dollars an hour, by
    node type, the head's too."""

    head: str
    workers: list[NodeType]
    most: int
    prices: dict[str, float]

    def fitting(self, resources: Resources, up: int = 0) -> list[NodeType]:
        """Those that can hold a trial, as far as is known; the roomiest first. up: workers that are up, and
        can't: a kind whose size is unknown has no other once they are all."""
        able = [
            kind
            for kind in self.workers
            if (most := min(kind.most, self.most)) and kind.slots(resources) != 0
            if kind.cpus is not None or up < most
        ]
        return sorted(able, key=lambda kind: -(kind.slots(resources) or 0))

    def side_by_side(self, resources: Resources, unknown: int) -> int:
        """At most so many trials at a time. unknown: how many a node of unknown size holds."""
        left, total = self.most, 0
        for kind in self.fitting(resources):
            nodes = min(left, kind.most)
            size = kind.slots(resources)
            total += nodes * (unknown if size is None else size)
            left -= nodes
        return total


def content(path: Path) -> dict[str, Any]:
    """What a cluster file says. Raises UserError if it is none."""
    try:
        config = yaml.safe_load(path.expanduser().read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = " ".join(str(getattr(error, "strerror", None) or error).split())
        raise UserError(f"{path}: can't be read as a cluster file: {reason}", pages.CLUSTERS) from None
    if not isinstance(config, dict) or not isinstance(config.get("provider"), dict):
        raise UserError(
            f"{path}: no cluster file of Ray's: it has no `provider`; see cluster.yaml", pages.CLUSTERS
        )
    return config


def read(path: Path) -> Capacity:
    """Raises UserError if this is no cluster file."""
    config = content(path)
    prices = (config.get("metadata") or {}).get(PRICES) or {}
    if config["provider"].get("type") == "local":
        addresses = config["provider"].get("worker_ips") or []
        return Capacity("head", [NodeType("worker", len(addresses), None, None)], len(addresses), prices)
    kinds, head = config.get("available_node_types") or {}, str(config.get("head_node_type"))
    if head not in kinds:
        raise UserError(f"{path}: head_node_type {head!r} is not among available_node_types", pages.CLUSTERS)
    most = int(config.get("max_workers", MOST))
    workers = [_node_type(name, kind, most) for name, kind in kinds.items() if name != head]
    return Capacity(head, workers, most, prices)


def _node_type(name: str, kind: dict[str, Any], most: int) -> NodeType:
    have = kind.get("resources") or {}
    cpus = float(have["CPU"]) if "CPU" in have else None
    gpus = float(have.get("GPU", 0)) if have else None
    return NodeType(name, int(kind.get("max_workers", most)), cpus, gpus)


def listed(kinds: Sequence[NodeType]) -> str:
    return ", ".join(map(str, kinds)) or "none"
