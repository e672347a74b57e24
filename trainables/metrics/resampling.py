"""Metrics of many configurations on resampled images: the same images for all of them.

Images of each set are resampled by themselves, with replacement, as many as there are, and a draw is kept as
weights: how often each image was drawn. A statistic computes a metric of all draws at once, and with
weights of 1 it is the metric of `summary`. Temperatures stay as they were fitted. Where a configuration was
trained with k seeds, its metric is the mean over them, and each draw takes k - 1 of them with replacement,
of each configuration by itself: that gives the mean its variance, which k of k would make too small by
the factor (k - 1) / k (Rao and Wu, J. Am. Stat. Assoc. 83 (1988) 231). A single seed is always taken.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from trainables.errors import MetricError
from trainables.metrics.calibration import BINS, equal_width_index
from trainables.metrics.comparison import CHUNK, mean_of, resampled
from trainables.metrics.names import CONFIDENCE_VERSIONS, UNCERTAINTIES, VERSIONS
from trainables.metrics.summary import MEANS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from trainables.metrics.comparison import Columns, Statistic


Array = NDArray[np.float64]


def ece(columns: Columns, weights: Array, *, confidence: str = "confidence") -> Array:
    """`calibration.expected_calibration_error` of a column of confidences."""
    gaps = _binned(columns, columns["correct"] - columns[confidence], confidence)
    return np.abs(weights @ gaps).sum(axis=1) / weights.sum(axis=1)


def calibration_l2(columns: Columns, weights: Array) -> Array:
    """`debiased.debiased_calibration_error`."""
    difference = columns["correct"] - columns["confidence"]
    images, sums, squares = (weights @ _binned(columns, difference**power) for power in range(3))
    gap = sums / np.maximum(images, 1)
    variance = np.maximum(squares - images * gap**2, 0) / np.maximum(images - 1, 1)
    terms = np.where(images > 1, images * gap**2 - variance, 0.0)
    return np.sqrt(np.maximum(terms.sum(axis=1) / weights.sum(axis=1), 0.0))


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
    "aurc": aurc,
    "scaled_ece": partial(ece, confidence="scaled_confidence"),
    **{name: mean_of(name) for name in MEANS},
}
OF_SET: dict[str, Statistic] = {
    "robust_accuracy": mean_of("unbroken"),
    "temperature": mean_of("temperature"),
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
`ece_null_` ones, which describe a model that is not this one."""


@dataclass(frozen=True)
class Resampled:
    """estimates: (C, M) metrics of C configurations.  draws: (D, C, M) the same on resampled images."""

    estimates: Array
    draws: Array


@dataclass(frozen=True)
class _Part:
    """A record file's images of a set. images: the set and their numbers, equal where images are the same."""

    file: int
    set: str
    images: bytes
    columns: Columns


def resample(
    configurations: Sequence[Sequence[Path]], metrics: Sequence[str], *, draws: int = 1000, seed: int = 0
) -> Resampled:
    """Metrics of configurations on samples of their images, paired: see above.

    configurations: of each the record files of its seeds, one or more, all of one split. Files with the same
    images of a set share their draws; others are drawn by themselves.  metrics: names of `metric_names`.
    Deterministic in `seed`. Raises MetricError for a metric that has no statistic here.
    """
    for name in metrics:
        if _statistic_name(name) not in STATISTICS:
            raise MetricError(f"{name} can't be resampled: it can't be computed from an image's record alone")
    files = [file for seeds in configurations for file in seeds]
    parts = [part for number, file in enumerate(files) for part in _parts(number, pd.read_parquet(file))]
    sets = [list(dict.fromkeys(part.set for part in parts if part.file == n)) for n in range(len(files))]
    needed = list(dict.fromkeys(map(_statistic_name, metrics)))
    images = list(dict.fromkeys(part.images for part in parts))
    of_seeds, *of_images = np.random.SeedSequence(seed).spawn(len(images) + 1)
    values: dict[tuple[int, str], Array] = {}
    for key, source in zip(images, of_images, strict=True):
        same = [part for part in parts if part.images == key]
        values |= _of_same_images(same, [STATISTICS[name] for name in needed], draws, source)

    def column(file: int, name: str) -> Array:
        index = needed.index(_statistic_name(name))
        return np.mean([values[file, of][:, index] for of in _sets_of(name, sets[file])], axis=0)

    of_files = np.stack(
        [np.stack([column(f, m) for m in metrics], axis=-1) for f in range(len(files))], axis=1
    )
    counts = [len(seeds) for seeds in configurations]
    return _of_configurations(of_files, counts, np.random.default_rng(of_seeds))


def _statistic_name(metric: str) -> str:
    return metric.rpartition(".")[2]


def _sets_of(metric: str, sets: Sequence[str]) -> Sequence[str]:
    """The sets whose mean the metric is; the in-distribution one comes first."""
    prefix = metric.rpartition(".")[0]
    if prefix == "transfer":
        return sets[1:]
    return [prefix or sets[0]]


def _parts(number: int, table: pd.DataFrame) -> Iterator[_Part]:
    for name, rows in table.groupby("set", sort=False):
        images = f"{name} ".encode() + rows["index"].to_numpy().tobytes()
        numbers = rows.select_dtypes(["number", "bool"])
        columns = {str(column): numbers[column].to_numpy(np.float64) for column in numbers}
        columns["unbroken"] = (rows["broken_by"] == "").to_numpy(np.float64)
        yield _Part(number, str(name), images, columns)


def _of_same_images(
    parts: Sequence[_Part], statistics: Sequence[Statistic], draws: int, source: np.random.SeedSequence
) -> dict[tuple[int, str], Array]:
    """(1 + D, S) statistics by file and set; the first row is of the images as they are."""
    generator = np.random.default_rng(source)
    n = len(parts[0].columns["index"])
    step = max(1, CHUNK // n)
    sizes = [min(step, draws - start) for start in range(0, draws, step)]
    values: dict[tuple[int, str], list[Array]] = {(part.file, part.set): [] for part in parts}
    for weights in chain([np.ones((1, n))], (resampled(generator, size, n) for size in sizes)):
        for part in parts:
            of_all = [statistic(part.columns, weights) for statistic in statistics]
            values[part.file, part.set].append(np.stack(of_all, axis=-1))
    return {key: np.concatenate(chunks) for key, chunks in values.items()}


def _of_configurations(of_files: Array, counts: Sequence[int], generator: np.random.Generator) -> Resampled:
    """From (1 + D, F, M) values of files to those of configurations with that many files each."""
    estimates, draws = [], []
    for last, count in zip(np.cumsum(counts), counts, strict=True):
        own = of_files[:, last - count : last]
        chosen = generator.integers(0, count, (len(own) - 1, max(count - 1, 1)))
        estimates.append(own[0].mean(axis=0))
        draws.append(np.take_along_axis(own[1:], chosen[:, :, None], axis=1).mean(axis=1))
    return Resampled(np.stack(estimates), np.stack(draws, axis=1))
