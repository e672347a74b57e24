"""A comparison of runs as a page, or its joint front as a figure for papers."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sweeper.compare import explanations, joint_front, percent, spread
from sweeper.errors import UserError
from sweeper.report.chart import DARK
from sweeper.report.document import document
from sweeper.report.interactive import drawn
from sweeper.report.joint import charts, labels
from sweeper.report.static import FORMATS, save
from sweeper.result import objectives
from sweeper.table import ARROW, LABEL, interval, number, settings
from sweeper.table import percent as probability

Content = Mapping[str, Any]


def write_comparison(content: Content, to: Path) -> None:
    """A page that needs nothing but itself (.html), or the figure of the joint front alone (.pdf, .svg,
    .png). Raises UserError for a file of another kind."""
    kind = to.suffix[1:]
    if kind not in ("html", *FORMATS):
        raise UserError(f"--to {to}: expected a file that ends in .html, .{', .'.join(FORMATS)}")
    to.parent.mkdir(parents=True, exist_ok=True)
    if kind == "html":
        to.write_text(render(content), encoding="utf-8")
    else:
        save(charts(content)[0], to)


def render(content: Content) -> str:
    """The page. The template escapes what comes from the runs."""
    return document(
        "compare.html",
        embedded(content),
        {
            "interval": interval,
            "number": number,
            "percent": percent,
            "probability": probability,
            "settings": settings,
            "spread": spread,
        },
        content=content,
        joined=joint_front(content),
        notes=list(explanations(content)),
        charts=charts(content),
        objectives=objectives(content),
        labels=labels(content),
        command=command(content),
    )


def embedded(content: Content) -> dict[str, Any]:
    """What page.js reads: figures, each as of a single stage, and no trials to be clicked on."""
    figures = {}
    for place, chart in enumerate(charts(content)):
        told = command(content) + ("" if place else " --to joint-front.pdf")
        figures[chart.name] = {"validation": {**drawn(chart), "caption": chart.caption, "command": told}}
    nothing: dict[str, Any] = {"objectives": [], "stages": {}, "models": {}, "trials": {}, "files": {}}
    return {"run": "comparison", "dark": DARK, "colours": {}, "figures": figures, **nothing}


def command(content: Content) -> str:
    """What makes it once more."""
    places = " ".join(shlex.quote(row["place"]) for row in content["runs"])
    ways = ",".join(f"{way} {name}" for way in ARROW for name in content[way])
    return f"sweeper compare {places} --metrics {shlex.quote(ways)} --stage {LABEL[content['stage']]}"
