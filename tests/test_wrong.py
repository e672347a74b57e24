"""What is wrong is said in a line before anything starts, by `run` and by `resume`. For what a cluster or a
bucket refuses, see tests/test_failures.py and tests/test_storage.py."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from sweeper.run import Run
from sweeper.spec import from_text
from tests.command import called
from tests.sweeps import SMALL

OWN = "train: fashion-mnist-8k, evaluate: [fashion-mnist-8k, digits]"
WRONG = {
    "an image folder": ("train: {image_folder: /nowhere}", "/nowhere is not a folder"),
    "a data set": ("train: tiny-imagenet", "set SWEEPER_DATA to the folder that does"),
    "one of those measured on": (
        "train: digits, evaluate: [digits, {image_folder: /nowhere}]",
        "/nowhere is",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_data_that_are_not_there(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where they were there when the sweep was started."""
    data, words = WRONG[name]
    monkeypatch.setenv("SWEEPER_DATA", str(tmp_path))
    file = tmp_path / "wrong.yaml"
    file.write_text(SMALL.replace(OWN, data))
    about = {"seed": 3, "directory": os.getcwd()}
    run = Run.create(tmp_path / "runs", from_text(file.read_text(), "wrong.yaml"), about)
    began = time.monotonic()
    for arguments in (["run", file, "--runs", tmp_path / "none"], ["resume", run.path]):
        said = called(*arguments, code=2).output
        assert words in said
        assert said.count("\n") == 1
    assert not (tmp_path / "none").exists()
    assert time.monotonic() - began < 30
