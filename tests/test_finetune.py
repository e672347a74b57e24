"""The trainable as Tune drives it, without a cluster: its folder is its memory."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from PIL import Image

from trainables import checkpoints, finetune, models
from trainables.config import EvaluationConfig, TrialConfig, measured_sets, trial_metrics
from trainables.data import registry
from trainables.data.config import DataConfig
from trainables.data.images import Held
from trainables.errors import AttackError, DataError, Diverged, ModelError
from trainables.evaluate import Evaluation
from trainables.preflight import check

TRIAL = {
    "method": {"name": "tecoa"},
    "epochs": 2,
    "batch_size": 32,
    "data": {"images": 64},
    "optimizer": {"learning_rate": 1e-3},
}
EVALUATION = {"attack": {"epsilon": "4/255", "steps": 1}, "images": 40}
METRICS = set(trial_metrics(TrialConfig.model_validate(TRIAL), EvaluationConfig.model_validate(EVALUATION)))


def trainable(folder, *, until=None, **changes):
    config = {
        "trial": TRIAL | changes,
        "evaluation": EVALUATION,
        "seed": 0,
        "folder": str(folder),
        "threads": 1,
        "cpus": 1,
        "gpus": 0,
        "until": until,
    }
    return finetune.Finetune(config)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    run = trainable(folder)
    return folder, [run.step(), run.step()]


def test_the_images_that_numbers_are_from_are_recorded(finished):
    folder, _ = finished
    stored = json.loads((folder / "epoch-001.json").read_text())
    (measured,) = stored["sets"]
    assert (measured["set"], measured["split"], measured["images"]) == ("fashion-mnist-8k", "validation", 40)
    assert measured["origin"] == "20 % of the training images"
    assert stored["training_set"]["origin"] == "80 % of the training images"
    assert stored["training_set"]["images"] == 64


def test_nothing_is_decoded_that_is_not_measured(tmp_path, monkeypatch):
    """Of further sets, which can be large, no validation images; for the sanity of a model none at all."""
    loaded, load = [], registry.load
    monkeypatch.setattr(
        registry,
        "load",
        lambda config, split, *a, **k: loaded.append((config, split)) or load(config, split, *a, **k),
    )
    what = {"model": {}, "data": TRIAL["data"], "split": "test", "weights": None, "threads": 1}
    what["evaluation"] = EVALUATION | {"further_sets": ["digits"], "images": 10}
    finetune.measure(**what, target=str(tmp_path / "result.json"))
    assert loaded == [
        ("fashion-mnist-8k", "test"),
        ("digits", "test"),
        ("fashion-mnist-8k", "validation"),
    ]
    loaded.clear()
    monkeypatch.setattr(finetune, "check", lambda *_, **__: [])
    finetune.sanity(**what)
    assert loaded == [("fashion-mnist-8k", "test")]


def test_further_sets_are_measured_as_transfer(tmp_path):
    evaluation = EVALUATION | {"further_sets": ["digits", "fashion-mnist-8k"], "images": 20}
    target = tmp_path / "result.json"
    finetune.measure(
        model={},
        data=TRIAL["data"],
        evaluation=evaluation,
        split="test",
        target=str(target),
        weights=None,
        threads=1,
    )
    result = json.loads(target.read_text())
    assert [of["set"] for of in result["sets"]] == ["fashion-mnist-8k", "digits"]
    assert [of["origin"] for of in result["sets"]] == ["the test images"] * 2
    names = trial_metrics(TrialConfig.model_validate(TRIAL), EvaluationConfig.model_validate(evaluation))
    assert "digits.robust_accuracy" in names
    assert result["metrics"]["transfer.robust_accuracy"] == result["metrics"]["digits.robust_accuracy"]


def test_a_further_set_does_not_take_the_place_of_another_of_its_name():
    asked = {"dataset": "eurosat", "templates": ["a {} from above"]}
    data = DataConfig.model_validate({"train": "eurosat", "evaluate": [asked]})
    zero_shot = EvaluationConfig.model_validate({"further_sets": "zero-shot"})
    assert next(iter(measured_sets(data, zero_shot).values()))[0] == data.evaluate[0]
    assert len(measured_sets(data, zero_shot)) == 16
    data = DataConfig.model_validate({"train": {"image_folder": "/a/birds"}})
    other = EvaluationConfig.model_validate({"further_sets": [{"image_folder": "/b/birds"}]})
    with pytest.raises(DataError, match="/b/birds and /a/birds are both called 'birds'; give one a `name`"):
        measured_sets(data, other)


def without_times(report):
    return {key: value for key, value in report.items() if key != "images_per_second"}


def test_every_epoch_is_reported_with_all_metrics_and_stored(finished):
    folder, reports = finished
    assert [(r["epoch"], r["done"], r["failed"]) for r in reports] == [(1, False, None), (2, True, None)]
    for report in reports:
        assert report.keys() >= METRICS
        stored = json.loads((folder / f"epoch-{report['epoch']:03d}.json").read_text())
        again = Evaluation.load(folder / f"epoch-{report['epoch']:03d}.parquet").summary
        assert again.metrics == pytest.approx(stored["metrics"])
        assert {name: list(ends) for name, ends in again.intervals.items()} == stored["intervals"]
        assert stored["system"]["process_memory_megabytes"] > 0
        assert all(report[name] == value for name, value in stored["metrics"].items())
    assert not list(folder.glob("*.partial"))


def test_a_lost_trial_goes_on_from_its_folder_to_the_same_end(finished, tmp_path):
    folder, reports = finished
    assert without_times(trainable(tmp_path).step()) == without_times(reports[0])
    again = trainable(tmp_path)  # another process, after the first was lost
    assert without_times(again.step()) == without_times(reports[1])
    whole, resumed = (
        checkpoints.load(folder / checkpoints.FILE),
        checkpoints.load(tmp_path / checkpoints.FILE),
    )
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert without_times(trainable(tmp_path).step()) == without_times(reports[1])  # nothing left to do


def test_a_trial_does_not_go_on_and_is_not_measured_on_other_images(tmp_path, monkeypatch):
    """One more image, and splits that are cut from all images are others: test images were trained on."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    for name in ("bag", "coat"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for index in range(20):
            pixels = rng.integers(0, 255, (28, 28, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / name / f"{index}.png")
    data = {"train": {"image_folder": str(tmp_path / "images")}}
    (tmp_path / "moved").symlink_to(tmp_path / "images")
    moved = {"train": {"image_folder": str(tmp_path / "moved")}}
    assert trainable(tmp_path / "trial", data=data, batch_size=8).step()["failed"] is None
    what = {"model": {}, "evaluation": EVALUATION, "split": "test", "threads": 1}
    what |= {"weights": str(tmp_path / "trial" / "epoch-001.safetensors")}
    finetune.measure(**what, data=moved, target=str(tmp_path / "moved.json"))

    Image.fromarray(pixels).save(tmp_path / "images" / "bag" / "new.png")
    registry._listed.cache_clear()  # as in another process
    with pytest.raises(DataError, match="added, taken away or renamed"):
        finetune.measure(**what, data=data, target=str(tmp_path / "result.json"))
    report = trainable(tmp_path / "trial", data=data, batch_size=8).step()
    assert "added, taken away or renamed" in report["failed"]
    (tmp_path / "images" / "bag" / "new.png").unlink()
    registry._listed.cache_clear()
    assert trainable(tmp_path / "trial", data=data, batch_size=8).step()["epoch"] == 2


def test_a_diverged_trial_reports_why_and_stores_nothing(tmp_path):
    report = trainable(tmp_path, optimizer={"learning_rate": 1e30}).step()
    assert report["done"]
    assert "training loss" in report["failed"]
    assert report.keys() >= METRICS
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("error", [ModelError("no patches"), AttackError("four classes"), Diverged("nan")])
def test_what_a_trial_can_not_do_is_its_reason_and_not_a_lost_worker(tmp_path, monkeypatch, error):
    def fails(*_, **__):
        raise error

    monkeypatch.setattr(finetune, "evaluate", fails)
    report = trainable(tmp_path).step()
    assert report["done"]
    assert report["failed"] == str(error)


def test_a_finished_trial_is_measured_once_and_with_its_own_weights(finished, tmp_path):
    folder, reports = finished
    target = tmp_path / "final" / "t000.json"
    trial = TrialConfig.model_validate(TRIAL).model_dump(mode="json")
    what = {"model": trial["model"], "data": trial["data"], "evaluation": EVALUATION}
    what |= {"split": "validation", "threads": 1}
    finetune.measure(**what, target=str(target), weights=str(folder / "epoch-002.safetensors"))
    metrics = json.loads(target.read_text())["metrics"]
    assert metrics == pytest.approx({name: reports[1][name] for name in metrics})
    before = target.stat().st_mtime_ns
    finetune.measure(**what, target=str(target), weights=str(folder / "epoch-002.safetensors"))
    assert target.stat().st_mtime_ns == before

    baseline = tmp_path / "baseline.json"
    finetune.measure(**what, target=str(baseline), weights=None)
    assert json.loads(baseline.read_text())["metrics"] != metrics


@pytest.mark.parametrize("split", ["validation", "test"])
def test_the_untrained_model_is_measured_once_for_all_sweeps_of_a_folder(tmp_path, monkeypatch, split):
    what = {
        "model": {},
        "data": TRIAL["data"],
        "evaluation": EVALUATION,
        "split": split,
        "threads": 1,
        "weights": None,
    }
    finetune.measure(**what, target=str(tmp_path / "alone" / "a.json"))
    finetune.measure(**what, target=str(tmp_path / "one" / "a.json"), cache=str(tmp_path / "cache"))
    for name in ("evaluate", "calibrate"):
        monkeypatch.setattr(finetune, name, lambda *_, **__: pytest.fail("measured again"))
    finetune.measure(**what, target=str(tmp_path / "two" / "a.json"), cache=str(tmp_path / "cache"))
    alone = {file.name: file.read_bytes() for file in (tmp_path / "alone").iterdir()}
    assert alone.keys() == {"a.json", "a.parquet", "a-class-bins.parquet"}
    for run in ("one", "two"):
        assert {file.name: file.read_bytes() for file in (tmp_path / run).iterdir()} == alone


def test_a_trial_is_not_taken_for_the_untrained_model(finished, tmp_path):
    folder, _ = finished
    what = {"model": {}, "data": TRIAL["data"], "evaluation": EVALUATION, "split": "validation", "threads": 1}
    cache = str(tmp_path / "cache")
    finetune.measure(**what, target=str(tmp_path / "untrained.json"), weights=None, cache=cache)
    finetune.measure(
        **what,
        target=str(tmp_path / "trial.json"),
        weights=str(folder / "epoch-002.safetensors"),
        cache=cache,
    )
    finetune.measure(
        **what, target=str(tmp_path / "alone.json"), weights=str(folder / "epoch-002.safetensors")
    )
    assert (tmp_path / "trial.json").read_text() == (tmp_path / "alone.json").read_text()
    assert (tmp_path / "trial.json").read_text() != (tmp_path / "untrained.json").read_text()


def with_pixel_changed(images):
    pixels = images.pixels()
    pixels[0, 0, 0, 0] ^= 1
    return dataclasses.replace(images, store=Held(pixels), rows=np.arange(len(pixels)))


def with_other_numbers(images):
    return dataclasses.replace(images, numbers=images.numbers + 1)


IMAGE_CHANGES = {
    "a byte of an image": with_pixel_changed,
    "labels": lambda images: dataclasses.replace(images, labels=images.labels[::-1].copy()),
    "numbers, which attacks start from": with_other_numbers,
    "fewer images": lambda images: images.sample(20),
    "a class name": lambda images: dataclasses.replace(images, classes=("shirt", *images.classes[1:])),
    "a template": lambda images: dataclasses.replace(images, templates=("a sketch of a {}",)),
    "split": lambda images: dataclasses.replace(images, split="test"),
}


@pytest.fixture(scope="module")
def ruler():
    """Model, sets and evaluation of a baseline."""
    trial, evaluation = TrialConfig.model_validate(TRIAL), EvaluationConfig.model_validate(EVALUATION)
    model = models.load("clip-tiny", None, "cpu")
    return model, finetune.evaluation_sets(trial.data, evaluation, "validation", model), evaluation


@pytest.mark.parametrize("change", IMAGE_CHANGES.values(), ids=IMAGE_CHANGES.keys())
def test_a_baseline_is_of_its_own_images(ruler, change):
    model, sets, evaluation = ruler
    images, other = sets[0], change(sets[0])
    keys = [
        finetune.baseline_key(model, [images], images, evaluation),
        finetune.baseline_key(model, [images], None, evaluation),
        finetune.baseline_key(model, [images, other], images, evaluation),
        finetune.baseline_key(model, [other], images, evaluation),
        finetune.baseline_key(model, [images], other, evaluation),
    ]
    assert all(one != other for i, one in enumerate(keys) for other in keys[:i])
    assert keys[0] == finetune.baseline_key(model, [images], images, evaluation)


@pytest.mark.parametrize(
    "change",
    [
        {"attack": {"epsilon": "8/255", "steps": 1}},
        {"attack": {"epsilon": "4/255", "steps": 2}},
        {"attack": {"epsilon": "4/255", "steps": 1, "loss": "margin"}},
        {"further_attacks": ["standard"]},
        {"confidence_attack": {"epsilon": "4/255"}},
        {"seed": 1},
        {"precision": "bfloat16"},
        {"batch_size": 7},
    ],
    ids=str,
)
def test_a_baseline_is_of_its_own_evaluation(ruler, change):
    model, sets, evaluation = ruler
    other = EvaluationConfig.model_validate(EVALUATION | change)
    assert finetune.baseline_key(model, sets, None, other) != finetune.baseline_key(
        model, sets, None, evaluation
    )


def test_a_baseline_is_of_its_own_model(ruler):
    model, sets, evaluation = ruler
    other = models.trainable_copy(model, text=False)
    with torch.no_grad():
        other.clip.logit_scale += 1e-3
    assert finetune.baseline_key(other, sets, None, evaluation) != finetune.baseline_key(
        model, sets, None, evaluation
    )


def test_a_trial_whose_folder_for_shared_results_can_not_be_written_runs_all_the_same(finished, tmp_path):
    (tmp_path / "file").touch()
    config = {"trial": TRIAL, "evaluation": EVALUATION, "seed": 0, "threads": 1}
    config |= {
        "cpus": 1,
        "gpus": 0,
        "folder": str(tmp_path / "trial"),
        "cache": str(tmp_path / "file" / "cache"),
    }
    with pytest.warns(UserWarning, match="can't be kept"):
        report = finetune.Finetune(config).step()
    assert without_times(report) == without_times(finished[1][0])


def test_without_weights_there_is_no_fine_tuned_model(tmp_path):
    with pytest.raises(FileNotFoundError, match="no readable weights"):
        finetune.fine_tuned(TrialConfig.model_validate(TRIAL).model, tmp_path / "epoch-001.safetensors")


def test_a_shorter_training_is_the_beginning_of_the_whole(finished, tmp_path):
    """As trainings with other seeds need no more epochs than their candidate's."""
    folder, reports = finished
    shorter = trainable(tmp_path, until=1)
    report = shorter.step()
    assert report["done"]
    assert without_times(report | {"done": False}) == without_times(reports[0])
    assert trainable(tmp_path, until=1).step()["done"]  # nothing left to do
    assert [file.name for file in sorted(tmp_path.glob("epoch-*.json"))] == ["epoch-001.json"]
    name = "epoch-001.safetensors"
    assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()


def test_each_epoch_leaves_its_weights(finished, tmp_path):
    folder, reports = finished
    trial = TrialConfig.model_validate(TRIAL).model_dump(mode="json")
    what = {"model": trial["model"], "data": trial["data"], "evaluation": EVALUATION}
    what |= {"split": "validation", "threads": 1}
    for epoch, report in enumerate(reports, start=1):
        target, weights = tmp_path / f"{epoch}.json", folder / f"epoch-{epoch:03d}.safetensors"
        finetune.measure(**what, target=str(target), weights=str(weights))
        metrics = json.loads(target.read_text())["metrics"]
        assert metrics == pytest.approx({name: report[name] for name in metrics})
    assert all(name.startswith("model.") for name in checkpoints.load(weights))


def test_check_tells_what_is_missing(monkeypatch, tmp_path):
    monkeypatch.setenv("SWEEPER_DATA", str(tmp_path))
    check(TRIAL)
    with pytest.raises(DataError, match="tiny-imagenet"):
        check(TRIAL | {"data": {"evaluate": ["digits", "tiny-imagenet"]}})
    with pytest.raises(ModelError, match="no architecture"):
        check(TRIAL | {"model": {"name": "ViT-X"}})


def test_the_zero_shot_sets_are_sixteen_known_ones():
    evaluation = EvaluationConfig.model_validate({"further_sets": "zero-shot"})
    assert len(set(evaluation.further_sets)) == 16
    assert {"tiny-imagenet", "imagenet1k", "cifar10", "pcam"} <= set(evaluation.further_sets)
    with pytest.raises(ValueError, match="unknown data set 'cifar11'; did you mean 'cifar10'"):
        EvaluationConfig.model_validate({"further_sets": ["cifar11"]})


def test_a_trained_text_tower_is_not_taken_for_the_pre_trained_one(tmp_path):
    """Class texts that are kept for all trials are those of the pre-trained tower alone."""
    run = trainable(tmp_path / "trial", method={"name": "carot"}, epochs=1)
    report = run.step()
    what = {"model": {}, "data": TRIAL["data"], "evaluation": EVALUATION, "split": "validation", "threads": 1}
    what |= {"cache": str(tmp_path / "cache")}
    finetune.measure(**what, target=str(tmp_path / "untrained.json"), weights=None)
    finetune.measure(
        **what, target=str(tmp_path / "trial.json"), weights=str(tmp_path / "trial" / "epoch-001.safetensors")
    )
    metrics = json.loads((tmp_path / "trial.json").read_text())["metrics"]
    assert metrics == pytest.approx({name: report[name] for name in metrics})
    assert metrics != json.loads((tmp_path / "untrained.json").read_text())["metrics"]


@pytest.mark.parametrize("damage", ["a changed byte", "half of it"])
def test_a_damaged_checkpoint_is_not_gone_on_from_but_the_one_before(finished, tmp_path, damage):
    """The epoch is repeated, with the same numbers."""
    folder, reports = finished
    run = trainable(tmp_path)
    run.step()
    run.step()
    file = tmp_path / checkpoints.FILE
    data = bytearray(file.read_bytes())
    if damage == "half of it":
        del data[len(data) // 2 :]
    else:
        data[-100] ^= 1
    file.write_bytes(data)
    again = trainable(tmp_path)
    assert again.trainer.epoch == 1
    assert without_times(again.step()) == without_times(reports[1])
    whole = checkpoints.load(folder / checkpoints.FILE)
    assert all(torch.equal(whole[name], value) for name, value in checkpoints.load(file).items())
