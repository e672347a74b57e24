"""A chart in a notebook: interactive where the notebook can, a picture where it can't, as on the pages of a
repository or in a printed document."""

from __future__ import annotations

import base64
import io
import json
from typing import Any

from plotly.graph_objects import Figure

from sweeper.report.chart import Chart
from sweeper.report.interactive import drawn

DOTS, COLOURS = 96, 64
"""Of the picture."""


class Shown(Figure):
    """A plotly figure, with all that plotly can do with one.

    As the output of a cell it is its numbers and a PNG file, some 50 kB, without plotly.js, which notebooks
    bring. The picture is of the chart: it does not know what is changed of the figure afterwards.
    """

    _ipython_display_ = _repr_html_ = None  # plotly's, with plotly.js

    def __init__(self, chart: Chart) -> None:
        super().__init__(drawn(chart))
        self.layout.template = None  # the chart says all that is to be said
        self._chart = chart

    def __reduce__(self) -> tuple[Any, ...]:
        return Figure, (self.to_dict(),)

    def _repr_mimebundle_(self, *_: Any, **__: Any) -> dict[str, Any]:
        return {
            "application/vnd.plotly.v1+json": json.loads(self.to_json()),
            "image/png": base64.b64encode(picture(self._chart)).decode("ascii"),
            "text/plain": f"{self._chart.title}\n{self._chart.caption}",
        }


def picture(chart: Chart) -> bytes:
    """A small PNG file with title and caption."""
    import matplotlib as mpl
    from PIL import Image

    from sweeper.report import static

    whole, small = io.BytesIO(), io.BytesIO()
    with mpl.rc_context(static.STYLE):
        static.drawn(chart, chart.caption).savefig(whole, format="png", dpi=DOTS)
    Image.open(whole).convert("RGB").quantize(COLOURS).save(small, "png", optimize=True)
    return small.getvalue()
