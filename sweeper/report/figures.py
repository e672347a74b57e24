"""All figures of a report, by name, in their order."""

from __future__ import annotations

from collections.abc import Callable

from sweeper.report.calibration import confidence_chart, reliability_chart, uncertainty_chart
from sweeper.report.chart import Absent, Chart
from sweeper.report.front import front, front_3d
from sweeper.report.importance import importance_chart
from sweeper.report.interaction import interaction_chart
from sweeper.report.methods import methods_chart
from sweeper.report.prepare import Material
from sweeper.report.progress import curves_chart, hypervolume_chart
from sweeper.report.scatter import pairs_chart
from sweeper.report.settings import settings_chart
from sweeper.report.timing import rungs_chart, timeline_chart

FIGURES: dict[str, Callable[[Material], Chart | Absent]] = {
    "front": front,
    "front-3d": front_3d,
    "methods": methods_chart,
    "pairs": pairs_chart,
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
STAGED = ("front", "front-3d", "pairs", "reliability", "confidence", "uncertainty")
"""Those that can be drawn of each stage."""
OF_MODELS = ("reliability", "confidence", "uncertainty")
"""Those that have a row for each of some models."""
