"""The order of points that are compared by several objectives. Array code: no files, no trials, no Ray.

Points that break the constraints less come first; among equals non-dominated fronts; inside a front the
points that spread best over it (arXiv 2106.12639). All costs are smaller-is-better, and objectives count
alike whatever their units.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Within = Literal["epsilon_net", "crowding"]
Array = NDArray[np.float64]
Indices = NDArray[np.intp]


class Fronts:
    """The non-dominated fronts of a growing set of points, each with costs and a violation.

    A point comes before another if its violation is less, or the same and it dominates the other. `front`
    is the length of the longest chain of points before it; so a front is of points with one violation.
    All numbers are finite.
    """

    def __init__(self, objectives: int) -> None:
        self.costs: Array = np.empty((0, objectives))
        self.violation: Array = np.empty(0)
        self.front: Indices = np.empty(0, dtype=np.intp)

    def __len__(self) -> int:
        return len(self.front)

    def add(self, costs: ArrayLike, violation: float = 0.0) -> None:
        """Takes in a point, in O(n). costs: (m,). A newcomer makes a chain longer by one at most, so the
        points that it pushes back move one front on, and push back in turn."""
        self.costs = np.vstack([self.costs, np.asarray(costs, dtype=np.float64)])
        self.violation = np.append(self.violation, violation)
        newcomer = np.array([len(self.front)])
        older = np.arange(len(self.front))
        chain = self.front[self._before(older, newcomer)[:, 0]]
        self.front = np.append(self.front, chain.max(initial=-1) + 1)
        pushing = newcomer
        while len(pushing):
            beside = np.flatnonzero(self.front == self.front[pushing[0]])
            pushing = beside[self._before(pushing, beside).any(axis=0)]
            self.front[pushing] += 1

    def _before(self, first: Indices, second: Indices) -> NDArray[np.bool_]:
        """(a, b) whether each of the points `first` comes before each of the points `second`."""
        costs, others = self.costs[first][:, None, :], self.costs[second][None, :, :]
        violation, theirs = self.violation[first][:, None], self.violation[second][None, :]
        dominates = (costs <= others).all(axis=2) & (costs < others).any(axis=2)
        return (violation < theirs) | ((violation == theirs) & dominates)

    def members(self, front: int, within: Within, generator: np.random.Generator) -> Indices:
        """The points of a front, the one that is to be preferred first."""
        members = np.flatnonzero(self.front == front)
        low, span = self.costs.min(axis=0), np.ptp(self.costs, axis=0)
        unit = (self.costs[members] - low) / np.where(span > 0, span, 1)
        return members[spread(unit, within, generator)]

    def among_first(self, point: int, count: int, within: Within, generator: np.random.Generator) -> bool:
        """Whether `point` is one of the first `count`."""
        front = self.front[point]
        room = count - int((self.front < front).sum())
        if room <= 0 or room >= (self.front == front).sum():
            return room > 0
        return point in self.members(front, within, generator)[:room]


def rank(
    costs: ArrayLike,
    violation: ArrayLike | None = None,
    *,
    within: Within = "epsilon_net",
    generator: np.random.Generator,
) -> Indices:
    """(n,) the position of each point, 0 for the best.

    costs: (n, m), smaller is better.  violation: (n,) by how much each point breaks the constraints; 0
    or less where they hold.  generator: decides between copies of a point, and nothing else.  Points with
    a number that is not finite come last.
    """
    costs = np.asarray(costs, dtype=np.float64)
    excess = (
        np.zeros(len(costs)) if violation is None else np.asarray(violation, dtype=np.float64).clip(min=0)
    )
    usable = np.isfinite(costs).all(axis=1) & np.isfinite(excess)
    known = np.flatnonzero(usable)
    fronts = Fronts(costs.shape[1])
    for index in known:
        fronts.add(costs[index], excess[index])
    order = [
        known[fronts.members(front, within, generator)] for front in range(fronts.front.max(initial=-1) + 1)
    ]
    order.append(generator.permutation(np.flatnonzero(~usable)))
    positions = np.empty(len(costs), dtype=np.intp)
    positions[np.concatenate(order)] = np.arange(len(costs))  # the inverse of the order
    return positions


def spread(points: Array, within: Within, generator: np.random.Generator) -> Indices:
    """The order of the points of a front. points: (n, m), of comparable units.

    It does not depend on the order of the rows: ties are broken by the values, and between copies by the
    generator. All second copies come after all first ones, as they add nothing.
    """
    distinct, which = np.unique(points, axis=0, return_inverse=True)
    which = which.reshape(-1)
    place = np.empty(len(distinct), dtype=np.intp)
    place[ORDERS[within](distinct)] = np.arange(len(distinct))
    shuffled = generator.permutation(len(points))
    grouped = shuffled[np.argsort(which[shuffled], kind="stable")]
    copy = np.empty(len(points), dtype=np.intp)
    copy[grouped] = np.arange(len(points)) - np.searchsorted(which[grouped], which[grouped])
    return np.lexsort((place[which], copy))


def epsilon_net(points: Array) -> Indices:
    """Begins with the point of the least sum; the next is always the farthest from all before.

    points: (n, m), distinct. Every first k of them leave no point farther off than twice the least that
    any k points could (Gonzalez 1985).
    """
    order = [int(points.sum(axis=1).argmin())]
    distance = np.linalg.norm(points - points[order[0]], axis=1)
    while len(order) < len(points):
        distance[order[-1]] = -np.inf
        order.append(int(distance.argmax()))
        distance = np.minimum(distance, np.linalg.norm(points - points[order[-1]], axis=1))
    return np.array(order)


def crowding(points: Array) -> Indices:
    """By crowding distance (NSGA-II, Deb et al. 2002), the ends of each objective first.

    points: (n, m), distinct.
    """
    distance = np.zeros(len(points))
    for column in points.T:
        order = np.argsort(column, kind="stable")
        distance[order[1:-1]] += column[order[2:]] - column[order[:-2]]
        distance[order[[0, -1]]] = np.inf
    return np.argsort(-distance, kind="stable")


ORDERS: dict[Within, Callable[[Array], Indices]] = {"epsilon_net": epsilon_net, "crowding": crowding}
