"""Every metric of an evaluation, by name. No torch here: sweep files are checked against this list.

`clean_` is measured on the images as they are, `robust_` on the same images under the fixed-step attack;
`confidence_up_` and `confidence_down_` under the confidence attack, where it is asked for. Without a set
in front a metric is of the in-distribution set, the first of `data.evaluate`, and `<set>.` is one of the
others. These are in groups: `transfer.` is the mean over all that are under `data.evaluate` and
`further_sets`, `ood.` that over those under `ood`, and `<suite>.` that over a suite's; with `worst_` behind
it, the worst of them.

`robust_accuracy` is each image's worst case over the clean image and all attacks that ran; every other
`robust_` metric is of the fixed-step attack alone, which perturbs every image.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from trainables.data.role import Role

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

OF_CLEAN = {
    "temperature": "of temperature scaling, fitted on clean validation images of the first set",
    "own_temperature": "the same, fitted on these very images: what `temperature` would have to be",
    "temperature_regret": "NLL after temperature scaling less that at the images' own temperature, nats",
}
"""Of a set's clean images."""

OF_ATTACK = {
    "zero_gradients": "share of exactly zero input gradients in the fixed-step attack",
    **{f"{name}_shift": f"mean {name} under attack less that on clean images" for name in UNCERTAINTIES},
    **{
        f"{name}_attack_auroc": f"AUROC of {name} for telling attacked images from clean ones"
        for name in UNCERTAINTIES
    },
}
"""Of clean and attacked images together."""

OF_SET = OF_CLEAN | OF_ATTACK
"""Of all versions together."""

SCORES = {
    "mcm": "the largest softmax of the cosines at temperature 1 (maximum concept matching)",
    "confidence": "the largest probability",
    "entropy": "how small the entropy of the softmax is",
    "epistemic": "Dirichlet evidence: how small the epistemic uncertainty is",
}
"""By which images of classes that the in-distribution set has are told from others."""

OUTSIDE = {
    f"{score}_ood_{kind}": f"{meaning} of {what}, in-distribution images as positives"
    for score, what in SCORES.items()
    for kind, meaning in {
        "auroc": "area under the ROC curve",
        "aupr": "area under the precision-recall curve",
        "fpr95": "share of the set's images taken for in-distribution where 95 % of those are,",
    }.items()
}
"""Of a set none of whose images is of a class of the in-distribution set: its clean images against that's."""

SMALLER_IS_WORSE = ("accuracy", "auroc", "aupr")
LARGER_IS_WORSE = ("ece", "ece_equal_mass", "ece_class_wise", "l2", "nll", "brier", "aurc", "fpr95", "regret")
WORST = "worst_"


def worse(metric: str) -> Literal["smaller", "larger"] | None:
    """Which end of a metric is the worse one, where one is: it has a `worst_` over a group of sets."""
    if metric.endswith(SMALLER_IS_WORSE):
        return "smaller"
    return "larger" if metric.endswith(LARGER_IS_WORSE) else None


BENCHMARK_METRICS = {
    "acc1": "clean_accuracy",
    "robust_acc1": "robust_accuracy",
    "ece": "clean_ece",
    "robust_ece": "robust_ece",
    "nll": "clean_nll",
    "robust_nll": "robust_nll",
}
"""Our metrics by clip_benchmark's names, or those that `sweeper evaluate` gives them in such a file."""

ZERO_GRADIENTS = 0.01
"""The share of exactly zero gradients above which an attack's result should not be believed."""

VERSIONS = ("clean", "robust")
CONFIDENCE_VERSIONS = ("confidence_up", "confidence_down")


def of_one_set(versions: Sequence[str] = VERSIONS) -> list[str]:
    """Metrics that are always defined, of one set of classified images. versions: `clean` first."""
    alone = OF_CLEAN if VERSIONS[1] not in versions else OF_SET
    return [f"{version}_{name}" for version in versions for name in DESCRIPTIONS] + list(alone)


def metric_names(sets: Mapping[str, Role], versions: Sequence[str] = VERSIONS) -> list[str]:
    """All metrics that a trial always reports which evaluates the given sets, the in-distribution one
    first. versions: of attacked images."""
    first, *others = sets
    of = {name: of_role(sets[name], versions) for name in sets}
    names = list(of[first])
    for group in dict.fromkeys(group for name in others for group in sets[name].groups):
        members = [of[name] for name in others if group in sets[name].groups]
        names += [f"{group}.{name}" for name in of_group(members)]
    return names + [f"{other}.{name}" for other in others for name in of[other]]


def of_role(role: Role, versions: Sequence[str]) -> list[str]:
    if role.outside:
        return list(OUTSIDE)
    return of_one_set(versions if role.attacked else VERSIONS[:1])


def of_group(of_sets: Sequence[Collection[str]]) -> list[str]:
    """Metrics of a group: means of those that all of its classified sets have, or all others, and the worst
    where one end is worse."""
    outside = [names for names in of_sets if not OUTSIDE.keys().isdisjoint(names)]
    classified = [names for names in of_sets if names not in outside]
    means = [
        name
        for kind in (classified, outside)
        for name in (kind[0] if kind else ())
        if all(name in names for names in kind)
    ]
    return means + [f"{WORST}{name}" for name in means if worse(name)]


def depends_on(metric: str) -> tuple[str, ...]:
    """The keys of an evaluation's configuration that a metric depends on, beside the images.

    Of `batch_size` none does, but for the random numbers that torchattacks draws for whole batches.
    """
    name = metric.rpartition(".")[2]
    name = name.removeprefix(WORST)
    if name.startswith("clean_") or name in OF_CLEAN or name in OUTSIDE:
        return ("precision",)
    if name.startswith(CONFIDENCE_VERSIONS):
        return ("precision", "seed", "confidence_attack")
    return ("precision", "seed", "attack", *(["further_attacks"] if name == "robust_accuracy" else []))
