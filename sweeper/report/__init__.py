"""The report of a run: one HTML page that needs nothing else, and its figures as files for papers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweeper.run import Run

if TYPE_CHECKING:
    from sweeper.report.prepare import Material

PICTURED = 20
"""Members of the front that have a picture of their own."""


def write_report(run: Run, content: dict[str, Any] | None = None) -> Path:
    """Writes RUN/report/index.html, and beside it `front.png` and the reliability of the first members of the
    front, `t003@5-reliability.png`; returns the page's path.

    A run that is not finished is reported as far as it is.  content: of `run.pareto()`, if it is known.
    """
    from sweeper.report.chart import Chart
    from sweeper.report.front import front
    from sweeper.report.page import render
    from sweeper.report.prepare import Material
    from sweeper.report.static import save

    of = Material(run, run.pareto() if content is None else content)
    folder = run.path / "report"
    folder.mkdir(exist_ok=True)
    run.storage.remove(*folder.glob("*.png"))  # of an earlier one
    chart, picture = front(of), folder / "front.png"
    if isinstance(chart, Chart):
        save(chart, picture)
    for chart, file in member_charts(of, folder):
        save(chart, file)
    page = folder / "index.html"
    page.write_text(render(of, picture.read_bytes() if picture.exists() else None), encoding="utf-8")
    run.storage.push(folder)
    return page


def member_charts(of: Material, folder: Path) -> Iterator[tuple[Any, Path]]:
    """The reliability of each of the first members of the front, and its file."""
    from sweeper.report.calibration import reliability_chart
    from sweeper.report.chart import Chart

    for model in of.members[:PICTURED]:
        chart, point = reliability_chart(of.at("validation", [model.id])), of.point(model)
        if isinstance(chart, Chart) and point:
            yield chart, folder / f"{point.id}-reliability.png"


__all__: Sequence[str] = ("write_report",)
