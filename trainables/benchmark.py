"""A result in the form that clip_benchmark writes, so that both can stand in one table.

`clip_benchmark build` (1.6.2) makes a table of such files: it asks for `model`, `pretrained` and `metrics`
and takes all other keys as columns. As there, acc5 is left out below five classes.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainables.attacks.config import as_fraction
from trainables.config import EvaluationConfig, MeasurementConfig
from trainables.evaluate import Evaluation
from trainables.metrics.names import BENCHMARK_METRICS
from trainables.metrics.records import by_set

if TYPE_CHECKING:
    import pandas as pd

TOP = 5


def benchmark_records(*, result: str, measurement: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """A record for each set, by its name, of what `finetune.measure` wrote to the file `result`."""
    file = Path(result)
    written = json.loads(file.read_text(encoding="utf-8"))
    records_of = by_set(Evaluation.load(file.with_suffix(".parquet")).records)
    config = MeasurementConfig.model_validate(measurement)
    ruler = config.evaluation
    records = {}
    for position, of in enumerate(written["sets"]):
        name = of["set"]
        if not of["classes"]:  # only told from the first
            continue
        own = records_of[name]
        prefix = f"{name}." if position else ""
        known = {
            key: prefix + metric
            for key, metric in BENCHMARK_METRICS.items()
            if prefix + metric in written["metrics"]
        }
        ends = {key: written["intervals"].get(metric) for key, metric in known.items()}
        records[str(name)] = {
            "dataset": name,
            "model": config.model.name,
            "pretrained": config.model.pretrained or "",
            "task": "zeroshot_classification",
            "language": "en",
            "metrics": {key: written["metrics"][metric] for key, metric in known.items()}
            | of_records(own, of["classes"]),
            "intervals": {key: interval for key, interval in ends.items() if interval is not None},
            "templates": of["templates"],
            "origin": of["origin"],
            "split": written["split"],
            "n": len(own),
            **(attack(ruler) if "robust_acc1" in known else {}),
            "seed": ruler.seed,
            "precision": ruler.precision,
        }
    return records


def attack(ruler: EvaluationConfig) -> dict[str, Any]:
    return {
        "attack": str(ruler.attack),
        "further_attacks": [str(further) for further in ruler.further_attacks],
        "norm": ruler.attack.norm,
        "epsilon": as_fraction(ruler.attack.epsilon),
        "steps": ruler.attack.steps,
        "attacked_at": ruler.attack.at,
    }


def of_records(own: pd.DataFrame, classes: int) -> dict[str, float]:
    """acc5 and mean_per_class_recall on clean images. own: the records of one set of `classes` classes."""
    recalls = own.groupby("label")["clean_correct"].mean()
    metrics = {"mean_per_class_recall": float(recalls.mean())}
    if classes >= TOP:
        metrics["acc5"] = float((own["clean_rank"] < TOP).mean())
    return metrics
