"""The main job at full size: ViT-B/32 with random weights, 224 x 224 pixels, TinyImageNet's layout."""

from __future__ import annotations

import json
import os
from pathlib import Path

import open_clip
import pytest
import torch

from sweeper import Run
from tests.archives import tiny_imagenet
from tests.command import sweeper

SWEEP = """\
name: full-size
trial:
  model: {name: ViT-B-32, pretrained: random}
  data: {train: tiny-imagenet}
  attack: {epsilon: 1/255, steps: 1, at: model}
  method: !grid [{name: tecoa}, {name: pmg}]
  optimizer: {name: sgd, learning_rate: 1e-4}
  batch_size: 4
  epochs: 1
evaluation: {attack: {epsilon: 1/255, steps: 1, at: model}, images: 6}
final: {attack: {epsilon: 1/255, steps: 2, at: model}, images: 6}
search: {trials: 2, concurrent: 2}
tracking: {mlflow: false}
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Run:
    root = tmp_path_factory.mktemp("full")
    tiny_imagenet(root / "data")
    (root / "sweep.yaml").write_text(SWEEP)
    os.environ.update(SWEEPER_DATA=str(root / "data"), XDG_CACHE_HOME=str(root / "cache"))
    try:
        sweeper("run", root / "sweep.yaml", "--runs", root / "runs")
        return Run.find(None, root / "runs")
    finally:
        del os.environ["SWEEPER_DATA"], os.environ["XDG_CACHE_HOME"]


@pytest.mark.slow
def test_two_trials_side_by_side_are_completed(finished: Run) -> None:
    trials = finished.trials()
    assert [(trial.status, trial.method) for trial in trials] == [
        ("completed", "tecoa"),
        ("completed", "pmg"),
    ]
    for trial in trials:
        (epoch,) = trial.epochs
        assert epoch["training_set"]["size"] == [224, 224]
        assert epoch["micro_batch"] == 4
        assert epoch["out_of_memory"] == 0


@pytest.mark.slow
def test_both_are_exported_as_open_clip_loads_them(finished: Run, tmp_path: Path) -> None:
    sweeper("export", finished.path, "--trial", "t000", "--trial", "t001", "--to", tmp_path)
    random = open_clip.create_model("ViT-B-32", load_weights=False).state_dict()
    weights = []
    for name in ("t000", "t001"):
        folder = tmp_path / f"{name}@1"
        assert json.loads((folder / "sweep.json").read_text())["base_model"]["pretrained"] == "random"
        weights.append(open_clip.create_model(f"local-dir:{folder}", precision="fp32").state_dict())
        assert weights[-1].keys() == random.keys()
    changed = [name for name in weights[0] if not torch.equal(weights[0][name], weights[1][name])]
    assert changed
    assert all(name.startswith("visual.") for name in changed)  # the text tower was not trained
