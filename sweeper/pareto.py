"""Non-dominated sets, and what to say of them in a number or to take from them.

Array code: no files, no trials, no torch. `costs` are (n, m), smaller is better; `violation` is (n,), by how
much each point breaks the constraints. Only points with a violation of 0 count; those with a cost that is
not finite never do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Direction = Literal["maximize", "minimize"]


def as_costs(values: ArrayLike, directions: Sequence[Direction]) -> NDArray[np.float64]:
    """(n, m) values with the sign of maximised columns turned, so that smaller is better."""
    signs = np.array([-1.0 if direction == "maximize" else 1.0 for direction in directions])
    return np.asarray(values, dtype=np.float64).reshape(-1, len(directions)) * signs


def dominates(first: ArrayLike, second: ArrayLike) -> bool:
    """Whether `first` is nowhere worse and somewhere better than `second`. (m,) costs."""
    first, second = np.asarray(first), np.asarray(second)
    return bool((first <= second).all() and (first < second).any())


def non_dominated(costs: ArrayLike, violation: ArrayLike | None = None) -> NDArray[np.bool_]:
    """(n,) which points no other point dominates. costs: (n, m), smaller is better.

    violation: (n,) by how much each point breaks the constraints; only points with 0 can be
    members. Points with a cost that is not finite are no members and dominate nothing. Equal
    points do not dominate each other: all copies of a non-dominated point are members.
    """
    costs = np.asarray(costs, dtype=np.float64)
    indices = np.flatnonzero(_eligible(costs, violation))
    member = np.zeros(len(costs), dtype=bool)
    member[indices[_first(costs[indices])]] = True
    return member


def fronts(
    costs: ArrayLike, violation: ArrayLike | None = None, *, enough: int | None = None
) -> NDArray[np.int64]:
    """(n,) rank of each point's front, from 0: no point dominates it once those of lower ranks are gone.

    enough: once so many points have a rank, all others share the next; what is asked for is only the first.

    A point that breaks constraints comes after all that break them less, whatever its costs; points with a
    cost or violation that is not finite come last. No rank is left out. Non-dominated sorting and the order
    of constraints as in NSGA-II, Deb et al., IEEE Trans. Evol. Comput. 6 (2002) 182, sections III-A and VI-A.
    """
    costs = np.asarray(costs, dtype=np.float64)
    broken = np.zeros(len(costs)) if violation is None else np.maximum(np.asarray(violation, float), 0.0)
    left = np.flatnonzero(np.isfinite(costs).all(axis=1) & np.isfinite(broken))
    left = left[np.argsort(broken[left], kind="stable")]
    rank, wanted = np.full(len(costs), -1, dtype=np.int64), len(left) if enough is None else enough
    ranked = 0
    while len(left) and ranked < wanted:
        group = left[: np.searchsorted(broken[left], broken[left[0]], side="right")]
        front = group[_first(costs[group])]
        rank[front] = rank.max() + 1
        left, ranked = left[rank[left] < 0], ranked + len(front)
    rank[rank < 0] = rank.max(initial=-1) + 1
    return rank


def _eligible(costs: NDArray[np.float64], violation: ArrayLike | None) -> NDArray[np.bool_]:
    finite = np.isfinite(costs).all(axis=1)
    if violation is not None:
        finite &= np.asarray(violation) <= 0
    return np.asarray(finite, dtype=np.bool_)


def _first(costs: NDArray[np.float64]) -> NDArray[np.intp]:
    """The indices of the points that no other dominates; all costs are finite.

    In lexicographic order what dominates a point comes before it, so the first one left is a member, and
    those that it dominates can be forgotten: n comparisons for each member, not for each point.
    """
    left = np.lexsort(costs.T[::-1])
    members = []
    while len(left):
        best, others = costs[left[0]], costs[left]
        members.append(left[0])
        beaten = (best <= others).all(axis=1) & (best < others).any(axis=1)
        beaten[0] = True  # it is done with
        left = left[~beaten]
    return np.array(members, dtype=np.intp)


def reference_point(costs: ArrayLike) -> NDArray[np.float64]:
    """(m,) where hypervolumes are measured from: the worst finite point of each objective, and a tenth of
    its range beyond, so that the ends of a front count, too (1 beyond, where all are equal).

    Hypervolumes can be compared only if they have the same reference point: take it of all points of
    all that is compared. At least one point is finite.
    """
    costs = np.asarray(costs, dtype=np.float64)
    finite = costs[_eligible(costs, None)]
    best, worst = finite.min(axis=0), finite.max(axis=0)
    return np.where(worst > best, worst + 0.1 * (worst - best), worst + 1)


def hypervolume(costs: ArrayLike, reference: ArrayLike, violation: ArrayLike | None = None) -> float:
    """Volume of what the points dominate, up to the reference point, (m,); in the product of the
    objectives' units, exact. Points that are not better than it in every objective add nothing.

    By moocore, whose algorithms are those of Fonseca, Paquete and Lopez-Ibanez, IEEE CEC 2006, 1157, and of
    Guerreiro and Fonseca, IEEE Trans. Evol. Comput. 22 (2018) 449.
    """
    import moocore

    costs = np.asarray(costs, dtype=np.float64)
    points = costs[_eligible(costs, violation)]
    return float(moocore.hypervolume(points, ref=np.asarray(reference, dtype=np.float64)))


def hypervolume_over_time(
    costs: ArrayLike, elapsed: ArrayLike, reference: ArrayLike, violation: ArrayLike | None = None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """When each point was known, (n,) ascending, and the hypervolume of those known by then, (n,).

    elapsed: (n,) what had been spent when each point became known: seconds, epochs, or its number. Of points
    of the same moment the last value is that of all.
    """
    costs, elapsed = np.asarray(costs, dtype=np.float64), np.asarray(elapsed, dtype=np.float64)
    eligible = _eligible(costs, violation)
    order = np.argsort(elapsed, kind="stable")
    known = costs[:0]
    volume, volumes = 0.0, []
    for index in order:
        if eligible[index] and not any(dominates(point, costs[index]) for point in known):
            known = np.vstack([known, costs[index]])
            known = known[non_dominated(known)]
            volume = hypervolume(known, reference)
        volumes.append(volume)
    return elapsed[order], np.array(volumes)


def knee(costs: ArrayLike, violation: ArrayLike | None = None) -> int | None:
    """The point from which any gain in one objective costs most in the others; None if none is eligible.

    On the non-dominated set, each objective scaled to [0, 1] from its best to its worst there: the point
    farthest below the hyperplane through the m points that are worst in one objective and best in all others,
    that is, of the smallest sum; the first of equals. Das, Struct. Optim. 18 (1999) 107.
    """
    costs = np.asarray(costs, dtype=np.float64)
    return weighted(costs, np.ones(costs.shape[1]), violation)


def weighted(costs: ArrayLike, weights: ArrayLike, violation: ArrayLike | None = None) -> int | None:
    """The pick by how much each objective counts, (m,) of at least 0; None if no point is eligible.

    Of the non-dominated set the point of the smallest weighted sum, each objective scaled to [0, 1] from its
    best to its worst there; the first of equals.
    """
    costs = np.asarray(costs, dtype=np.float64)
    members = np.flatnonzero(non_dominated(costs, violation))
    if not len(members):
        return None
    front = costs[members]
    best, span = front.min(axis=0), np.ptp(front, axis=0)
    scaled = (front - best) / np.where(span > 0, span, 1)
    return int(members[(scaled * np.asarray(weights, dtype=np.float64)).sum(axis=1).argmin()])


def lexicographic(costs: ArrayLike, tolerances: ArrayLike, violation: ArrayLike | None = None) -> int | None:
    """The pick by objectives in order of their importance, the columns'; None if no point is eligible.

    Those within tolerances[0] of the best first cost are kept, of these those within tolerances[1] of
    their best second cost, and so on; (m,), each at least 0, in the objective's unit. Of what is left, which
    is equally good then, the best first cost decides, and the second where that is equal, ... Never
    dominated: what dominates a point is kept where it is, and comes before it.
    """
    costs = np.asarray(costs, dtype=np.float64)
    left = np.flatnonzero(_eligible(costs, violation))
    if not len(left):
        return None
    for column, tolerance in zip(costs.T, np.asarray(tolerances, dtype=np.float64), strict=True):
        left = left[column[left] <= column[left].min() + tolerance]
    return int(left[np.lexsort(costs[left].T[::-1])[0]])
