"""What numbers are called in MLflow, and when they were measured.

`validation/robust_accuracy`, `test/digits/clean_accuracy`, `training/loss`, `system/gpu_0_power_usage_watts`:
a stage, the data set unless it is the trial's own, and the metric. MLflow's page makes a section of charts of
all that stands before the last slash. The step is the epoch.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sweeper.trial import Metrics, epoch_file

PROBABILITY = "pareto_probability"


def path(stage: str, name: str) -> str:
    """The name in MLflow of a metric."""
    images, _, metric = name.rpartition(".")
    return "/".join(filter(None, (stage, images, metric)))


def named(stage: str, metrics: Metrics, first: Iterable[str] = ()) -> Metrics:
    """Metrics by their names in MLflow. first: those that are sent before all others; MLflow's page for
    comparisons shows what was logged first."""
    order = dict.fromkeys([*(name for name in first if name in metrics), *metrics])
    return {path(stage, name): metrics[name] for name in order}


def of_epoch(folder: Path, epoch: dict[str, Any], first: Iterable[str]) -> list[Any]:
    """As MLflow has them. The number of the epoch comes last: it says that the others have arrived."""
    metrics = named("validation", epoch["metrics"], first) | named("training", epoch["training"])
    metrics |= named("system", epoch.get("system", {}))
    metrics |= {"images_per_second": epoch["images_per_second"], "epoch": epoch["epoch"]}
    return numbers(metrics, step=epoch["epoch"], file=epoch_file(folder, epoch["epoch"], "json"))


def numbers(
    metrics: Metrics, *, step: int, file: Path, model: str | None = None, of_model: Iterable[str] = ()
) -> list[Any]:
    """MLflow's form of metrics that are from a file. Sent twice they are one, as their time is the file's.
    model: MLflow's ID of that which was measured.  of_model: those that it has too; at most 100, as more of
    them MLflow refuses when they are sent again."""
    from mlflow.entities import Metric

    time, own = milliseconds(file), set(of_model)
    return [
        Metric(name, float(value), time, step, model_id=model if name in own else None)
        for name, value in metrics.items()
    ]


def milliseconds(file: Path) -> int:
    """When a file was written."""
    return file.stat().st_mtime_ns // 1_000_000
