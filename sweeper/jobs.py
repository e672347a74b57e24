"""What workers are given: trainings and measurements, as plain values.

A job has an `id`, which Tune names it by, and the `stage` of the sweep that it belongs to. A measurement has
the arguments of the trainable's `measure` under that key; a trial of the search has its `number`. `run` and
`storage` say where the run lies: see `sweeper.site`. Each has the `minutes` that an epoch, or the
measurement, may take, the file that says where it hung, `stuck`, and the `gpus` that it was given. What comes
after the search is `of` so many jobs that were left of its stage.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sweeper import front, seeds
from sweeper.run import Run
from sweeper.trial import BASELINE, SPLIT, Point, Stage, TrialRecord, read_trial

Job = dict[str, Any]

SEARCHING = "searching"
RETRAINING = "training the candidates with other seeds"
MEASURING: dict[Stage, str] = {
    "validation": "measuring the untrained model",
    "final": "measuring the candidates under the final attack",
    "test": "measuring the Pareto set on test images",
}


@dataclass(frozen=True)
class Jobs:
    """The jobs of a run. threads: of each worker.  concurrent: workers side by side."""

    run: Run
    threads: int
    concurrent: int

    def trial(self, trial: TrialRecord) -> Job:
        return self._training(trial) | {"number": trial.number, "stage": SEARCHING}

    def following(self, trials: Sequence[TrialRecord]) -> list[Job]:
        """What is to be done next when the search has ended: the first stage that is not done; none if all
        is. The run folder says what is. trials: all of the search, as they ended; outlines will do."""
        jobs = next((jobs for jobs in self._stages(trials) if jobs), [])
        return [job | {"of": len(jobs)} for job in jobs]

    def _stages(self, trials: Sequence[TrialRecord]) -> Iterator[list[Job]]:
        """What is left of each stage: candidates are trained with other seeds, then measured under the final
        attack; what is still optimal then, on test images, and so are its other seeds."""
        run = self.run
        found = front.candidates(run.spec, trials, run.baseline() or {})
        candidates = [read_trial(point.trial.folder).point(point.epoch) for point in found]
        yield [self._training(twin) | {"stage": RETRAINING} for twin in seeds.unfinished(run, candidates)]
        yield [*self._measurements("final", candidates)]
        members = front.members(run, candidates)
        twins = [twin for point in members for twin in seeds.twins(point, run.seeds(point.trial))]
        yield [*self._measurements("test", [*members, *twins])]

    def _measurements(self, stage: Stage, points: list[Point]) -> Iterator[Job]:
        for point in (None, *points):
            name = point.id if point else BASELINE
            if not self.run.final_file(name, SPLIT[stage]).exists():
                yield self.measurement(point, stage)

    def measurement(self, point: Point | None, stage: Stage) -> Job:
        """Of a point, or of the untrained model for None."""
        sweep, name = self.run.spec, point.id if point else BASELINE
        config = point.trial.config if point else sweep.base_trial()
        search = stage == "validation"
        return {
            **self._place,
            "trainable": sweep.trainable.name,
            "id": f"{name}-{stage}",
            "stage": MEASURING[stage],
            **self._limits(self._target(point, stage).with_suffix(".stuck.txt")),
            "gpus": sweep.file.resources.gpus,
            "measure": {
                "model": config["model"],
                "data": config["data"],
                "evaluation": sweep.evaluation if search else sweep.final,
                "split": SPLIT[stage],
                "target": str(self._target(point, stage)),
                "weights": str(point.weights) if point else None,
                "threads": self.threads,
                "cache": str(self.run.cache),
            },
        }

    @property
    def _place(self) -> Job:
        return {"run": str(self.run.path), "storage": self.run.storage.address}

    def _target(self, point: Point | None, stage: Stage) -> Path:
        if stage == "validation":
            return self.run.baseline_file
        return self.run.final_file(point.id if point else BASELINE, SPLIT[stage])

    def _limits(self, stuck: Path) -> Job:
        return {"minutes": self.run.spec.file.resources.epoch_minutes, "stuck": str(stuck)}

    def _training(self, trial: TrialRecord) -> Job:
        sweep = self.run.spec
        return {
            **self._place,
            "trainable": sweep.trainable.name,
            "id": trial.id,
            **self._limits(trial.stuck_file),
            "trial": trial.config,
            "evaluation": sweep.evaluation,
            "seed": trial.seed,
            "folder": str(trial.folder),
            "until": max(trial.wanted, default=None),
            "threads": self.threads,
            "cache": str(self.run.cache),
            "cpus": sweep.file.resources.cpus,
            "gpus": sweep.file.resources.gpus,
            "concurrent": self.concurrent,
        }
