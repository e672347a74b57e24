"""What the report's figures show, and how they are drawn."""

from __future__ import annotations

import html
import json
import os
import re
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from sweeper.pareto import hypervolume, reference_point
from sweeper.report import chart as grammar
from sweeper.report import static, timing
from sweeper.report.calibration import columns_of, diagrams
from sweeper.report.chart import (
    INK,
    OKABE_ITO,
    UNTRAINED,
    Axis,
    Chart,
    Lines,
    Look,
    Panel,
    Points,
    Style,
    wide,
)
from sweeper.report.figures import FIGURES
from sweeper.report.importance import EPOCHS, Trials, importance
from sweeper.report.interaction import pair, side, together
from sweeper.report.interactive import alone, around, drawn
from sweeper.report.methods import QUANTITIES, best_of_each, difference, verdict
from sweeper.report.naming import HEIGHT, RADIUS, boxes, settled
from sweeper.report.prepare import Material, sample, words
from sweeper.report.settings import number_upright, option_upright, parallel, spread
from sweeper.report.timing import arrivals, plausible, segments
from sweeper.tree import Choice, Place, Range, Scalar
from tests.reported import EPOCH_SECONDS, SWEEP, finished, records_of
from trainables.metrics import intervals
from trainables.metrics.estimate import Estimate

if TYPE_CHECKING:
    from pathlib import Path

TRIALS = 13


@pytest.fixture(scope="module")
def of(tmp_path_factory: pytest.TempPathFactory) -> Material:
    sweep = SWEEP.replace("trials: 4", f"trials: {TRIALS}")
    run = finished(tmp_path_factory.mktemp("runs"), range(TRIALS), sweep)
    return Material(run, run.pareto())


def chart(of: Material, name: str) -> Chart:
    made = FIGURES[name](of)
    assert isinstance(made, Chart), made
    return made


def points(made: Chart) -> dict[str, tuple[float, float]]:
    """Where each model is, in the first panel."""
    marks = [mark for mark in made.panels[0].marks if isinstance(mark, Points)]
    return {
        model: (x, y)
        for mark in marks
        for model, x, y in zip(mark.models, mark.x, mark.y, strict=False)
        if model
    }


# what they show


def test_every_model_is_a_point_of_the_front(of: Material) -> None:
    found = points(chart(of, "front"))
    expected = {row["id"]: row for row in [*of.content["candidates"], of.content["baseline"]]}
    expected |= {f"{row['id']}@{row['epochs']}": row for row in of.content["trials"]}
    assert set(found) == set(expected)
    for id, (x, y) in found.items():
        metrics = expected[id]["validation"]
        assert (x, y) == (metrics["clean_accuracy"], metrics["robust_accuracy"])


def test_a_pointer_shows_metrics_intervals_and_settings(of: Material) -> None:
    member = of.members[0]
    told = of.hover(member)
    for stage in ("validation", "final", "test"):
        assert f"{member.value(stage, 'robust_accuracy'):.4f}" in told
    low, high = member.ends("validation", "clean_accuracy")
    assert f"{low:.3f}–{high:.3f}".replace("0.", ".") in told
    assert "P(optimal)" in told
    assert f"attack.epsilon {member.drawn['attack.epsilon']}" in told


def test_members_have_their_intervals(of: Material) -> None:
    marks = [m for m in chart(of, "front").panels[0].marks if isinstance(m, Points) and m.x_intervals]
    shown = {model: ends for mark in marks for model, ends in zip(mark.models, mark.y_intervals, strict=True)}
    assert set(shown) == {"baseline", *(model.id for model in of.members)}
    for model in of.members:
        assert shown[model.id] == tuple((model.intervals["validation"] or {})["robust_accuracy"])


def test_diagrams_are_those_of_the_metrics(of: Material) -> None:
    for model in (of.untrained, of.members[0]):
        assert model
        columns = columns_of(
            of, model, ["clean_correct", "clean_confidence", "robust_correct", "robust_confidence"]
        )
        assert columns
        for what, version in (("clean", "clean"), ("attacked", "robust")):
            shown = diagrams(columns)[what]
            assert shown.ece == model.value("validation", f"{version}_ece")
            gaps = shown.shares * np.abs(shown.accuracy - shown.confidence)
            assert gaps.sum() == pytest.approx(shown.ece)


def test_models_side_by_side_are_the_best_of_each_method(of: Material) -> None:
    shown = of.side_by_side
    assert shown[0].method == UNTRAINED
    assert {model.method for model in shown[1:]} == {model.method for model in of.members}
    asked = of.at("test", ["t000@1", "baseline"]).side_by_side
    assert [model.id for model in asked] == ["t000@1", "baseline"]


def test_differences_are_of_the_same_images() -> None:
    a, b = ({**records_of(seed, 0.8, 0.5)[:40]} for seed in (1, 2))
    columns = [{name: np.asarray(values) for name, values in each.items()} for each in (a, b)]
    clean = next(each for each in QUANTITIES if each.column == "clean_correct")
    found = difference(clean, *columns)
    assert found == intervals.mean(columns[0]["clean_correct"].astype(float) - columns[1]["clean_correct"])
    assert difference(replace(clean, column="absent"), *columns) is None
    assert verdict(clean, Estimate(0.1, 0.05, 0.2)) == 1
    assert verdict(replace(clean, better=-1), Estimate(0.1, 0.05, 0.2)) == -1
    assert verdict(clean, Estimate(0.1, -0.05, 0.2)) == 0


def test_methods_are_compared_on_test_images_if_they_can_be(of: Material) -> None:
    stage, models = best_of_each(of)
    tested = {model.method for model in of.members if model.metrics["test"]}
    assert stage == ("test" if len(tested) > 1 else "validation")
    assert len({model.method for model in models}) == len(models) > 1
    made = chart(of, "methods")
    assert len(made.panels) == len(QUANTITIES)
    assert "No correction is made" in made.caption


def seen(values: dict[str, np.ndarray], y: np.ndarray) -> Trials:
    """Trials of one epoch with numbers from 0 to 1 as settings, and one objective."""
    place = Place("here")
    names, count = list(values), len(y)
    return Trials(
        {name: Range(0.0, 1.0, False, False, place) for name in names},
        [f"t{index:03d}" for index in range(count)],
        [{name: float(values[name][index]) for name in names} for index in range(count)],
        np.column_stack([*values.values(), np.zeros(count)]),
        y[:, None],
        np.arange(count),
        {name: [index] for index, name in enumerate(names)} | {EPOCHS: [len(names)]},
    )


def test_importance_finds_what_matters_and_says_how_sure_it_is() -> None:
    draw = np.random.default_rng(0)
    values = {name: draw.random(80) for name in ("much", "little", "none")}
    trials = seen(values, 3 * values["much"] + values["little"])
    found = importance(trials)
    much, little, none = (found.loss[:, found.names.index(name), 0].mean() for name in values)
    assert found.names == list(values)  # the epoch is the same for all
    assert found.score.mean() > 0.8
    assert much > 3 * little > 0.1 > 3 * abs(none)
    noise = importance(seen(values, draw.normal(size=80)))
    assert noise.score.mean() < 0.1  # held-out trials are not told from the noise of others
    assert (importance(trials).loss == found.loss).all()


def test_interaction_is_what_is_not_a_sum() -> None:
    draw = np.random.default_rng(0)
    a, b = draw.random(300), draw.random(300)
    sides = tuple(side(name, Range(0.0, 1.0, False, False, Place("here")), {}) for name in "ab")
    values, apart = together(seen({"a": a, "b": b}, a + b), sides)  # type: ignore[arg-type]
    _, crossed = together(seen({"a": a, "b": b}, (a - 0.5) * (b - 0.5)), sides)  # type: ignore[arg-type]
    assert values.shape == (1, len(sides[1].at), len(sides[0].at))
    assert values[0, 0, 0] < values[0, -1, -1]
    assert apart[0] < 0.05
    assert crossed[0] > 0.5


def test_epsilon_and_concentration_scale_come_first() -> None:
    draw = np.random.default_rng(0)
    names = ("rate", "other", "attack.epsilon", "method.dirichlet.concentration_scale")
    values = {name: draw.random(40) for name in names}
    trials = seen(values, values["rate"] + 0.1 * values["other"])
    assert pair(trials, importance(trials)) == names[2:]
    few = replace(trials, points=[{**point, names[3]: None} for point in trials.points])
    for point in few.points[5:]:
        del point[names[3]]
    assert set(pair(few, importance(few)) or ()) == {"rate", "other"}


def test_a_choice_of_numbers_is_an_axis() -> None:
    place = Place("here")
    options = Choice(tuple(Scalar(text, place) for text in ("4/255", "8/255")), False, place)
    assert side("epsilon", options, {"4/255": 0.0, "8/255": 1.0}).ticks == {0.0: "4/255", 1.0: "8/255"}


def test_epochs_by_the_clock(of: Material) -> None:
    """The made-up run trained one trial after the other, a minute an epoch."""
    found = segments(list(of.trials.values()))
    assert {each.lane for each in found} == {0}
    assert [each.ended - each.began for each in found] == pytest.approx([EPOCH_SECONDS] * len(found))
    assert plausible(found)
    copied = [replace(each, ended=found[-1].ended) for each in found]
    assert not plausible(copied)


def test_trials_side_by_side_have_lanes(of: Material) -> None:
    first, second = list(of.trials.values())[:2]
    files = [trial.folder / f"epoch-{epoch:03d}.json" for trial in (first, second) for epoch in (1, 2)]
    times = [file.stat().st_mtime for file in files]
    for file, ended in zip(files, (60, 120, 90, 150), strict=True):
        os.utime(file, (ended, ended))
    found = segments([first, second])
    for file, ended in zip(files, times, strict=True):
        os.utime(file, (ended, ended))
    assert [(each.trial.id, each.lane) for each in found] == [("t000", 0)] * 2 + [("t001", 1)] * 2
    assert found[2].began == pytest.approx(30)


def test_a_lane_is_free_while_the_last_files_are_written(of: Material, monkeypatch: Any) -> None:
    spans = {"t000": [(1, 0.0, 20.0)], "t001": [(1, 19.5, 40.0)], "t002": [(1, 30.0, 50.0)]}
    monkeypatch.setattr(timing, "spans_of", lambda trial: spans[trial.id])
    found = segments([of.trials[id] for id in spans])
    assert [(each.trial.id, each.lane) for each in found] == [("t000", 0), ("t001", 0), ("t002", 1)]


def test_a_curve_of_one_epoch_is_seen(of: Material) -> None:
    lone = {trial.id for trial in of.trials.values() if len(trial.epochs) == 1}
    assert lone
    for mark in chart(of, "curves").panels[0].marks:
        if isinstance(mark, Lines) and lone & set(mark.models):
            assert set(mark.models) <= lone
            assert (mark.style.size, mark.style.opacity) == (7, 1)


def test_metric_against_metric_says_which_have_intervals(of: Material) -> None:
    first, *_ = chart(of, "pairs").caption.split(".")
    assert "interval" not in first  # of ECE there are none


def test_rungs_show_who_went_on(of: Material, tmp_path: Path) -> None:
    decided = arrivals(of.run.rungs_file)
    assert [each.trial for each in decided] == list(of.trials)
    assert [each.goes_on for each in decided] == [len(trial.epochs) > 1 for trial in of.trials.values()]
    torn = tmp_path / "rungs.jsonl"
    torn.write_text(of.run.rungs_file.read_text() + '{"trial": 1, "ep')
    assert arrivals(torn) == decided
    on = sum(each.goes_on for each in decided)
    assert chart(of, "rungs").panels[0].title == f"after epoch 1\n{on} of {TRIALS} went on"


def test_hypervolume_ends_with_that_of_the_front(of: Material) -> None:
    (line,) = (mark for mark in chart(of, "hypervolume").panels[0].marks if isinstance(mark, Lines))
    ((_, volumes),) = line.paths
    rows = [*of.content["trials"], *of.content["candidates"]]
    costs = np.array(
        [[-row["validation"][n] for n in of.names[:2]] + [row["validation"][of.names[2]]] for row in rows]
    )
    assert volumes[-1] == pytest.approx(hypervolume(costs, reference_point(costs)))
    assert (np.diff(volumes) >= 0).all()


def test_parallel_uprights_are_the_common_settings_and_the_metrics(of: Material) -> None:
    models = [model for model in of.models if model.trial]
    uprights = parallel(of, models)
    labels = [upright.label.split("\n")[0] for upright in uprights]
    assert labels == ["attack", "method", "optimizer", "robust", "clean", "robust"]
    errors = [model.value("validation", "robust_ece") for model in models]
    assert np.argmax(uprights[-1].heights) == np.argmin(errors)
    assert all(
        0 <= height <= 1 for upright in uprights for height in [*upright.heights, *upright.ticks.values()]
    )


def test_uprights_of_numbers_and_options() -> None:
    log = number_upright("rate", [0.001, 0.01, 0.1], log=True)
    assert log.heights == pytest.approx([0, 0.5, 1])
    assert log.ticks["0.01"] == pytest.approx(0.5)
    assert number_upright("one", [3.0]).heights == [0.5]
    assert list(option_upright("epsilon", ["16/255", "8/255", "8/255"]).ticks) == ["8/255", "16/255"]
    assert list(option_upright("method", ["tecoa", "pmg"]).ticks) == ["pmg", "tecoa"]


def test_words_and_places() -> None:
    assert spread({"a": 0.5, "b": 0.5, "c": 0.1}, 0.2) == pytest.approx({"c": 0.1, "a": 0.5, "b": 0.7})
    assert max(spread({"a": 1.0, "b": 1.0}, 0.2).values()) == 1
    assert words("transfer.robust_ece") == "transfer.robust ECE"
    assert sample([{"id": "t000", "pareto": False}]) == [{"id": "t000", "pareto": False}]


# how they are drawn


def test_methods_are_told_apart_in_grey() -> None:
    look = Look.of([f"method {index}" for index in range(8)])
    methods = [style for name, style in look.styles.items() if name != UNTRAINED]
    assert len({style.marker for style in methods}) == 8
    assert len({(style.marker, style.dash) for style in methods}) == 8
    assert len({style.dash for style in methods[:6]}) == 6
    shades = [luminance(colour) for colour in OKABE_ITO]
    assert min(abs(a - b) for a, b in pairwise(shades[:3])) > 0.1
    assert all(0 <= shade < 0.5 for shade in shades)  # seen on white


def luminance(colour: str) -> float:
    """As WCAG 2 has it, from 0 to 1."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))


def test_every_figure_is_valid_to_plotly_and_to_matplotlib(of: Material) -> None:
    from plotly.graph_objects import Figure

    for name in FIGURES:
        made = chart(of, name)
        shown = drawn(made)
        assert Figure(shown).to_dict()["data"]
        json.dumps(shown, allow_nan=False)
        told = json.dumps(alone(made)["layout"]["annotations"][-1]["text"]).replace("<br>", " ")
        assert html.escape(made.caption.split(". ")[0], quote=False) in json.loads(told)
        with static.mpl.rc_context(static.STYLE):
            axes = static.drawn(made).axes
        assert len(axes) == len(made.panels) + sum(panel.scale is not None for panel in made.panels)


def test_both_drawings_have_the_same_points(of: Material) -> None:
    made = chart(of, "curves")
    traces = [trace for trace in drawn(made)["data"] if "customdata" in trace]
    with static.mpl.rc_context(static.STYLE):
        axes = static.drawn(made).axes
    for number, panel in enumerate(axes):
        on_paper = {
            (x, round(y, 6)) for lines in panel.collections for x, y in np.asarray(lines.get_offsets()) if x
        }
        own = [trace for trace in traces if trace["xaxis"] == f"x{number + 1 if number else ''}"]
        on_screen = {
            (x, round(y, 6))
            for trace in own
            for x, y in zip(trace["x"], trace["y"], strict=True)
            if x is not None
        }
        assert on_screen
        assert on_screen == on_paper


def test_panels_lie_beside_each_other(of: Material) -> None:
    for name in FIGURES:
        made = chart(of, name)
        placed = grammar.frame(made)
        for index, (left, bottom, width, height) in enumerate(placed.areas):
            assert min(left, bottom) >= 0
            assert left + width <= placed.width + 1e-6
            assert bottom + height <= placed.height + 1e-6
            for other in placed.areas[:index]:
                apart = left >= other[0] + other[2] or bottom + height <= other[1]
                assert apart, name


def test_labels_of_rows_are_not_cut_off() -> None:
    names = {0.0: "dirichlet (t012@3) − pmg (t001@3)", 1.0: "WWWWWWWW (t000@3)"}
    made = Chart("any", "", "", [Panel([Points([1, 2], [0, 1])], y=Axis(ticks=names))])
    with static.mpl.rc_context(static.STYLE):
        (axes,) = (figure := static.drawn(made)).axes
    figure.canvas.draw()
    for label in axes.get_yticklabels():
        assert label.get_window_extent().x0 >= 0


def test_names_cover_neither_points_nor_each_other() -> None:
    close = np.array([[100.0, 100.0], [112.0, 96.0], [124.0, 92.0]])
    named = list(zip(close, ("t000@2", "t000@3", "t004@2"), strict=True))
    for offsets in (around, lambda _: static.AROUND):
        chosen = settled(close, named, (400, 300), offsets)
        places = [
            boxes(at[None] + np.array(offsets(wide(name))[which]), wide(name), HEIGHT)[0]
            for (at, name), which in zip(named, chosen, strict=True)
        ]
        taken = [*places, *boxes(close, 2 * RADIUS, 2 * RADIUS)]
        for index, own in enumerate(places):
            others = np.array([each for at, each in enumerate(taken) if at != index])
            apart = (own[:2] >= others[:, 2:]) | (own[2:] <= others[:, :2])
            assert apart.any(1).all()


def test_paper_gets_vectors_with_fonts(tmp_path: Path) -> None:
    marks = [Points([1, 2], [3, 4], Style(INK), "a $ & <b>"), Lines([([1, 2], [3, 4])])]
    made = Chart("any", "A title", "What it is: n = 2.", [Panel(marks, Axis("x"), Axis("y ↑"))])
    for kind in static.FORMATS:
        static.save(made, tmp_path / f"any.{kind}")
    pdf = (tmp_path / "any.pdf").read_bytes()
    assert b"/FontFile2" in pdf  # TrueType, embedded
    assert b"/Subtype /Image" not in pdf
    assert b"What it is: n = 2." in pdf
    svg = (tmp_path / "any.svg").read_text(encoding="utf-8")
    assert re.search(r"<text[^>]*>a \$ &amp; &lt;b&gt;</text>", svg)
    again = tmp_path / "again.pdf"
    static.save(made, again)
    assert again.read_bytes() == pdf


def test_what_plotly_would_read_as_markup_is_text() -> None:
    marks = [Points([1], [1], label="<b>x</b>", hover=["<i>\nline"], models=["t000"], names=["<u>"])]
    shown: dict[str, Any] = drawn(Chart("any", "", "", [Panel(marks, Axis("<a>"), title="<a>")]))
    (trace,) = shown["data"]
    assert trace["name"] == "&lt;b&gt;x&lt;/b&gt;"
    assert trace["hovertext"] == ["&lt;i&gt;<br>line"]
    assert trace["text"] == ["&lt;u&gt;"]
    assert shown["layout"]["xaxis"]["title"]["text"] == "&lt;a&gt;"
    assert shown["layout"]["annotations"][0]["text"] == "&lt;a&gt;"
