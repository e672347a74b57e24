"""A learning rate that is still rising when its trial ends is warned of before the sweep starts."""

from __future__ import annotations

import pytest

from sweeper import spec
from sweeper.plan import as_json, print_plan
from tests.sweeps import SMALL

WARM = SMALL.replace("name: adamw,", "name: adamw, warmup_steps: 4,")


def test_a_warm_up_that_never_ends_is_warned_of(capsys: pytest.CaptureFixture[str]) -> None:
    print_plan(spec.from_text(WARM, "f.yaml"))
    said = capsys.readouterr().out
    assert "a trial of all its epochs has 4 steps\n" in said
    assert (
        "warmup_steps is 4, and a trial can have as few as 4 steps (2 x 128 images in batches of 64)" in said
    )


def test_the_shortest_trial_is_named() -> None:
    sweep = spec.from_text(WARM, "f.yaml", None, ["trial.epochs=!choice [5, 1, 2]"])
    plan = as_json(sweep)
    assert plan["steps"] == [2, 10]
    assert ["as few as 2 steps (1 x 128" in line for line in plan["warnings"]] == [True]


def test_a_shorter_warm_up_is_fine() -> None:
    sweep = spec.from_text(WARM, "f.yaml", None, ["trial.optimizer.warmup_steps=3"])
    assert as_json(sweep)["warnings"] == []


def test_without_the_data_nothing_is_said() -> None:
    sweep = spec.from_text(WARM, "f.yaml", None, ["trial.data.train={image_folder: /nowhere}"])
    assert (as_json(sweep)["steps"], as_json(sweep)["warnings"]) == (None, [])
