"""Models measured by themselves, and the records that clip_benchmark's tables are made of."""

from __future__ import annotations

import json
import os
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from click.testing import CliRunner
from PIL import Image
from sklearn.metrics import balanced_accuracy_score, top_k_accuracy_score

from sweeper import evaluation, spec
from sweeper.cli import main
from sweeper.commands.evaluate import check
from sweeper.errors import Exit, UserError
from sweeper.export import exported
from sweeper.run import Run
from tests.finished import finished_run
from trainables import models
from trainables.data import registry
from trainables.data.fit import Fit
from trainables.models import Classifier
from trainables.pixels import to_pixels

SETS = ("fashion-mnist-8k", "digits")
QUICK = ["--set", "attack.steps=2", "--set", "images=60"]


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 1)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return finished_run(tmp_path_factory.mktemp("runs"))


def sweeper(*arguments, code=0):
    result = CliRunner().invoke(main, ["evaluate", *map(str, arguments)])
    assert result.exit_code == code, result.output
    return result.output


def strict(text):
    return json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def test_an_exported_model_scores_as_its_trial_did(run, tmp_path):
    trial = next(row for row in run.pareto()["candidates"] if row["pareto"])
    ((_, folder),) = exported(run, [trial["id"]], tmp_path)
    to = tmp_path / "results"
    printed = sweeper(folder, "--data", SETS[0], "--data", SETS[1], *QUICK, "--to", to, "--json")
    assert strict(printed)["metrics"] == trial["test"]
    records = {name: strict(file.read_text()) for name in SETS for file in to.glob(f"{name}-*.json")}
    for name, prefix in ((SETS[0], ""), (SETS[1], "digits.")):
        record = records[name]
        assert record["dataset"] == name
        assert record["metrics"]["acc1"] == trial["test"][f"{prefix}clean_accuracy"]
        assert record["metrics"]["robust_acc1"] == trial["test"][f"{prefix}robust_accuracy"]
        assert record["intervals"]["robust_acc1"] == pytest.approx(
            trial["intervals"]["test"][f"{prefix}robust_accuracy"]
        )
    assert list((to / "records").glob("*.parquet"))


def test_a_record_has_what_clip_benchmark_writes_and_the_attack(tmp_path):
    """Accuracies against scikit-learn's, from logits that are computed here."""
    file = tmp_path / "tiny.json"
    settings = ["--set", "attack.epsilon=4/255", "--set", "seed=3", "--prompt", "a photo of a {}."]
    sweeper("clip-tiny", "--data", "fashion-mnist-8k", "--to", file, *QUICK, *settings)
    record = strict(file.read_text())
    expected = {
        "dataset": "fashion-mnist-8k",
        "model": "clip-tiny",
        "pretrained": "",
        "task": "zeroshot_classification",
        "language": "en",
        "templates": ["a photo of a {}."],
        "origin": "the test images",
        "split": "test",
        "n": 60,
        "attack": "PGD-2 at epsilon 4/255",
        "norm": "linf",
        "epsilon": "4/255",
        "steps": 2,
        "seed": 3,
    }
    assert {key: record[key] for key in expected} == expected

    images = registry.load("fashion-mnist-8k", "test", Fit((28, 28))).sample(60)
    model = models.load("clip-tiny", None, "cpu")
    with torch.no_grad():
        classifier = Classifier(model, model.encode_classes(images.classes, ["a photo of a {}."]))
        logits = classifier(to_pixels(images.pixels(), model.device)).numpy()
    metrics = record["metrics"]
    assert metrics["acc1"] == top_k_accuracy_score(images.labels, logits, k=1)
    assert metrics["acc5"] == top_k_accuracy_score(images.labels, logits, k=5)
    recall = balanced_accuracy_score(images.labels, logits.argmax(-1))
    assert metrics["mean_per_class_recall"] == pytest.approx(recall)
    assert metrics["acc1"] < metrics["acc5"]
    records = pd.read_parquet(next((tmp_path / "records").glob("*-[0-9]*[0-9].parquet")))
    assert ((records["clean_rank"] == 0) == records["clean_correct"]).all()


@pytest.fixture
def images(tmp_path, monkeypatch):
    """A folder of two classes with ten images each."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    for name in ("bag", "coat"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for index in range(10):
            pixels = rng.integers(0, 255, size=(28, 28, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / name / f"{index}.png")
    return tmp_path / "images"


@pytest.mark.parametrize("split", ["validation", "test"])
def test_relative_paths_of_a_sweep_are_those_of_where_it_was_started(images, monkeypatch, split):
    folder = [{"image_folder": images.name}]
    content = {
        "name": "own",
        "pareto": {"maximize": ["clean_accuracy"], "minimize": []},
        "search": {"trials": 1},
    } | {"trial": {"method": {"name": "tecoa"}, "data": {"train": folder[0]}}}
    content["evaluation"] = content["final"] = {"further_sets": [folder[0] | {"name": "again"}]}
    run = Run.create(
        images.parent, spec.from_text(yaml.safe_dump(content), "s.yaml"), {"directory": str(images.parent)}
    )
    monkeypatch.chdir(images / "bag")
    sweeper("baseline", run.path, "--split", split, *QUICK)


def test_below_five_classes_there_is_no_acc5(images, tmp_path):
    sweeper("clip-tiny", "--data", images, "--to", tmp_path / "r.json", *QUICK)
    record = strict((tmp_path / "r.json").read_text())
    assert (record["dataset"], record["n"]) == ("images", 4)
    assert "acc5" not in record["metrics"]
    assert 0 <= record["metrics"]["acc1"] <= 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ViT-B-32/openai", {"name": "ViT-B-32", "pretrained": "openai"}),
        ("hf-hub:org/repo", {"name": "hf-hub:org/repo"}),
        ("local-dir:some/where", {"name": "local-dir:some/where"}),
        ("clip-tiny", {"name": "clip-tiny"}),
    ],
)
def test_models_are_named_as_open_clip_names_them(text, expected):
    assert evaluation.model_of(text) == expected


def test_a_folder_needs_no_schema(tmp_path):
    assert evaluation.model_of(str(tmp_path)) == {"name": f"local-dir:{tmp_path}"}
    with pytest.raises(UserError, match="no such folder"):
        evaluation.model_of(str(tmp_path / "gone"))


def test_a_trial_of_a_run_is_no_model_where_a_folder_has_its_name(run, monkeypatch):
    monkeypatch.chdir(run.path)  # which has a folder `baseline`
    assert "baseline of" in sweeper("baseline", ".", "--set", "images=10", "--set", "attack.steps=1")
    assert "--data NAME" in sweeper("trials/t000", code=2)


def test_a_data_set_is_a_name_or_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "images" / "birds").mkdir(parents=True)
    assert evaluation.data_set("images/birds") == {"image_folder": "images/birds"}
    assert evaluation.data_set("~/birds") == {"image_folder": "~/birds"}
    assert evaluation.data_set("vtab/flowers") == "vtab/flowers"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["clip-tiny", "--data", "digitz"], "did you mean 'digits'"),
        (["clip-tiny", "--data", "./nowhere"], "is not a folder"),
        (["clip-tiny", "--data", "vtab/flowers"], "data set 'flowers': not there"),
        (
            ["clip-tiny", "--data", "images/birds"],
            "no data set is called 'images/birds'; for a folder write {image_folder: images/birds}",
        ),
        (["clip-tiny", "--data", "digits", "some-run"], "leave 'some-run' out"),
        (["clip-tiny", "--data", "digits", "--set", "imags=3"], "did you mean 'images'"),
        (["clip-tiny", "--data", "digits", "--set", "images=!choice [1, 2]"], "can't stand here"),
        (["clip-tiny", "--data", "digits", "--attack", "standrad"], "did you mean 'standard'"),
        (["clip-tiny", "--data", "digits", "--prompt", "a photo"], "exactly one placeholder"),
        (["clip-tiny", "--data", "digits", "--data", "fashion-mnist-8k", "--to", "a.json"], "one file"),
        (["clip-tiny", "--data", "digits", "--to", "a.json", "--set", "further_sets=[cifar10]"], "one file"),
        (["clip-tiny", "--suite", "embedded-ood", "--to", "a.json"], "each data set of a suite needs one"),
        (["clip-tiny", "--suite", "embedded-ood", "--sanity"], "leave --suite out"),
        (["ViT-B-32", "--data", "digits"], "needs `pretrained`"),
        (["ViT-B-32/opnai", "--data", "digits"], "no weights 'opnai' of ViT-B-32"),
        (["t000", "--data", "digits"], "no architecture 't000'"),
        (["local-dir:/nowhere", "--data", "digits"], "expected open_clip_config.json"),
        (["/nowhere", "--data", "digits"], "no such folder"),
        (["ViT-B-32/openai"], "--data NAME"),
        (["t000", "--prompt", "a {}"], "go with --data"),
    ],
)
def test_what_can_not_be_measured_is_one_line(arguments, message):
    output = sweeper(*arguments, code=2)
    assert message in output
    assert output.count("\n") == 1


def test_every_model_of_a_front_is_checked():
    """And one that fails fails the command, wherever it stands."""
    found = {"baseline": True, "t000@1": False, "t001@2": True}

    def make(name, verdict):
        return SimpleNamespace(name=name, sanity=lambda: [("unbounded", verdict, "as it may be")])

    models = [make(name, verdict) for name, verdict in found.items()]
    with pytest.raises(SystemExit) as ended:
        check(models, as_json=False)
    assert ended.value.code == Exit.FAILED
    check([models[0], models[2]], as_json=False)
