"""What the sweeper itself costs: thousands of trials that train nothing, through Ray as in any other sweep.

    python -m benchmarks.orchestration --trials 2000 --sampler tpe

The cluster, Tune, the searcher, the early stopping, the display (quiet) and the run folder are those of a
real sweep; only the worker is replaced by one that reports made-up learning curves at once, and writes the
JSON files that a real one writes, beside empty ones for the weights. Prints time and memory of the driver
as the sweep goes on. `private` is memory that belongs to the driver alone (USS); its slope is by least
squares, from a tenth of the trials on. CPU seconds are the driver's, which others on the machine hardly
lengthen. Exits with 1 unless a trial costs less than 0.3 seconds and leaves less than 20 kB.
"""

from __future__ import annotations

import argparse
import cProfile
import os
import platform
import pstats
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.made_up import SWEEP, MadeUp
from sweeper import runner, spec, worker
from sweeper.budget import Clock
from sweeper.cluster import Cluster
from sweeper.display import Display
from sweeper.run import Run
from sweeper.tracking import Tracker
from sweeper.trial import TrialRecord

ALLOWED_KB, ALLOWED_SECONDS = 20, 0.3


class Sample(NamedTuple):
    """The driver after so many trials: seconds, of its CPUs too, and bytes."""

    trials: int
    reports: int
    wall: float
    cpu: float
    private: int
    resident: int


class Probe(Display):
    """The display of a sweep, which sees every report; it samples the driver after `every` trials."""

    def __init__(self, run: Run, concurrent: int, every: int) -> None:
        super().__init__(run, concurrent, Clock(run), quiet=True)
        self.every, self.ended, self.reports = every, 0, 0
        self.samples: list[Sample] = []

    def update(self, trial: TrialRecord) -> None:
        super().update(trial)
        if not self.samples:
            self.sample()  # the first trial starts
        self.reports += trial.status == "unfinished" and bool(trial.epochs)
        self.ended += trial.status != "unfinished"
        if trial.status != "unfinished" and self.ended % self.every == 0:
            self.sample()

    def sample(self) -> None:
        now = time.perf_counter(), time.process_time()
        self.samples.append(Sample(self.ended, self.reports, *now, *memory()))


def memory() -> tuple[int, int]:
    """Bytes of this process's memory that no other shares, and all that is resident."""
    kilobytes = {
        line.split(":")[0]: int(line.split()[1])
        for line in Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]
    }
    private = kilobytes["Private_Clean"] + kilobytes["Private_Dirty"]
    return private * 1024, kilobytes["Rss"] * 1024


def sweep(
    options: argparse.Namespace, root: Path, watch: Callable[[], Any], further: Sequence[str] = ()
) -> Probe:
    overrides = [
        f"search.trials={options.trials}",
        f"search.sampler={options.sampler}",
        f"tracking.mlflow={str(options.mlflow).lower()}",
        *further,
    ]
    file = root / "sweep.yaml"
    file.write_text(SWEEP)
    run = Run.create(root, spec.load(file, None, overrides), {"seed": 0})
    setattr(worker, "Worker", MadeUp)  # noqa: B010
    with run.driving(), Cluster.connect(run.spec.file.resources) as cluster:
        concurrent = run.concurrency(cluster.concurrent(options.concurrent, options.trials))
        probe = Probe(run, concurrent, every=max(1, options.trials // 40))
        with Tracker(run, print) as tracker, watch():
            runner.work(run, cluster, concurrent, probe, tracker.notify)
    return probe


def slope(samples: list[Sample]) -> float:
    """kB that a trial leaves behind, from a tenth of the trials on."""
    late = [sample for sample in samples if sample.trials >= samples[-1].trials / 10]
    trials, private = ([getattr(sample, name) for sample in late] for name in ("trials", "private"))
    return float(np.polyfit(trials, private, 1)[0]) / 1e3


@contextmanager
def profiled() -> Iterator[None]:
    with cProfile.Profile() as profile:
        yield
    pstats.Stats(profile).sort_stats("cumulative").print_stats(60).sort_stats("tottime").print_stats(30)


def cpu_name() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next(
        (line.split(":")[1].strip() for line in lines if line.startswith("model name")), "unknown CPU"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=2000)
    parser.add_argument("--sampler", default="tpe", help="any of `search.sampler`")
    parser.add_argument("--concurrent", type=int, default=2, help="trials side by side")
    parser.add_argument("--mlflow", action="store_true", help="deliver the trials to MLflow (SQLite)")
    parser.add_argument("--profile", action="store_true", help="print where the driver spends its time")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        probe = sweep(options, Path(name), profiled if options.profile else nullcontext)
    packages = ", ".join(f"{package} {version(package)}" for package in ("ray", "optuna"))
    print(f"{os.cpu_count()} cores, {cpu_name()}; Python {platform.python_version()}, {packages}")
    print(
        f"{options.trials} trials, {options.sampler}, {probe.concurrent} at a time, MLflow {options.mlflow}"
    )
    print("trials  reports  s/trial  CPU s/trial  private MB  resident MB")
    start, *rest = probe.samples
    before = start
    for now in rest[3::4]:
        count = now.trials - before.trials
        print(
            f"{now.trials:6}  {now.reports:7}  {(now.wall - before.wall) / count:7.3f}"
            f"  {(now.cpu - before.cpu) / count:11.3f}  {now.private / 1e6:10.1f}  {now.resident / 1e6:11.1f}"
        )
        before = now
    end = probe.samples[-1]
    wall, cpu = end.wall - start.wall, end.cpu - start.cpu
    print(
        f"a trial: {wall / end.trials:.3f} s, {cpu / end.trials:.3f} CPU s, {slope(probe.samples):.1f} kB; "
        f"a report: {wall / end.reports:.3f} s, {cpu / end.reports:.3f} CPU s"
    )
    sys.exit(wall / end.trials >= ALLOWED_SECONDS or slope(probe.samples) >= ALLOWED_KB)


if __name__ == "__main__":
    main()
