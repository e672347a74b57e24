"""Warm start: what earlier runs found is known to the sampler, as far as it says something here."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest

from sweeper import runner, spec
from sweeper.errors import UserError
from sweeper.files import write_json
from sweeper.run import Run
from tests.searching import UNTRAINED, Workers, metrics_of
from tests.sweeps import SMALL

CAROT = "    - {name: carot, average_every: 1}\n"
OTHER_SPACE = (
    SMALL.replace(CAROT, "").replace("[1e-4, 3e-3]", "[5e-4, 5e-3]").replace("name: small", "name: other")
)


@pytest.fixture
def earlier(tmp_path: Path) -> Run:
    """Eleven completed trials and one that failed."""
    text = SMALL.replace("trials: 5", "trials: 12, sampler: random")  # what it draws no rounding changes
    run = Run.create(tmp_path, spec.from_text(text, "f"), {"seed": 3})
    Workers(run, side=2).go()
    run.end_trial(run.trial(11), "failed", "test")
    return run


def warmed(root: Path, text: str, *earlier: str) -> Run:
    text = text.replace("seed: 3,", f"seed: 3, warm_start: [{', '.join(earlier)}],")
    return runner.start(spec.from_text(text, "f.yaml"), root)


def test_the_sampler_knows_the_trials_that_fit_and_the_run_does_not_count_them(
    earlier: Run, tmp_path: Path
) -> None:
    run = warmed(tmp_path, OTHER_SPACE, earlier.name)
    fitting = [
        trial
        for trial in earlier.trials()
        if trial.status == "completed"
        and trial.method != "carot"
        and trial.drawn["optimizer.learning_rate"] >= 5e-4
    ]
    assert 2 < len(fitting) < 9
    (line,) = run.warm_start()["lines"]
    assert line.startswith(f"warm start from {earlier.name}: {len(fitting)} of 12 trials; ")
    assert "3 not: method has a value that is not in !grid [tecoa, pmg, dirichlet]" in line
    assert "1 not: not completed" in line
    workers = Workers(run)
    known = workers.searcher.search.study.get_trials()
    assert [trial.user_attrs["from"] for trial in known] == [f"{earlier.name}/{t.id}" for t in fitting]
    for trial, record in zip(known, fitting, strict=True):
        metrics = metrics_of(record.config)
        assert trial.state == optuna.trial.TrialState.COMPLETE
        assert trial.values == [metrics[name] for name in run.spec.file.pareto.metrics]
        assert list(trial.constraints.values()) == [
            max(0.0, 0.5 * UNTRAINED["clean_accuracy"] - metrics["clean_accuracy"])
        ]
        assert trial.params["optimizer.learning_rate"] == record.drawn["optimizer.learning_rate"]
        assert trial.params.get("method.pmg.alpha") == record.drawn.get("method.alpha")
    workers.go()
    assert [trial.number for trial in run.trials()] == list(range(5))
    assert {row["id"] for row in run.pareto()["trials"]} == {trial.id for trial in run.trials()}


def test_it_is_frozen_at_the_start_and_changes_what_is_drawn(earlier: Run, tmp_path: Path) -> None:
    cold = Run.create(tmp_path, spec.from_text(OTHER_SPACE, "f.yaml"), {"seed": 3})
    runs = [warmed(tmp_path, OTHER_SPACE, str(earlier.path)) for _ in range(2)]
    for file in earlier.path.glob("trials/*/epoch-*.json"):
        write_json(file, {"epoch": 1, "metrics": dict.fromkeys(UNTRAINED, 0.0)})
    Workers(runs[0]).go(epochs=3)
    for run in (*runs, cold):
        Workers(run).go()
    drawn = [[trial.drawn for trial in run.trials()] for run in (*runs, cold)]
    assert drawn[0] == drawn[1]
    assert drawn[0] != drawn[2]


def test_there_is_no_run_without_its_warm_start(
    earlier: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A driver may be killed before any of its files: without run.json, which is the last, there is none."""
    written: list[str] = []
    monkeypatch.setattr(Run, "write", lambda _, name, __: written.append(name))
    warmed(tmp_path, SMALL, earlier.name)
    assert written == ["warm_start.json", "run.json"]


def test_what_was_measured_or_trained_otherwise_is_not_taken(earlier: Run, tmp_path: Path) -> None:
    ruler = warmed(tmp_path, SMALL.replace("steps: 3}, images: 40", "steps: 3}, images: 41"), earlier.name)
    assert ruler.warm_start()["trials"] == []
    assert "11 not: measured otherwise, evaluation.images is 40, here 41" in ruler.warm_start()["lines"][0]
    longer = warmed(tmp_path, SMALL.replace("epochs: 2", "epochs: 3"), earlier.name)
    assert "0 of 12 trials; 11 not: epochs is 2, here 3" in longer.warm_start()["lines"][0]


def test_an_unknown_run_is_one_line_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no run 'nowhere' in "):
        warmed(tmp_path, SMALL, "nowhere")
    assert Run.all(tmp_path) == []
