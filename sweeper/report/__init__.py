"""The report of a run: one HTML page that needs nothing else, and its pictures as PNG files."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweeper.files import read_json
from sweeper.run import Run
from sweeper.table import ARROW, LABEL, images_of, interval, number, remarks, settings
from sweeper.trial import STAGES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sweeper.report.plots import Picture


def write_report(run: Run, content: dict[str, Any] | None = None) -> Path:
    """Writes RUN/report/index.html and the pictures beside it; returns the page's path.

    A run that is not finished is reported as far as it is.  content: of `run.pareto()`, if it is known.
    """
    from sweeper.report.plots import pictures, trial_pictures

    content = run.pareto() if content is None else content
    folder = run.path / "report"
    folder.mkdir(exist_ok=True)
    run.storage.remove(*folder.glob("*.png"))  # of an earlier one
    shown = list(pictures(run, content))
    for picture in (*shown, *trial_pictures(run, content)):
        picture.figure.savefig(folder / picture.file)
    page = folder / "index.html"
    page.write_text(render(run, content, shown), encoding="utf-8")
    run.storage.push(folder)
    return page


def render(run: Run, content: dict[str, Any], pictures: Sequence[Picture]) -> str:
    """The page, with the pictures' files as part of it. The template escapes what comes from the run."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    from sweeper.report.prepare import sample, words
    from sweeper.result import objectives, ranked_members

    def embedded(picture: Picture) -> str:
        data = (run.path / "report" / picture.file).read_bytes()
        return f"data:image/png;base64,{base64.b64encode(data).decode('ascii')}"

    environment = Environment(
        autoescape=True,
        loader=FileSystemLoader(Path(__file__).parent),
        lstrip_blocks=True,
        trim_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters |= {
        "embedded": embedded,
        "number": number,
        "interval": interval,
        "settings": settings,
        "words": words,
    }
    return environment.get_template("page.html").render(
        content=content,
        sweep=run.spec.file,
        sweep_text=(run.path / "sweep.yaml").read_text(encoding="utf-8"),
        about=run.about,
        concurrent=read_json(run.path / "concurrency.json"),
        objectives=objectives(content),
        arrows={name: ARROW[way] for way in ARROW for name in content[way]},
        members=ranked_members(content),
        stages=STAGES,
        labels=LABEL,
        ended=sum(trial["status"] != "unfinished" for trial in content["trials"]),
        shown=sample(content["trials"]),
        pictures=pictures,
        images=list(images_of(content)),
        remarks=list(remarks(content)),
    )
