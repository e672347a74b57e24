"""Method against method: differences between their best models, on the same images."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from sweeper.report.calibration import Columns, columns_of
from sweeper.report.chart import GREY, INK, Absent, Axis, Chart, Mark, Panel, Points, Rule, Style
from sweeper.report.prepare import Material, Model, words
from sweeper.table import LABEL
from sweeper.trial import Stage
from trainables.metrics import intervals
from trainables.metrics.comparison import squared_calibration_difference
from trainables.metrics.estimate import Estimate

TITLE = "Method against method"
Difference = Callable[[Columns, Columns], Estimate]


@dataclass(frozen=True)
class Quantity:
    """What two models differ in. column: of the records; else `version`, whose calibration is compared.
    better: the sign of a difference that speaks for the first."""

    title: str
    column: str
    better: int
    version: str = ""


QUANTITIES = (
    Quantity("clean accuracy ↑", "clean_correct", 1),
    Quantity("robust accuracy ↑", "unbroken", 1),
    Quantity("clean NLL ↓", "clean_nll", -1),
    Quantity("robust NLL ↓", "robust_nll", -1),
    Quantity("clean squared\ncalibration error ↓", "", -1, "clean"),
    Quantity("robust squared\ncalibration error ↓", "", -1, "robust"),
)
COLUMNS = [
    "index",
    "broken_by",
    *(f"{version}_{name}" for version in ("clean", "robust") for name in ("correct", "confidence", "nll")),
]


def difference(of: Quantity, a: Columns, b: Columns) -> Estimate | None:
    """Of model a less that of model b, on the same images in the same order; None without the columns.

    A difference of means is the mean of differences, with its interval. Of calibration the squared L2 errors
    are compared: a difference of two ECEs has no interval that holds, see docs/evaluation.md.
    """
    if of.version:
        names = [f"{of.version}_{name}" for name in ("confidence", "correct")]
        if any(name not in columns for name in names for columns in (a, b)):
            return None
        confidence, correct = names
        return squared_calibration_difference(a[confidence], a[correct], b[confidence], b[correct])
    if of.column not in a or of.column not in b:
        return None
    return intervals.mean(a[of.column].astype(float) - b[of.column].astype(float))


def best_of_each(of: Material) -> tuple[Stage, list[Model]]:
    """The model of each method that is best in the first objective, of those on the front if any of its are;
    and the stage to compare them in.

    On test images, if those of two methods were measured on them, and then of such methods alone; else on the
    images of the search.
    """
    first = of.names[0]
    sign = 1 if first in of.content["maximize"] else -1

    def best(models: Sequence[Model], stage: Stage) -> list[Model]:
        found: dict[str, list[Model]] = {}
        for model in models:
            if model.measured(stage, of.names):
                found.setdefault(model.method, []).append(model)
        return [
            max(group, key=lambda m: (m.member, sign * m.value("validation", first)))
            for _, group in sorted(found.items())
        ]

    tested = best([model for model in of.models if model.member], "test")
    return ("test", tested) if len(tested) > 1 else ("validation", best(of.models, "validation"))


def methods_chart(of: Material) -> Chart | Absent:
    stage, models = best_of_each(of)
    read = [(model, columns_of(of.at(stage), model, COLUMNS)) for model in models]
    known = [(model, prepared(columns)) for model, columns in read if columns and "index" in columns]
    pairs = [
        (a, b) for a, b in itertools.combinations(known, 2) if np.array_equal(a[1]["index"], b[1]["index"])
    ]
    if not pairs or not any(difference(each, pairs[0][0][1], pairs[0][1][1]) for each in QUANTITIES):
        reason = "Two methods are needed, each with a model whose per-image records are there."
        return Absent("methods", TITLE, reason)
    heights = {float(len(pairs) - 1 - index): against(a, b) for index, ((a, _), (b, _)) in enumerate(pairs)}
    panels = list[Panel]()
    for quantity in QUANTITIES:
        found = [difference(quantity, a, b) for (_, a), (_, b) in pairs]
        if all(each is not None for each in found):
            first = len(panels) % 3 == 0
            places = Axis(low=-0.6, high=len(pairs) - 0.4, ticks=heights if first else {}, grid=False)
            panels.append(panel(quantity, [each for each in found if each], list(heights), places))
    images = len(pairs[0][0][1]["index"])
    chosen = f"each method's model that is best in {words(of.names[0])}" + (
        " of those on the front" if stage == "test" else ", on the front where it has any there"
    )
    caution = "" if stage == "test" else " They were chosen on these images, which favours them all alike."
    return Chart(
        "methods",
        f"{TITLE} on {known[0][1]['set'][0]}",
        f"The first less the second of two models, on the same {images} images ({LABEL[stage]}), with the "
        f"95 % interval of the paired difference: {chosen}.{caution} A filled mark: the interval leaves out "
        "0 and speaks for the first; an open one: for the second; grey: neither. No correction is made for "
        f"the number of comparisons. {of.content[stage]['text']}.",
        panels,
        columns=3,
        height=30 + 36 * len(pairs),
    )


def prepared(columns: Columns) -> Columns:
    if "broken_by" not in columns:
        return columns
    return {**columns, "unbroken": columns["broken_by"] == ""}


def against(a: Model, b: Model) -> str:
    return f"{a.method} ({a.id})\n− {b.method} ({b.id})"


def panel(quantity: Quantity, found: Sequence[Estimate], heights: Sequence[float], places: Axis) -> Panel:
    marks: list[Mark] = [Rule("x", 0, Style(GREY, width=1))]
    for speaks, style in (
        (1, Style(INK, size=8)),
        (-1, Style(INK, size=8, open=True)),
        (0, Style(GREY, size=7)),
    ):
        chosen = [at for at, each in enumerate(found) if verdict(quantity, each) == speaks]
        if chosen:
            marks.append(
                Points(
                    [found[at].value for at in chosen],
                    [heights[at] for at in chosen],
                    style,
                    x_intervals=[(found[at].low, found[at].high) for at in chosen],
                    hover=[told(found[at], places, heights[at]) for at in chosen],
                )
            )
    return Panel(marks, Axis("difference"), places, quantity.title)


def told(of: Estimate, places: Axis, at: float) -> str:
    name = (places.ticks or {}).get(at, "")
    return f"{name}\n{of.value:+.4f} ({of.low:+.4f} to {of.high:+.4f})".strip()


def verdict(quantity: Quantity, of: Estimate) -> int:
    """1 if the interval speaks for the first, -1 for the second, 0 for neither."""
    if of.low > 0:
        return quantity.better
    return -quantity.better if of.high < 0 else 0
