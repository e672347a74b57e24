"""Results of others: records as clip_benchmark writes them, and RobustBench's files about models.

Nothing is known of their images but the name of the set, and how many there were if a record has `n`, which
neither of the two writes by itself.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from trainables.attacks.config import as_fraction, parse_fraction
from trainables.metrics.names import BENCHMARK_METRICS

CLIP_BENCHMARK, ROBUSTBENCH = "clip_benchmark", "RobustBench"
TASK = "zeroshot_classification"
NAMES = {"imagenet": "imagenet1k"}
"""Sets of RobustBench that have another name here."""
NORMS = ("linf", "l2")
"""Also the folders that RobustBench's files lie in, in lower case."""


@dataclass(frozen=True)
class Value:
    """ends: of its 95 % interval.  ball: in which images were attacked, as `linf 8/255`."""

    value: float
    ends: tuple[float, float] | None = None
    ball: str = ""


@dataclass(frozen=True)
class Record:
    """What is said of a model. form: whose it is.  values: by set, metric and ball.  attacked_by: or ""."""

    form: str
    model: str
    values: Mapping[tuple[str, str, str], Value]
    attacked_by: str = ""

    def and_also(self, other: Record) -> Record:
        """Of the same model, on other sets."""
        return replace(
            self,
            values={**self.values, **other.values},
            attacked_by=self.attacked_by or other.attacked_by,
        )


def records(content: Any, file: Path) -> list[Record]:
    """Those that a file holds, one or a list; empty if it is of no form that is known."""
    rows = content if isinstance(content, list) else [content]
    if not all(isinstance(row, Mapping) and "dataset" in row for row in rows):
        return []
    found = []
    for row in rows:
        if "clean_acc" in row:
            found.append(of_robustbench(row, file if len(rows) == 1 else None, file.parent.name))
        elif "model" in row and row.get("task", TASK) == TASK:
            found.append(of_clip_benchmark(row))
    return [record for record in found if record.values]


def rows_of_csv(text: str) -> list[dict[str, Any]]:
    """What `clip_benchmark build` makes of its records; empty cells are left out."""
    return [
        {key: value for key, value in row.items() if key and value}
        for row in csv.DictReader(io.StringIO(text))
    ]


def of_clip_benchmark(row: Mapping[str, Any]) -> Record:
    """row: its own keys, with `metrics` below or, as in a CSV, beside them."""
    metrics = row.get("metrics", row)
    name, ball = str(row["dataset"]).rpartition("/")[2], ball_of(row.get("norm"), row.get("epsilon"))
    given = row.get("intervals")
    own = given if isinstance(given, Mapping) else {}
    values: dict[tuple[str, str, str], Value] = {}
    for key, metric in BENCHMARK_METRICS.items():
        value = number(metrics.get(key))
        if value is None:
            continue
        at = ball if metric.startswith("robust_") else ""
        ends = (own[key][0], own[key][1]) if key in own else counted_ends(metric, value, row.get("n"))
        values[name, metric, at] = Value(value, ends, at)
    language = f" ({row['language']})" if row.get("language", "en") != "en" else ""
    model = f"{row['model']} {Path(str(row.get('pretrained', ''))).name}".rstrip() + language
    return Record(CLIP_BENCHMARK, model, values, str(row.get("attack", "")))


def of_robustbench(row: Mapping[str, Any], file: Path | None, folder: str) -> Record:
    """file: named as its model, if it holds no others.  folder: named as the norm."""
    name = NAMES.get(str(row["dataset"]), str(row["dataset"]))
    norm = folder.lower() if folder.lower() in NORMS else "linf" if "/" in str(row.get("eps")) else None
    ball = ball_of(norm, row.get("eps"))
    measured = {"clean_accuracy": number(row["clean_acc"]), "robust_accuracy": robust(row)}
    values: dict[tuple[str, str, str], Value] = {}
    for metric, percent in measured.items():
        at = ball if metric.startswith("robust_") else ""
        if percent is None or (metric.startswith("robust_") and not at):
            continue
        ends = counted_ends(metric, percent / 100, row.get("n"))
        values[name, metric, at] = Value(percent / 100, ends, at)
    model = file.stem if file is not None else f"{str(row['name']).strip()} ({row.get('architecture')})"
    return Record(ROBUSTBENCH, model, values, "AutoAttack, or what was stronger")


def robust(row: Mapping[str, Any]) -> float | None:
    """In per cent: the lower of AutoAttack's and an external evaluation's; without both, what its authors
    reported."""
    found = [number(row.get(key)) for key in ("autoattack_acc", "external")]
    known = [value for value in found if value is not None]
    return min(known) if known else number(row.get("reported"))


def ball_of(norm: Any, epsilon: Any) -> str:
    """As `linf 8/255`; empty if it isn't known."""
    try:
        return f"{norm} {as_fraction(float(parse_fraction(epsilon)))}" if norm and epsilon else ""
    except (TypeError, ValueError):
        return ""


def number(value: Any) -> float | None:
    """None for what is no finite one."""
    try:
        found = float(value)
    except (TypeError, ValueError):
        return None
    return found if math.isfinite(found) else None


def counted_ends(metric: str, value: float, images: Any) -> tuple[float, float] | None:
    """Wilson's interval of a share of so many images; None of what is no share, or of an unknown number."""
    from trainables.metrics.intervals import wilson

    count = number(images)
    if not metric.endswith("_accuracy") or not count or not 0 <= value <= 1:
        return None
    found = wilson(value * count, int(count))
    return found.low, found.high
