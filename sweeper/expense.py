"""What a sweep takes of a cluster: whether its trials fit, how many at a time, GPU-hours and dollars."""

from __future__ import annotations

from collections.abc import Iterator

from sweeper import pages
from sweeper.budget import busy
from sweeper.capacity import Capacity, NodeType, listed, need_of
from sweeper.errors import UserError
from sweeper.run import Run
from sweeper.spec import Resources, SweepSpec


def lines(sweep: SweepSpec, capacity: Capacity, like: Run | None) -> Iterator[str]:
    """like: the run whose trials say how long one takes. Raises UserError if no node can hold a trial."""
    resources, search = sweep.file.resources, sweep.file.search
    need = need_of(resources)
    able = capacity.fitting(resources)
    if not able:
        raise UserError(
            f"resources: {need}, and the cluster can grow by {listed(capacity.workers)}", pages.CLUSTERS
        )
    yield f"cluster: can grow by {listed(capacity.workers)}, {capacity.most} nodes at a time"
    known = all(kind.slots(resources) is not None for kind in able)
    if known:
        most = capacity.side_by_side(resources, unknown=0)
        wanted = min(most, search.concurrent or most, search.trials)
        yield f"cluster: {need}; fits {', '.join(kind.name for kind in able)}, {wanted} side by side at most"
    else:
        wanted = min(capacity.most, search.concurrent or capacity.most, search.trials)
        yield f"cluster: {need}; whether that fits is known once Ray is up there and sees what the nodes have"
    if like is None:
        limit = search.budget.gpu_hours
        bound = f"at most about {limit:g} GPU-hours, by search.budget" if limit is not None else "not known"
        yield f"expected: {bound}; --like RUN tells it from how long an earlier run's trials took"
        return
    each = mean_seconds(like)
    hours = search.trials * each / 3600
    yield (
        f"expected: {search.trials} trials of {each:.0f} s, as those of {like.name} took on what it ran on: "
        f"{hours * resources.gpus:.3g} GPU-hours, {hours / wanted:.3g} hours with {wanted} side by side"
        f"{'' if known else ', one on each node'}; what follows the search is not in it"
    )
    if costs := dollars(capacity, able, resources, hours, hours / wanted):
        yield (f"expected: {costs}, the head included; starting up, idle nodes, storage and traffic are not")


def mean_seconds(run: Run) -> float:
    """What a run's trial took on average, stopped ones as they were. Raises UserError if none has ended."""
    ended = [trial for trial in run.trials() if trial.status != "unfinished" and trial.epochs]
    if not ended:
        raise UserError(f"{run.name}: no trial of it has ended, so it says nothing of how long they take")
    return sum(map(busy, ended)) / len(ended)


def dollars(capacity: Capacity, able: list[NodeType], resources: Resources, hours: float, wall: float) -> str:
    """As `$3.10 (all on gpu-spot) to $8.20 (all on gpu-on-demand)`; empty where a price is missing. hours: of
    trials, one after another.  wall: of the sweep."""
    if capacity.head not in capacity.prices:
        return ""
    costs = {
        kind.name: hours / size * capacity.prices[kind.name]
        for kind in able
        if (size := kind.slots(resources)) and kind.name in capacity.prices
    }
    head = wall * capacity.prices[capacity.head]
    shown = [
        f"${cost + head:.2f} (all on {name})" for name, cost in sorted(costs.items(), key=lambda x: x[1])
    ]
    return " to ".join(dict.fromkeys([shown[0], shown[-1]])) if shown else ""
