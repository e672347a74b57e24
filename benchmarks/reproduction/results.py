"""From the units' records to the numbers that are kept, as one JSON object."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any, Literal, NamedTuple

import pandas as pd
import torch

from benchmarks.reproduction import units
from benchmarks.reproduction.numbers import (
    Values,
    at_accuracy,
    common_accuracy,
    difference,
    mean,
    values_of,
)
from benchmarks.reproduction.units import CONFIGURATIONS, Configuration, Unit

STANDARD = "standard_accuracy"
"""`robust_accuracy` under the strong attack, on fewer images."""

METRICS = (
    "clean_accuracy",
    "robust_accuracy",
    "clean_ece",
    "robust_ece",
    "clean_squared_l2",
    "robust_squared_l2",
    "robust_scaled_ece",
    "robust_confidence",
    "digits.clean_accuracy",
    "digits.robust_accuracy",
    "entropy_shift",
    "epistemic_shift",
)
SQUARED = "robust_squared_l2"
CURVE = ("robust_accuracy", SQUARED)

Measured = dict[str, dict[str, Values]]
"""By configuration and metric."""
Curves = dict[str, dict[str, list[Values]]]
"""The same of `CURVE`, by epoch."""
Pairs = tuple[tuple[Configuration, Configuration | None], ...]


class Question(NamedTuple):
    """Is a metric of one configuration above or below that of another, or 0 where there is none, or does it
    differ? matched: where both have the same robust accuracy."""

    text: str
    metric: str
    expected: Literal["above", "below", "other"]
    pairs: Pairs
    matched: bool = False


def against(less: Configuration | None, *of: Configuration) -> Pairs:
    return tuple((each, less) for each in of)


ALIGNED = (units.DIRICHLET, units.MODERATE)
OTHERS = (units.PMG, units.CAROT, units.FARE, units.TGA, units.AGFT, *ALIGNED)
TO_UNTRAINED = against(units.UNTRAINED, units.TECOA, *OTHERS)
TO_TECOA = against(units.TECOA, *OTHERS)
ALIGNED_TO_TECOA = against(units.TECOA, *ALIGNED)
TO_NOTHING = against(None, units.UNTRAINED, units.TECOA, *OTHERS)
EVIDENCE = ((units.MODERATE, units.SHAPE), (units.SCALE_2, units.SCALE_2_SHAPE))
SCALES = against(units.MODERATE, units.SCALE_2, units.SCALE_50)
QUESTIONS = (
    Question("Robust accuracy above the untrained model's?", "robust_accuracy", "above", TO_UNTRAINED),
    Question("`standard` robust accuracy above the untrained model's?", STANDARD, "above", TO_UNTRAINED),
    Question("Robust accuracy above TeCoA's?", "robust_accuracy", "above", TO_TECOA),
    Question("Clean accuracy above TeCoA's?", "clean_accuracy", "above", TO_TECOA),
    Question("Attacked ECE below TeCoA's?", "robust_ece", "below", ALIGNED_TO_TECOA),
    Question("Attacked squared error below TeCoA's?", SQUARED, "below", ALIGNED_TO_TECOA),
    Question("The same at equal robust accuracy?", SQUARED, "below", ALIGNED_TO_TECOA, matched=True),
    Question("Does evidence change the attacked ECE?", "robust_ece", "other", EVIDENCE),
    Question("Does evidence change the attacked squared error?", SQUARED, "other", EVIDENCE),
    Question("Does evidence change robust accuracy?", "robust_accuracy", "other", EVIDENCE),
    Question("Does the scale change the attacked ECE?", "robust_ece", "other", SCALES),
    Question("Does the scale change the attacked squared error?", SQUARED, "other", SCALES),
    Question("Does the scale change robust accuracy?", "robust_accuracy", "other", SCALES),
    Question("Clean accuracy on digits above TeCoA's?", "digits.clean_accuracy", "above", TO_TECOA),
    Question("Robust accuracy on digits above TeCoA's?", "digits.robust_accuracy", "above", TO_TECOA),
    Question("Does entropy rise under attack?", "entropy_shift", "above", TO_NOTHING),
    Question("Does epistemic uncertainty rise under attack?", "epistemic_shift", "above", TO_NOTHING),
)


def results(wanted: Sequence[Unit]) -> dict[str, Any]:
    """Of the finished units, with what is needed to read the numbers."""
    of = by_configuration([unit for unit in wanted if unit.finished])
    measured, curves = measure(of), measure_epochs(of)
    return {
        "machine": machine(),
        "units": {"finished": sum(map(len, of.values())), "wanted": len(units.units(Path()))},
        "images": images_of(next(iter(of.values()))[0]),
        "standard": units.STANDARD,
        "configurations": {name: described(name, own, measured, curves) for name, own in of.items()},
        "questions": [row for question in QUESTIONS for row in answers(question, measured, curves)],
    }


def by_configuration(finished: Sequence[Unit]) -> dict[str, list[Unit]]:
    of = {each.name: [unit for unit in finished if unit.configuration == each] for each in CONFIGURATIONS}
    return {name: own for name, own in of.items() if own}


def measure(of: Mapping[str, Sequence[Unit]]) -> Measured:
    """After training."""
    measured = values_of({name: [unit.epochs[-1] for unit in own] for name, own in of.items()}, METRICS)
    strong = values_of({name: [unit.standard for unit in own] for name, own in of.items()}, CURVE[:1])
    return {name: own | {STANDARD: strong[name][CURVE[0]]} for name, own in measured.items()}


def measure_epochs(of: Mapping[str, Sequence[Unit]]) -> Curves:
    """Along it."""
    epochs = {name: range(len(own[0].epochs)) for name, own in of.items()}
    files = {f"{name} {e}": [unit.epochs[e] for unit in of[name]] for name in of for e in epochs[name]}
    found = values_of(files, CURVE)
    return {name: {m: [found[f"{name} {e}"][m] for e in epochs[name]] for m in CURVE} for name in of}


def described(name: str, own: Sequence[Unit], measured: Measured, curves: Curves) -> dict[str, Any]:
    metrics, tecoa = measured[name], measured.get(units.TECOA.name)
    return {
        "settings": own[0].configuration.settings,
        "seeds": [unit.seed for unit in own],
        "processor_seconds": rounded(median(map(processor_seconds, own))),
        "metrics": {m: numbers(mean(values)) for m, values in metrics.items()},
        "of_seeds": {m: [rounded(value) for value in values[0]] for m, values in metrics.items()},
        "less_tecoa": {m: numbers(difference(metrics[m], tecoa[m])) for m in metrics} if tecoa else {},
        "epochs": {m: [rounded(float(v[0].mean())) for v in curves[name][m]] for m in CURVE},
    }


def answers(question: Question, measured: Measured, curves: Curves) -> list[dict[str, Any]]:
    """One for each pair that has been measured."""
    found = []
    for of, less in question.pairs:
        if of.name in measured and (less is None or less.name in measured):
            own = compared(question, of.name, less.name if less else None, measured, curves)
            head = {"question": question.text, "of": of.name, "less": less.name if less else None}
            found.append(head | {"metric": question.metric, "expected": question.expected} | own)
    return found


def compared(
    question: Question, of: str, less: str | None, measured: Measured, curves: Curves
) -> dict[str, Any]:
    if less is None:
        return {"difference": numbers(mean(measured[of][question.metric]))}
    if not question.matched:
        return {
            "difference": numbers(difference(measured[of][question.metric], measured[less][question.metric]))
        }
    at = common_accuracy(curves[of][CURVE[0]], curves[less][CURVE[0]])
    if at is None:
        return {"difference": None}
    pair = [at_accuracy(curves[name][CURVE[0]], curves[name][question.metric], at) for name in (of, less)]
    return {"difference": numbers(difference(*pair)), "at": rounded(at)}


def numbers(estimate: tuple[float, float, float]) -> list[float]:
    """Value, low and high."""
    return [rounded(value) for value in estimate]


def rounded(value: float) -> float:
    return float(f"{value:.6g}")


def images_of(unit: Unit) -> dict[str, int]:
    """Images that were measured, by set, and of the strong attack."""
    counts = pd.read_parquet(unit.epochs[-1], columns=["set"])["set"].value_counts()
    return {str(name): int(n) for name, n in counts.items()} | {
        STANDARD: len(pd.read_parquet(unit.standard, columns=["set"]))
    }


def processor_seconds(unit: Unit) -> float:
    """Of training and of measuring its epochs, whatever else the machine did; 0 if it was not trained."""
    epochs = [json.loads(file.with_suffix(".json").read_text()) for file in unit.epochs]
    return sum(
        epoch["system"]["process_cpu_percentage"]
        / 100
        * (epoch["training_seconds"] + epoch["evaluation_seconds"])
        for epoch in epochs
        if "system" in epoch
    )


def machine() -> dict[str, Any]:
    info = Path("/proc/cpuinfo")
    models = [line for line in info.read_text().splitlines() if "model name" in line] if info.exists() else []
    processor = models[0].partition(":")[2].strip() if models else platform.machine()
    return {"processor": processor, "cores": os.cpu_count(), "torch": torch.__version__}
