"""From the records of an evaluation to its metrics and their intervals, without a model.

records: a row per image: `set`, `groups` (that the set is in, with a space between), `split`, `index`,
`label` (-1 if it is of no class of the in-distribution set), `broken_by`, `temperature`, `zero_gradients`,
`own_temperature` and `own_scaled_nll` (see `metrics.names`), and for each version of the images, `clean_`,
`robust_`, ...: `prediction`, `correct`, `rank` (of the label: how many classes have a larger logit),
`confidence`, `margin`, `nll`, `brier`, `entropy`, `aleatoric`, `epistemic`, `mcm` (the largest softmax of the
cosines), `scaled_confidence`, `scaled_nll`. Images of no class have those that need no label, clean alone.
class_bins: a row per set, version, class and bin, see `metrics.classwise`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np

from trainables.metrics import calibration, classwise, comparison, detection, intervals, selective
from trainables.metrics.debiased import debiased_calibration_error
from trainables.metrics.names import SCORES, UNCERTAINTIES, VERSIONS, WORST, of_group, worse
from trainables.metrics.records import by_set, certainty, groups_of, is_outside, versions_of
from trainables.metrics.separation import separation

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

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
    """Metrics of all sets, and of the groups that they are in, see `metrics.names`."""
    tables = by_set(records)
    first, *others = tables
    bins = dict(list(class_bins.groupby("set", sort=False)))
    of = {
        name: outside_summary(tables[first], own) if is_outside(own) else set_summary(own, bins[name])
        for name, own in tables.items()
    }
    metrics, ends = dict(of[first].metrics), dict(of[first].intervals)
    groups = {name: groups_of(tables[name]) for name in others}
    for group in dict.fromkeys(chain(*groups.values())):
        members = [of[name].metrics for name in others if group in groups[name]]
        metrics |= {f"{group}.{name}": value for name, value in group_metrics(members).items()}
    for name in others:
        metrics |= {f"{name}.{metric}": value for metric, value in of[name].metrics.items()}
        ends |= {f"{name}.{metric}": interval for metric, interval in of[name].intervals.items()}
    return Summary(metrics, ends)


def group_metrics(members: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Means over the sets that have a metric, and the worst."""
    metrics = {}
    for name in of_group(members):
        of_worst = name.removeprefix(WORST)
        values = [member[of_worst] for member in members if of_worst in member]
        if name == of_worst:
            metrics[name] = float(np.mean(values))
        else:
            metrics[name] = min(values) if worse(of_worst) == "smaller" else max(values)
    return metrics


def set_summary(own: pd.DataFrame, class_bins: pd.DataFrame) -> Summary:
    """Metrics of one set of classified images. own: its records."""
    tables = dict(list(class_bins.groupby("version", sort=False)))
    values: dict[str, float | Estimate] = {}
    for version in versions_of(own):
        of = {name.removeprefix(f"{version}_"): own[name].to_numpy() for name in own.columns}
        values |= {f"{version}_{name}": v for name, v in version_values(of, tables[version])}
    values |= dict(clean_values(own))
    if f"{VERSIONS[1]}_confidence" in own:
        values["robust_accuracy"] = intervals.share(own["broken_by"] == "")
        values |= dict(attack_values(own))
    return split(values)


def outside_summary(inside: pd.DataFrame, outside: pd.DataFrame) -> Summary:
    """Metrics of one set of other images. inside, outside: records of the in-distribution set and its own."""
    values: dict[str, float | Estimate] = {}
    for score in SCORES:
        found = separation(*(certainty(own, score) for own in (inside, outside)))
        values |= {f"{score}_ood_{kind}": value for kind, value in found.items()}
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


def clean_values(own: pd.DataFrame) -> Iterator[tuple[str, float | Estimate]]:
    """Names and values of what is about the clean images together."""
    yield "temperature", float(own["temperature"].iloc[0])
    yield "own_temperature", float(own["own_temperature"].iloc[0])
    yield "temperature_regret", intervals.mean(own["clean_scaled_nll"] - own["own_scaled_nll"])


def attack_values(own: pd.DataFrame) -> Iterator[tuple[str, float | Estimate]]:
    """Names and values of what is about clean and attacked images together."""
    yield "zero_gradients", float(own["zero_gradients"].mean())
    for name in UNCERTAINTIES:
        clean, attacked = own[f"clean_{name}"].to_numpy(), own[f"robust_{name}"].to_numpy()
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
