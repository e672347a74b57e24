"""Non-dominated sets. Array code: no files, no trials, no torch."""

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
    eligible = np.isfinite(costs).all(axis=1)
    if violation is not None:
        eligible &= np.asarray(violation) <= 0
    indices = np.flatnonzero(eligible)
    points = costs[indices]
    no_worse = (points[:, None, :] <= points[None, :, :]).all(axis=2)
    better = (points[:, None, :] < points[None, :, :]).any(axis=2)
    member = np.zeros(len(costs), dtype=bool)
    member[indices] = ~(no_worse & better).any(axis=0)
    return member
