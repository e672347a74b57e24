"""Every metric a trial reports, by name. No torch here: sweep files are checked against this list.

`clean_` is measured on the images as they are, `robust_` on the attacked versions of the same
images. Without a prefix a metric is of the in-distribution set, the first of `data.evaluate`;
`transfer.` is the mean over the other sets, and `<set>.` is one of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

DESCRIPTIONS = {
    "accuracy": "share of images classified correctly",
    "ece": "expected calibration error, 15 equal-width bins, pooled over all images",
    "nll": "mean negative log-likelihood of the label, nats",
    "brier": "mean Brier score, sum over classes of squared errors of the probability",
    "confidence": "mean largest probability",
    "entropy": "mean entropy of the softmax over ln K",
    "aleatoric": "mean Dirichlet aleatoric uncertainty over ln K",
    "epistemic": "mean Dirichlet epistemic uncertainty, K / (alpha_0 + K)",
}
VERSIONS = ("clean", "robust")
BASE = tuple(f"{version}_{name}" for version in VERSIONS for name in DESCRIPTIONS)


def metric_names(sets: Sequence[str]) -> list[str]:
    """All metrics of a trial that evaluates the given sets, the in-distribution one first."""
    names = list(BASE)
    if len(sets) > 1:
        names += [f"{prefix}.{name}" for prefix in ("transfer", *sets[1:]) for name in BASE]
    return names
