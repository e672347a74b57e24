"""Metric against metric, a point for each model: calibration before and after temperature scaling, and what
suites say beside the in-distribution set."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sweeper.report.chart import GREY, UNTRAINED, Absent, Axis, Chart, Lines, Mark, Panel, Points, Style
from sweeper.report.front import groups, legend, look
from sweeper.report.prepare import Material, Model, words

TITLE = "Metric against metric"
ACCURACY, ECE, SCALED_ECE, OOD_AUROC = "clean_accuracy", "clean_ece", "clean_scaled_ece", "mcm_ood_auroc"
FEW = 40
"""Models that are shown with intervals, at most: those of more hide what they are of."""

Pair = tuple[str, str]
"""The metric to the right, and the one upwards."""


def pairs_chart(of: Material) -> Chart | Absent:
    """Of every suite, too, that the sweep measures, as far as it has accuracy, calibration or detection."""
    models = [model for model in (*of.models, of.untrained) if model and model.measured(of.stage, of.names)]
    known = [pair for pair in pairs(of) if any(model.measured(of.stage, pair) for model in models)]
    if not known or all(model.method == UNTRAINED for model in models):
        return Absent("pairs", TITLE, "No trial has ended yet.")
    intervals = ", with their 95 % intervals" if len(models) <= FEW else ""
    return Chart(
        "pairs",
        TITLE,
        f"The models of the front and every trial that has ended{intervals}, by method or training source; a "
        "suite's number is the mean over its sets. On the dotted line both are equal. Members of the Pareto "
        f"set are outlined. {of.said}.",
        [
            Panel(
                [*(legend(of, models, shaded=False) if not index else ()), *marks(of, models, pair)],
                Axis(label(pair[0])),
                Axis(label(pair[1])),
            )
            for index, pair in enumerate(known)
        ],
        columns=min(3, len(known)),
        height=220,
    )


def pairs(of: Material) -> Iterator[Pair]:
    """What of each suite is shown against what: in-distribution accuracy, or calibration before temperature
    scaling."""
    told = of.content[of.stage]
    yield ECE, SCALED_ECE
    for name in [*(suite["name"] for suite in told["suites"]), *(["ood"] if told["ood"] else [])]:
        yield ACCURACY, f"{name}.{ACCURACY}"
        yield f"{name}.{ECE}", f"{name}.{SCALED_ECE}"
        yield ACCURACY, f"{name}.{OOD_AUROC}"


def label(metric: str) -> str:
    """`shifts: clean accuracy`."""
    return words(metric).replace(".", ": ", 1)


def marks(of: Material, models: Sequence[Model], pair: Pair) -> Iterator[Mark]:
    shown = [model for model in models if model.measured(of.stage, pair)]
    if not pair[1].endswith(OOD_AUROC):
        values = [model.value(of.stage, name) for model in shown for name in pair]
        ends = [min(values), max(values)]
        yield Lines([(ends, ends)], Style(GREY, width=1, dash="dot"))
    for group in groups(shown):
        x, y = ([model.value(of.stage, name) for model in group] for name in pair)
        few = group if len(models) <= FEW else ()
        yield Points(
            x,
            y,
            look(of, group[0]),
            group[0].method,
            models=[model.id for model in group],
            hover=[told(of, model, pair) for model in group],
            x_intervals=[model.ends(of.stage, pair[0]) for model in few],
            y_intervals=[model.ends(of.stage, pair[1]) for model in few],
        )


def told(of: Material, model: Model, pair: Pair) -> str:
    numbers = (f"{label(name)}: {model.value(of.stage, name):.4f}" for name in pair)
    return "\n".join([model.name, *numbers, *map(str, model.drawn.values())])
