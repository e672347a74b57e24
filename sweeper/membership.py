"""How sure it is that a configuration is Pareto-optimal, from resampled estimates. Array code.

estimates: (C, M) measured objectives of C configurations; draws: (D, C, M) the same of D samples of the
images, each sample being the same images for all configurations (paired bootstrap).

Estimates scatter more widely than true values: that of the configuration which looks best is probably too
good. A bootstrap around the estimates doesn't know, and calls too few configurations optimal where they
differ by less than an estimate's noise. So true values are taken to be normal, with unknown mean and
covariance over configurations, and the bootstrap to be the noise of the estimates:

* Draws are centred on the estimates, because some estimates (ECE) are larger on resampled images.
* What all configurations share of the noise is set apart; it decides nothing between them. The rest has
  the covariance V, the mean over configurations.
* With the true covariance T, the estimates' deviations from their mean are shrunk by K = T (T + V)^-1, and
  so is the noise, to K V (Efron and Morris, Biometrika 59 (1972) 335). T has a flat prior, and each draw a
  value of its own from its posterior: where V = 1, (T + V)^-1 is a Wishart matrix below 1 (Everson and
  Morris, J. R. Stat. Soc. B 62 (2000) 399). Where configurations differ by much, K is 1: nothing changes.

benchmarks/membership.py measures that those called optimal with probability p are so with frequency p.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sweeper.pareto import non_dominated

Array = NDArray[np.float64]


def probability(costs: ArrayLike, violation: ArrayLike | None = None) -> Array:
    """(C,) share of draws in which a configuration is non-dominated and breaks no constraint.

    costs: (D, C, M) draws of the true values, smaller is better.  violation: (D, C). Equal ones are members
    together.
    """
    costs = np.asarray(costs, dtype=np.float64)
    broken = np.zeros(costs.shape[:2]) if violation is None else np.asarray(violation)
    members = [non_dominated(points, out) for points, out in zip(costs, broken, strict=True)]
    return np.mean(members, axis=0)


def centred(estimates: ArrayLike, draws: ArrayLike) -> Array:
    """The draws, moved so that their mean is the estimate: free of what resampling adds to an estimate."""
    draws = np.asarray(draws, dtype=np.float64)
    return draws - draws.mean(axis=0) + np.asarray(estimates, dtype=np.float64)


def true_values(estimates: ArrayLike, draws: ArrayLike, *, seed: int = 0) -> Array:
    """(D, C, M) draws of the true values, see above; deterministic in `seed`.

    With fewer than 2 M + 2 configurations their covariance can't be told; the draws are centred, no more.
    """
    moved = centred(estimates, draws)
    count, size = moved.shape[1:]
    if count < 2 * size + 2:
        return moved
    mean = moved.mean(axis=0)
    shared = (moved - mean).mean(axis=1, keepdims=True)
    noise = moved - mean - shared
    deviation = mean - mean.mean(axis=0)
    scale = _noise_scale(noise, deviation)
    white = np.asarray(np.linalg.inv(scale), dtype=np.float64)
    deviation, noise = _times(deviation, white.T), _times(noise, white.T)
    precision = wishart_below_one(count - size - 2, _scatter(deviation), len(moved), seed)
    kept, directions = np.linalg.eigh(np.eye(size) - precision)
    root = np.sqrt(np.maximum(kept, 0.0))[:, None, :]
    half = (directions * root) @ directions.swapaxes(1, 2)
    shrunk = np.einsum("ci,dij->dcj", deviation, half @ half) + np.einsum("dci,dij->dcj", noise, half)
    return mean.mean(axis=0) + shared + _times(shrunk, scale.T)


def _noise_scale(noise: Array, deviation: Array) -> Array:
    """(M, M) Cholesky factor of the noise's covariance; a millionth of the whole is added, so that it is
    regular where an objective has no noise."""
    draws, count, _ = noise.shape
    covariance = np.einsum("dci,dcj->ij", noise, noise) / (draws * (count - 1))
    whole = np.diag(covariance) + deviation.var(axis=0)
    return np.linalg.cholesky(covariance + np.diag(np.where(whole > 0, 1e-6 * whole, 1.0)))


def _scatter(deviation: Array) -> Array:
    """(M, M) scatter of whitened estimates; where it is below what noise alone gives, it is raised to that:
    then nothing speaks for less, and no matrix below 1 would be found."""
    values, directions = np.linalg.eigh(deviation.T @ deviation)
    return (directions * np.maximum(values, len(deviation) - 1)) @ directions.T


def _times(rows: Array, matrix: Array) -> Array:
    """rows @ matrix, where equal rows give equal results to the last bit, as BLAS's need not be."""
    return np.einsum("...i,ij->...j", rows, matrix)


def wishart_below_one(degrees: int, scatter: Array, size: int, seed: int) -> Array:
    """(size, M, M) Wishart matrices of that many degrees of freedom, at least M, and the inverse of the
    scatter as scale, given that no eigenvalue is above 1. By rejection, from Bartlett's decomposition."""
    generator = np.random.default_rng(seed)
    order = len(scatter)
    factor = np.linalg.cholesky(np.linalg.inv(scatter))
    lower = np.tril_indices(order, -1)
    taken: list[Array] = []
    while sum(map(len, taken)) < size:
        root = np.zeros((size, order, order))
        root[:, range(order), range(order)] = np.sqrt(
            generator.chisquare(degrees - np.arange(order), (size, order))
        )
        root[:, lower[0], lower[1]] = generator.standard_normal((size, len(lower[0])))
        root = factor @ root
        matrices = root @ root.swapaxes(1, 2)
        taken.append(matrices[np.linalg.eigvalsh(matrices)[:, -1] <= 1])
    return np.concatenate(taken)[:size]
