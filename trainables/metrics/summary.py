"""From the records of an evaluation to its metrics and their intervals, without a model.

records: a row per image: `set`, `split`, `index`, `label`, `broken_by`, `temperature`, `zero_gradients`,
and for each version of the images, `clean_`, `robust_`, ...: `prediction`, `correct`, `rank`
(of the label: how many classes have a larger logit), `confidence`, `margin`, `nll`, `brier`, `entropy`,
`aleatoric`, `epistemic`, `scaled_confidence`, `scaled_nll`.
class_bins: a row per set, version, class and bin, see `metrics.classwise`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from trainables.metrics import calibration, classwise, comparison, detection, intervals, selective
from trainables.metrics.debiased import debiased_calibration_error
from trainables.metrics.names import CONFIDENCE_VERSIONS, UNCERTAINTIES, VERSIONS

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pandas as pd

    from trainables.metrics.estimate import Estimate

MEANS = ("nll", "brier", "confidence", *UNCERTAINTIES, "scaled_nll")
"""Metrics that are means of a column of the records of the same name."""
NULL_SEED = 0


@dataclass(frozen=True)
class Summary:
    """metrics: by name, see metrics/names.py; undefined ones are left out.
    intervals: 95 % intervals (low, high) of those that have one."""

    metrics: dict[str, float]
    intervals: dict[str, tuple[float, float]]


def summarize(records: pd.DataFrame, class_bins: pd.DataFrame) -> Summary:
    """Metrics of all sets; `transfer.` ones are means over the sets after the first."""
    sets = list(records["set"].unique())
    bins = dict(list(class_bins.groupby("set", sort=False)))
    of_set = {name: set_summary(records[records["set"] == name], bins[name]) for name in sets}
    metrics, ends = dict(of_set[sets[0]].metrics), dict(of_set[sets[0]].intervals)
    others = {name: of_set[name] for name in sets[1:]}
    for metric in metrics.copy():
        values = [other.metrics[metric] for other in others.values() if metric in other.metrics]
        if others and len(values) == len(others):
            metrics[f"transfer.{metric}"] = float(np.mean(values))
    for name, other in others.items():
        metrics |= {f"{name}.{metric}": value for metric, value in other.metrics.items()}
        ends |= {f"{name}.{metric}": interval for metric, interval in other.intervals.items()}
    return Summary(metrics, ends)


def set_summary(records: pd.DataFrame, class_bins: pd.DataFrame) -> Summary:
    """Metrics of one set."""
    versions = [v for v in (*VERSIONS, *CONFIDENCE_VERSIONS) if f"{v}_correct" in records]
    tables = dict(list(class_bins.groupby("version", sort=False)))
    values: dict[str, float | Estimate] = {}
    for version in versions:
        own = {name.removeprefix(f"{version}_"): records[name].to_numpy() for name in records.columns}
        values |= {f"{version}_{name}": v for name, v in version_values(own, tables[version])}
    values["robust_accuracy"] = intervals.share(records["broken_by"] == "")
    values |= dict(set_values(records))
    return split(values)


def version_values(
    own: dict[str, np.ndarray], class_bins: pd.DataFrame
) -> Iterator[tuple[str, float | Estimate]]:
    """Names and values of one version. own: columns of the records without the version in front."""
    confidence, correct = own["confidence"], own["correct"]
    null = calibration.calibrated_null(confidence, seed=NULL_SEED)
    yield "accuracy", intervals.share(correct)
    yield "ece", calibration.expected_calibration_error(confidence, correct)
    yield "ece_null_mean", null.mean
    yield "ece_null_95", null.quantile
    yield "ece_equal_mass", calibration.equal_mass_calibration_error(confidence, correct)
    yield "ece_class_wise", classwise.class_wise_ece(class_bins)
    yield "calibration_l2", debiased_calibration_error(confidence, correct)
    yield "aurc", selective.aurc(confidence, correct)
    yield "scaled_ece", calibration.expected_calibration_error(own["scaled_confidence"], correct)
    yield "confidence_when_wrong", selective.confidence_when_wrong(confidence, correct)
    yield "doubt_when_right", selective.doubt_when_right(confidence, correct)
    for name in MEANS:
        yield name, intervals.mean(own[name])
    for name in UNCERTAINTIES:
        yield f"{name}_error_auroc", detection.auroc(own[name], ~correct)


def set_values(records: pd.DataFrame) -> Iterator[tuple[str, float | Estimate]]:
    """Names and values of what is about several versions, or none."""
    yield "temperature", float(records["temperature"].iloc[0])
    yield "zero_gradients", float(records["zero_gradients"].mean())
    for name in UNCERTAINTIES:
        clean, attacked = records[f"clean_{name}"].to_numpy(), records[f"robust_{name}"].to_numpy()
        yield f"{name}_shift", comparison.shift(clean, attacked)
        yield f"{name}_attack_auroc", detection.auroc_of_pairs(clean, attacked)


def split(values: dict[str, float | Estimate]) -> Summary:
    """Values and intervals apart, what is undefined left out."""
    metrics, ends = {}, {}
    for name, value in values.items():
        if isinstance(value, float):
            metrics[name] = value
            continue
        if not math.isnan(value.value):
            metrics[name] = value.value
        if not math.isnan(value.low):
            ends[name] = (value.low, value.high)
    return Summary(metrics, ends)
