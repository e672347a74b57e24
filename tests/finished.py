"""A small finished run, made in this process: real trials, without a cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sweeper import spec
from sweeper.result import front
from sweeper.run import Run, TrialRecord, write_json
from sweeper.search import Suggestion
from trainables import finetune

if TYPE_CHECKING:
    from pathlib import Path

SWEEP = """\
name: finished
trial:
  data: {train: fashion-mnist-8k, evaluate: [fashion-mnist-8k, digits], images: 64}
  attack: {epsilon: 8/255, steps: 1}
  method: !grid [{name: tecoa}, {name: carot}, {name: fare}]
  optimizer: {name: adamw, learning_rate: 1e-3}
  batch_size: 32
  epochs: 1
evaluation: {attack: {epsilon: 8/255, steps: 2}, images: 40}
final: {attack: {epsilon: 8/255, steps: 2}, images: 60}
pareto: {maximize: [clean_accuracy], minimize: [clean_nll]}
search: {trials: 3, seed: 7}
"""
METHODS = ("tecoa", "carot", "fare")


def finished_run(root: Path) -> Run:
    """TeCoA (t000), CaRot (t001, both towers) and a third trial that has not finished an epoch."""
    about = {"seed": 7, "directory": str(root), "versions": {"torch": "2"}}
    run = Run.create(root, spec.from_text(SWEEP, "finished.yaml"), about)
    measure(run, None)
    for number, method in enumerate(METHODS):
        config = run.spec.trial({**run.spec.base_trial(), "method": {"name": method}})
        record = run.add_trial(Suggestion(number, config, {"method": method}, seed=number))
        if method == METHODS[-1]:
            continue
        work = {"trial": config, "evaluation": run.spec.evaluation, "seed": number}
        finetune.Finetune({**work, "folder": str(record.folder), "threads": 1, "cpus": 1, "gpus": 0}).step()
        run.end_trial(number, "completed")
    for trial in (None, *front(run.spec, run.trials(), run.baseline() or {})):
        measure(run, trial, final=True)
    write_json(run.path / "pareto.json", run.pareto())
    return run


def measure(run: Run, trial: TrialRecord | None, *, final: bool = False) -> None:
    config = trial.config if trial else run.spec.base_trial()
    target = run.final_file(trial.id if trial else "baseline") if final else run.baseline_file
    finetune.measure(
        model=config["model"],
        data=config["data"],
        evaluation=run.spec.final if final else run.spec.evaluation,
        split="test" if final else "validation",
        target=str(target),
        checkpoint=str(trial.folder) if trial else None,
        threads=1,
    )
