"""Trials of a run as folders that open_clip loads, and as models of MLflow's registry."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from sweeper import pages
from sweeper.errors import UserError
from sweeper.evaluation import find_points
from sweeper.result import row
from sweeper.run import Run
from sweeper.trial import STAGES, Point


def exported(run: Run, names: Sequence[str] = (), to: Path | None = None) -> Iterator[tuple[Point, Path]]:
    """Exports trials as they are after an epoch, and yields each one and its folder.

    names: which, as t003@5, or t003 for the last epoch whose weights were kept; the whole Pareto set by
    default.  to: the folder for their folders, `exports` in the run by default.  Raises UserError if one of
    them can't be exported; before anything is written if its weights were not kept.
    """
    content = run.pareto()
    points = find_points(run, names or pareto_set(content))
    export = run.spec.trainable.export
    expected: tuple[type[Exception], ...] = (OSError, *run.spec.trainable.errors)
    for point in points:
        folder = (to or run.path / "exports") / point.id
        trial = {"trial": point.trial.config, "weights": str(run.storage.fetch(point.weights))}
        try:
            export(**trial, target=str(folder.absolute()), about=about(run, content, point))
        except expected as error:
            page = getattr(error, "page", None)
            raise UserError(f"{point.id}: {' '.join(str(error).split())}", page) from error
        if to is None:
            run.storage.push(folder)
        yield point, folder


def pareto_set(content: dict[str, Any]) -> list[str]:
    names = [row["id"] for row in content["candidates"] if row["pareto"]]
    if not names and content["candidates"]:
        raise UserError(
            f"{content['run']}: no candidate keeps {', '.join(content['subject_to'])} by `final`'s measure, "
            "so the Pareto set is empty; --trial exports a trial all the same",
            pages.RESULTS,
        )
    if not names:
        raise UserError(
            f"{content['run']} has no Pareto set yet; `sweeper resume {content['run']}` goes on with it, "
            "--trial exports a trial that has finished an epoch",
            pages.RESULTS,
        )
    return names


def about(run: Run, content: dict[str, Any], point: Point) -> dict[str, Any]:
    """What is known of a trial after an epoch: where it comes from, its configuration, its metrics and what
    they are. content: of pareto.json."""
    own = row(run, point)
    return {
        **{key: own[key] for key in ("method", "status", "epoch", "seed", "seeds", "drawn", "config")},
        "pareto": any(member["id"] == point.id and member["pareto"] for member in content["candidates"]),
        "trial": own["id"],
        "run": content["run"],
        "search_seed": content["seed"],
        "objectives": {way: content[way] for way in ("maximize", "minimize")},
        "subject_to": content["subject_to"],
        **{stage: measured(content, own, stage) for stage in STAGES},
        "data": content["data"],
        "untrained": {stage: measured(content, content["baseline"], stage) for stage in STAGES},
        "versions": run.about["versions"],
    }


def measured(content: dict[str, Any], of: dict[str, Any], stage: str) -> dict[str, Any]:
    return {
        "protocol": content[stage]["text"],
        "metrics": of[stage],
        "intervals": of["intervals"][stage],
    }
