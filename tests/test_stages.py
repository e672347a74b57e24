"""What makes sure of the front: other seeds, the final attack, test images, and how each is shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from sweeper import seeds, spec
from sweeper.errors import SpecError
from sweeper.files import read_json, write_json
from sweeper.hashes import trial_seed
from sweeper.result import to_csv
from sweeper.run import Run
from sweeper.table import pareto_table
from tests.searching import UNTRAINED, Workers
from tests.sweeps import SMALL
from trainables.config import EvaluationConfig, final_evaluation
from trainables.finetune import measure
from trainables.metrics.masking import fall


def a_run(folder: Path, count: int = 1) -> Run:
    text = SMALL.replace("trials: 5", f"trials: 8, seeds: {count}").replace("trials: 8}}", "trials: 9}}")
    return Run.create(folder, spec.from_text(text, "f.yaml"), {"seed": 3})


def shown(run: Run) -> str:
    console = Console(width=80, record=True)
    console.print(pareto_table(run.pareto()))
    return console.export_text()


def test_each_candidate_is_trained_with_more_seeds_once(tmp_path: Path) -> None:
    run = a_run(tmp_path, 3)
    Workers(run).go(epochs=18)  # in the middle of the second stage
    Workers(run, side=2).go()
    content = run.pareto()
    candidates = content["candidates"]
    assert candidates
    names = {row["trial"] for row in candidates}
    assert {folder.name for folder in run.path.glob("seeds/*")} == {f"{n}-{i}" for n in names for i in (1, 2)}
    for trial in run.trials():
        trainings = [trial, *run.seeds(trial)]
        assert len({each.seed for each in trainings}) == len(trainings)
        for index, twin in enumerate(trainings[1:], start=1):
            assert (twin.config, twin.status) == (trial.config, "completed")
            assert twin.seed == trial_seed(3, trial.config, index)
            assert len(twin.epochs) == max(row["epoch"] for row in candidates if row["trial"] == trial.id)
            assert twin.kept == twin.wanted
            assert not (twin.folder / "checkpoint.safetensors").exists()
    assert len(run.trials()) == 8  # they are no trials of the search
    members = {row["id"] for row in candidates if row["pareto"]}
    tested = {file.stem for file in (run.path / "final" / "test").glob("*.json")}
    twins = {f"{name.replace('@', f'-{index}@')}" for name in members for index in (1, 2)}
    assert tested == {"baseline", *members, *twins}
    assert all(row["seeds"]["count"] == 3 for row in candidates)


def test_mean_and_spread_are_those_of_all_seeds(tmp_path: Path) -> None:
    run = a_run(tmp_path, 3)
    Workers(run).go()
    trial = next(trial for trial in run.trials() if run.seeds(trial))
    point = next(row for row in run.pareto()["candidates"] if row["trial"] == trial.id)
    values = [point["validation"]["robust_accuracy"]]
    for index, twin in enumerate(run.seeds(trial)):
        file = twin.folder / f"epoch-{point['epoch']:03d}.json"
        content = read_json(file)
        content["metrics"]["robust_accuracy"] += 0.1 * (index + 1)
        values.append(content["metrics"]["robust_accuracy"])
        write_json(file, content)
    (row,) = [row for row in run.pareto()["candidates"] if row["id"] == point["id"]]
    own = row["seeds"]["validation"]["robust_accuracy"]
    assert own["mean"] == pytest.approx(np.mean(values))
    assert own["sd"] == pytest.approx(pd.Series(values).std())
    assert f"{own['mean']:.4f} ±{own['sd']:.3f}" in shown(run)
    assert "mean and standard deviation over so many trainings" in shown(run).replace("\n", " ")
    assert f"{own['sd']}" in to_csv(run.pareto())


def test_a_candidate_with_another_epoch_is_trained_again_and_failures_are_told(tmp_path: Path) -> None:
    run = a_run(tmp_path, 2)
    Workers(run).go()
    trial = next(trial for trial in run.trials() if run.seeds(trial))
    (twin,) = run.seeds(trial)
    assert not list(seeds.unfinished(run, [trial.point(epoch) for epoch in twin.wanted]))
    other = next(epoch for epoch in (1, 2, 3) if epoch not in twin.wanted)
    (again,) = seeds.unfinished(run, [trial.point(other)])
    assert (again.folder, again.wanted) == (twin.folder, sorted([*twin.wanted, other]))
    run.end_trial(again, "failed", "loss is nan")
    spread = seeds.spread(run, trial.point(twin.wanted[0]))
    assert spread is not None
    assert (spread["count"], spread["failed"], spread["validation"]) == (1, 1, None)
    assert not list(seeds.unfinished(run, [trial.point(other)]))  # it would fail again
    assert "1 further trainings of" in shown(run)


def test_what_the_final_attack_beats_is_not_optimal(tmp_path: Path) -> None:
    """It is shown before and after, and test images are not touched for it."""
    run = a_run(tmp_path)
    beaten: list[str] = []

    class Stronger(Workers):
        def _measured(self, measure: dict[str, Any]) -> dict[str, float]:
            metrics = dict(super()._measured(measure))
            name = Path(measure["target"]).stem
            if name != "baseline" and not beaten:
                beaten.append(name)
            if name in beaten:
                metrics |= {"robust_accuracy": 0.0, "clean_accuracy": 0.5, "robust_ece": 1.0}
            return metrics

    Stronger(run).go()
    content = run.pareto()
    by_name = {row["id"]: row for row in content["candidates"]}
    assert len(by_name) > 1
    assert [name for name, row in by_name.items() if not row["pareto"]] == beaten
    assert by_name[beaten[0]]["final"]["robust_accuracy"] == 0
    assert by_name[beaten[0]]["test"] is None
    assert all(row["test"] for name, row in by_name.items() if name not in beaten)
    assert f"Not Pareto-optimal any more under the final attack: {beaten[0]}" in shown(run)
    assert beaten[0] not in to_csv(content)


def test_nothing_is_dropped_before_all_are_measured(tmp_path: Path) -> None:
    run = a_run(tmp_path)
    Workers(run).go()
    files = sorted((run.path / "final" / "validation").glob("t*.json"))
    files[0].unlink()
    assert all(row["pareto"] for row in run.pareto()["candidates"])
    Workers(run).go()
    assert files[0].exists()


# Gradient masking


def records(file: Path, correct: list[bool], first: int = 0) -> str:
    broken_by = ["" if each else "standard" for each in correct]
    own = pd.DataFrame({"set": "own", "index": range(first, first + len(correct)), "broken_by": broken_by})
    other = pd.DataFrame({"set": "other", "index": range(50), "broken_by": "clean"})
    pd.concat([own, other]).to_parquet(file)
    return str(file)


WEAK = EvaluationConfig.model_validate({"attack": {"epsilon": "8/255", "steps": 10}}).model_dump(mode="json")


def test_the_fall_is_of_the_images_that_both_attacks_saw(tmp_path: Path) -> None:
    before = records(tmp_path / "before.parquet", [True] * 60 + [False] * 40)
    after = records(tmp_path / "after.parquet", [True] * 30 + [False] * 170, first=10)
    found = fall(before=before, after=after, evaluation=WEAK, final=final_evaluation(WEAK))
    assert found == {
        "images": 90,
        "before": pytest.approx(50 / 90),
        "after": pytest.approx(30 / 90),
        "masked": 1,
    }
    barely = records(tmp_path / "barely.parquet", [True] * 55 + [False] * 45)
    found = fall(before=before, after=barely, evaluation=WEAK, final=WEAK)
    assert found is not None
    assert (found["images"], found["masked"]) == (100, 0)


@pytest.mark.parametrize(("images", "fallen", "masked"), [(19, 1, 0), (19, 5, 1), (300, 20, 0), (300, 30, 1)])
def test_a_fall_is_more_than_noise(tmp_path: Path, images: int, fallen: int, masked: int) -> None:
    """One image of 19 is more than five points, and says nothing."""
    before = records(tmp_path / "before.parquet", [True] * images)
    after = records(tmp_path / "after.parquet", [False] * fallen + [True] * (images - fallen))
    found = fall(before=before, after=after, evaluation=WEAK, final=WEAK)
    assert found is not None
    assert found["before"] - found["after"] > 0.05
    assert found["masked"] == masked


def test_further_attacks_count(tmp_path: Path) -> None:
    """Of a real model: the untrained one, which 1 step of PGD leaves robust and 20 steps do not."""
    data = {"train": "fashion-mnist-8k", "images": 64}
    weak = {"attack": {"epsilon": "2/255", "steps": 1, "step_size": "0.1/255"}, "images": 40}
    strong = {**weak, "further_attacks": [{"name": "margin-pgd", "steps": 20}], "images": None}
    rulers = {"before": weak, "after": {**strong, "images": 60}}
    for name, ruler in rulers.items():
        measure(
            model={}, data=data, evaluation=ruler, split="validation", weights=None, threads=1,
            target=str(tmp_path / f"{name}.json"),
        )  # fmt: skip
    files = {name: str(tmp_path / f"{name}.parquet") for name in rulers}
    found = fall(**files, evaluation=weak, final=rulers["after"])
    assert found is not None
    measured = read_json(tmp_path / "before.json")["metrics"]["robust_accuracy"]
    assert found["images"] == 40
    assert found["before"] == pytest.approx(measured)
    assert found["after"] < found["before"] - 0.05
    assert found["masked"] == 1


def test_attacks_in_different_balls_are_not_compared(tmp_path: Path) -> None:
    file = records(tmp_path / "r.parquet", [True, False])
    smaller = {**WEAK, "attack": {**WEAK["attack"], "epsilon": "4/255"}}
    assert fall(before=file, after=file, evaluation=WEAK, final=smaller) is None
    elsewhere = records(tmp_path / "e.parquet", [True, False], first=70)
    assert fall(before=file, after=elsewhere, evaluation=WEAK, final=WEAK) is None


def test_a_fall_is_warned_of(tmp_path: Path) -> None:
    run = a_run(tmp_path)
    Workers(run).go()
    content = run.pareto()
    row = content["candidates"][0]
    row["fall"] = {"images": 300, "before": 0.55, "after": 0.41, "masked": 1.0}
    console = Console(width=200, record=True)
    console.print(pareto_table(content))
    said = f"robust accuracy of {row['id']} from 0.550 down to 0.410 on the same 300 images"
    assert said in console.export_text()


def test_the_final_attack_is_the_standard_one_on_all_images_by_default() -> None:
    sweep = spec.from_text(
        SMALL.replace("final: {attack: {epsilon: 8/255, steps: 5}, images: 40}\n", ""), "f"
    )
    assert sweep.final["images"] is None
    assert [attack["name"] for attack in sweep.final["further_attacks"]] == ["standard"]
    assert sweep.final["attack"] == sweep.evaluation["attack"]
    own = {**WEAK, "further_attacks": [{"name": "standard", "steps": 20}]}
    assert len(final_evaluation(own)["further_attacks"]) == 1


def test_final_measures_what_trials_are_judged_by() -> None:
    text = SMALL.replace("images: 40}\nfinal", "images: 40, confidence_attack: {steps: 2}}\nfinal").replace(
        "minimize: [robust_ece]", "minimize: [confidence_up_ece]"
    )
    with pytest.raises(SpecError, match="final: does not measure 'confidence_up_ece'"):
        spec.from_text(text, "f.yaml")


def test_the_untrained_model_is_measured_in_each_stage(tmp_path: Path) -> None:
    run = a_run(tmp_path)
    Workers(run).go()
    baseline = run.pareto()["baseline"]
    assert [baseline[stage] for stage in ("validation", "final", "test")] == [UNTRAINED] * 3
