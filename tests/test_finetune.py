"""The trainable as Tune drives it, without a cluster: its folder is its memory."""

from __future__ import annotations

import json

import pytest
import torch

from trainables import checkpoints, finetune
from trainables.config import EvaluationConfig, TrialConfig, trial_metrics
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


def trainable(folder, **changes):
    config = {
        "trial": TRIAL | changes,
        "evaluation": EVALUATION,
        "seed": 0,
        "folder": str(folder),
        "threads": 1,
        "cpus": 1,
        "gpus": 0,
    }
    return finetune.Finetune(config)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    run = trainable(folder)
    return folder, [run.step(), run.step()]


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
        assert all(report[name] == value for name, value in stored["metrics"].items())
    assert not list(folder.glob("*.partial"))


def test_a_lost_trial_goes_on_from_its_folder_to_the_same_end(finished, tmp_path):
    folder, reports = finished
    assert without_times(trainable(tmp_path).step()) == without_times(reports[0])
    again = trainable(tmp_path)  # another process, after the first was lost
    assert without_times(again.step()) == without_times(reports[1])
    whole, resumed = checkpoints.load(folder), checkpoints.load(tmp_path)
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert without_times(trainable(tmp_path).step()) == without_times(reports[1])  # nothing left to do


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
    what = {"trial": TRIAL, "evaluation": EVALUATION, "split": "validation", "threads": 1}
    finetune.measure(**what, target=str(target), checkpoint=str(folder))
    metrics = json.loads(target.read_text())["metrics"]
    assert metrics == pytest.approx({name: reports[1][name] for name in metrics})
    before = target.stat().st_mtime_ns
    finetune.measure(**what, target=str(target), checkpoint=str(folder))
    assert target.stat().st_mtime_ns == before

    baseline = tmp_path / "baseline.json"
    finetune.measure(**what, target=str(baseline), checkpoint=None)
    assert json.loads(baseline.read_text())["metrics"] != metrics


def test_without_a_checkpoint_there_is_no_fine_tuned_model(tmp_path):
    with pytest.raises(FileNotFoundError, match="no readable checkpoint"):
        finetune.fine_tuned(TrialConfig.model_validate(TRIAL), tmp_path)


def test_check_tells_what_is_missing(monkeypatch, tmp_path):
    monkeypatch.setenv("SWEEPER_DATA", str(tmp_path))
    check(TRIAL)
    with pytest.raises(DataError, match="tiny-imagenet"):
        check(TRIAL | {"data": {"evaluate": ["digits", "tiny-imagenet"]}})
    with pytest.raises(ModelError, match="no architecture"):
        check(TRIAL | {"model": {"name": "ViT-X"}})
