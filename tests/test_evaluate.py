"""Evaluation: records of every image, and the metrics that they give."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.optimize import minimize_scalar
from sklearn.metrics import accuracy_score, log_loss, roc_auc_score

from trainables import models
from trainables.attacks import further
from trainables.config import EvaluationConfig
from trainables.data import registry
from trainables.data.fit import Fit
from trainables.data.role import Role
from trainables.errors import Diverged
from trainables.evaluate import Evaluation, calibrate, evaluate
from trainables.metrics.names import metric_names
from trainables.models import cosines
from trainables.pixels import to_pixels

PROMPT = "This is a photo of a {}"

ATTACK = {"epsilon": 4 / 255, "steps": 3}
SETS = ("fashion-mnist-8k", "digits")


def sets():
    return [registry.load(name, "validation", Fit((28, 28))) for name in SETS]


def evaluation_of(device="cpu", temperature=None, **changes):
    model = models.load("clip-tiny", None, device)
    config = EvaluationConfig.model_validate({"attack": ATTACK, "images": 60} | changes)
    return evaluate(model, sets(), config, temperature=temperature)


def records_of(**changes):
    return evaluation_of(**changes).records


@pytest.fixture(scope="module")
def evaluation():
    return evaluation_of()


@pytest.fixture(scope="module")
def records(evaluation):
    return evaluation.records


def clean_logits(images):
    model = models.load("clip-tiny", None, "cpu")
    text = model.encode_classes(images.classes, [PROMPT])
    with torch.no_grad():
        features = model.features(to_pixels(images.pixels(), model.device))
    return (model.scale * cosines(features, text)).double().numpy()


def softmax(x):
    p = np.exp(x - x.max(1, keepdims=True))
    return p / p.sum(1, keepdims=True)


def test_clean_records_are_those_of_the_logits(records):
    for whole in sets():
        images = whole.sample(60)
        x = clean_logits(images)
        p = softmax(x)
        own = records[records["set"] == images.name].reset_index()
        y, row = images.labels, np.arange(60)
        one_hot = np.eye(10)[y]
        others = np.where(one_hot == 1, -np.inf, x)
        expected = pd.DataFrame(
            {
                "label": y,
                "clean_prediction": p.argmax(1),
                "clean_correct": p.argmax(1) == y,
                "clean_confidence": p.max(1),
                "clean_margin": x[row, y] - others.max(1),
                "clean_nll": -np.log(p[row, y]),
                "clean_brier": ((p - one_hot) ** 2).sum(1),
                "clean_entropy": -(p * np.log(p)).sum(1) / np.log(10),
            }
        )
        for name, column in expected.items():
            np.testing.assert_allclose(own[name], column, rtol=1e-3, atol=1e-4, err_msg=name)


def ece(confidence, correct):
    bins = pd.cut(confidence, np.arange(16) / 15, include_lowest=True)
    table = pd.DataFrame({"c": confidence, "a": correct.astype(float)}).groupby(bins, observed=True)
    return ((table["c"].mean() - table["a"].mean()).abs() * table.size()).sum() / len(confidence)


def test_metrics_are_recomputed_from_the_records(evaluation, records):
    metrics = evaluation.summary.metrics
    assert set(metric_names(dict.fromkeys(SETS, Role()))) <= set(metrics)
    assert all(math.isfinite(value) for value in metrics.values())
    by_set = dict(list(records.groupby("set", sort=False)))
    for prefix, own in (("", by_set["fashion-mnist-8k"]), ("digits.", by_set["digits"])):
        assert metrics[f"{prefix}clean_accuracy"] == accuracy_score(own["label"], own["clean_prediction"])
        survived = own["clean_correct"] & own["robust_correct"]
        assert metrics[f"{prefix}robust_accuracy"] == survived.mean()
        for version in ("clean", "robust"):
            confidence, correct = own[f"{version}_confidence"], own[f"{version}_correct"]
            assert metrics[f"{prefix}{version}_ece"] == pytest.approx(ece(confidence, correct))
            scaled = ece(own[f"{version}_scaled_confidence"], correct)
            assert metrics[f"{prefix}{version}_scaled_ece"] == pytest.approx(scaled)
            for name in ("nll", "brier", "confidence", "entropy", "aleatoric", "epistemic", "scaled_nll"):
                mean = own[f"{version}_{name}"].to_numpy().mean()
                assert metrics[f"{prefix}{version}_{name}"] == pytest.approx(mean)
                if name in ("entropy", "aleatoric", "epistemic"):
                    area = roc_auc_score(~correct, own[f"{version}_{name}"])
                    assert metrics[f"{prefix}{version}_{name}_error_auroc"] == pytest.approx(area)
            wrong = own[~correct][f"{version}_confidence"].mean()
            assert metrics[f"{prefix}{version}_confidence_when_wrong"] == pytest.approx(wrong)
        for name in ("entropy", "aleatoric", "epistemic"):
            clean, robust = own[f"clean_{name}"], own[f"robust_{name}"]
            assert metrics[f"{prefix}{name}_shift"] == pytest.approx((robust - clean).mean())
            area = roc_auc_score([0] * 60 + [1] * 60, np.concatenate([clean, robust]))
            assert metrics[f"{prefix}{name}_attack_auroc"] == pytest.approx(area)
    for name in metric_names({"only": Role()}):  # one other set: its mean is itself
        assert metrics[f"transfer.{name}"] == metrics[f"digits.{name}"]


def test_every_interval_holds_its_value(evaluation):
    metrics, intervals = evaluation.summary.metrics, evaluation.summary.intervals
    for name, (low, high) in intervals.items():
        assert low <= metrics[name] <= high, name
    for name in ("clean_accuracy", "robust_accuracy", "robust_calibration_l2", "clean_nll", "entropy_shift"):
        assert {name, f"digits.{name}"} <= set(intervals)


def test_class_wise_error_is_that_of_the_probabilities(evaluation):
    """Kull et al. 2019: every class's probability in 15 bins, the mean over classes."""
    metrics = evaluation.summary.metrics
    for whole, prefix in zip(sets(), ("", "digits."), strict=True):
        images = whole.sample(60)
        p = softmax(clean_logits(images))
        errors = []
        for k in range(10):
            index = np.minimum(np.ceil(p[:, k] * 15).astype(int) - 1, 14).clip(0)
            gaps = [abs((images.labels[index == b] == k).sum() - p[index == b, k].sum()) for b in range(15)]
            errors.append(sum(gaps) / 60)
        expected = np.mean(errors)
        assert metrics[f"{prefix}clean_ece_class_wise"] == pytest.approx(expected, abs=1e-4)


def test_an_evaluation_is_stored_and_read_back(evaluation, tmp_path):
    evaluation.save(tmp_path / "epoch-001.parquet")
    assert Evaluation.load(tmp_path / "epoch-001.parquet").summary == evaluation.summary
    assert {file.name for file in tmp_path.iterdir()} == {"epoch-001.parquet", "epoch-001-class-bins.parquet"}


def test_the_temperature_is_fitted_on_clean_images_of_the_first_set_or_given(records):
    images = sets()[0].sample(60)
    logits, y = clean_logits(images), images.labels

    def nll(temperature):
        return -np.log(softmax(logits / temperature)[np.arange(60), y]).mean()

    (fitted,) = records["temperature"].unique()
    best = minimize_scalar(nll, bounds=(0.05, 20), method="bounded")
    assert fitted == pytest.approx(best.x, rel=1e-2)
    own = records[records["set"] == images.name]
    assert own["clean_scaled_nll"].mean() == pytest.approx(best.fun, rel=1e-3)
    given = records_of(temperature=2.0)
    assert set(given["temperature"]) == {2.0}
    config = EvaluationConfig.model_validate({"images": 60})
    model = models.load("clip-tiny", None, "cpu")
    assert calibrate(model, sets()[0], config) == pytest.approx(fitted, rel=1e-3)


def test_a_model_that_answers_with_nan_has_diverged():
    model = models.trainable_copy(models.load("clip-tiny", None, "cpu"), text=False)
    with torch.no_grad():
        model.clip.visual.proj.fill_(math.nan)
    with pytest.raises(Diverged, match="output on fashion-mnist-8k is not finite"):
        evaluate(model, sets()[:1], EvaluationConfig.model_validate({"images": 10}))


# Further attacks


def test_the_worst_case_is_over_all_attacks_and_says_which_broke_an_image():
    attacks = [
        {"name": "margin-pgd", "steps": 5},
        {"name": "torchattacks.Square", "settings": {"n_queries": 10}},
        {"name": "standard", "steps": 5},
    ]
    weak = {"epsilon": 2 / 255, "steps": 1}
    own = records_of(attack=weak, further_attacks=attacks, images=30)
    plain = records_of(attack=weak, images=30)
    kinds = {"", "clean", "PGD-1 at epsilon 2/255", "margin-pgd", "torchattacks.Square", "standard"}
    assert set(own["broken_by"]) <= kinds
    assert ((own["broken_by"] == "clean") == ~own["clean_correct"]).all()
    assert (own["robust_confidence"] == plain["robust_confidence"]).all()  # the fixed-step attack's alone
    survived, before = own["broken_by"] == "", plain["broken_by"] == ""
    assert (before | ~survived).all()
    assert survived.sum() < before.sum()
    strongest = records_of(attack=weak, further_attacks=attacks[2:], images=30)
    assert (survived <= (strongest["broken_by"] == "")).all()


def test_an_attack_that_leaves_the_ball_is_brought_back_into_it():
    """CW and DeepFool look for small perturbations of any length: without the ball they break all."""
    attack = {"epsilon": 1e-4, "steps": 1}
    deepfool = {"name": "torchattacks.DeepFool", "settings": {"steps": 5}}
    own = records_of(attack=attack, further_attacks=[deepfool], images=20)
    assert (own["broken_by"] == "").mean() > 0.5


def test_further_attacks_keep_to_the_norm():
    l2 = {"norm": "l2", "epsilon": 0.5, "steps": 5}
    own = records_of(attack=l2, further_attacks=[{"name": "apgd-ce", "steps": 5}], images=20)
    metrics = records_of(attack=l2, images=20)
    assert (own["broken_by"] == "").sum() <= (metrics["broken_by"] == "").sum()
    assert (own["broken_by"] == "").sum() < own["clean_correct"].sum()


def test_the_confidence_attack_moves_calibration_and_no_prediction():
    evaluation = evaluation_of(confidence_attack={"epsilon": 4 / 255, "steps": 5})
    own, metrics = evaluation.records, evaluation.summary.metrics
    versions = ("clean", "robust", "confidence_up", "confidence_down")
    assert set(metric_names(dict.fromkeys(SETS, Role()), versions)) <= set(metrics)
    for version in ("confidence_up", "confidence_down"):
        assert (own[f"{version}_prediction"] == own["clean_prediction"]).all()
        assert metrics[f"{version}_accuracy"] == metrics["clean_accuracy"]
    assert (own["confidence_up_confidence"] >= own["clean_confidence"] - 1e-6).all()
    assert (own["confidence_down_confidence"] <= own["clean_confidence"] + 1e-6).all()
    assert metrics["confidence_down_confidence"] < metrics["clean_confidence"] - 0.05


def test_a_model_without_gradients_is_measured_as_such():
    model = models.trainable_copy(models.load("clip-tiny", None, "cpu"), text=False)
    original = model.encode
    model.encode = lambda pixels: original((pixels * 16).round() / 16)  # rounding: a gradient of zero
    config = EvaluationConfig.model_validate({"attack": ATTACK, "images": 20})
    metrics = evaluate(model, sets()[:1], config).summary.metrics
    assert metrics["zero_gradients"] == 1.0
    honest = evaluate(models.load("clip-tiny", None, "cpu"), sets()[:1], config).summary.metrics
    assert honest["zero_gradients"] < 0.01


def test_nll_is_that_of_scikit_learn():
    images = sets()[0].sample(60)
    expected = log_loss(images.labels, softmax(clean_logits(images)), labels=range(10))
    own = records_of(attack={"epsilon": 0})
    assert own["clean_nll"][:60].mean() == pytest.approx(expected, rel=1e-3)


def test_the_attack_raises_the_loss_of_every_image(records):
    assert (records["robust_nll"] >= records["clean_nll"] - 1e-3).mean() > 0.97
    assert records["robust_correct"].mean() < records["clean_correct"].mean() - 0.1


def test_evaluation_does_not_depend_on_the_batch_size(evaluation, records):
    smaller = evaluation_of(batch_size=7)
    other = smaller.records
    for name in ("set", "split", "index", "label", "clean_prediction", "robust_prediction"):
        assert (records[name] == other[name]).all(), name
    a, b = evaluation.summary.metrics, smaller.summary.metrics
    for name in a:
        if name.endswith("accuracy"):
            assert a[name] == b[name], name
        else:  # a pixel whose gradient is all rounding may step either way
            assert a[name] == pytest.approx(b[name], abs=0.015), name


def test_an_image_is_attacked_the_same_way_in_a_smaller_sample(records):
    fewer = records_of(images=30).set_index(["set", "index"])
    same = records.set_index(["set", "index"]).loc[fewer.index]
    assert (fewer["label"] == same["label"]).all()
    np.testing.assert_allclose(fewer["robust_nll"], same["robust_nll"], rtol=0.05, atol=0.02)


def test_evaluation_in_bfloat16_is_close_and_keeps_the_confidence_attacks_promise(records):
    stress = {"epsilon": 4 / 255, "steps": 5}
    own = records_of(precision="bfloat16", confidence_attack=stress)
    assert (own["clean_confidence"] != records["clean_confidence"]).mean() > 0.9
    assert (own["clean_prediction"] == records["clean_prediction"]).mean() > 0.95
    for version in ("confidence_up", "confidence_down"):
        assert (own[f"{version}_prediction"] == own["clean_prediction"]).all()
    assert models.load("clip-tiny", None, "cpu").mixed_precision is None  # as it was


def test_what_is_not_a_number_is_no_attack(monkeypatch):
    monkeypatch.setattr(further, "torchattack", lambda *a, **_: torch.full_like(a[2], math.nan))
    weak = {"epsilon": 2 / 255, "steps": 1}
    own = records_of(attack=weak, further_attacks=["torchattacks.PGD"], images=20)
    assert "torchattacks.PGD" not in set(own["broken_by"])


def test_evaluation_repeats_exactly_and_its_seed_counts(records):
    pd.testing.assert_frame_equal(records, records_of())
    other = records_of(seed=1)
    assert (records["clean_confidence"] == other["clean_confidence"]).all()
    assert (records["robust_confidence"] != other["robust_confidence"]).mean() > 0.5


def test_without_an_attack_both_versions_are_the_same():
    own = records_of(attack={"epsilon": 0}, images=20)
    for name in own.filter(like="clean_"):
        assert (own[name] == own[name.replace("clean_", "robust_")]).all(), name


def test_evaluation_leaves_the_model_as_it_was():
    model = models.trainable_copy(models.load("clip-tiny", None, "cpu"), text=False).train()
    flags = [parameter.requires_grad for parameter in model.parameters()]
    evaluate(model, sets()[:1], EvaluationConfig.model_validate({"attack": ATTACK, "images": 10}))
    assert all(module.training for module in model.modules())
    assert flags == [parameter.requires_grad for parameter in model.parameters()]
    assert all(parameter.grad is None for parameter in model.parameters())


# On a GPU


@pytest.mark.gpu
def test_cuda_and_cpu_agree():
    cpu, cuda = (evaluation_of(device, images=300).summary.metrics for device in ("cpu", "cuda"))
    for name in ("clean_accuracy", "digits.clean_accuracy"):
        assert cuda[name] == pytest.approx(cpu[name], abs=0.01), name
    for name in ("robust_accuracy", "digits.robust_accuracy"):
        assert cuda[name] == pytest.approx(cpu[name], abs=0.02), name
