"""Every metric of an evaluation, by name. No torch here: sweep files are checked against this list.

`clean_` is measured on the images as they are, `robust_` on the same images under the fixed-step attack;
`confidence_up_` and `confidence_down_` under the confidence attack, where it is asked for. Without a set
in front a metric is of the in-distribution set, the first of `data.evaluate`; `transfer.` is the mean over
the other sets, and `<set>.` is one of them.

`robust_accuracy` is each image's worst case over the clean image and all attacks that ran; every other
`robust_` metric is of the fixed-step attack alone, which perturbs every image.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

UNCERTAINTIES = ("entropy", "aleatoric", "epistemic")

DESCRIPTIONS = {
    "accuracy": "share of images classified correctly",
    "ece": "expected calibration error, 15 equal-width bins, pooled over all images",
    "ece_null_mean": "mean ECE of a calibrated model with the same confidences",
    "ece_null_95": "95 % quantile of the ECE of a calibrated model with the same confidences",
    "ece_equal_mass": "expected calibration error, 15 bins of equally many images",
    "ece_class_wise": "class-wise calibration error, 15 equal-width bins, mean over classes",
    "calibration_l2": "debiased L2 calibration error, 15 equal-width bins",
    "nll": "mean negative log-likelihood of the label, nats",
    "brier": "mean Brier score, sum over classes of squared errors of the probability",
    "aurc": "area under the risk-coverage curve of the largest probability",
    "confidence": "mean largest probability",
    "entropy": "mean entropy of the softmax over ln K",
    "aleatoric": "mean Dirichlet aleatoric uncertainty over ln K",
    "epistemic": "mean Dirichlet epistemic uncertainty, K / (alpha_0 + K)",
    "scaled_ece": "ECE after temperature scaling, fitted on clean validation images of the first set",
    "scaled_nll": "mean NLL after that temperature scaling",
}
"""Of each version of the images."""

UNDEFINED_AT_TIMES = {
    "confidence_when_wrong": "mean largest probability of wrong predictions; left out where none is wrong",
    "doubt_when_right": "mean of 1 - largest probability of right ones; left out where none is right",
    **{
        f"{name}_error_auroc": f"AUROC of {name} for errors; left out where all or none are wrong"
        for name in UNCERTAINTIES
    },
}
"""Of each version too, but not on every set of images; they can't be objectives."""

OF_SET = {
    "temperature": "of temperature scaling, fitted on clean validation images of the first set",
    "zero_gradients": "share of exactly zero input gradients in the fixed-step attack",
    **{f"{name}_shift": f"mean {name} under attack less that on clean images" for name in UNCERTAINTIES},
    **{
        f"{name}_attack_auroc": f"AUROC of {name} for telling attacked images from clean ones"
        for name in UNCERTAINTIES
    },
}
"""Of all versions together."""

ZERO_GRADIENTS = 0.01
"""The share of exactly zero gradients above which an attack's result should not be believed."""

VERSIONS = ("clean", "robust")
CONFIDENCE_VERSIONS = ("confidence_up", "confidence_down")


def of_one_set(versions: Sequence[str] = VERSIONS) -> list[str]:
    """Metrics that are always defined, of one set."""
    return [f"{version}_{name}" for version in versions for name in DESCRIPTIONS] + list(OF_SET)


def metric_names(sets: Sequence[str], versions: Sequence[str] = VERSIONS) -> list[str]:
    """All metrics that a trial always reports which evaluates the given sets, the in-distribution one
    first."""
    names = of_one_set(versions)
    others = ("transfer", *sets[1:]) if len(sets) > 1 else ()
    return names + [f"{prefix}.{name}" for prefix in others for name in names]


def depends_on(metric: str) -> tuple[str, ...]:
    """The keys of an evaluation's configuration that a metric depends on, beside the images.

    Of `batch_size` none does, but for the random numbers that torchattacks draws for whole batches.
    """
    name = metric.rpartition(".")[2]
    if name.startswith("clean_") or name == "temperature":
        return ("precision",)
    if name.startswith(CONFIDENCE_VERSIONS):
        return ("precision", "seed", "confidence_attack")
    return ("precision", "seed", "attack", *(["further_attacks"] if name == "robust_accuracy" else []))
