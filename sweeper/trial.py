"""A trial as it lies in its folder: what it was given, what it wrote, what may stand on the front of it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, overload

from sweeper.files import read_json

Split = Literal["validation", "test"]
Stage = Literal["validation", "final", "test"]
"""How a model is measured: as the search sees it, as `final` says on validation images, so on test images."""
Status = Literal["completed", "stopped", "failed", "unfinished"]
Metrics = dict[str, float]
Intervals = dict[str, tuple[float, float]]

BASELINE = "baseline"
OUTLINED = ("epoch", "training_seconds", "evaluation_seconds", "images_per_second")
STAGES: tuple[Stage, ...] = ("validation", "final", "test")
SPLIT: dict[Stage, Split] = {"validation": "validation", "final": "validation", "test": "test"}


class Reports(Sequence[dict[str, Any]]):
    """What a trial wrote after each epoch, read from its folder when it is first asked for: of ten thousand
    trials nobody asks for all."""

    def __init__(self, files: Sequence[Path]) -> None:
        self.files = files
        self.known: dict[int, dict[str, Any]] = {}

    def __len__(self) -> int:
        return len(self.files)

    @overload
    def __getitem__(self, index: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, index: slice) -> list[dict[str, Any]]: ...
    def __getitem__(self, index: int | slice) -> dict[str, Any] | list[dict[str, Any]]:
        if isinstance(index, slice):
            return [self[each] for each in range(len(self))[index]]
        place = range(len(self))[index]
        if place not in self.known:
            self.known[place] = read_json(self.files[place])
        return self.known[place]

    def __eq__(self, other: object) -> bool:
        return list(self) == list(other) if isinstance(other, Sequence) else NotImplemented

    __hash__ = None  # type: ignore[assignment]


@dataclass(frozen=True)
class Decision:
    """What early stopping decided after an epoch of a trial, on which metrics; later trials are compared
    with these."""

    trial: int
    epoch: int
    metrics: Metrics
    goes_on: bool


@dataclass
class TrialRecord:
    """One trial as it lies in the run folder.

    kept: the epochs whose weights are there, ascending.  wanted: of a trial that is another's with another
    seed, the epochs that it is trained for; it ends after the last of them.
    """

    number: int
    folder: Path
    config: dict[str, Any]
    drawn: dict[str, Any]
    seed: int
    status: Status = "unfinished"
    reason: str | None = None
    epochs: Sequence[dict[str, Any]] = field(default_factory=list)
    kept: list[int] = field(default_factory=list)
    wanted: list[int] = field(default_factory=list)

    @property
    def id(self) -> str:
        return self.folder.name

    @property
    def method(self) -> str:
        return str(self.config["method"]["name"])

    @property
    def metrics(self) -> Metrics | None:
        """Validation metrics after the last epoch; None before the first."""
        return self.epochs[-1]["metrics"] if self.epochs else None

    @property
    def last_epoch(self) -> int:
        """The one after which it has completed."""
        return max(self.wanted, default=self.config["epochs"])

    @property
    def checkpoints(self) -> list[Path]:
        """What its training goes on from, and what it went on from before, if the former is damaged; absent
        before the first epoch and after the last."""
        return sorted(self.folder.glob("checkpoint*.safetensors"))

    @property
    def stuck_file(self) -> Path:
        """Where its worker was when it was ended for taking too long."""
        return self.folder / "stuck.txt"

    @property
    def points(self) -> list[Point]:
        """What of it may stand on the front."""
        return [Point(self, epoch) for epoch in self.kept]

    def point(self, epoch: int | None = None) -> Point:
        """The trial after an epoch, the last one by default, kept or not."""
        return Point(self, epoch or len(self.epochs))

    def outline(self, metrics: Iterable[str]) -> TrialRecord:
        """What a driver keeps of every trial of a sweep: of its configuration the method's name and how many
        epochs it has, of each epoch the seconds, the images per second and these metrics."""
        names = list(metrics)
        epochs = [
            {key: epoch[key] for key in OUTLINED if key in epoch}
            | {"metrics": {name: epoch["metrics"][name] for name in names if name in epoch["metrics"]}}
            for epoch in self.epochs
        ]
        config = {"method": {"name": self.method}, "epochs": self.config["epochs"]}
        return replace(self, config=config, drawn={}, epochs=epochs)


@dataclass(frozen=True)
class Point:
    """A trial as it was after one of its epochs: one model, whose weights may still be there."""

    trial: TrialRecord
    epoch: int

    @property
    def id(self) -> str:
        return f"{self.trial.id}@{self.epoch:d}"  # a number, whatever a file says: it names others

    @property
    def report(self) -> dict[str, Any]:
        """What the epoch wrote."""
        return self.trial.epochs[self.epoch - 1]

    @property
    def metrics(self) -> Metrics:
        metrics: Metrics = self.report["metrics"]
        return metrics

    @property
    def intervals(self) -> Intervals:
        """95 % intervals of those of `metrics` that have one."""
        return dict(self.report.get("intervals", {}))

    @property
    def records(self) -> Path:
        """Per-image validation records."""
        return epoch_file(self.trial.folder, self.epoch, "parquet")

    @property
    def weights(self) -> Path:
        return epoch_file(self.trial.folder, self.epoch, "safetensors")


def epoch_file(folder: Path, epoch: int, suffix: str) -> Path:
    """A file that a trial writes after an epoch; see the head of `sweeper.run`."""
    return folder / f"epoch-{epoch:03d}.{suffix}"


def numbers(names: Iterable[str], suffix: str) -> list[int]:
    """The epochs of those files that end so, ascending."""
    return sorted(int(name[6:].removesuffix(suffix)) for name in names if name.endswith(suffix))


def read_trial(folder: Path) -> TrialRecord:
    """A trial, or one that was trained with another seed, as it lies in its folder."""
    config = read_json(folder / "config.json")
    trial = TrialRecord(config["number"], folder, config["trial"], config["drawn"], config["seed"])
    names = [name for name in os.listdir(folder) if name.startswith("epoch-")]
    trial.epochs = Reports([epoch_file(folder, epoch, "json") for epoch in numbers(names, ".json")])
    trial.kept = numbers(names, ".safetensors")
    trial.wanted = config.get("wanted", [])
    ended = read_json(folder / "status.json")
    if ended is not None:
        trial.status, trial.reason = ended["status"], ended["reason"]
    return trial
