"""What is written about a run of MLflow's, in Markdown: what it is, what came of it, how to do it again.

MLflow shows it on the run's page; its first lines at once, the rest on a click. Links and pictures are
relative to MLflow's page, so that they hold wherever it is served.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from sweeper.redact import redacted
from sweeper.result import objectives, protocol, ranked_members, stages
from sweeper.run import Run
from sweeper.table import (
    ARROW,
    LABEL,
    images_of,
    percent,
    remarks,
    settings,
    with_interval,
)
from sweeper.terminal import amount
from sweeper.tracking.links import Links
from sweeper.trial import BASELINE, STAGES, Point, Stage, TrialRecord

NOTE = "mlflow.note.content"
LONGEST = 5000
"""Letters that every version of MLflow takes."""
Row = dict[str, Any]


def of_sweep(run: Run) -> str:
    """As long as it runs."""
    sweep = run.spec.file
    goals = ", ".join(f"{name} {arrow}" for name, arrow in _goals(run))
    return _joined(
        [
            f"Sweep `{run.name}` of {sweep.search.trials} trials, seed {sweep.search.seed}: {goals}.",
            "Each child run is a trial. The configuration is artifact `sweep.yaml`; the front and the report "
            "come at the end.",
            _protocol(run, ["validation"]),
            _again(run, None),
        ]
    )


def of_result(run: Run, content: Row, links: Links) -> str:
    """At its end. content: of pareto.json."""
    members, first = ranked_members(content), objectives(content)[0]
    heads = ["model", "", *(f"{name} {arrow}" for name, arrow in _goals(run)), "P(optimal)"]
    untrained = content["baseline"] | {"id": "untrained", "method": ""}
    found = f"{amount(len(members), 'Pareto-optimal model')} of {amount(len(content['trials']), 'trial')}"
    shown = f"[side by side]({links.compare}), [report]({links.artifact('report/index.html')})"
    words = [
        f"**{found}**, the best in {first} on validation images first: {shown}.",
        _protocol(run, ["test"]),
    ]
    picture = "report/front.png"
    after = [
        f"![The front]({links.picture(picture)})" if (run.path / picture).is_file() else "",
        "\n".join(f"* {remark}" for remark in (*images_of(content), *remarks(content))),
        _again(run, links.parent),
    ]
    rows = [_latest(run, row) for row in (untrained, *members)]
    return _fitting(words, heads, rows, after)


def of_trial(run: Run, trial: TrialRecord, rows: Sequence[Row] = ()) -> str:
    """As it is: when it begins, when it has ended. rows: of pareto.json, its points that are on the front or
    were candidates."""
    heads = ["after epoch", "measured", *(f"{name} {arrow}" for name, arrow in _goals(run)), "P(optimal)"]
    known = {row["epoch"]: row for row in rows}
    lines: list[list[str]] = []
    measured: set[Stage] = set()
    for point in trial.points or ([trial.point()] if trial.epochs else []):
        row = known.get(point.epoch) or _row(point)
        for stage in STAGES:
            if row.get(stage):
                measured.add(stage)
                lines.append(_line(run, row, stage, str(point.epoch)))
    optimal = [str(row["epoch"]) for row in rows if row["pareto"]]
    drawn = ", ".join(filter(None, (f"**{trial.method}**", settings(trial.drawn), f"seed {trial.seed}")))
    words = [
        f"Trial {trial.id} of sweep `{run.name}`: {drawn}.",
        *([f"**Pareto-optimal** after epoch {', '.join(optimal)}."] if optimal else []),
        *([_ended(trial)] if trial.status != "unfinished" else []),
        "The configuration is artifact `config.json`; the records of every image, of the epochs whose weights"
        " were kept, are under `records`.",
    ]
    after = [_protocol(run, [stage for stage in STAGES if stage in measured])]
    if trial.kept:
        after.append(_commands(run, optimal[0] if optimal else str(trial.kept[-1]), trial))
    return _fitting(words, heads, lines, after)


def of_baseline(run: Run) -> str:
    """The untrained model."""
    row = stages(run, None)
    measured = [stage for stage in STAGES if row[stage]]
    heads = ["", "measured", *(f"{name} {arrow}" for name, arrow in _goals(run))]
    lines = [_line(run, row, stage, "untrained")[:-1] for stage in measured]
    words = [f"The untrained model of sweep `{run.name}`, which constraints may be relative to."]
    after = [_protocol(run, measured), _block([f"sweeper evaluate {BASELINE} {run.name}"])]
    return _fitting(words, heads, lines, after)


def _row(point: Point) -> Row:
    return {"validation": point.metrics, "intervals": {"validation": point.intervals}}


def _line(run: Run, row: Row, stage: Stage, head: str) -> list[str]:
    """Cells of a table. P(optimal) stands once, where the model is measured as the search sees it."""
    names = run.spec.file.pareto.metrics
    chance = percent(row.get("probability")) if stage == "validation" else ""
    return [head, LABEL[stage], *(with_interval(row, stage, name) for name in names), chance]


def _latest(run: Run, row: Row) -> list[str]:
    """The last stage in which a model was measured."""
    stage = next(stage for stage in reversed(STAGES) if row[stage])
    head = f"{row['id']} {row['method']}".rstrip()
    return [*_line(run, row, stage, head)[:-1], percent(row.get("probability"))]


def _goals(run: Run) -> Iterator[tuple[str, str]]:
    pareto = run.spec.file.pareto
    for name, way in zip(pareto.metrics, pareto.directions, strict=True):
        yield name, ARROW[way]


def _ended(trial: TrialRecord) -> str:
    reason = f": {redacted(trial.reason)}" if trial.reason else ""
    return f"{trial.status.capitalize()} after epoch {len(trial.epochs)}{reason}."


def _protocol(run: Run, stages: Iterable[Stage]) -> str:
    said = [f"* {LABEL[stage]}: {protocol(run.spec, stage)['text']}" for stage in stages]
    return "\n".join([*said, "* Beside a number: its 95 % interval."])


def _again(run: Run, parent: str | None) -> str:
    """How to run the sweep again, and where it lies."""
    versions = run.about.get("versions", {})
    made = ", ".join(f"{name} {number}" for name, number in versions.items())
    fetched = f"mlflow artifacts download --run-id {parent} --artifact-path sweep.yaml --dst-path ."
    commands = _block([*([fetched] if parent else []), "sweeper run sweep.yaml"])
    words = f"It lies at `{redacted(str(run))}`{f', made with {made}' if made else ''}. The same once more:"
    return f"{words}\n\n{commands}"


def _commands(run: Run, epoch: str, trial: TrialRecord) -> str:
    if "seeds" in trial.folder.parts[-2:]:  # trained again with another seed: known by its trial alone
        return ""
    point = f"{trial.id}@{epoch}"
    return _block([f"sweeper evaluate {point} {run.name}", f"sweeper export {run.name} --trial {point}"])


def _block(commands: Sequence[str]) -> str:
    return "\n".join(["```", *commands, "```"])


def _fitting(words: list[str], heads: list[str], rows: list[list[str]], after: list[str]) -> str:
    """With as many rows as there is room for."""
    for count in range(len(rows), -1, -1):
        left = len(rows) - count
        more = [f"{left} more are in artifact `pareto.json`."] if left else []
        text = _joined([*words, _table(heads, rows[:count]), *more, *after])
        if len(text) <= LONGEST:
            break
    return text[:LONGEST]


def _table(heads: list[str], rows: list[list[str]]) -> str:
    if not rows:
        return ""
    line = "|".join(["", ":--", ":--", *("--:" for _ in heads[2:]), ""])
    return "\n".join([_cells(heads), line, *map(_cells, rows)])


def _cells(cells: Sequence[str]) -> str:
    """MLflow's page leaves no room between them."""
    first, *others = cells
    return "|".join(["", f" {first} ", *(f" &ensp;{cell} " for cell in others), ""])


def _joined(paragraphs: Iterable[str]) -> str:
    return "\n\n".join(filter(None, paragraphs))
