"""A small finished run, made in this process: real trials, without a cluster."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path

from sweeper import front, kept, spec
from sweeper.files import read_json, write_json
from sweeper.jobs import Jobs
from sweeper.run import Run
from sweeper.search import Suggestion
from sweeper.trial import Point, Stage
from trainables import finetune

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
    """TeCoA (t000), CaRot (t001, both towers) and a third trial that has not finished an epoch. A copy:
    the run is made once a process."""
    shutil.copytree(_made(), root, dirs_exist_ok=True)
    (path,) = root.glob("finished-*")
    about = read_json(path / "run.json") or {}
    write_json(path / "run.json", about | {"directory": str(root)})
    return Run.load(path)


@cache
def _made() -> Path:
    root = Path(tempfile.mkdtemp(prefix="finished-"))
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    make(root)
    return root


def make(root: Path) -> None:
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
        kept.tidy(run, run.end_trial(record, "completed"), run.baseline())
    candidates = front.candidates(run.spec, run.trials(), run.baseline() or {})
    for stage, models in (("final", candidates), ("test", front.members(run, candidates))):
        for point in (None, *models):
            measure(run, point, stage)
    write_json(run.path / "pareto.json", run.pareto())


def measure(run: Run, point: Point | None, stage: Stage = "validation") -> None:
    finetune.measure(**Jobs(run, threads=1, concurrent=1).measurement(point, stage)["measure"])
