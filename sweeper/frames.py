"""What a run has found as pandas DataFrames; `Results` says what their columns are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from sweeper.result import flat, objectives, ranked_members
from sweeper.run import Run
from sweeper.trial import BASELINE, STAGES

Content = Mapping[str, Any]
Row = Mapping[str, Any]


def trials(content: Content) -> pd.DataFrame:
    keys = ("method", "status", "reason", "epochs", "pareto", "probability", "seed")
    return table(
        content,
        (
            {"id": row["id"], **{key: row[key] for key in keys}, **drawn(row), **numbers(content, row)}
            for row in content["trials"]
        ),
    )


def epochs(content: Content, run: Run) -> pd.DataFrame:
    """Reads what every trial wrote after each epoch."""
    rows = []
    for trial in run.trials():
        for epoch, report in enumerate(trial.epochs, 1):
            about = {"id": trial.point(epoch).id, "trial": trial.id, "epoch": epoch, "method": trial.method}
            about |= {"kept": epoch in trial.kept}
            about |= {key: report[key] for key in ("training_seconds", "evaluation_seconds") if key in report}
            about |= {f"training.{name}": value for name, value in report.get("training", {}).items()}
            measured = {"validation": report["metrics"], "intervals": {"validation": report.get("intervals")}}
            rows.append(about | numbers(content, measured))
    return table(content, rows)


def models(content: Content, *, untrained: bool = False) -> pd.DataFrame:
    """The Pareto set, the best in the first objective first."""
    start = [content["baseline"] | {"trial": BASELINE, "epoch": 0, "method": "untrained", "drawn": {}}]
    keys = ("trial", "epoch", "method", "status", "probability", "seed")
    return table(
        content,
        (
            {"id": row["id"], **{key: row.get(key) for key in keys}, **drawn(row), **numbers(content, row)}
            for row in (*start[: int(untrained)], *ranked_members(content))
        ),
    )


def drawn(row: Row) -> dict[str, Any]:
    """But for the name of the method, which has a column of its own."""
    own = {name: value for name, value in row["drawn"].items() if (name, value) != ("method", row["method"])}
    return {f"drawn.{name}": value for name, value in own.items()}


def numbers(content: Content, row: Row) -> dict[str, float]:
    """All metrics by stage, with the ends of the objectives' intervals."""
    ends = {
        f"{stage}.{name}.{end}": value
        for stage in STAGES
        for name, interval in ((row.get("intervals") or {}).get(stage) or {}).items()
        if name in objectives(content)
        for end, value in zip(("low", "high"), interval, strict=True)
    }
    return flat(dict.fromkeys(STAGES) | dict(row)) | ends


def table(content: Content, rows: Iterable[dict[str, Any]]) -> pd.DataFrame:
    """Indexed by `id`. Of the numbers the objectives come first, stage by stage, each before its interval."""
    frame = pd.DataFrame(list(rows), columns=None)
    if frame.empty:
        return pd.DataFrame(index=pd.Index([], name="id"))
    frame = frame.set_index("id")
    first = [
        f"{stage}.{name}{end}"
        for stage in STAGES
        for name in objectives(content)
        for end in ("", ".low", ".high")
    ]
    place = {name: index for index, name in enumerate(first)}
    measured = [name for name in frame if str(name).partition(".")[0] in (*STAGES, "seeds")]
    ordered = sorted(measured, key=lambda name: place.get(str(name), len(place)))
    return frame[[*(name for name in frame if name not in measured), *ordered]]


def shares(rows: Sequence[Row], key: str) -> pd.DataFrame:
    """Of runs or methods, as a comparison has them; an estimate is three columns."""
    flat_rows = []
    for row in rows:
        own: dict[str, Any] = {key: row[key]}
        for name, value in row.items():
            if isinstance(value, dict):
                own |= {name: value["value"], f"{name}.low": value["low"], f"{name}.high": value["high"]}
            elif name != key:
                own[name] = value
        flat_rows.append(own)
    return pd.DataFrame(flat_rows).set_index(key)


def compared(content: Content) -> pd.DataFrame:
    """All models of a comparison."""
    names = {row["letter"]: row["run"] for row in content["runs"]}
    keys = ("id", "method", "joint", "probability", "holds", "seed")
    return pd.DataFrame(
        [
            {"run": names[row["run"]], **{key: row[key] for key in keys}, **drawn(row), **row["metrics"]}
            for row in content["models"]
        ]
    )
