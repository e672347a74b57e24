"""All figures of a report, by name, in their order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from sweeper.report.calibration import confidence_chart, reliability_chart, uncertainty_chart
from sweeper.report.chart import Absent, Chart
from sweeper.report.front import front, front_3d
from sweeper.report.importance import importance_chart
from sweeper.report.interaction import interaction_chart
from sweeper.report.interactive import alone
from sweeper.report.methods import methods_chart
from sweeper.report.prepare import Material
from sweeper.report.progress import curves_chart, hypervolume_chart
from sweeper.report.settings import settings_chart
from sweeper.report.timing import rungs_chart, timeline_chart

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from sweeper.run import Run
    from sweeper.trial import Stage

FIGURES: dict[str, Callable[[Material], Chart | Absent]] = {
    "front": front,
    "front-3d": front_3d,
    "methods": methods_chart,
    "reliability": reliability_chart,
    "confidence": confidence_chart,
    "uncertainty": uncertainty_chart,
    "settings": settings_chart,
    "importance": importance_chart,
    "interaction": interaction_chart,
    "curves": curves_chart,
    "hypervolume": hypervolume_chart,
    "rungs": rungs_chart,
    "timeline": timeline_chart,
}
STAGED = ("front", "front-3d", "reliability", "confidence", "uncertainty")
"""Those that can be drawn of each stage."""
OF_MODELS = ("reliability", "confidence", "uncertainty")
"""Those that have a row for each of some models."""


def figures(
    run: Run,
    content: dict[str, Any] | None = None,
    *,
    stage: Stage = "validation",
    models: Sequence[str] = (),
) -> dict[str, Figure]:
    """The report's interactive figures with their captions, for a notebook; those for which there are no
    numbers are left out.

    content: of `run.pareto()`, if it is known.  stage, models: what figures of models show; see `Material`.
    """
    from plotly.graph_objects import Figure

    of = Material(run, run.pareto() if content is None else content).at(stage, models)
    charts = [chart(of) for chart in FIGURES.values()]
    return {chart.name: Figure(alone(chart)) for chart in charts if isinstance(chart, Chart)}
