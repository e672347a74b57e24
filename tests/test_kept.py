"""The epoch as a decision variable: which epochs of a trial may stand on the front, and what is on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeper import front, kept, spec
from sweeper.budget import Clock
from sweeper.files import write_json
from sweeper.jobs import Jobs
from sweeper.pareto import non_dominated
from sweeper.plan import print_plan
from sweeper.run import Run
from sweeper.search import Suggestion, of_run
from sweeper.spec import SweepSpec
from sweeper.trial import Metrics, epoch_file
from sweeper.tune import Searcher
from tests.searching import UNTRAINED

SWEEP = """\
name: kept
trial: {{data: {{train: fashion-mnist-8k}}, method: {{name: tecoa}}, epochs: 12}}
evaluation: {{images: 40}}
pareto: {{maximize: [robust_accuracy], minimize: [robust_ece], epochs: {epochs}{more}}}
search: {{trials: 4}}
"""


def sweep(epochs: int = 3, more: str = "") -> SweepSpec:
    return spec.from_text(SWEEP.format(epochs=epochs, more=more), "kept.yaml")


def reports(values: Any) -> list[dict[str, Any]]:
    """Epochs 1, 2, ... of these robust accuracies and ECEs; clean accuracy falls by .1 each."""
    return [
        {
            "epoch": epoch,
            "metrics": {"robust_accuracy": a, "robust_ece": e, "clean_accuracy": 1 - epoch / 10},
        }
        for epoch, (a, e) in enumerate(values, start=1)
    ]


def test_peaks_of_accuracy_and_of_calibration_are_both_kept() -> None:
    epochs = reports([(0.3, 0.05), (0.5, 0.2), (0.4, 0.3), (0.45, 0.12)])
    assert kept.chosen(sweep(), epochs, None) == [1, 2, 4]
    assert kept.chosen(sweep(1), epochs, None) == [4]  # the best balanced


def test_of_equal_epochs_the_first_is_kept() -> None:
    assert kept.chosen(sweep(), reports([(0.3, 0.1)] * 4), None) == [1]


def test_constraints_come_first_once_the_untrained_model_is_known() -> None:
    bounded = sweep(more=', subject_to: {clean_accuracy: ">= 0.8 * baseline"}')
    epochs = reports([(0.2, 0.3), (0.3, 0.2), (0.4, 0.1), (0.5, 0.05)])
    assert kept.chosen(bounded, epochs, {"clean_accuracy": 1.0}) == [2]
    assert kept.chosen(bounded, epochs, None) == [4]
    assert kept.chosen(bounded, epochs[2:], {"clean_accuracy": 1.0}) == [3]  # the least excess


unit = st.floats(0, 1, width=16)


@given(st.lists(st.tuples(unit, unit), min_size=1, max_size=12), st.integers(1, 4))
def test_what_is_kept_epoch_by_epoch(values: list[tuple[float, float]], most: int) -> None:
    """Never more than the bound, never one that another dominates which could be kept, never nothing.

    An epoch that was let go, for the bound's sake, may dominate a later one: its weights are gone."""
    ruler, epochs, held = sweep(most), reports(values), list[int]()
    for number in range(1, len(epochs) + 1):
        there = [*held, number]
        held = kept.chosen(ruler, [epochs[h - 1] for h in there], None)
        assert 1 <= len(held) <= most
        costs = np.array([(-a, e) for a, e in (values[h - 1] for h in there)])
        assert non_dominated(costs)[[there.index(h) for h in held]].all()


def a_trial(
    run: Run, values: Any, number: int = 0, *, baseline: Metrics | None = UNTRAINED, missed: int = 0
) -> None:
    """The files that epochs leave, tidied after each as a driver does, but for one that is missed."""
    config = run.spec.base_trial()
    trial = run.add_trial(Suggestion(number, config, {}, seed=0))
    for report in reports(values):
        write_json(epoch_file(trial.folder, report["epoch"], "json"), report)
        epoch_file(trial.folder, report["epoch"], "safetensors").touch()
        (trial.folder / "checkpoint.safetensors").touch()
        if report["epoch"] != missed:
            kept.tidy(run, run.trial(number), baseline)


def weights(run: Run, number: int = 0) -> list[str]:
    return sorted(file.name for file in run.trial_folder(number).glob("*.safetensors"))


def test_disk_is_bounded_while_a_trial_runs_and_after(tmp_path: Path) -> None:
    run = Run.create(tmp_path, sweep(2), {})
    rng = np.random.default_rng(0)
    a_trial(run, [tuple(rng.random(2)) for _ in range(12)])
    assert len(weights(run)) <= 3
    assert "checkpoint.safetensors" in weights(run)
    kept.tidy(run, run.end_trial(run.trial(0), "stopped", "early"), UNTRAINED)
    assert weights(run) == [f"epoch-{epoch:03d}.safetensors" for epoch in run.trial(0).kept]
    assert len(weights(run)) <= 2


def test_an_earlier_epoch_and_a_stopped_trial_stand_on_the_front(tmp_path: Path) -> None:
    run = Run.create(tmp_path, sweep(), {})
    write_json(run.baseline_file, {"metrics": UNTRAINED})
    a_trial(run, [(0.3, 0.1), (0.5, 0.3), (0.4, 0.4)])
    a_trial(run, [(0.45, 0.2), (0.2, 0.5)], number=1)
    a_trial(run, [(0.9, 0.01)], number=2)
    for number, status in enumerate(["completed", "stopped", "failed"]):
        run.end_trial(run.trial(number), status, None)  # type: ignore[arg-type]
    found = front.candidates(run.spec, run.trials(), UNTRAINED)
    assert [point.id for point in found] == ["t000@1", "t000@2", "t001@1"]
    content = run.pareto()
    assert [(row["id"], row["epoch"], row["pareto"]) for row in content["candidates"]] == [
        ("t000@1", 1, True), ("t000@2", 2, True), ("t001@1", 1, True)
    ]  # fmt: skip
    assert content["trials"][0]["validation"]["robust_accuracy"] == 0.4  # after its last epoch
    assert content["trials"][0]["kept"] == [1, 2]


def test_the_bound_is_stated(capsys: pytest.CaptureFixture[str]) -> None:
    print_plan(sweep(2))
    said = "weights of at most 2 epochs of each trial, 8 files in all"
    assert said in capsys.readouterr().out
    print_plan(sweep(20))
    assert "weights of at most 12 epochs of each trial, 48 files in all" in capsys.readouterr().out
    text = SWEEP.format(epochs=2, more="").replace("trials: 4", "trials: 4, seeds: 3")
    print_plan(spec.from_text(text, "kept.yaml"))
    assert (
        "further training of those on the front (2 for a trial), 24 files in all" in capsys.readouterr().out
    )


def test_two_epochs_that_are_found_at_once_are_looked_at_one_by_one(tmp_path: Path) -> None:
    """As after a worker that was lost between an epoch and its report."""
    rng = np.random.default_rng(1)
    for number in range(40):
        values = [tuple(rng.random(2)) for _ in range(6)]
        found = []
        for name, missed in (("all", 0), ("missed", 4)):
            run = Run.create(tmp_path / f"{name}-{number}", sweep(2), {})
            a_trial(run, values, missed=missed)
            found.append(run.trial(0).kept)
        assert found[0] == found[1]


def test_nothing_is_taken_away_before_constraints_can_be_judged(tmp_path: Path) -> None:
    run = Run.create(tmp_path, sweep(1, ', subject_to: {clean_accuracy: ">= 0.8"}'), {})
    a_trial(run, [(0.2, 0.3), (0.3, 0.2), (0.9, 0.01)], baseline=None)
    assert run.trial(0).kept == [1, 2, 3]
    kept.tidy(run, run.trial(0), UNTRAINED)
    assert run.trial(0).kept == [2]


def test_what_ended_before_the_untrained_model_was_measured_is_tidied_then(tmp_path: Path) -> None:
    """Its measurement may take longer than a trial, as when its worker is lost."""
    run = Run.create(tmp_path, sweep(1, ', subject_to: {clean_accuracy: ">= 0.8"}'), {})
    searcher = Searcher(run, of_run(run, 2), Jobs(run, threads=1, concurrent=2), Clock(run))
    measurement, job = searcher.suggest("measurement"), searcher.suggest("trial")
    assert isinstance(measurement, dict)
    assert isinstance(job, dict)
    for report in reports([(0.2, 0.3), (0.3, 0.2), (0.9, 0.01)]):
        file = epoch_file(Path(job["folder"]), report["epoch"], "json")
        write_json(file, report)
        file.with_suffix(".safetensors").touch()
    searcher.on_trial_complete("trial", {**report["metrics"], "epoch": 3, "failed": None})
    assert run.trial(0).kept == searcher.search.ended[0].kept == [1, 2, 3]
    write_json(run.baseline_file, {"metrics": UNTRAINED})
    searcher.on_trial_complete("measurement", {"failed": None})
    assert run.trial(0).kept == searcher.search.ended[0].kept == [2]


def test_thousands_of_epochs(tmp_path: Path) -> None:
    run = Run.create(tmp_path, sweep(2), {})
    trial = run.add_trial(Suggestion(0, run.spec.base_trial(), {}, seed=0))
    for epoch in (1, 2, 999, 1000, 1001):
        write_json(epoch_file(trial.folder, epoch, "json"), {"epoch": epoch})
        epoch_file(trial.folder, epoch, "safetensors").touch()
    found = run.trial(0)
    assert found.kept == [each["epoch"] for each in found.epochs] == [1, 2, 999, 1000, 1001]
