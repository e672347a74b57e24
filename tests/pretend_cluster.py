"""A Ray cluster of pretend nodes with token authentication, started and broken by a process of its own: Ray
reads how to authenticate once, when it is imported."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Any


class PretendCluster:
    """A head without CPUs and `nodes` with one each. before: what comes before the command of its process."""

    def __init__(self, nodes: int, before: Sequence[str] = ()) -> None:
        command = [*before, sys.executable, "-m", "tests.pretend_cluster", str(nodes)]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "RAY_AUTH_MODE": "token"},
        )
        self.address = self._answer()

    def _answer(self) -> str:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("> "):
                return line[2:].strip()
        raise AssertionError("the cluster did not start")

    def tell(self, what: str) -> None:
        """kill-node, add-node, kill-head, or restart-head: with new nodes, at the same address."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{what}\n")
        self.process.stdin.flush()
        self._answer()

    def shutdown(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(60)


def main(count: int) -> None:
    cluster, nodes = started(count)
    print(">", cluster.address, flush=True)
    for line in sys.stdin:
        if line == "kill-node\n":
            cluster.remove_node(nodes.pop(), allow_graceful=False)
        elif line == "add-node\n":
            nodes.append(cluster.add_node(num_cpus=1))
        elif line == "kill-head\n":
            cluster.head_node.kill_gcs_server()
            cluster.head_node.kill_raylet()
        else:
            for node in (cluster.head_node, *nodes):
                node.kill_all_processes(check_alive=False, allow_graceful=False)
            cluster, nodes = started(count, int(cluster.address.rpartition(":")[2]))
        print("> done", flush=True)
    cluster.shutdown()


def started(count: int, port: int = 0) -> tuple[Any, list[Any]]:
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 0, "include_dashboard": False, "gcs_server_port": port}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    return cluster, [cluster.add_node(num_cpus=1) for _ in range(count)]


if __name__ == "__main__":
    main(int(sys.argv[1]))
