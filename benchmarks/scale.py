"""Whether a large sweep costs as much per trial at its end as at its beginning, and answers in seconds.

    python -m benchmarks.scale cluster     500 trials on 8 pretend nodes with 64 pretend GPUs, through Ray
    python -m benchmarks.scale folder      10,000 trials without Ray, with the tracker; then what reads them

`cluster` is benchmarks/orchestration.py on a cluster of several nodes on this machine: each trial takes a GPU
that is not there, so 64 worker processes run, of some 100 MB each. `folder` has the searcher, the scheduler,
the display, the run folder and MLflow of a real sweep, and takes the verbs' time in processes of their own.
Both print the time per trial, in the first and the last fifth of the trials, and what a trial leaves in the
driver.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path

from benchmarks import orchestration
from benchmarks.driven import Drive, new_run
from benchmarks.orchestration import Probe, Sample, slope
from sweeper.files import write_json
from sweeper.report import write_report
from sweeper.run import Run
from sweeper.tracking import Tracker

NODES, GPUS_OF_EACH = 8, 8
ALLOWED = {"status": 3, "pareto": 5, "report": 15}
"""Seconds."""


def cluster(trials: int, gpus: int, root: Path) -> Probe:
    from ray.cluster_utils import Cluster

    each = {"num_cpus": gpus // NODES + 1, "num_gpus": gpus // NODES, "object_store_memory": 80 * 2**20}
    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "num_gpus": 0})
    for _ in range(NODES):
        nodes.add_node(**each)
    os.environ["RAY_ADDRESS"] = nodes.address
    options = argparse.Namespace(trials=trials, sampler="tpe", mlflow=False, concurrent=gpus)
    try:
        return orchestration.sweep(options, root, nullcontext, ["resources={cpus: 1, gpus: 1}"])
    finally:
        nodes.shutdown()


def folder(trials: int, sampler: str, mlflow: bool, root: Path) -> tuple[Run, Probe]:
    overrides = [f"search.sampler={sampler}", f"tracking.mlflow={str(mlflow).lower()}"]
    run = new_run(root, trials, overrides)
    probe = Probe(run, 8, every=max(1, trials // 40))
    started = time.perf_counter()
    with Tracker(run, print) as tracker:
        Drive(run, 8, probe, tracker.notify).go()
        searched = time.perf_counter()
        content = run.pareto()
        write_report(run, content)
        write_json(run.path / "pareto.json", content)
        ended = time.perf_counter()
    print(f"search {searched - started:.0f} s, result and report {ended - searched:.0f} s")
    print(f"MLflow delivers what is left in {time.perf_counter() - ended:.0f} s")
    return run, probe


def verbs(run: Run) -> bool:
    """Whether each answers in time."""
    fast = True
    for verb, allowed in ALLOWED.items():
        started = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "sweeper", verb, str(run.path)], check=True, capture_output=True
        )
        seconds = time.perf_counter() - started
        fast &= seconds < allowed
        print(f"sweeper {verb}: {seconds:.1f} s (allowed {allowed})")
    page = run.path / "report" / "index.html"
    print(f"the report's page: {page.stat().st_size / 1e6:.1f} MB")
    return fast


def flatness(samples: list[Sample]) -> None:
    fifth = max(1, len(samples) // 5)
    for name in ("wall", "cpu"):
        rates = [
            (getattr(last, name) - getattr(first, name)) / (last.trials - first.trials)
            for first, last in ((samples[1], samples[1 + fifth]), (samples[-1 - fifth], samples[-1]))
        ]
        print(
            f"{name} seconds a trial: {rates[0]:.4f} in the first fifth, {rates[1]:.4f} in the last, "
            f"ratio {rates[1] / rates[0]:.2f}"
        )
    print(
        f"a trial leaves {slope(samples):.1f} kB in the driver, which has {samples[-1].private / 1e6:.0f} MB"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["cluster", "folder"])
    parser.add_argument("--trials", type=int, help="500, or 10,000 without Ray")
    parser.add_argument("--gpus", type=int, default=NODES * GPUS_OF_EACH, help="pretend GPUs, as many trials")
    parser.add_argument("--sampler", default="tpe", help="any of `search.sampler`, of `folder`")
    parser.add_argument("--no-mlflow", action="store_true", help="`folder` without the tracker")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        if options.what == "cluster":
            flatness(cluster(options.trials or 500, options.gpus, Path(name)).samples)
            return
        run, probe = folder(options.trials or 10_000, options.sampler, not options.no_mlflow, Path(name))
        flatness(probe.samples)
        sys.exit(not verbs(run))


if __name__ == "__main__":
    main()
