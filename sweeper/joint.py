"""Fronts of several groups of models, runs or methods, laid over each other: who contributes what.

Array code: no files, no trials. `costs` are (n, m), smaller is better; `violation` is (n,), by how much each
model breaks the constraints; `groups` is (n,), the group of each model, in [0, size).

On the images on which fronts were chosen a hypervolume is a few per cent too large, as what looks best there
is a little worse in truth: with 300 images, twice 15 configurations and two objectives simulations found 4 to
7 %. What is gained was at most 6 % too large, and parts of the whole are nearly right.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sweeper.pareto import hypervolume, non_dominated, reference_point

Array = NDArray[np.float64]

ROUNDING = 1e-12
"""Of the whole volume; what is gained below it is nothing."""


class Volumes(NamedTuple):
    """Hypervolumes, in the product of the objectives' units.

    whole: of all models.  own: (size,) of each group by itself.  gained: (size,) what a group adds to all the
    others: `whole` less the hypervolume without it, at least 0.
    """

    whole: float
    own: Array
    gained: Array


def volumes(
    costs: ArrayLike, groups: ArrayLike, size: int, reference: ArrayLike, violation: ArrayLike | None = None
) -> Volumes:
    """reference: (m,) where hypervolumes are measured from, see `common_reference`.

    A group gains nothing if others dominate all its models, or have the same. With a group more none of the
    others gains more.
    """
    costs, of = np.asarray(costs, dtype=np.float64), np.asarray(groups)
    broken = np.zeros(len(costs)) if violation is None else np.asarray(violation, dtype=np.float64)

    def of_those(chosen: NDArray[np.bool_]) -> float:
        return hypervolume(costs[chosen], reference, broken[chosen])

    whole = of_those(np.ones(len(costs), dtype=bool))
    own = np.array([of_those(of == group) for group in range(size)])
    lost = np.array([whole - of_those(of != group) for group in range(size)])
    return Volumes(whole, own, np.where(lost > ROUNDING * whole, lost, 0.0))


def beaten(
    costs: ArrayLike, groups: ArrayLike, size: int, violation: ArrayLike | None = None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(size,) models on each group's own front, and (size, size) how many of the column's are dominated by
    one of the row's.

    The latter over the former is the coverage of two sets of Zitzler and Thiele, IEEE Trans. Evol. Comput. 3
    (1999) 257, section IV-B, but that equal models do not beat each other.
    """
    costs, of = np.asarray(costs, dtype=np.float64), np.asarray(groups)
    broken = np.zeros(len(costs)) if violation is None else np.asarray(violation, dtype=np.float64)
    fronts = [
        costs[of == group][non_dominated(costs[of == group], broken[of == group])] for group in range(size)
    ]
    counts = np.zeros((size, size), dtype=np.int64)
    for (row, column), _ in np.ndenumerate(counts):
        worse = (fronts[row][:, None] <= fronts[column]).all(axis=2)
        worse &= (fronts[row][:, None] < fronts[column]).any(axis=2)
        counts[row, column] = worse.any(axis=0).sum()
    return np.array([len(front) for front in fronts]), counts


def common_reference(costs: ArrayLike, untrained: ArrayLike, violation: ArrayLike | None = None) -> Array:
    """(m,) `pareto.reference_point` of the joint front and the untrained models, (u, m): a model that is not
    on the joint front does not move it. At least one point is finite."""
    costs, start = np.asarray(costs, dtype=np.float64), np.asarray(untrained, dtype=np.float64)
    return reference_point(np.vstack([costs[non_dominated(costs, violation)], start]))
