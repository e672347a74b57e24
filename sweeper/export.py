"""Trials of a run as folders that open_clip loads, and as models of MLflow's registry."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from sweeper.errors import UserError, suggestion
from sweeper.result import SPLITS
from sweeper.run import Run


def exported(run: Run, names: Sequence[str] = (), to: Path | None = None) -> Iterator[tuple[str, Path]]:
    """Exports trials, as they are after their last epoch, and yields each one's id and folder.

    names: which; the whole Pareto set by default.  to: the folder for their folders, `exports` in the run
    by default.  Raises UserError if one of them can't be exported; before anything is written if it has not
    finished an epoch.
    """
    content = run.pareto()
    rows = chosen(content, names)
    export = run.spec.trainable.export
    expected: tuple[type[Exception], ...] = (OSError, *run.spec.trainable.errors)
    for row in rows:
        folder = (to or run.path / "exports") / row["id"]
        trial = {"trial": row["config"], "checkpoint": str(run.path / "trials" / row["id"])}
        try:
            export(**trial, target=str(folder.absolute()), about=about(run, content, row))
        except expected as error:
            raise UserError(f"{row['id']}: {' '.join(str(error).split())}") from error
        yield row["id"], folder


def chosen(content: dict[str, Any], names: Sequence[str]) -> list[dict[str, Any]]:
    finished = {row["id"]: row for row in content["trials"] if row["epochs"]}
    for name in names:
        if name not in finished:
            known = suggestion(name, finished)
            raise UserError(f"{content['run']} has no trial {name!r} with a finished epoch{known}")
    rows = [finished[name] for name in names] or [row for row in finished.values() if row["pareto"]]
    if not rows:
        raise UserError(
            f"{content['run']} has no Pareto set yet; `sweeper resume {content['run']}` goes on with it, "
            "--trial exports a trial that has finished an epoch"
        )
    return rows


def about(run: Run, content: dict[str, Any], row: dict[str, Any]) -> dict[str, Any]:
    """What is known of a trial: where it comes from, its configuration, its metrics and what they are.

    content: of pareto.json.  row: the trial's own in it.
    """
    return {
        **{key: row[key] for key in ("method", "status", "pareto", "epochs", "seed", "drawn", "config")},
        "trial": row["id"],
        "run": content["run"],
        "search_seed": content["seed"],
        "objectives": {way: content[way] for way in ("maximize", "minimize")},
        "subject_to": content["subject_to"],
        **{split: measured(content, row, split) for split in SPLITS},
        "data": content["data"],
        "untrained": {split: measured(content, content["baseline"], split) for split in SPLITS},
        "versions": run.about["versions"],
    }


def measured(content: dict[str, Any], row: dict[str, Any], split: str) -> dict[str, Any]:
    return {
        "protocol": content[split]["text"],
        "metrics": row[split],
        "intervals": row["intervals"][split],
    }
