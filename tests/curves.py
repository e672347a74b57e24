"""Made-up learning curves of adversarial fine-tuning, for tests of what decides by them."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd

from sweeper import space
from sweeper.spec import SweepSpec
from sweeper.tree import Choice, Range

BASELINE = {"clean_accuracy": 0.9, "robust_accuracy": 0.05, "robust_ece": 0.8}


def curves(sweep: SweepSpec, count: int, epochs: int, seed: int = 0) -> pd.DataFrame:
    """Curves of `count` random configurations of a sweep, in the columns of `sweeper.curves`.

    They overfit robustly: the higher the learning rate, the sooner robust accuracy peaks, to fall again,
    while the calibration error of attacked images goes on growing. The highest rates diverge. Half of the
    configurations are worse than need be, in all that is measured and from the first epoch on.
    """
    rng = np.random.default_rng(seed)
    rows: list[dict[str, Any]] = [row("baseline", {}, 0, 0.0, BASELINE)]
    for index in range(count):
        drawn = space.resolve(sweep.space, lambda _, distribution: draw(rng, distribution)).drawn
        rate = np.log(drawn["optimizer.learning_rate"] / 1e-4) / np.log(30)  # 0 to 1
        strong = drawn["attack.epsilon"] == "8/255"
        flaw = max(0.0, rng.normal(0, 0.1))
        peak, best = epochs * (1.2 - rate), 0.35 + 0.3 * rate + 0.05 * strong - flaw
        seconds = rng.uniform(5, 15) * (1.5 if strong else 1)
        for epoch in range(1, epochs + 1):
            before, after = min(epoch / peak, 1), max(epoch - peak, 0) / epochs
            metrics = {
                "robust_accuracy": best * before**0.5 - 0.2 * after + rng.normal(0, 0.01),
                "clean_accuracy": 0.9 - 0.2 * before * rate - 0.1 * strong - flaw + rng.normal(0, 0.01),
                "robust_ece": 0.5 - 0.35 * before**0.5 + 0.4 * after + flaw + rng.normal(0, 0.01),
            }
            diverged = rate > 0.85 and epoch > 1
            metrics = dict.fromkeys(metrics, np.nan) if diverged else metrics
            rows.append(row(f"c{index:04d}", drawn, epoch, seconds * rng.uniform(0.9, 1.1), metrics))
    return pd.DataFrame(rows)


def row(
    config: str, drawn: dict[str, Any], epoch: int, seconds: float, metrics: dict[str, float]
) -> dict[str, Any]:
    return {"config": config, "drawn": json.dumps(drawn), "epoch": epoch, "seconds": seconds, **metrics}


def draw(rng: np.random.Generator, distribution: Choice | Range) -> Any:
    if isinstance(distribution, Choice):
        return str(rng.choice(space.labels(distribution)))
    low, high = distribution.low, distribution.high
    if distribution.integer:
        return int(rng.integers(int(low), int(high) + 1))
    return float(
        np.exp(rng.uniform(np.log(low), np.log(high))) if distribution.log else rng.uniform(low, high)
    )
