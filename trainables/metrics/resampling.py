"""Metrics of many configurations on resampled images: the same images for all of them.

Images are resampled with replacement, as many as there are, and a draw is kept as weights: how often each
image was drawn. Sets of the same images, as a set and what is altered of it, take the same draws, because a
model's errors on one image go together, however it is altered; sets of other images are resampled by
themselves (the cluster bootstrap: Davison and Hinkley, Bootstrap Methods and their Application (1997),
section 3.8). A statistic computes a metric of all draws at once, whatever the sum of the weights, and with
weights of 1 it is the metric of `summary`. Temperatures stay as they were fitted. Where a configuration was
trained with k seeds, its metric is the mean over them, and each draw takes k - 1 of them with replacement,
of each configuration by itself: that gives the mean its variance, which k of k would make too small by
the factor (k - 1) / k (Rao and Wu, J. Am. Stat. Assoc. 83 (1988) 231). A single seed is always taken.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from trainables.errors import MetricError
from trainables.metrics.calibration import BINS, equal_width_index
from trainables.metrics.comparison import CHUNK, mean_of, resampled
from trainables.metrics.names import (
    CONFIDENCE_VERSIONS,
    OUTSIDE,
    SCORES,
    UNCERTAINTIES,
    VERSIONS,
    WORST,
    worse,
)
from trainables.metrics.records import by_set, certainty, groups_of, is_outside, source_of
from trainables.metrics.separation import KINDS, at_scores
from trainables.metrics.summary import MEANS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from trainables.metrics.comparison import Columns, Statistic


Array = NDArray[np.float64]


def ece(columns: Columns, weights: Array, *, confidence: str = "confidence") -> Array:
    """`calibration.expected_calibration_error` of a column of confidences."""
    gaps = _binned(columns, columns["correct"] - columns[confidence], confidence)
    return np.abs(weights @ gaps).sum(axis=1) / weights.sum(axis=1)


def calibration_l2(columns: Columns, weights: Array) -> Array:
    """`debiased.debiased_calibration_error`."""
    return np.sqrt(np.maximum(squared_l2(columns, weights), 0.0))


def squared_l2(columns: Columns, weights: Array) -> Array:
    """`debiased.squared_error`, which is unbiased where its root is not, and negative by chance."""
    difference = columns["correct"] - columns["confidence"]
    images, sums, squares = (weights @ _binned(columns, difference**power) for power in range(3))
    gap = sums / np.maximum(images, 1)
    variance = np.maximum(squares - images * gap**2, 0) / np.maximum(images - 1, 1)
    terms = np.where(images > 1, images * gap**2 - variance, 0.0)
    return terms.sum(axis=1) / weights.sum(axis=1)


def _binned(columns: Columns, values: Array, confidence: str = "confidence") -> Array:
    """(N, BINS) each image's value in the column of its equal-width bin."""
    table = np.zeros((len(values), BINS))
    table[np.arange(len(values)), equal_width_index(columns[confidence])] = values
    return table


def ece_equal_mass(columns: Columns, weights: Array) -> Array:
    """`calibration.equal_mass_calibration_error`."""
    total = weights.sum(axis=1, keepdims=True)
    images, gaps = _grouped(
        columns["confidence"], weights, weights * (columns["correct"] - columns["confidence"])
    )
    middle = images.cumsum(axis=1) - images / 2
    index = np.minimum(np.floor(middle * BINS / total).astype(np.int64), BINS - 1)  # else: none drawn
    cell = index + BINS * np.arange(len(weights))[:, None]
    sums = np.bincount(cell.ravel(), weights=gaps.ravel(), minlength=BINS * len(weights))
    return np.abs(sums.reshape(-1, BINS)).sum(axis=1) / total[:, 0]


def aurc(columns: Columns, weights: Array) -> Array:
    """`selective.aurc`: of the images k = before + 1, ..., after of a group of equals the k-th has the risk
    (wrong before + (k - before) risk of the group) / k."""
    images, wrong = _grouped(-columns["confidence"], weights, weights * (1 - columns["correct"]))
    after = images.cumsum(axis=1)
    before, wrong_before = after - images, wrong.cumsum(axis=1) - wrong
    risk = wrong / np.maximum(images, 1)
    total = weights.sum(axis=1)
    harmonic = np.concatenate([[0.0], np.cumsum(1 / np.arange(1, int(total.max()) + 1))])
    between = harmonic[after.astype(np.int64)] - harmonic[before.astype(np.int64)]
    return (risk * images + (wrong_before - risk * before) * between).sum(axis=1) / total


def shift(columns: Columns, weights: Array, *, name: str) -> Array:
    """`comparison.shift` of an uncertainty under attack."""
    return weights @ (columns[f"robust_{name}"] - columns[f"clean_{name}"]) / weights.sum(axis=1)


def attack_auroc(columns: Columns, weights: Array, *, name: str) -> Array:
    """`detection.auroc_of_pairs` of an uncertainty, clean against attacked."""
    scores = np.concatenate([columns[f"clean_{name}"], columns[f"robust_{name}"]])
    none = np.zeros_like(weights)
    clean, attacked = _grouped(scores, np.hstack([weights, none]), np.hstack([none, weights]))
    below = clean.cumsum(axis=1) - clean / 2
    return (attacked * below).sum(axis=1) / weights.sum(axis=1) ** 2


def difference_of(column: str, other: str) -> Statistic:
    """The mean of one column less that of another."""
    return lambda columns, weights: weights @ (columns[column] - columns[other]) / weights.sum(axis=1)


def _grouped(key: Array, *values: Array) -> Iterator[Array]:
    """Of each (D, N) values the sums (D, G) over images of equal key, keys ascending."""
    order = np.argsort(key, kind="stable")
    first = np.flatnonzero(np.diff(key[order], prepend=-np.inf))
    return (np.add.reduceat(value[:, order], first, axis=1) for value in values)


def of_version(columns: Columns, weights: Array, *, version: str, statistic: Statistic) -> Array:
    start = f"{version}_"
    own = {name.removeprefix(start): column for name, column in columns.items() if name.startswith(start)}
    return statistic(own, weights)


OF_VERSION: dict[str, Statistic] = {
    "accuracy": mean_of("correct"),
    "ece": ece,
    "ece_equal_mass": ece_equal_mass,
    "calibration_l2": calibration_l2,
    "squared_l2": squared_l2,
    "aurc": aurc,
    "scaled_ece": partial(ece, confidence="scaled_confidence"),
    **{name: mean_of(name) for name in MEANS},
}
OF_SET: dict[str, Statistic] = {
    "robust_accuracy": mean_of("unbroken"),
    "temperature": mean_of("temperature"),
    "own_temperature": mean_of("own_temperature"),
    "temperature_regret": difference_of("clean_scaled_nll", "own_scaled_nll"),
    "zero_gradients": mean_of("zero_gradients"),
    **{f"{name}_shift": partial(shift, name=name) for name in UNCERTAINTIES},
    **{f"{name}_attack_auroc": partial(attack_auroc, name=name) for name in UNCERTAINTIES},
}
STATISTICS: dict[str, Statistic] = {
    f"{version}_{name}": partial(of_version, version=version, statistic=statistic)
    for version in (*VERSIONS, *CONFIDENCE_VERSIONS)
    for name, statistic in OF_VERSION.items()
} | OF_SET
"""By name, all but `ece_class_wise`, whose probabilities of all classes are not in the records, and the
`ece_null_` ones, which describe a model that is not this one. Those of `OUTSIDE` are about two sets.
`squared_l2` is not reported, and there for differences."""


@dataclass(frozen=True)
class Resampled:
    """estimates: (C, M) metrics of C configurations.  draws: (D, C, M) the same on resampled images."""

    estimates: Array
    draws: Array


@dataclass
class _Part:
    """A record file's images of a set. source: which images these are of; of one source, images of equal
    number are the same.  numbers: (N,) int64.  groups: that the set is in.
    inside: of images of other classes, the in-distribution images."""

    set: str
    source: str
    numbers: NDArray[np.int64]
    columns: Columns
    groups: tuple[str, ...] = ()
    inside: _Part | None = None

    def value(self, name: str, weights: _Weights) -> Array:
        """(D,) a statistic of draws."""
        if self.inside is None:
            return STATISTICS[name](self.columns, weights.of(self))
        score, _, kind = name.rpartition("_ood_")
        inside, outside = (part.columns[f"certainty_{score}"] for part in (self.inside, self))
        return KINDS[kind](*at_scores(inside, outside, weights.of(self.inside), weights.of(self)))


class _Weights(dict[str, Array]):
    """(D, N) of each source's images, drawn when they are first asked for.

    draws: 0 for the images as they are.  numbers: of each source, ascending.  generators: of each source."""

    def __init__(
        self,
        draws: int,
        numbers: Mapping[str, NDArray[np.int64]],
        generators: Mapping[str, np.random.Generator],
    ) -> None:
        super().__init__()
        self.draws, self.numbers, self.generators = draws, numbers, generators

    def __missing__(self, source: str) -> Array:
        count = len(self.numbers[source])
        drawn = resampled(self.generators[source], self.draws, count) if self.draws else np.ones((1, count))
        self[source] = drawn
        return drawn

    def of(self, part: _Part) -> Array:
        """(D, N) of a part's images. A draw of its source that has none of them takes each once: nothing is
        defined of no images. Of seven images that is one draw in a thousand, of more hardly any."""
        drawn, numbers = self[part.source], self.numbers[part.source]
        if np.array_equal(part.numbers, numbers):
            return drawn
        own = drawn[:, np.searchsorted(numbers, part.numbers)]
        own[own.sum(axis=1) == 0] = 1
        return own


def resample(
    configurations: Sequence[Sequence[Path]], metrics: Sequence[str], *, draws: int = 1000, seed: int = 0
) -> Resampled:
    """Metrics of configurations on samples of their images, paired: see above.

    configurations: of each the record files of its seeds, one or more, all of one split.  metrics: names of
    `metric_names`. Each source is drawn once for all files, of all numbers that any of them has.
    Deterministic in `seed`. Raises MetricError for a metric that has no statistic here.
    """
    for name in metrics:
        if _statistic_name(name) not in (*STATISTICS, *OUTSIDE):
            raise MetricError(f"{name} can't be resampled: it can't be computed from an image's record alone")
    files = [file for seeds in configurations for file in seeds]
    of_files = [list(_parts(pd.read_parquet(file))) for file in files]
    numbers = _numbers(_agreeing([part for parts in of_files for part in parts]))
    of_seeds, *seeds = np.random.SeedSequence(seed).spawn(len(numbers) + 1)
    generators = dict(zip(numbers, map(np.random.default_rng, seeds), strict=True))
    found = []
    for size in _sizes(draws, max(map(len, numbers.values()))):
        weights = _Weights(size, numbers, generators)
        values = [[_of_metric(metric, parts, weights) for metric in metrics] for parts in of_files]
        found.append(np.moveaxis(np.array(values), 2, 0))
    counts = [len(seeds) for seeds in configurations]
    return _of_configurations(np.concatenate(found), counts, np.random.default_rng(of_seeds))


def _agreeing(parts: Sequence[_Part]) -> Sequence[_Part]:
    """The parts; those of an earlier version's records, whose source is the set's name, have the source that
    other records give for a set of that name."""
    told = {part.set: part.source for part in parts if part.source != part.set}
    for part in parts:
        part.source = told.get(part.source, part.source)
    return parts


def _numbers(parts: Sequence[_Part]) -> dict[str, NDArray[np.int64]]:
    """Of each source the numbers of all images that any part has of it, ascending."""
    of_sources: dict[str, list[NDArray[np.int64]]] = {}
    for part in parts:
        of_sources.setdefault(part.source, []).append(part.numbers)
    return {source: np.unique(np.concatenate(each)) for source, each in of_sources.items()}


def _sizes(draws: int, images: int) -> Iterator[int]:
    """How many draws are made at a time; the first 0 is for the images as they are."""
    yield 0
    step = max(1, CHUNK // images)
    yield from (min(step, draws - start) for start in range(0, draws, step))


def _statistic_name(metric: str) -> str:
    return metric.rpartition(".")[2].removeprefix(WORST)


def _of_metric(metric: str, parts: Sequence[_Part], weights: _Weights) -> Array:
    """(D,) a metric of a file."""
    prefix, _, name = metric.rpartition(".")
    statistic = _statistic_name(metric)
    members = _parts_of(prefix, parts, outside=statistic in OUTSIDE)
    values = [part.value(statistic, weights) for part in members]
    if not name.startswith(WORST):
        return np.asarray(np.mean(values, axis=0))
    return np.asarray(np.min(values, axis=0) if worse(name) == "smaller" else np.max(values, axis=0))


def _parts_of(prefix: str, parts: Sequence[_Part], *, outside: bool) -> Sequence[_Part]:
    """The sets that metrics with this in front are of; the in-distribution one comes first. outside: of other
    classes, or of classified ones."""
    members = [part for part in parts[1:] if prefix in part.groups and bool(part.inside) == outside]
    return members or [part for part in parts if part.set == (prefix or parts[0].set)]


def _parts(table: pd.DataFrame) -> Iterator[_Part]:
    first: _Part | None = None
    for name, rows in by_set(table).items():
        known = rows.select_dtypes(["number", "bool"])
        columns = {str(column): known[column].to_numpy(np.float64) for column in known}
        if "broken_by" in rows:
            columns["unbroken"] = (rows["broken_by"] == "").to_numpy(np.float64)
        columns |= {
            f"certainty_{score}": certainty(rows, score) for score in SCORES if f"clean_{score}" in rows
        }
        inside = first if is_outside(rows) else None
        numbers = rows["index"].to_numpy(np.int64)
        made = _Part(name, source_of(rows), numbers, columns, groups_of(rows), inside)
        first = first or made
        yield made


def _of_configurations(of_files: Array, counts: Sequence[int], generator: np.random.Generator) -> Resampled:
    """From (1 + D, F, M) values of files to those of configurations with that many files each."""
    estimates, draws = [], []
    for last, count in zip(np.cumsum(counts), counts, strict=True):
        own = of_files[:, last - count : last]
        chosen = generator.integers(0, count, (len(own) - 1, max(count - 1, 1)))
        estimates.append(own[0].mean(axis=0))
        draws.append(np.take_along_axis(own[1:], chosen[:, :, None], axis=1).mean(axis=1))
    return Resampled(np.stack(estimates), np.stack(draws, axis=1))
