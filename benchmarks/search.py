"""How soon a search has the front: ours and its peers, over recorded learning curves.

    python -m benchmarks.search                          # both files, 1, 4 and 32 workers, 50 seeds
    python -m benchmarks.search --seeds 5 --workers 4    # a quick look
    python -m benchmarks.search --ablations              # what of ours does it
    python -m benchmarks.search --constrained            # with a bound on clean accuracy
    python -m benchmarks.search --arms ours "Ray ASHA"   # only these, beside random search

Every arm searches the space of benchmarks/curves/space.yaml in the simulator, `sweeper.simulator`: the same
curves, the same workers, the same clock. What it has found are the points of all epochs that it has trained,
each known when its epoch has ended, whether or not its trial was stopped later: any epoch's checkpoint can be
kept. Its worth is their hypervolume in robust accuracy, clean accuracy and robust ECE, as a share of the
best known one, that of all recorded epochs, from which the reference point is taken, too. With
`--constrained` points that break the constraint don't count for either.

Cost is what is paid for: time times workers, in full trainings (the median recorded time of all epochs of
a configuration). The share at equal cost is a mean over seeds, its interval Student's; the cost of reaching
95 % of the best known is a median over seeds, its interval a bootstrap's, as those of ratios to random search
and to the best peer, for which seeds are paired. Runs that do not reach it are broken off after 120 full
trainings, those of Syne Tune's after 40, as it takes minutes to sort the thousand trials that it stops by
then; where a median is one of these, no more is known than that it is above, and of a ratio to it that it is
below what is printed.

Fifty seeds of all arms take hours on two cores. Each run that has ended is kept in a file (`--outcomes`),
and is not run again as long as the code stays the same.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmarks import costs, peers, telling
from benchmarks.outcomes import Outcomes
from sweeper import spec
from sweeper.curves import Curves, Unrepeated
from sweeper.front import judged
from sweeper.pareto import hypervolume, hypervolume_over_time, reference_point
from sweeper.search import Search
from sweeper.simulator import Asked, Simulation, Stopping, simulate
from sweeper.spec import SweepSpec

Array = NDArray[np.float64]
HERE = Path(__file__).parent
SPACE = HERE / "curves" / "space.yaml"
FILES = {"curves": HERE / "curves" / "curves.parquet", "held back": HERE / "curves" / "held_back.parquet"}
OUTCOMES = Path("runs/search-benchmark.jsonl")
PEERS = Path(".peers/bin/python")
INSTALL = "uv venv .peers && uv pip install --python .peers syne-tune==0.16.0"

CONSTRAINT = "pareto.subject_to={clean_accuracy: '>= 0.8 * baseline'}"
TARGET = 0.95
GRID = (5, 10, 20, 40)
LIMITS = (40, 120)
"""Full trainings. A run is broken off at the first of them by which it has reached the target."""

Driver = tuple[Asked, "Stopping | None"]


@dataclass(frozen=True)
class Arm:
    """A way to search: what it sets of a sweep's `search`, and how it is driven."""

    name: str
    settings: tuple[str, ...]
    drive: Callable[[SweepSpec, Curves, Path], Driver]
    peer: bool = True
    limits: tuple[int, ...] = LIMITS


def ours(sweep: SweepSpec, curves: Curves, _: Path, kind: type[Search] = Search) -> Driver:
    return kind(sweep, None, name="simulation", lag=0, baseline=curves.baseline), None


def asha(sweep: SweepSpec, curves: Curves, python: Path, reduction_factor: float) -> Driver:
    search, _ = ours(sweep, curves, python)
    return search, peers.Asha(sweep, "robust_accuracy", reduction_factor)


def moasha(sweep: SweepSpec, _: Curves, python: Path) -> Driver:
    peer = peers.Moasha(sweep, python)
    return peer, peer


NONE, STOPPING = "early_stopping=null", "early_stopping={}"
OURS = ("sampler=forest", STOPPING)
TPE = ("sampler=tpe", STOPPING)
ARMS = [
    Arm("random", ("sampler=random", NONE), ours),
    Arm("Optuna TPE", ("sampler=tpe", NONE), partial(ours, kind=peers.OptunaDefaults)),
    Arm("Optuna TPE, multivariate", ("sampler=tpe", NONE), ours),
    Arm("Optuna NSGA-II", ("sampler=nsga2", NONE), partial(ours, kind=peers.OptunaDefaults)),
    Arm("Ray ASHA", ("sampler=random", NONE), partial(asha, reduction_factor=3)),
    Arm("Syne Tune MOASHA", ("sampler=random", NONE), moasha, limits=(40,)),
    Arm("ours", OURS, ours, peer=False),
]
ABLATIONS = [
    Arm("random", ("sampler=random", NONE), ours),
    Arm("ours", OURS, ours, peer=False),
    Arm("forest, nothing stopped", ("sampler=forest", NONE), ours, peer=False),
    Arm("random, stopping", ("sampler=random", STOPPING), ours, peer=False),
    Arm("TPE, stopping", TPE, ours, peer=False),
    Arm("TPE, stopped left out", TPE, partial(ours, kind=telling.LeftOut), peer=False),
    Arm("TPE, own fronts told", TPE, partial(ours, kind=telling.OwnFronts), peer=False),
    Arm("factor 2", ("sampler=forest", "early_stopping={reduction_factor: 2}"), ours, peer=False),
    Arm("factor 4", ("sampler=forest", "early_stopping={reduction_factor: 4}"), ours, peer=False),
    Arm("grace 2", ("sampler=forest", "early_stopping={grace_epochs: 2}"), ours, peer=False),
    Arm("by crowding", ("sampler=forest", "early_stopping={within: crowding}"), ours, peer=False),
    Arm("protected below 9", ("sampler=forest", "early_stopping={protect: 9}"), ours, peer=False),
    Arm("protected below 27", ("sampler=forest", "early_stopping={protect: 27}"), ours, peer=False),
]


class Task(NamedTuple):
    arm: Arm
    file: Path
    workers: int
    seed: int
    python: Path
    more: tuple[str, ...]

    @property
    def key(self) -> dict[str, Any]:
        """What its outcome depends on, beside the code."""
        return {
            "arm": self.arm.name,
            "file": self.file.name,
            "workers": self.workers,
            "seed": self.seed,
            "more": self.more,
        }


class Outcome(NamedTuple):
    """shares: at each of GRID.  reached: the cost of the target, in full trainings; inf if it was not."""

    shares: list[float]
    reached: float
    seconds: float


class Ruler:
    """Measures what a search has found by the curves that it ran on."""

    def __init__(self, curves: Curves, more: tuple[str, ...]) -> None:
        self.sweep, self.curves, self.baseline = sweep_of((), 0, more), curves, curves.baseline
        self.training = float(np.median([sum(curve.seconds) for curve in curves.curves]))
        values, violation = self.points([metrics for curve in curves.curves for metrics in curve.metrics])
        self.reference = reference_point(values[violation <= 0])
        self.best = hypervolume(values, self.reference, violation)

    def points(self, metrics: list[dict[str, float]]) -> tuple[Array, Array]:
        """(n, m) costs and (n,) violations."""
        return judged(self.sweep, metrics, self.baseline)

    def shares(self, simulation: Simulation, workers: int) -> tuple[Array, Array]:
        """What had been paid, (n,) ascending, and the share of the best known hypervolume by then."""
        trials = simulation.trials
        values, violation = self.points(
            [trials[trial].epochs[epoch - 1]["metrics"] for trial, epoch in simulation.trace]
        )
        first = np.sort(np.unique(values, axis=0, return_index=True)[1])  # an epoch found again adds nothing
        paid = np.array(simulation.times)[first] * workers / self.training
        paid, volumes = hypervolume_over_time(values[first], paid, self.reference, violation[first])
        return paid, volumes / self.best


@cache
def loaded(file: Path, more: tuple[str, ...]) -> tuple[Curves, Ruler]:
    curves = Curves.load(file)
    return curves, Ruler(curves, more)


def sweep_of(settings: tuple[str, ...], seed: int, more: tuple[str, ...]) -> SweepSpec:
    """A sweep that goes on until it is broken off. settings: of `search`.  more: further overrides."""
    values = ("trials=1000000", f"seed={seed}", *settings)
    return spec.load(SPACE, None, [*(f"search.{each}" for each in values), *more])


def run(task: Task) -> Outcome:
    """One search, until it has reached the target."""
    started = time.process_time()
    curves, ruler = loaded(task.file, task.more)
    for limit in task.arm.limits:
        sweep = sweep_of(task.arm.settings, task.seed, task.more)
        search, stopping = task.arm.drive(sweep, curves, task.python)
        seconds = limit * ruler.training / task.workers
        simulation = simulate(
            sweep, Unrepeated(curves), workers=task.workers, search=search, stopping=stopping, seconds=seconds
        )
        paid, shares = ruler.shares(simulation, task.workers)
        reached = costs.cost_to_reach(paid, shares, TARGET)
        if np.isfinite(reached):
            break
    return Outcome(costs.value_at(paid, shares, GRID).tolist(), reached, time.process_time() - started)


def run_keyed(task: Task) -> tuple[dict[str, Any], Outcome]:
    return task.key, run(task)


def experiment(
    arms: list[Arm],
    file: Path,
    workers: int,
    *,
    seeds: int,
    python: Path,
    pool: Any,
    kept: Outcomes,
    more: tuple[str, ...] = (),
) -> pd.DataFrame:
    """A row for each arm: its name, shares at the costs of GRID, cost of the target, ratios."""
    tasks = {
        arm.name: [Task(arm, file, workers, seed, python, more) for seed in range(seeds)] for arm in arms
    }
    left = [task for each in tasks.values() for task in each if task.key not in kept]
    for key, outcome in pool.imap_unordered(run_keyed, left):
        kept.add(key, outcome)
    found = {name: [Outcome(*kept[task.key]) for task in each] for name, each in tasks.items()}
    reached = {name: np.array([outcome.reached for outcome in each]) for name, each in found.items()}
    limit = {arm.name: arm.limits[-1] for arm in arms}
    generator = np.random.default_rng(0)
    others = [arm.name for arm in arms if arm.peer and arm.name != "random"] or ["random"]
    best = min(others, key=lambda name: float(np.median(reached[name])))
    return pd.DataFrame(
        {
            "arm": name,
            **dict(
                zip(GRID, zip(*costs.mean([each.shares for each in found[name]]), strict=True), strict=True)
            ),
            "reached": costs.median(reached[name], limit[name], generator),
            **{
                column: costs.ratio(reached[name], reached[to], (limit[name], limit[to]), generator)
                for column, to in (("random", "random"), ("peer", best))
            },
            "best": name == best,
            "seconds": sum(outcome.seconds for outcome in found[name]),
        }
        for name in found
    )


def text(found: pd.DataFrame) -> Iterator[str]:
    """A line for each arm of an experiment."""
    yield (
        f"{'':26}"
        + "".join(f"{f'at {cost}':>14}" for cost in GRID)
        + (f"{'cost of 95 %':>24}{'to random':>20}{'to best peer':>20}{'CPU':>7}")
    )
    for row in found.to_dict("records"):
        shares = "".join(f"{100 * mean:7.1f} ± {100 * half:4.1f}" for mean, half in (row[c] for c in GRID))
        name = f"{row['arm']}{' *' if row['best'] else ''}"
        reached, others = row["reached"], f"{row['random']!s:>20}{row['peer']!s:>20}"
        yield f"{name:26}{shares}{reached!s:>24}{others}{row['seconds']:6.0f}s"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=50)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 4, 32])
    parser.add_argument("--files", nargs="+", choices=list(FILES), default=list(FILES))
    parser.add_argument("--ablations", action="store_true", help="what of ours does it, instead of peers")
    parser.add_argument("--constrained", action="store_true", help="with a bound on clean accuracy")
    parser.add_argument("--arms", nargs="+", metavar="ARM", help="only these, beside random")
    parser.add_argument("--outcomes", type=Path, default=OUTCOMES, help="where runs that have ended are kept")
    parser.add_argument("--python", type=Path, default=PEERS, help="of the environment that has Syne Tune")
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    arms = ABLATIONS if options.ablations else ARMS
    if options.arms:
        arms = [arm for arm in arms if arm.name in {"random", *options.arms}]
    if not options.ablations and not options.python.exists():
        arms = [arm for arm in arms if arm.drive is not moasha]
        print(f"Syne Tune MOASHA: not run, there is no {options.python}. {INSTALL}")
    more = (CONSTRAINT,) if options.constrained else ()
    started = time.perf_counter()
    kept = Outcomes(options.outcomes, (SPACE, *FILES.values(), peers.SERVER))
    with get_context("fork").Pool(options.processes) as pool:
        for name in options.files:
            _, ruler = loaded(FILES[name], more)
            print(f"\n{name}: {len(ruler.curves.curves)} configurations, {options.seeds} seeds")
            print(f"hypervolume in % of the best known at a cost in full trainings of {ruler.training:.1f} s")
            for workers in options.workers:
                found = experiment(
                    arms,
                    FILES[name],
                    workers,
                    seeds=options.seeds,
                    python=options.python,
                    pool=pool,
                    kept=kept,
                    more=more,
                )
                print(f"\n{workers} workers", *text(found), sep="\n", flush=True)
    print(f"\n* the best peer. {time.perf_counter() - started:.0f} s in all.")


if __name__ == "__main__":
    main()
