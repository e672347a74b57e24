"""The page of a run: what it embeds, and how it is put together; see `sweeper.report.document`."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from sweeper import tree
from sweeper.files import read_json
from sweeper.report.calibration import RELIABILITY, columns_of, diagrams
from sweeper.report.chart import DARK, Absent, Chart
from sweeper.report.document import document
from sweeper.report.figures import FIGURES, STAGED
from sweeper.report.interactive import drawn
from sweeper.report.prepare import Material, Model, words
from sweeper.report.tables import latex, markdown
from sweeper.result import to_csv
from sweeper.table import ARROW, LABEL, images_of, interval, number, percent, remarks, settings, show
from sweeper.trial import STAGES, Stage, TrialRecord

DETAILED = 300
"""Models with a reliability diagram of their own, at most; those of the front first."""
DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
"""That of libyaml where there is one, four times as fast: a page has hundreds of sweep files."""
SECTIONS = {
    "Pareto set": ("front", "front-3d"),
    "Methods": ("methods",),
    "Metrics": ("pairs",),
    "Calibration": ("reliability", "confidence", "uncertainty"),
    "Settings": ("settings", "importance", "interaction"),
    "Search": ("curves", "hypervolume", "rungs", "timeline"),
}


@dataclass(frozen=True)
class Shown:
    """A figure of the page by stage, and the commands that make it once more; `validation` comes first, and
    is alone where a figure does not depend on the stage."""

    charts: dict[Stage, Chart]
    commands: dict[Stage, str]

    @property
    def first(self) -> Chart:
        return next(iter(self.charts.values()))

    @property
    def name(self) -> str:
        return self.first.name


def shown_figures(of: Material) -> dict[str, Shown | Absent]:
    found: dict[str, Shown | Absent] = {}
    for name, chart_of in FIGURES.items():
        stages = STAGES if name in STAGED else STAGES[:1]
        charts = {stage: chart_of(of.at(stage)) for stage in stages}
        there = {stage: chart for stage, chart in charts.items() if isinstance(chart, Chart)}
        commands = {stage: of.at(stage).command(name) for stage in stages}
        absent = charts["validation"]
        found[name] = absent if isinstance(absent, Absent) else Shown(there, commands)
    return found


def embedded(of: Material, figures: Mapping[str, Shown | Absent]) -> dict[str, Any]:
    """What the page's script reads."""
    models = [model for model in (of.untrained, *of.models) if model]
    return {
        "run": of.content["run"],
        "place": of.place,
        "objectives": [
            {"name": name, "label": label, "up": name in of.content["maximize"]}
            for name, label in of.labels.items()
        ],
        "stages": {stage: {"label": LABEL[stage], "text": of.content[stage]["text"]} for stage in STAGES},
        "colours": {method: style.colour for method, style in of.look.styles.items()},
        "dark": DARK,
        "models": {model.id: about_model(model) for model in models},
        "trials": {row["id"]: about_trial(of, row) for row in of.rows},
        "reliability": dict(reliabilities(of, models)),
        "figures": {
            name: {
                stage: {**drawn(chart), "caption": chart.caption, "command": shown.commands[stage]}
                for stage, chart in shown.charts.items()
            }
            for name, shown in figures.items()
            if isinstance(shown, Shown)
        },
        "files": {"csv": to_csv(dict(of.content)), "latex": latex(of), "markdown": markdown(of)},
    }


def about_model(model: Model) -> dict[str, Any]:
    names = (
        "trial",
        "epoch",
        "method",
        "status",
        "member",
        "candidate",
        "probability",
        "metrics",
        "intervals",
    )
    return {name: getattr(model, name) for name in names}


def about_trial(of: Material, row: Mapping[str, Any]) -> dict[str, Any]:
    trial = of.trials[row["id"]]
    curve = {name: [epoch["metrics"].get(name) for epoch in trial.epochs] for name in of.names}
    return {
        "method": row["method"],
        "status": row["status"],
        "reason": row["reason"],
        "seed": row["seed"],
        "kept": row["kept"],
        "drawn": {name: show(value) for name, value in row["drawn"].items()},
        "curve": {"epoch": [epoch["epoch"] for epoch in trial.epochs], **curve},
        "file": one_trial(of, trial),
    }


def one_trial(of: Material, trial: TrialRecord) -> str:
    """A sweep file that trains this one trial once more: of the same seed, and measured alike."""
    sweep = of.run.spec
    kept = {
        name: tree.plain(node) for name, node in sweep.tree.items.items() if name in ("pareto", "resources")
    }
    content = {"name": f"{sweep.file.name}-{trial.id}", "trial": trial.config, "evaluation": sweep.evaluation}
    content |= {"final": sweep.final, **kept, "search": {"trials": 1, "seed": sweep.file.search.seed}}
    return yaml.dump(content, Dumper=DUMPER, sort_keys=False, allow_unicode=True, width=100)


def reliabilities(of: Material, models: Sequence[Model]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Of each model and stage the diagrams: images, mean confidence and accuracy of each bin, and the ECE."""
    for model in sorted(models, key=lambda model: not model.candidate)[:DETAILED]:
        found: dict[str, Any] = {}
        for stage in STAGES:
            if model.measured(stage, of.names) and (columns := columns_of(of.at(stage), model, RELIABILITY)):
                found[stage] = {
                    what: [each.count.tolist(), rounded(each.confidence), rounded(each.accuracy), each.ece]
                    for what, each in diagrams(columns).items()
                }
        if found:
            yield model.id, found


def rounded(values: Any) -> list[float]:
    return [round(float(value), 6) for value in values]


def render(of: Material, front: bytes | None) -> str:
    """The page. The template escapes what comes from the run. front: its picture, for readers without
    scripts."""
    content, run, figures = of.content, of.run, shown_figures(of)
    return document(
        "page.html",
        embedded(of, figures),
        {
            "number": number,
            "interval": interval,
            "percent": percent,
            "settings": settings,
            "show": show,
            "words": words,
        },
        content=content,
        sweep=run.spec.file,
        sweep_text=(run.path / "sweep.yaml").read_text(encoding="utf-8"),
        about=run.about,
        concurrent=read_json(run.path / "concurrency.json"),
        objectives=of.names,
        arrows={name: ARROW[way] for way in ARROW for name in content[way]},
        members=of.members,
        untrained=of.untrained,
        stages=STAGES,
        labels=LABEL,
        ended=sum(trial["status"] != "unfinished" for trial in content["trials"]),
        rows=of.rows,
        parameters=list(dict.fromkeys(name for row in of.rows for name in row["drawn"] if name != "method")),
        place=of.place,
        sections=SECTIONS,
        figures=figures,
        images=list(images_of(dict(content))),
        remarks=list(remarks(dict(content))),
        latex=latex(of),
        markdown=markdown(of),
        front=front and base64.b64encode(front).decode("ascii"),
    )
