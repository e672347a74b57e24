"""What was measured of models, wherever it lies: runs, what `sweeper evaluate` wrote, files of others."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from sweeper import foreign, pages
from sweeper.alike import measured_by, sets_of_metric
from sweeper.errors import UserError
from sweeper.files import read_json
from sweeper.foreign import Record, ball_of
from sweeper.run import Run
from sweeper.storage import Root
from sweeper.trainable import Trainable
from sweeper.trial import BASELINE, SPLIT, Intervals, Metrics, Split, Stage
from trainables.metrics.names import depends_on

UNTRAINED = "untrained"
STAMP = len("20261124-142522-123456")
"""At the end of the name of what `sweeper evaluate` writes."""
BALLS = ("attack", "confidence_attack")
FORMS = (
    "expected a result of `sweeper evaluate`, a record of clip_benchmark (JSON, or the CSV that it builds) "
    "or a model_info of RobustBench"
)


@dataclass(frozen=True)
class Measured:
    """A measurement of a model. sets: as `ImageSet.about` has them, the in-distribution one first.
    records: its per-image records, if there are any."""

    split: Split
    metrics: Metrics
    intervals: Intervals
    sets: Sequence[Mapping[str, Any]]
    evaluation: Mapping[str, Any]
    records: Path | None

    @classmethod
    def of(cls, result: Mapping[str, Any], evaluation: Mapping[str, Any], records: Path | None) -> Measured:
        """result: as `finetune.measure` writes it."""
        return cls(
            result["split"], result["metrics"], result["intervals"], result["sets"], evaluation, records
        )

    @cached_property
    def suites(self) -> dict[str, Mapping[str, Any]]:
        return {suite["name"]: suite for suite in self.evaluation.get("suites", ())}

    def conditions(self, metric: str) -> dict[str, Any]:
        """All that a value depends on, but for the model."""
        by = {"evaluation": self.evaluation}
        return {"split": self.split, **measured_by(metric, self.sets, by)}

    def members(self, metric: str) -> list[Mapping[str, Any]]:
        """The sets that a metric is of."""
        return sets_of_metric(metric, self.sets) or list(self.sets[:1])

    def ball(self, metric: str) -> str:
        """In which images were attacked, as `linf 4/255`; empty of clean images."""
        for key in BALLS:
            if key in depends_on(metric):
                return ball_of(self.evaluation[key]["norm"], self.evaluation[key]["epsilon"])
        return ""


@dataclass
class Model:
    """A row. run: the name of the run that it is of, empty for none.  measured: the latest first.
    record: what others say of it, if it is theirs."""

    name: str
    method: str = ""
    run: str = ""
    measured: list[Measured] = field(default_factory=list)
    record: Record | None = None


@dataclass(frozen=True)
class Found:
    """What places hold. notes: what there was that could not be used."""

    models: list[Model]
    trainable: Trainable
    notes: list[str]


def find(places: Sequence[str], root: Root, split: Split | None = None) -> Found:
    """places: each a run, a folder or a file; the latest run where none is named.  split: whose images count;
    all by default, of runs the test images.  Raises UserError."""
    models: dict[Any, Model] = {}
    notes: list[str] = []
    trainables = []
    named: Sequence[str | None] = places or [None]
    for place in named:
        files = None if place is None else files_of(Path(place))
        if files is None:
            run = Run.find(place, root)
            trainables.append(run.spec.trainable)
            found = of_run(run, split, notes)
        else:
            found = (model for file in files for model in of_file(file))
        for key, model in found:
            known = models.setdefault(key, model)
            known.measured += [each for each in model.measured if each not in known.measured]
            if known.record is not None and model.record is not None:
                known.record = known.record.and_also(model.record)
    for model in models.values():
        model.measured = [each for each in model.measured if split in (None, each.split)]
    left = [model for model in models.values() if model.measured or model.record]
    if not left:
        wanted = f"on {split} images " if split else ""
        raise UserError(
            f"nothing was measured {wanted}in {', '.join(places) or root}; `sweeper evaluate` measures",
            pages.LEADERBOARD,
        )
    return Found(left, trainables[0] if trainables else Trainable.find("finetune"), notes)


def files_of(place: Path) -> list[Path] | None:
    """Files of results, the latest of a model first; None for what is to be a run. Raises UserError."""
    if place.is_file():
        return [place]
    if place.suffix in (".json", ".csv"):
        raise UserError(f"{place}: no such file; {FORMS}", pages.LEADERBOARD)
    if not place.is_dir() or (place / "run.json").exists():
        return None
    if (place / "records").is_dir():  # beside which the same lies as clip_benchmark writes it
        place = place / "records"
    files = [*place.glob("*.json"), *place.glob("*.csv")]
    if not files:
        raise UserError(
            f"{place}: no results in it; expected files that `sweeper evaluate` wrote, or records of others",
            pages.LEADERBOARD,
        )
    return latest_first(files)


def latest_first(files: Iterable[Path]) -> list[Path]:
    return sorted(files, key=lambda file: (file.stem[-STAMP:], file.name), reverse=True)


def of_run(run: Run, split: Split | None, notes: list[str]) -> Iterator[tuple[Any, Model]]:
    """What `sweeper evaluate` measured of its models, and its Pareto set and untrained model by its final
    measure: on test images if there are any, unless `split` says which."""
    ignored = 0
    for file in latest_first((run.path / "evaluations").glob("*.json")):
        result = read_json(file)
        if "measurement" not in result:
            ignored += 1
            continue
        how = result["measurement"]
        records = run.storage.fetch(file.with_suffix(".parquet"))
        yield row_of(run, point_id(how["weights"]), Measured.of(result, how["evaluation"], records))
    if ignored:
        notes.append(
            f"{ignored} of {run.name}/evaluations do not say how they were measured, being of an earlier "
            "version, and are left out."
        )
    members = [row for row in run.pareto()["candidates"] if row["pareto"]]
    tested = any(row["test"] for row in members)
    stage: Stage = "test" if split == "test" or (split is None and tested) else "final"
    for name in (BASELINE, *(row["id"] for row in members)):
        point = run.point(name)
        result, records = run.measured(point, stage), run.records(point, stage)
        if result is not None:
            known = run.storage.fetch(records) if records.is_file() else None
            yield row_of(run, name, Measured.of({"split": SPLIT[stage], **result}, run.spec.final, known))


def row_of(run: Run, name: str, measured: Measured) -> tuple[Any, Model]:
    point = run.point(name)
    method = UNTRAINED if point is None else point.trial.method
    return (run.id, name), Model(name, method, run.name, [measured])


def point_id(weights: str | None) -> str:
    """`t003@5` of `t003/epoch-005.safetensors`."""
    if weights is None:
        return BASELINE
    trial, _, file = weights.partition("/")
    return f"{trial}@{int(Path(file).stem.removeprefix('epoch-'))}"


def of_file(file: Path) -> Iterator[tuple[Any, Model]]:
    """Raises UserError for a file that holds none of FORMS."""
    content = read(file)
    if not isinstance(content, Mapping) or not {"metrics", "sets"} <= content.keys():
        records = foreign.records(content, file)
        if not records:
            raise UserError(f"{file}: {FORMS}", pages.LEADERBOARD)
        for record in records:
            yield (record.form, record.model), Model(record.model, record.form, record=record)
        return
    if "measurement" not in content:
        raise UserError(
            f"{file}: does not say what was measured, being of an earlier version; measure it once more "
            "with `sweeper evaluate`",
            pages.LEADERBOARD,
        )
    how, own = content["measurement"], file.with_suffix(".parquet")
    measured = Measured.of(content, how["evaluation"], own if own.is_file() else None)
    name = name_of(how["model"], how["weights"])
    yield json.dumps([how["model"], how["weights"]]), Model(name, measured=[measured])


def name_of(model: Mapping[str, Any], weights: str | None) -> str:
    """As a command line names it; an exported folder by its own name."""
    if weights is not None:
        return point_id(weights)
    name = str(model["name"])
    if name.startswith("local-dir:"):
        return Path(name.removeprefix("local-dir:")).name
    return f"{name}/{model['pretrained']}" if model.get("pretrained") else name


def read(file: Path) -> Any:
    try:
        text = file.read_text(encoding="utf-8")
        return foreign.rows_of_csv(text) if file.suffix == ".csv" else json.loads(text)
    except (OSError, ValueError) as error:
        raise UserError(f"{file}: {' '.join(str(error).split())}; {FORMS}", pages.LEADERBOARD) from None
