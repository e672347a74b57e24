"""Suites: groups of sets, images of other classes, altered images, and what an interruption leaves."""

from __future__ import annotations

import io
import json
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from click.testing import CliRunner
from rich.console import Console
from sklearn.metrics import roc_auc_score

from sweeper import Sweep, runner, spec, tree
from sweeper import evaluation as evaluation_of
from sweeper.cli import main
from sweeper.errors import SpecError, UserError
from sweeper.run import Run
from sweeper.suites import given, planned, tables_of, within
from sweeper.table import interval
from sweeper.trainable import Trainable
from tests import alone
from tests.finished import finished_run
from trainables import models, outputs, suites
from trainables.config import EvaluationConfig, TrialConfig, measured_sets, trial_metrics
from trainables.data import registry
from trainables.data.config import DataConfig, DataSet, OutsideSet
from trainables.data.fit import Fit
from trainables.data.names import ZERO_SHOT
from trainables.data.role import Role
from trainables.errors import DataError
from trainables.evaluate import Evaluation, evaluate
from trainables.finetune import evaluation_sets
from trainables.metrics.names import metric_names
from trainables.metrics.resampling import resample
from trainables.once import Store
from trainables.suites import Suite, measurements

pytestmark = pytest.mark.usefixtures("own_cache")

OWN = {
    "name": "own",
    "altered": ["fog", "pose"],
    "severities": [1, 4],
    "ood": ["digits"],
    "show": ["clean_accuracy"],
}
RULER = {"attack": {"epsilon": "8/255", "steps": 2}, "images": 60, "suites": [OWN, "embedded-zero-shot"]}


@pytest.fixture(scope="module")
def model():
    return models.load("clip-tiny", None, "cpu")


def measured(model, ruler, split="validation", store=None, **data):
    config = EvaluationConfig.model_validate(ruler)
    sets = evaluation_sets(DataConfig(**data), config, split, model)
    return evaluate(model, sets, config, **({} if store is None else {"store": store}))


@pytest.fixture(scope="module")
def evaluation(model):
    return measured(model, RULER)


def names(ruler, **data):
    trial = TrialConfig.model_validate({"method": {"name": "tecoa"}, "data": data})
    return trial_metrics(trial, EvaluationConfig.model_validate(ruler))


# What is measured


@pytest.mark.parametrize("name", suites.NAMES)
def test_every_suite_of_ours_is_one(name):
    suite = Suite.model_validate(name)
    assert suite.name == name
    assert suite.about.endswith((".", "?"))
    asked = list(suite.measured(suite.within))
    assert asked or suite.confidence_attack
    config = EvaluationConfig(suites=[suite])
    reported = metric_names(
        {of: role for of, (_, role) in measured_sets(DataConfig(train=suite.within), config).items()},
        config.versions,
    )
    prefix = f"{name}." if asked else ""
    shown = [f"{prefix}{metric}" for metric in suite.show if "_auroc" not in metric or "_ood_" in metric]
    assert set(shown) <= set(reported)


def test_the_zero_shot_suite_has_the_sixteen_sets():
    assert tuple(Suite.model_validate("zero-shot").sets) == ZERO_SHOT


def test_what_is_reported_is_what_was_promised(evaluation):
    assert set(names(RULER)) <= set(evaluation.summary.metrics)


def test_a_group_is_the_mean_of_its_sets_and_has_a_worst(evaluation):
    metrics = evaluation.summary.metrics
    sets = [f"fashion-mnist-8k-{name}-{severity}" for name in ("fog", "pose") for severity in (1, 4)]
    accuracies = [metrics[f"{name}.clean_accuracy"] for name in sets]
    assert metrics["own.clean_accuracy"] == pytest.approx(np.mean(accuracies))
    assert metrics["own.worst_clean_accuracy"] == min(accuracies)
    assert metrics["own.worst_clean_ece"] == max(metrics[f"{name}.clean_ece"] for name in sets)
    assert "own.worst_clean_confidence" not in metrics
    assert "transfer.clean_accuracy" not in metrics
    assert metrics["own.mcm_ood_auroc"] == metrics["digits-ood.mcm_ood_auroc"]


def test_only_what_is_to_be_attacked_is(evaluation):
    metrics = evaluation.summary.metrics
    assert "digits.robust_accuracy" in metrics
    assert "robust_accuracy" in metrics
    assert not [name for name in metrics if name.startswith("fashion-mnist-8k-fog") and "robust" in name]
    assert set(evaluation.report()["broken_by"]) == {"fashion-mnist-8k", "digits"}


def test_a_set_can_be_classified_and_told_apart(evaluation):
    """`digits` by its own classes, `digits-ood` by those of clothes."""
    metrics = evaluation.summary.metrics
    assert metrics["digits.clean_accuracy"] > 0.9
    assert "digits-ood.clean_accuracy" not in metrics
    assert "digits.mcm_ood_auroc" not in metrics


def test_scores_of_other_classes_are_those_of_saved_logits(model, evaluation):
    """By scikit-learn and plain torch, from logits that are computed here."""
    config = EvaluationConfig.model_validate(RULER)
    inside, *_ = evaluation_sets(DataConfig(), config, "validation", model)
    outside = registry.load(OutsideSet(dataset="digits"), "validation", Fit((28, 28)), count=60)
    text = model.encode_classes(inside.classes, inside.templates)
    cosines = []
    for images in (inside, outside):
        pixels = torch.from_numpy(images.pixels()).permute(0, 3, 1, 2) / 255
        with torch.no_grad():
            cosines.append(torch.nn.functional.normalize(model.features(pixels), dim=-1) @ text.T)
    known = [1] * len(inside) + [0] * len(outside)
    both = torch.cat(cosines).double()
    expected = {
        "mcm": both.softmax(-1).amax(-1),
        "confidence": (model.scale * both).softmax(-1).amax(-1),
        "epistemic": (both / 0.07 + 1 / 0.07).exp().sum(-1),
        "entropy": torch.special.entr((model.scale * both).softmax(-1)).sum(-1).neg(),
    }
    for name, score in expected.items():
        found = evaluation.summary.metrics[f"digits-ood.{name}_ood_auroc"]
        assert found == pytest.approx(roc_auc_score(known, score.numpy()), abs=2e-4), name


def test_altered_sets_have_the_labels_of_the_set_itself(evaluation):
    of = dict(list(evaluation.records.groupby("set")))
    plain, fog = of["fashion-mnist-8k"], of["fashion-mnist-8k-fog-4"]
    assert plain["label"].tolist() == fog["label"].tolist()
    assert plain["index"].tolist() == fog["index"].tolist()
    assert set(plain["source"]) == set(fog["source"])
    assert set(plain["source"]).isdisjoint(of["digits"]["source"])
    assert (plain["clean_nll"].to_numpy() != fog["clean_nll"].to_numpy()).all()


def test_the_own_temperature_is_the_best_there_is(evaluation):
    metrics = evaluation.summary.metrics
    assert metrics["temperature_regret"] == pytest.approx(0, abs=1e-9)
    assert metrics["temperature"] == metrics["own_temperature"]
    for shifted in ("fashion-mnist-8k-fog-1", "fashion-mnist-8k-fog-4"):
        assert metrics[f"{shifted}.temperature_regret"] >= 0
        assert f"{shifted}.clean_scaled_nll" in evaluation.summary.intervals
        assert f"{shifted}.temperature_regret" not in evaluation.summary.intervals
        assert metrics[f"{shifted}.temperature"] == metrics["temperature"]


def test_nothing_is_attacked_at_an_epsilon_of_0(model):
    found = measured(model, {"attack": {"epsilon": 0}, "images": 40, "suites": ["embedded-zero-shot"]})
    assert not [name for name in found.summary.metrics if "robust" in name]
    assert found.report()["broken_by"] == {}
    promised = names({"attack": {"epsilon": 0}, "images": 40, "suites": ["embedded-zero-shot"]})
    assert set(promised) <= set(found.summary.metrics)


def test_records_come_back_as_they_were(evaluation, tmp_path):
    evaluation.save(tmp_path / "records.parquet")
    again = Evaluation.load(tmp_path / "records.parquet")
    assert again.summary == evaluation.summary


# Resampling


def test_metrics_of_suites_are_resampled_as_they_are_computed(evaluation, tmp_path):
    file = tmp_path / "records.parquet"
    evaluation.save(file)
    asked = [
        "robust_accuracy",
        "own.clean_accuracy",
        "own.worst_clean_accuracy",
        "own.worst_clean_ece",
        "own.mcm_ood_auroc",
        "digits-ood.epistemic_ood_fpr95",
        "digits-ood.confidence_ood_aupr",
        "embedded-zero-shot.robust_accuracy",
        "fashion-mnist-8k-pose-4.temperature_regret",
    ]
    found = resample([[file]], asked, draws=200)
    assert found.estimates[0].tolist() == pytest.approx([evaluation.summary.metrics[name] for name in asked])
    low, high = np.quantile(found.draws[:, 0], [0.025, 0.975], axis=0)
    assert ((low <= found.estimates[0] + 1e-9) | (np.array(asked) == "own.worst_clean_ece")).all()
    assert (high > low).all()


def test_in_distribution_images_are_drawn_once_for_all_that_is_told_from_them(evaluation, tmp_path):
    """So draws of the accuracy and of the area go together, as both depend on these images."""
    file = tmp_path / "records.parquet"
    evaluation.save(file)
    together = resample([[file]], ["clean_confidence", "digits-ood.confidence_ood_auroc"], draws=400).draws[
        :, 0
    ]
    assert np.corrcoef(together.T)[0, 1] > 0.5


# Interruption


def test_an_interrupted_evaluation_goes_on_where_it_was(model, tmp_path, monkeypatch):
    monkeypatch.setattr(outputs, "PART", 25)
    whole = measured(model, RULER)
    store, done = Store(tmp_path / "parts"), []
    real = outputs.Measuring.outputs

    def counting(self, stop=None):
        if stop is not None and len(done) == stop:
            raise KeyboardInterrupt
        done.append((self.images.name, len(self.images)))
        return real(self)

    for stop in (1, 4, 9):
        monkeypatch.setattr(outputs.Measuring, "outputs", lambda self, stop=stop: counting(self, stop))
        with pytest.raises(KeyboardInterrupt):
            measured(model, RULER, store=store)
    monkeypatch.setattr(outputs.Measuring, "outputs", counting)
    resumed = measured(model, RULER, store=store)
    assert len(done) == 7 * 3  # sets times parts: none of them twice
    pd.testing.assert_frame_equal(
        resumed.records.drop(columns="zero_gradients"), whole.records.drop(columns="zero_gradients")
    )
    assert resumed.summary.metrics == pytest.approx(whole.summary.metrics)


def test_parts_of_another_model_or_attack_are_not_taken(model, tmp_path):
    store = Store(tmp_path)
    ruler = {"attack": {"epsilon": "8/255", "steps": 1}, "images": 20}
    first = measured(model, ruler, store=store)
    other = measured(model, ruler | {"attack": {"epsilon": "1/255", "steps": 1}}, store=store)
    assert other.summary.metrics["robust_confidence"] != first.summary.metrics["robust_confidence"]
    again = measured(model, ruler | {"batch_size": 7, "suites": [OWN]}, store=store)
    assert again.summary.metrics["robust_confidence"] == first.summary.metrics["robust_confidence"]


# Refusals


def test_splits_are_not_mixed(model):
    validation, test = (
        registry.load("fashion-mnist-8k", split, Fit((28, 28)), count=10) for split in ("validation", "test")
    )
    with pytest.raises(
        DataError, match=r"'fashion-mnist-8k' has validation images and .* test images; measure"
    ):
        evaluate(model, [validation, test], EvaluationConfig())


def test_an_altered_set_is_not_trained_on():
    with pytest.raises(ValueError, match="is altered: it can be measured, not trained on"):
        DataConfig(train=DataSet(dataset="digits", altered="fog"))


@pytest.mark.parametrize(
    ("ruler", "line"),
    [
        ({"suites": ["shift"]}, "unknown suite 'shift'; did you mean 'shifts'?"),
        ({"suites": ["ood"], "ood": ["digits"]}, "a name is there twice, or is 'transfer' or 'ood': ood"),
        ({"suites": [OWN, OWN]}, "a name is there twice"),
        ({"suites": [{"name": "transfer"}]}, "or is 'transfer'"),
        (
            {"suites": [{"name": "own", "altered": ["fogg"]}]},
            "unknown alteration 'fogg'; did you mean 'fog'?",
        ),
        ({"suites": [{"name": "own", "altered": ["fog"], "severities": [6]}]}, "less than or equal to 5"),
        ({"suites": [{"name": "own", "sets": ["ninco"]}]}, "'ninco' has no classes to be measured on"),
    ],
)
def test_a_mistake_in_a_suite_says_what_it_is(ruler, line):
    with pytest.raises(ValueError, match="suites") as caught:
        EvaluationConfig.model_validate(ruler)
    assert line in str(caught.value)


def test_a_set_that_is_called_as_a_group_is_refused():
    data = DataConfig(evaluate=["digits", DataSet(dataset="fashion-mnist-8k", name="own")])
    with pytest.raises(DataError, match="both called 'own'"):
        measured_sets(data, EvaluationConfig.model_validate({"suites": [OWN]}))


# The command


def sweeper(*arguments, code=0):
    result = CliRunner().invoke(main, ["evaluate", *map(str, arguments)])
    assert result.exit_code == code, result.output
    return result.output


def test_as_few_evaluations_as_can_be():
    needed = measurements(["embedded-zero-shot", "embedded-ood", "uncertainty", "embedded-shifts"])
    assert [[suite["name"] for suite in each["suites"]] for each in needed] == [
        ["embedded-ood", "embedded-shifts"],
        ["uncertainty"],
        *[["embedded-zero-shot"]] * 3,
    ]
    assert [each.get("attack.epsilon") for each in needed] == [0, None, "1/255", "2/255", "4/255"]


def planned_of(names, *, overrides=(), attacks=(), split="test", to="to"):
    """Evaluations of the measurements that the command makes."""
    trainable = Trainable.find("finetune")
    make = partial(
        evaluation_of.of_model,
        "clip-tiny",
        within(names, trainable),
        split,
        to=Path(to),
        overrides=overrides,
        attacks=attacks,
    )
    return [each.content["evaluation"] for each in planned(trainable, names, make)]


def test_a_suites_own_epsilons_and_its_want_of_attacks_are_kept_to():
    """Whatever else the command line says, which holds for suites that attack as it says."""
    names = ["embedded-zero-shot", "embedded-shifts"]
    overrides = ["attack.epsilon=8/255", "attack.step_size=1/255", "confidence_attack={}", "images=7"]
    clean, *at = planned_of(names, overrides=overrides, attacks=["standard"])
    assert not EvaluationConfig.model_validate(clean).attacks
    assert [each["attack"]["epsilon"] for each in at] == ["1/255", "2/255", "4/255"]
    assert {each["attack"]["step_size"] for each in at} == {None}
    assert all([attack["name"] for attack in each["further_attacks"]] == ["standard"] for each in at)
    assert {each["images"] for each in (clean, *at)} == {7}
    (attacked,) = planned_of([OWN | {"attacked": True, "within": "digits"}], overrides=overrides)
    assert attacked["attack"]["epsilon"] == "8/255"


def test_an_attack_that_does_not_keep_to_a_suites_epsilon_is_refused():
    own = ["further_attacks=[{name: apgd-ce, epsilon: 8/255}]"]
    with pytest.raises(UserError, match="measured at epsilon 1/255, and apgd-ce has an epsilon of its own"):
        planned_of(["embedded-zero-shot"], overrides=own)


def test_a_long_table_is_by_sets_that_have_the_metric():
    """Others are of classes that nothing here has."""
    suite = Suite(name="long", altered="corruptions", severities=[1, 2], ood=["digits"])
    names = [f"set-{number}" for number in range(30)]
    metrics = {f"{name}.clean_accuracy": 1 - number / 100 for number, name in enumerate(names)}
    sets = [{"set": name, "groups": ["long"]} for name in ("other", *names)]
    result = {"sets": [{"set": "first", "groups": []}, *sets], "metrics": metrics, "intervals": {}}
    (made,) = tables_of(suite.model_dump() | {"show": ["clean_accuracy"]}, result)
    assert list(made.columns[0].cells)[1:6] == [f"set-{number}" for number in range(29, 24, -1)]


def test_a_table_leaves_out_no_digit_in_80_columns():
    metrics = [
        "clean_entropy",
        "clean_epistemic",
        "entropy_shift",
        "epistemic_shift",
        "clean_aurc",
        "clean_nll",
    ]
    sets = [{"set": "first", "groups": []}, {"set": "first-gaussian-noise-3", "groups": ["own"]}]
    names = [f"{prefix}{name}" for prefix in ("", "first-gaussian-noise-3.") for name in metrics]
    values = {name: number / 7 for number, name in enumerate(names, 1)}
    intervals = {name: [value - 0.05, value + 0.05] for name, value in values.items()}
    result = {"sets": sets, "metrics": values, "intervals": intervals}
    console = Console(width=80, file=io.StringIO())
    for made in tables_of({"name": "own", "about": "", "show": metrics}, result):
        console.print(made)
    printed = console.file.getvalue()
    assert max(map(len, printed.splitlines())) <= 80
    for name, value in values.items():
        assert f"{value:.4f}" in printed
        assert interval(intervals, name) in printed


def test_the_command_measures_suites_and_prints_their_tables(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    own = tmp_path / "mine.yaml"
    own.write_text(yaml.safe_dump({key: value for key, value in OWN.items() if key != "name"}))
    printed = sweeper(
        "clip-tiny",
        "--suite",
        own,
        "--data",
        "fashion-mnist-8k",
        "--set",
        "images=40",
        "--to",
        tmp_path / "to",
    )
    assert "mine" in printed
    assert "clean alone" in printed
    (file,) = (tmp_path / "to" / "records").glob("*.json")
    metrics = json.loads(file.read_text())["metrics"]
    assert f"{metrics['mine.clean_accuracy']:.4f}" in printed
    assert not list((tmp_path / "to" / "records" / ".parts").iterdir())
    records = {json.loads(each.read_text())["dataset"] for each in (tmp_path / "to").glob("*.json")}
    assert "fashion-mnist-8k-fog-1" in records
    assert "digits-ood" not in records


def test_the_pareto_set_of_a_run_is_measured_by_suites(tmp_path):
    run = finished_run(tmp_path / "runs")
    members = [row["id"] for row in run.pareto()["candidates"] if row["pareto"]]
    printed = sweeper("pareto", run.path, "--suite", "embedded-ood", "--set", "images=30", "--json")
    results = json.loads(printed)
    assert len(results) == 1 + len(members)
    assert all("embedded-ood.mcm_ood_auroc" in result["metrics"] for result in results)
    assert all(result["split"] == "test" for result in results)


def test_what_attacks_nothing_measures_a_trial_of_a_sweep_that_is_judged_under_attack(tmp_path):
    file = finished_run(tmp_path).path / "sweep.yaml"
    file.write_text(file.read_text().replace("clean_accuracy", "robust_accuracy"))
    run = Run.load(file.parent)
    assert run.spec.file.pareto.maximize == ["robust_accuracy"]
    for split in ("test", "validation"):
        make = partial(evaluation_of.of_trial, run, "baseline", split)
        (found,) = planned(run.spec.trainable, ["embedded-shifts", "embedded-ood"], make)
        assert found.content["evaluation"]["attack"]["epsilon"] == "0/255"
        assert found.split == split


@pytest.mark.parametrize(
    ("content", "line"),
    [(None, "No such file"), ("a: [", "while parsing"), ("- 1", "expected keys such as `sets`")],
)
def test_a_file_that_is_no_suite_is_one_line(content, line, tmp_path):
    file = Path(tmp_path / "suite.yaml")
    if content is not None:
        file.write_text(content)
    with pytest.raises(UserError) as caught:
        given([str(file)])
    assert line in str(caught.value)


def test_roles_add_up():
    assert Role(("a",), attacked=False).and_also(Role(("b", "a"))) == Role(("a", "b"), attacked=True)


# In a sweep

WEATHER = {"name": "weather", "altered": ["fog"], "severities": [2, 4]}
RULED = {"attack": {"epsilon": "8/255", "steps": 1}, "images": 40, "suites": ["embedded-ood", WEATHER]}
SWEEP = {
    "name": "suites",
    "trial": {
        "data": {"train": "fashion-mnist-8k", "images": 64},
        "method": {"name": "tecoa"},
        "optimizer": {"learning_rate": 1e-3},
        "batch_size": 32,
        "epochs": 3,
    },
    "evaluation": RULED | {"suite_epochs": [1]},
    "final": RULED,
    "pareto": {
        "maximize": ["embedded-ood.mcm_ood_auroc", "weather.worst_clean_accuracy"],
        "subject_to": {"weather.clean_accuracy": ">= 0.1 * baseline"},
    },
    "search": {"trials": 1, "sampler": "random"},
    "tracking": {"mlflow": False},
}


def test_metrics_of_suites_decide_after_the_epochs_that_they_are_measured_after(tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "drive", alone.drive)
    monkeypatch.setattr(runner.Cluster, "check", staticmethod(lambda _: None))
    results = Sweep.from_dict(SWEEP).run(runs=tmp_path / "runs", quiet=True)
    (trial,) = Run.load(results.path).trials()
    measured = [set(epoch["metrics"]) for epoch in trial.epochs]
    decides = {"weather.worst_clean_accuracy", "embedded-ood.mcm_ood_auroc"}
    assert [decides <= metrics for metrics in measured] == [True, False, True]
    assert all("robust_accuracy" in metrics for metrics in measured)
    assert {2} & set(trial.kept) == set()
    rows = results.pareto()
    assert set(rows["epoch"]) <= {1, 3}
    assert rows["probability"].between(0, 1).all()


def test_a_rung_after_another_epoch_is_refused():
    file = SWEEP | {
        "search": {"trials": 2, "sampler": "random", "early_stopping": {"grace_epochs": 2}},
    }
    with pytest.raises(SpecError) as caught:
        spec.validate(tree.from_plain(file, "sweep.yaml"))
    (line,) = caught.value.lines
    assert (
        "evaluation.suite_epochs: early stopping decides by embedded-ood.mcm_ood_auroc after epochs 2" in line
    )
