"""A model measured again or by itself: by other attacks, at another epsilon, on more images, other sets."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from sweeper import pages, spec
from sweeper.bars import shown
from sweeper.errors import UserError, one_of
from sweeper.files import read_json, write_json
from sweeper.result import described
from sweeper.run import Run
from sweeper.storage import Storage, beside
from sweeper.table import interval, missing_gradients, number
from sweeper.trainable import Trainable
from sweeper.trial import BASELINE, Intervals, Metrics, Point, Split
from trainables.embedded import MODELS

PARTS = ".parts"
"""Folder of what was measured of evaluations that are not finished."""


@dataclass(frozen=True)
class Measurement:
    """A model, and how it is measured on a split.

    name: of files and in messages.  content: its `model`, `data` and `evaluation`, validated.
    weights: the file that an epoch of a trial wrote; None for the model's own.
    folder: where the result is written.
    cache: folder of what was computed once, see `sweeper.run`.
    storage: of the run that the result belongs to; None for a model that belongs to none.
    benchmark: where it is written as clip_benchmark would: a folder, or for one data set a .json file.
    """

    title: str
    name: str
    trainable: Trainable
    content: dict[str, Any]
    split: Split
    weights: str | None
    folder: Path
    benchmark: Path | None = None
    cache: Path | None = None
    storage: Storage | None = None

    @property
    def _arguments(self) -> dict[str, Any]:
        return {
            **self.content,
            "split": self.split,
            "weights": self.weights,
            "threads": os.cpu_count() or 1,
        }

    def measure(self) -> Path:
        """Measures, and returns the JSON file that the result was written to, its records beside it. What an
        interruption leaves is gone on from by the next that measures the same."""
        stamp = datetime.now().strftime("%Y%m%d-%H%M%S-%f")
        target = self.folder / f"{self.name}-{self.split}-{stamp}.json"
        same = hashlib.sha256(json.dumps([self.content, self.split, self.weights]).encode()).hexdigest()[:16]
        where = {"target": str(target), "cache": None if self.cache is None else str(self.cache)}
        where["parts"] = str(self.folder / PARTS / f"{self.name}-{same}")
        self._translated(self.trainable.measure, **where, **self._arguments)
        if self.storage is not None:
            self.storage.push(*beside(target))
        return target

    def write_benchmark(self, file: Path) -> list[Path]:
        """Writes the result that `measure` returned as clip_benchmark would, a file per data set."""
        if self.benchmark is None:
            return []
        records = self.trainable.benchmark(result=str(file), measurement=self.content)
        one, target = self.benchmark.suffix == ".json", self.benchmark
        files = {name: target if one else target / f"{slug(name)}-{file.stem}.json" for name in records}
        for name, record in records.items():
            write_json(files[name], record)
        return list(files.values())

    def sanity(self) -> list[tuple[str, bool | None, str]]:
        """Name, verdict and numbers of each check whether the robustness is to be believed."""
        findings: list[tuple[str, bool | None, str]] = self._translated(
            self.trainable.sanity, **self._arguments
        )
        return findings

    def _translated(self, function: Any, **arguments: Any) -> Any:
        expected: tuple[type[Exception], ...] = (OSError, *self.trainable.errors)
        try:
            with shown(self.trainable):
                return function(**arguments)
        except expected as error:
            page = getattr(error, "page", None)
            raise UserError(f"{self.name}: {' '.join(str(error).split())}", page) from error

    def table(self, file: Path) -> RenderableType:
        """The result as a table: a row per quantity, a column per version of the images."""
        result = read_json(file)
        metrics, intervals = result["metrics"], result["intervals"]
        own = [name for name in metrics if "." not in name]
        suffix = "_calibration_l2"  # of every version, and of nothing else
        versions = [name.removesuffix(suffix) for name in own if name.endswith(suffix)]
        quantities = dict.fromkeys(
            n.removeprefix(f"{v}_") for v in versions for n in own if n.startswith(f"{v}_")
        )
        table = Table(title=self.title, title_justify="left", box=None)
        table.add_column("", no_wrap=True)
        for version in versions:
            table.add_column(version.replace("_", " "), justify="right")
        for quantity in quantities:
            cells = [cell(metrics, intervals, f"{version}_{quantity}") for version in versions]
            table.add_row(quantity, *cells)
        for name in own:
            if not any(name.startswith(f"{version}_") for version in versions):
                table.add_row(name, cell(metrics, intervals, name))
        row = {"id": self.name, "method": "", "validation": metrics, "final": None, "test": None}
        notes = [
            described(self.trainable, self.content["evaluation"], self.split),
            *(f"{name}: {counted(counts)}" for name, counts in result["broken_by"].items()),
            "Below a number: its 95 % interval. Quantities are explained in docs/metrics.md.",
            *missing_gradients([row]),
            f"written to {file}",
        ]
        return Group(table, Text(), *(Text(note, "dim") for note in notes))


def of_trial(
    run: Run,
    trial: str,
    split: Split,
    overrides: Sequence[str] = (),
    attacks: Sequence[str] = (),
    *,
    own: Mapping[str, Any] | None = None,
) -> Measurement:
    """A trial of a run after an epoch, or its untrained model as `baseline`, measured as the sweep does but
    for what is given.

    trial: as t003@5, or t003 for the last epoch whose weights were kept.

    overrides: KEY=VALUE of the sweep's `evaluation` (validation images) or `final` (test images).
    attacks: names of further attacks, in place of the sweep's own.  own: what a suite sets, after all others.
    Raises SpecError or UserError with one line per mistake.
    """
    config, weights = find_weights(run, trial)
    sweep = run.spec
    content = {"model": config["model"], "data": config["data"]}
    content["evaluation"] = sweep.final if split == "test" else sweep.evaluation
    content = spec.measurement(sweep.trainable, content, changes(overrides, attacks, own))
    check_epsilon(content["evaluation"], own)
    sweep.trainable.check(config, [content["evaluation"]])
    return Measurement(
        title=f"{trial} of {run.name}",
        name=trial,
        trainable=sweep.trainable,
        content=content,
        split=split,
        weights=weights,
        folder=run.path / "evaluations",
        cache=run.cache,
        storage=run.storage,
    )


def find_weights(run: Run, name: str) -> tuple[dict[str, Any], str | None]:
    """Configuration and weights of a trial after an epoch; of the untrained model, whose weights are its
    own, as `baseline`."""
    if name == BASELINE:
        return run.spec.base_trial(), None
    point = find_point(run, name)
    return point.trial.config, str(run.storage.fetch(point.weights))


def find_point(run: Run, name: str) -> Point:
    """As `find_points`, for one."""
    return find_points(run, [name])[0]


def find_points(run: Run, names: Sequence[str]) -> list[Point]:
    """names: each as t003@5, or t003 for the last epoch whose weights were kept. Raises UserError."""
    trials = [trial for trial in run.trials() if trial.kept]
    points = {trial.id: trial.points[-1] for trial in trials}
    points |= {point.id: point for trial in trials for point in trial.points}
    for name in names:
        if name not in points:
            own = points.get(name.partition("@")[0])
            known = f"; kept are the epochs {', '.join(map(str, own.trial.kept))}" if own else ""
            known = known or one_of([BASELINE, *(trial.id for trial in trials)])
            raise UserError(f"{run.name} has no trial {name!r} with kept weights{known}", pages.RESULTS)
    return [points[name] for name in names]


def changes(overrides: Sequence[str], attacks: Sequence[str], own: Mapping[str, Any] | None) -> list[str]:
    """Of a measurement's evaluation."""
    given = [f"evaluation.{each}" for each in overrides]
    given += [f"evaluation.further_attacks={json.dumps(list(attacks))}"] if attacks else []
    return [*given, *(f"evaluation.{key}={json.dumps(value)}" for key, value in (own or {}).items())]


def check_epsilon(evaluation: Mapping[str, Any], own: Mapping[str, Any] | None) -> None:
    """Raises UserError if a suite is measured at an epsilon that a further attack does not keep to."""
    epsilon = (own or {}).get("attack.epsilon")
    others = [each for each in evaluation["further_attacks"] if each.get("epsilon") is not None]
    if epsilon and others:
        raise UserError(
            f"a suite is measured at epsilon {epsilon}, and {others[0]['name']} has an epsilon of its own; "
            "leave it out: --attack standard, or --set further_attacks=[]",
            pages.SUITES,
        )


def of_model(
    model: str,
    sets: Sequence[Any],
    split: Split,
    *,
    to: Path,
    prompt: str | None = None,
    overrides: Sequence[str] = (),
    attacks: Sequence[str] = (),
    own: Mapping[str, Any] | None = None,
) -> Measurement:
    """A model that belongs to no run, on these sets, as names or mappings, the in-distribution one first.

    model: an exported folder, `local-dir:FOLDER`, `hf-hub:ORG/REPO`, `ARCHITECTURE/TAG` of open_clip, or the
    name of an embedded model.  to: a folder, or for one set a .json file, for clip_benchmark's form of the
    result; the result itself goes to `records` beside it.  overrides: KEY=VALUE of the evaluation.
    attacks: names of further attacks.  own: what a suite sets, after all others.
    Raises SpecError or UserError with one line per mistake.
    """
    trainable = Trainable.find("finetune")
    named = [data_set(name) for name in sets]
    data = {"train": named[0], "evaluate": named if len(named) > 1 else []}
    data |= {"prompt": prompt} if prompt is not None else {}
    content = {"model": model_of(model), "data": data, "evaluation": {}}
    valid = spec.measurement(trainable, content, changes(overrides, attacks, own))
    evaluation = valid["evaluation"]
    check_epsilon(evaluation, own)
    one, count = to.suffix == ".json", len(sets) + len(evaluation["further_sets"]) + len(evaluation["ood"])
    if one and (count > 1 or evaluation["suites"]):
        each = "each data set of a suite" if evaluation["suites"] else f"each of {count} data sets"
        raise UserError(f"--to {to} is one file, and {each} needs one; name a folder")
    trainable.check_measurement(valid)
    return Measurement(
        title=model,
        name=slug(Path(model).name if Path(model).is_dir() else model),
        trainable=trainable,
        content=valid,
        split=split,
        weights=None,
        folder=(to.parent if one else to) / "records",
        benchmark=to,
    )


def model_of(text: str) -> dict[str, Any]:
    """The `model` of a measurement that a command line names."""
    if text.startswith(("hf-hub:", "local-dir:")):
        return {"name": text}
    if Path(text).is_dir():
        return {"name": f"local-dir:{text}"}
    name, slash, tag = text.partition("/")
    if slash and (text.startswith((".", "/", "~")) or "/" in tag or not tag):
        raise UserError(
            f"{text}: no such folder; expected an exported model, or ARCHITECTURE/TAG", pages.MODELS
        )
    return {"name": name, "pretrained": tag} if slash else {"name": name}


def is_model(text: str) -> bool:
    """Whether a command line names a model that is no trial."""
    return ":" in text or "/" in text or text in MODELS or Path(text).is_dir()


def data_set(text: Any) -> Any:
    """A name, or with a slash in it the path of an image folder; `vtab/flowers` is a name."""
    if not isinstance(text, str):
        return text
    is_path = "/" in text and (text.startswith((".", "/", "~")) or Path(text).is_dir())
    return {"image_folder": text} if is_path else text


def slug(name: str) -> str:
    """A name as it can stand in a file's."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name)[-60:].strip("-.")


def cell(metrics: Metrics, intervals: Intervals, name: str) -> str:
    value = metrics.get(name)
    tiny = value is not None and 0 < abs(value) < 1e-3  # epistemic uncertainty at the published scale
    return f"{value:.1e}" if tiny else f"{number(metrics, name)}\n{interval(intervals, name)}".rstrip()


def counted(broken_by: dict[str, int]) -> str:
    """`41 withstood everything; broken by: clean 20, PGD-10 at epsilon 8/255 39`."""
    broken = ", ".join(f"{name} {count}" for name, count in broken_by.items() if name)
    return f"{broken_by.get('', 0)} images withstood everything; broken by: {broken or 'nothing'}"
