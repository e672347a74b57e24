"""More budget for a run: it goes on as if it had had it from the start."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sweeper import spec
from sweeper.errors import UserError
from sweeper.extend import extend
from sweeper.files import write_json
from sweeper.run import Run
from tests.searching import Workers, members
from tests.sweeps import SMALL


def a_run(folder: Path, trials: int) -> Run:
    return Run.create(
        folder,
        spec.from_text(SMALL.replace("trials: 5", f"trials: {trials}, deterministic: true"), "f"),
        {"seed": 3},
    )


def finished(run: Run) -> Workers:
    workers = Workers(run, side=2)
    workers.go()
    write_json(run.path / "pareto.json", run.pareto())
    return workers


def test_a_finished_run_goes_on_and_measures_only_new_members(tmp_path: Path) -> None:
    """The sampler knows all of its trials by then, those too that a longer run would not have waited for."""
    runs = [a_run(tmp_path / name, 5) for name in "ab"]
    for number, short in enumerate(runs):
        first = finished(short)
        before = [trial.config for trial in short.trials()]
        run = extend(short, ["search.trials=9"])
        assert not (run.path / "pareto.json").exists()
        Workers(run, side=2).go(epochs=1 + number)  # interrupted here or there
        second = finished(run)
        assert [trial.number for trial in run.trials()] == list(range(9))
        assert [trial.config for trial in run.trials()[:5]] == before
        assert set(second.measured) == set(members(run)) - set(first.measured)
        assert json.loads((run.path / "pareto-1.json").read_text())["trials_planned"] == 5
        assert json.loads((run.path / "pareto.json").read_text())["trials_planned"] == 9
    assert [trial.config for trial in runs[0].trials()] == [trial.config for trial in runs[1].trials()]


def test_extended_before_its_end_it_is_the_longer_run(tmp_path: Path) -> None:
    longer, run = a_run(tmp_path / "a", 9), a_run(tmp_path / "b", 5)
    finished(longer)
    Workers(run, side=2).go(epochs=7)
    run = extend(run, ["search.trials=9"])
    finished(run)
    assert [trial.config for trial in run.trials()] == [trial.config for trial in longer.trials()]
    assert members(run) == members(longer)


def test_an_unfinished_run_is_extended_by_a_budget_and_it_is_recorded(tmp_path: Path) -> None:
    run = a_run(tmp_path, 5)
    Workers(run, side=2).go(epochs=3)
    run = extend(run, ["search.trials=20", "search.budget={epochs: 12}"])
    run = extend(run, ["search.budget.epochs=14"])
    finished(run)
    assert [len(trial.epochs) for trial in run.trials()] == [2] * 7
    changes = [(change["from"], change["to"]) for change in run.about["extended"]]
    assert changes == [
        ({"trials": 5, "budget": {}}, {"trials": 20, "budget": {"epochs": 12}}),
        ({"trials": 20, "budget": {"epochs": 12}}, {"trials": 20, "budget": {"epochs": 14}}),
    ]
    assert run.about["id"] == run.id


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ("search.seed=4", "only the budget of a run may change"),
        ("trial.epochs=4", "only the budget of a run may change"),
        ("search.trials=2", "search.trials: 2 trials can't cover the 4 combinations"),
        ("search.trials=4", "5 trials were started already; give at least 5"),
        ("search.budget.hour=4", "did you mean 'hours'"),
    ],
)
def test_what_can_not_be_changed_is_one_line_and_changes_nothing(
    tmp_path: Path, given: str, line: str
) -> None:
    run = a_run(tmp_path, 5)
    finished(run)
    files = {file: file.read_bytes() for file in run.path.glob("*.*") if file.name != "driver.lock"}
    with pytest.raises(UserError) as caught:
        extend(run, [given])
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)
    assert {file: file.read_bytes() for file in run.path.glob("*.*") if file.name != "driver.lock"} == files
