"""How far a stronger attack brings the robust accuracy down: what looks robust may only hide its gradients.

Obfuscated gradients: Athalye, Carlini and Wagner, ICML 2018 (arXiv 1802.00420). An honest defence loses a few
points from PGD-10 to AutoAttack.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from trainables.config import EvaluationConfig

MASKED = 0.05
"""A fall of more than so much of the robust accuracy is suspicious."""


def fall(
    *, before: str, after: str, evaluation: dict[str, Any], final: dict[str, Any]
) -> dict[str, float] | None:
    """The robust accuracy of one model under two attacks, on the in-distribution images that both saw.

    before, after: records of the model's evaluations by `evaluation` and by `final`.  Returns `images`, the
    two accuracies `before` and `after`, and `masked`, 1 if they differ by more than `MASKED`; None if the two
    attack in different balls, or not at all, or no image in common, and so can't be compared.
    """
    rulers = [EvaluationConfig.model_validate(each) for each in (evaluation, final)]
    balls = [ruler.attack for ruler in rulers]
    if (
        not all(ruler.attacks for ruler in rulers)
        or len({(ball.norm, ball.epsilon, ball.at) for ball in balls}) > 1
    ):
        return None
    pairs = own_images(before).merge(own_images(after), on=["set", "index"], suffixes=("_before", "_after"))
    if pairs.empty:
        return None
    accuracies = {when: float(pairs[f"withstood_{when}"].mean()) for when in ("before", "after")}
    masked = accuracies["before"] - accuracies["after"] > MASKED
    return {"images": len(pairs), **accuracies, "masked": float(masked)}


def own_images(records: str) -> pd.DataFrame:
    """Number and worst case of each image of the first set, the in-distribution one."""
    frame = pd.read_parquet(Path(records), columns=["set", "index", "broken_by"])
    frame = frame[frame["set"] == frame["set"].iloc[0]]
    return frame[["set", "index"]].assign(withstood=frame["broken_by"] == "")
