"""The papers in small: each method on the embedded model and images, over seeds, in one table.

    python -m benchmarks.reproduction          # an hour on two cores; goes on where it was
    python -m benchmarks.reproduction --docs   # and puts the tables into docs/reproduction.md
    python -m benchmarks.reproduction --finished  # the tables of what is there, of fewer seeds

Writes results.json, results.csv and results.md into its folder, beside the folders of the units with weights
and records. docs/reproduction.md says what it found.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

from benchmarks.reproduction.page import PAGE, as_csv, block, page
from benchmarks.reproduction.results import results
from benchmarks.reproduction.units import SEEDS, Unit, units

KEPT = Path(__file__).parent


def run_all(wanted: Sequence[Unit], processes: int) -> None:
    """Runs what is not finished, so many at a time."""
    left = [unit for unit in wanted if not unit.finished]
    print(f"{len(wanted) - len(left)} of {len(wanted)} are finished", flush=True)
    if not left:
        return
    started = time.perf_counter()
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        running = {pool.submit(unit.run): unit for unit in left}
        for number, future in enumerate(as_completed(running), 1):
            future.result()
            passed = (time.perf_counter() - started) / 60
            print(f"{number} of {len(left)}, {passed:.1f} min: {running[future].name}", flush=True)


def write(wanted: Sequence[Unit], folder: Path, *, docs: bool) -> None:
    found = results(wanted)
    for target in (folder, *[KEPT] * docs):
        (target / "results.json").write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", "utf-8")
        (target / "results.csv").write_text(as_csv(found), "utf-8")
        (target / "results.md").write_text(block(found) + "\n", "utf-8")
    if docs:
        PAGE.write_text(page(PAGE.read_text("utf-8"), found), "utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, default=Path("runs/reproduction"), help="of units and records")
    parser.add_argument("--seeds", type=int, default=SEEDS, help="fewer for a first look")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--docs", action="store_true", help="renew what is committed, too")
    parser.add_argument("--finished", action="store_true", help="run nothing: tables of what is finished")
    options = parser.parse_args()
    wanted = units(options.folder, options.seeds)
    if not options.finished:
        run_all(wanted, options.processes)
    write(wanted, options.folder, docs=options.docs)


if __name__ == "__main__":
    main()
