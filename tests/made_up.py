"""A finished run whose trials never took place: the files that a sweep leaves, from made-up records, in a
second and without a model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sweeper import front, spec
from sweeper.files import write_json
from sweeper.run import Run
from sweeper.search import Suggestion
from sweeper.trial import SPLIT, STAGES, Point, Stage
from tests.records import class_bins, records
from trainables.evaluate import Evaluation

SWEEP = """\
name: {name}
trial:
  data: {{train: fashion-mnist-8k, evaluate: [fashion-mnist-8k, digits]}}
  method: !choice [{{name: tecoa}}, {{name: carot}}]
  optimizer: {{name: adamw, learning_rate: !loguniform [1e-4, 1e-2]}}
  epochs: 1
evaluation: {{attack: {{epsilon: 8/255, steps: 3}}, images: 120}}
final: {{attack: {{epsilon: 8/255, steps: 5}}, images: 120}}
pareto: {{maximize: [robust_accuracy, clean_accuracy], minimize: [robust_nll]}}
search: {{trials: 20, seed: 3}}
"""
IMAGES = {"fashion-mnist-8k": 120, "digits": 60}


def made_up_run(
    root: Path,
    skills: Sequence[float],
    *,
    name: str = "made-up",
    seed: int = 0,
    overrides: Sequence[str] = (),
    method: str = "tecoa",
    **about: Any,
) -> Run:
    """A trial for each of `skills`, the mean share of images that it gets right. seed: of all that is random.
    about: what is recorded of the sets of images."""
    sweep = spec.from_text(SWEEP.format(name=name), f"{name}.yaml", overrides=overrides)
    run = Run.create(root, sweep, {"seed": 3, "directory": str(root), "versions": {"torch": "2"}})
    for stage in STAGES:
        write(run, None, stage, seed=seed, skill=0.4, about=about)
    for number, skill in enumerate(skills):
        rate = 0.0001 * (10 * seed + number + 1)
        config = {**run.spec.base_trial(), "method": {"name": method}}
        config["optimizer"] = {**config["optimizer"], "learning_rate": rate}
        drawn = {"method": method, "optimizer.learning_rate": rate}
        trial = run.add_trial(Suggestion(number, run.spec.trial(config), drawn, seed=number))
        write(run, trial.point(1), "validation", seed=100 * seed + number, skill=skill, about=about)
        trial.point(1).weights.touch()
        run.end_trial(trial, "completed")
    candidates = front.candidates(run.spec, run.trials(), run.baseline() or {})
    stages: tuple[Stage, Stage] = ("final", "test")
    for stage in stages:  # only what withstands the first is measured by the second
        for point in candidates if stage == "final" else front.members(run, candidates):
            number = point.trial.number
            write(run, point, stage, seed=100 * seed + number, skill=skills[number], about=about)
    write_json(run.path / "pareto.json", run.pareto())
    return run


def write(
    run: Run, point: Point | None, stage: Stage, *, seed: int, skill: float, about: dict[str, Any]
) -> None:
    """A measurement: its records and what they say."""
    if stage == "validation":
        file = run.baseline_file if point is None else point.records.with_suffix(".json")
    else:
        file = run.final_file("baseline" if point is None else point.id, SPLIT[stage])
    first = {"validation": 0, "final": 0, "test": 5000}[stage]
    made = records(seed + 1, IMAGES, skill=skill, first=first)
    made = made.drop(
        columns=[column for column in made if column.startswith("confidence_")]
    )  # no such attack
    evaluation = Evaluation(made, class_bins(IMAGES))
    file.parent.mkdir(parents=True, exist_ok=True)
    evaluation.save(file.with_suffix(".parquet"))
    what = {"split": SPLIT[stage], "origin": f"the {SPLIT[stage]} images", "classes": 3, "size": [28, 28]}
    what |= {"templates": [], "notes": [], "digest": SPLIT[stage]} | about
    sets = [{"set": name, "images": images, **what} for name, images in IMAGES.items()]
    seconds = {"training_seconds": 1.0, "evaluation_seconds": 0.5, "training": {"loss": 1.0}}
    write_json(file, {"epoch": 1, "split": SPLIT[stage], **evaluation.report(), "sets": sets, **seconds})
