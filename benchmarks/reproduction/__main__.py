"""The papers in small: each method on the embedded model and images, over seeds, in one table.

    python -m benchmarks.reproduction          # an hour on two cores; goes on where it was
    python -m benchmarks.reproduction --docs   # and puts the table into docs/reproduction.md
"""

from __future__ import annotations

import argparse
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

from benchmarks.reproduction.units import SEEDS, Unit, units


def run_all(wanted: list[Unit], processes: int) -> None:
    """Runs what is not finished, so many at a time."""
    left = [unit for unit in wanted if not unit.finished]
    print(f"{len(wanted) - len(left)} of {len(wanted)} are finished", flush=True)
    started = time.perf_counter()
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        running = {pool.submit(unit.run): unit for unit in left}
        for number, future in enumerate(as_completed(running), 1):
            future.result()
            passed = (time.perf_counter() - started) / 60
            print(f"{number} of {len(left)}, {passed:.1f} min: {running[future].name}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, default=Path("runs/reproduction"), help="of units and records")
    parser.add_argument("--seeds", type=int, default=SEEDS, help="fewer for a first look")
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    run_all(units(options.folder, options.seeds), options.processes)


if __name__ == "__main__":
    main()
