"""Makes curves.parquet and held_back.parquet, the learning curves that benchmarks/search.py searches over.

    python -m benchmarks.curves.record                       # all sweeps, then both files; hours
    python -m benchmarks.curves.record --from runs/curves-*  # curves.parquet from runs that are there
    python -m benchmarks.curves.record --held-back --from runs/held-back-*

The sweeps are real ones, random over space.yaml without early stopping: 220 configurations of seed 0, and
of seeds 1, 2 and 3 those that nothing is to be chosen by. A row is an epoch, see `sweeper.curves`.

What an epoch took depends on its method and on what else the machine did, and little on the other settings,
as images, steps and batch size are the same. So each is given the median over all epochs of its method, in
that of a file's sweeps where it is least, and time in the simulator is that of an undisturbed machine.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import pandas as pd

from sweeper.curves import KEYS, recorded
from sweeper.run import Run
from sweeper.trial import BASELINE

HERE = Path(__file__).parent
METRICS = [
    f"{images}_{name}"
    for images in ("clean", "robust")
    for name in ("accuracy", "ece", "nll", "brier", "confidence", "entropy", "scaled_ece", "aurc")
]
SWEEPS = {
    "curves": [["search.trials=220", "search.seed=0"]],
    "held_back": [
        ["search.trials=71", "search.seed=1", "name=held-back"],
        ["search.trials=63", "search.seed=2", "name=held-back-2"],
        ["search.trials=134", "search.seed=3", "name=held-back-3"],
    ],
}


def table(runs: list[Run]) -> pd.DataFrame:
    """The curves of all completed trials of these runs."""
    return tidied(recorded(runs)[[*KEYS, *METRICS]])


def tidied(found: pd.DataFrame) -> pd.DataFrame:
    """The curves as the file has them."""
    method = found["drawn"].map(lambda text: json.loads(text).get("method", BASELINE))
    sweep = found["config"].str.split("/").str[0]
    medians = found.groupby([method, sweep])["seconds"].transform("median")
    found["seconds"] = medians.groupby(method).transform("min").round(3)
    found[METRICS] = found[METRICS].astype("float32").astype("float64")  # packs better, and says as much
    return found


def record(settings: list[str], folder: Path) -> Run:
    """Runs a sweep."""
    before = set(folder.glob("*/run.json"))
    overrides = [part for value in settings for part in ("--set", value)]
    command = [sys.executable, "-m", "sweeper", "run", str(HERE / "space.yaml"), "--runs", str(folder)]
    subprocess.run([*command, *overrides], check=True)
    (new,) = set(folder.glob("*/run.json")) - before
    return Run.load(new.parent)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--from", dest="runs", nargs="+", type=Path, help="run folders, instead of sweeping")
    parser.add_argument("--held-back", action="store_true", help="write held_back.parquet from them")
    parser.add_argument(
        "--runs", dest="folder", type=Path, default=Path("runs"), help="where sweeps are kept"
    )
    options = parser.parse_args()
    names = ["held_back" if options.held_back else "curves"] if options.runs else list(SWEEPS)
    for name in names:
        given = [Run.load(path) for path in options.runs or ()]
        runs = given or [record(settings, options.folder) for settings in SWEEPS[name]]
        target = HERE / f"{name}.parquet"
        found = table(runs)
        found.to_parquet(target, index=False, compression="zstd")
        print(
            f"{target}: {found['config'].nunique() - 1} configurations, {target.stat().st_size / 1000:.0f} kB"
        )


if __name__ == "__main__":
    main()
