"""What a run has found, from Python: tables, picks and what they are made of."""

from __future__ import annotations

import base64
import copy
import csv
import io
import itertools
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from IPython.core.formatters import DisplayFormatter

from sweeper import Results, Sweep
from sweeper.errors import SpecError, UserError
from sweeper.prefer import directed, pick
from sweeper.result import to_csv
from sweeper.views import page
from tests.made_up import made_up_run

OBJECTIVES = ("robust_accuracy", "clean_accuracy", "robust_nll")
WAYS = {"robust_accuracy": "maximize", "clean_accuracy": "maximize", "robust_nll": "minimize"}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    run = made_up_run(folder, [0.1, 0.66, 0.64, 0.62, 0.6, 0.58], seed=14)
    run.end_trial(run.trial(0), "failed", "training loss is not finite")
    (run.path / "pareto.json").unlink()
    run.write("pareto.json", run.pareto())
    return folder


@pytest.fixture(scope="module")
def results(root: Path) -> Results:
    return Sweep.load(runs=root)


def test_every_trial_is_a_row(results: Results) -> None:
    table = results.trials()
    assert list(table.index) == [f"t{number:03d}" for number in range(6)]
    assert list(table.columns[:3]) == ["method", "status", "reason"]
    assert table.loc["t000", "reason"] == "training loss is not finite"
    for row in results.content["trials"]:
        own = table.loc[row["id"]]
        assert (own["method"], own["epochs"], own["pareto"]) == (row["method"], row["epochs"], row["pareto"])
        assert own["drawn.optimizer.learning_rate"] == row["drawn"]["optimizer.learning_rate"]
        for name, value in row["validation"].items():
            assert own[f"validation.{name}"] == value
        low, high = row["intervals"]["validation"]["robust_nll"]
        assert (own["validation.robust_nll.low"], own["validation.robust_nll.high"]) == (low, high)
    measured = [name for name in table if name.startswith("validation.")]
    assert measured[:4] == [
        "validation.robust_accuracy",
        "validation.robust_accuracy.low",
        "validation.robust_accuracy.high",
        "validation.clean_accuracy",
    ]


def test_every_epoch_is_a_row(results: Results) -> None:
    table = results.epochs()
    assert list(table.index) == [f"t{number:03d}@1" for number in range(6)]
    assert table["kept"].all()
    assert set(table["training.loss"]) == {1.0}
    last = results.trials()["validation.robust_nll"]
    assert table.set_index("trial")["validation.robust_nll"].to_dict() == last.to_dict()


def test_the_pareto_table_has_the_numbers_of_the_csv(results: Results) -> None:
    table = results.pareto(untrained=True)
    rows = list(csv.DictReader(io.StringIO(to_csv(results.content))))
    assert {row["id"] for row in rows} == set(table.index)
    for row in rows:
        for name in table:
            if name in row and name.partition(".")[0] in ("validation", "final", "test"):
                assert table.loc[row["id"], name] == float(row[name])
    assert list(results.pareto().index) == list(table.index[1:])
    assert table.index[0] == "baseline"
    assert (table["final.robust_accuracy"].diff().dropna()[1:] <= 0).all()


def test_a_run_without_trials_has_empty_tables(tmp_path: Path) -> None:
    run = made_up_run(tmp_path, [])
    found = Results(run)
    assert len(found.trials()) == len(found.epochs()) == len(found.pareto()) == 0
    with pytest.raises(UserError, match="has no Pareto set to choose from; `sweeper resume` goes on with it"):
        found.best()
    assert "0 models of 0 trials" in found._repr_html_()


# Picks


def test_best_of_one_metric_and_in_order(results: Results) -> None:
    front = results.pareto()
    first = results.best("robust_accuracy")
    assert first["final.robust_accuracy"] == front["final.robust_accuracy"].max()
    assert first.equals(front.loc[first.name])
    assert results.best("robust_nll")["final.robust_nll"] == front["final.robust_nll"].min()
    assert results.best("minimize clean_brier").name == front["final.clean_brier"].idxmin()
    near = front[front["final.robust_accuracy"] >= front["final.robust_accuracy"].max() - 0.1]
    second = results.best(["robust_accuracy", "clean_accuracy"], tolerance={"robust_accuracy": 0.1})
    assert second["final.clean_accuracy"] == near["final.clean_accuracy"].max()


def test_best_by_weights_and_the_knee(results: Results) -> None:
    front = results.pareto()
    signed = pd.DataFrame({n: front[f"final.{n}"] * (1 if n == "robust_nll" else -1) for n in OBJECTIVES})
    scaled = (signed - signed.min()) / (signed.max() - signed.min())
    assert results.best().name == scaled.sum(axis=1).idxmin()
    weights = {"robust_accuracy": 1.0, "robust_nll": 3.0}
    cost = sum(weight * scaled[name] for name, weight in weights.items())
    assert results.best(weights).name == cost.idxmin()


def test_best_subject_to_a_constraint(results: Results) -> None:
    front, untrained = results.pareto(), results.pareto(untrained=True).loc["baseline"]
    factor = front["final.clean_accuracy"].median() / untrained["final.clean_accuracy"] - 1e-9
    allowed = front[front["final.clean_accuracy"] >= factor * untrained["final.clean_accuracy"]]
    assert 0 < len(allowed) < len(front)
    found = results.best("robust_nll", subject_to={"clean_accuracy": f">= {factor} * baseline"})
    assert found["final.robust_nll"] == allowed["final.robust_nll"].min()
    by_search = results.best("robust_nll", stage="validation")
    assert by_search["validation.robust_nll"] == front["validation.robust_nll"].min()


@pytest.mark.parametrize(
    ("call", "line"),
    [
        (lambda r: r.best("robust_acuracy"), "no objective; did you mean 'robust_accuracy'?"),
        (lambda r: r.best("clean_ece"), "of another metric say 'maximize clean_ece' or 'minimize clean_ece'"),
        (lambda r: r.best("minimize clean_ec"), "no metric 'clean_ec' was measured of all these models; did"),
        (lambda r: r.best({"clean_accuracy": -1}), "weights are at least 0, and one is above"),
        (lambda r: r.best([]), "name a metric, or 'knee'"),
        (lambda r: r.best("robust_nll", tolerance=-1), "tolerance=-1: at least 0, in the metric's unit"),
        (lambda r: r.best("robust_nll", tolerance={"a": 1}), "tolerance: 'a' is not in prefer; expected one"),
        (lambda r: r.best(stage="test"), "choose by 'validation' or 'final'; test images are for the chosen"),
        (lambda r: r.best(subject_to={"clean_accuracy": "> 1"}), "clean_accuracy: can't read '> 1'"),
        (lambda r: r.best(subject_to={"clean_accuracy": ">= 2"}), "has clean_accuracy >= 2 (final)"),
        (lambda r: r.records("t1"), "has no trial 't1'"),
        (lambda r: r.records("t001@x"), "expected a trial and an epoch, as in t001@1"),
        (lambda r: r.records("t001@4"), "t001@4 of made-up-"),
        (lambda r: r.records(off_front(r), "test"), "has no records of the stage 'test'; the Pareto set has"),
        (lambda r: r.export("t001@4"), "has no trial 't001@4' with kept weights; kept are the epochs 1"),
        (lambda r: r.figures("frnt"), "there is no figure 'frnt'; did you mean 'front'?"),
        (lambda r: r.figures("rungs"), "rungs: "),
        (lambda r: r.compare(), "a comparison needs two runs or more"),
        (lambda r: Sweep.load("elsewhere", r.path.parent), "no run 'elsewhere' in"),
    ],
)  # fmt: skip
def test_what_is_asked_wrongly_is_one_line(
    results: Results, call: Callable[[Results], object], line: str
) -> None:
    with pytest.raises(UserError) as error:
        call(results)
    assert line in str(error.value)
    assert error.value._render_traceback_() == [f"UserError: {error.value.told()}"]
    assert "\n" not in str(error.value)


def off_front(results: Results) -> str:
    """A trial without a model in the Pareto set."""
    return str(results.trials().query("not pareto").index[-1])


VALUES = st.lists(st.tuples(*[st.integers(0, 4)] * 3), min_size=1, max_size=8)


@given(VALUES, st.sampled_from(list(itertools.permutations(OBJECTIVES))), st.integers(0, 2))
def test_no_pick_is_dominated(values: list[tuple[int, ...]], order: tuple[str, ...], tolerance: int) -> None:
    models = [dict(zip(OBJECTIVES, map(float, row), strict=True)) for row in values]

    def beats(one: dict, other: dict) -> bool:
        better = [(one[n] - other[n]) * (1 if WAYS[n] == "maximize" else -1) for n in OBJECTIVES]
        return min(better) >= 0 and max(better) > 0

    ways = directed(OBJECTIVES, WAYS)  # type: ignore[arg-type]
    for prefer in ("knee", *OBJECTIVES, list(order), dict(zip(order, (3.0, 1.0, 0.5), strict=True))):
        place = pick(models, ways, prefer, float(tolerance))
        assert place is not None
        assert not any(beats(other, models[place]) for other in models)
        assert pick(models, ways, prefer, float(tolerance), [1.0] * len(models)) is None


# What they are made of


def test_records_are_those_that_the_metrics_come_from(results: Results) -> None:
    best = results.best()
    for stage, images in (("validation", range(120)), ("final", range(120)), ("test", range(5000, 5120))):
        records = results.records(best, stage)  # type: ignore[arg-type]
        own = records[records["set"] == "fashion-mnist-8k"]
        assert list(own["index"]) == list(images)
        assert own["robust_nll"].mean() == best[f"{stage}.robust_nll"]
        assert records.attrs == {"model": best.name, "protocol": results.content[stage]["text"]}
    assert results.records("t000").equals(results.records("t000@1"))
    assert not results.records("baseline").equals(results.records("t000"))


def test_a_comparison_as_tables(results: Results, tmp_path: Path) -> None:
    other = Results(made_up_run(tmp_path, [0.6, 0.7], seed=9, method="carot"))
    both = results.compare(other)
    assert list(both.runs().index) == [results.run.name, other.run.name]
    row = both.content["runs"][1]
    assert both.runs().loc[other.run.name, "gained.high"] == row["gained"]["high"]
    assert list(both.methods().index) == ["carot", "tecoa"]
    models = both.models()
    assert models["joint"].sum() == both.runs()["joint"].sum()
    assert set(OBJECTIVES) < set(models.columns)
    assert f"<td>{other.run.name}</td>" in both._repr_html_()


def test_a_notebook_shows_the_pareto_set(results: Results) -> None:
    shown = results._repr_html_()
    for name, row in results.pareto().iterrows():
        assert f"<td>{name}</td>" in shown
        assert f"{row['final.robust_nll']:.4f}" in shown
    assert "PGD-5 at epsilon 8/255" in shown
    assert repr(results) == (
        f"<Results of {results.run.name}: 6 trials, {len(results.pareto())} models in the Pareto set>"
    )
    assert page("a<b", ["<i>"], [["&"]], ["<script>"]).count("&lt;") == 3


def test_figures_are_plotly_figures_that_notebooks_show_small(results: Results) -> None:
    known = results.figures("front", "reliability", stage="final", models=["baseline", results.best()])  # type: ignore[list-item]
    assert list(known) == ["front", "reliability"]
    shown = DisplayFormatter().format(known["front"])[0]
    assert set(shown) == {"application/vnd.plotly.v1+json", "image/png", "text/plain"}
    assert len(shown["image/png"]) < 80_000
    assert base64.b64decode(shown["image/png"]).startswith(b"\x89PNG")
    assert "PGD-5 at epsilon 8/255" in shown["text/plain"]
    again = copy.deepcopy(known["front"]).update_layout(title="mine")
    assert again.layout.title.text == "mine"
    drawn = {x for trace in again.data if trace.customdata is not None for x in trace.x}
    assert set(results.pareto()["final.clean_accuracy"].round(6)) <= {round(x, 6) for x in drawn}
    assert {"front", "curves", "reliability"} <= set(results.figures())


# Sweeps as dictionaries


@pytest.mark.parametrize("name", ["quickstart", "dirichlet", "compare"])
def test_a_dictionary_makes_the_same_sweep(name: str) -> None:
    sweep = Sweep.from_yaml(f"search_spaces/{name}.yaml", overrides=["trial.epochs=!int [2, 5]"])
    again = Sweep.from_dict(sweep.to_dict())
    assert again.to_dict() == sweep.to_dict()
    assert again.spec.text() == sweep.spec.text()
    assert again.spec.evaluation == sweep.spec.evaluation
    assert sweep.to_dict()["trial"]["epochs"] == {"!int": [2, 5]}


def test_dictionaries_take_profiles_and_overrides() -> None:
    content = {
        "name": "small",
        "trial": {"data": {"train": {"image_folder": Path("images")}}, "method": {"name": "tecoa"}},
        "search": {"trials": 3},
        "profiles": {"long": {"search": {"trials": 30}}},
    }
    assert Sweep.from_dict(content).to_dict()["trial"]["data"] == {"train": {"image_folder": "images"}}
    assert repr(Sweep.from_dict(content)) == "<Sweep small: 3 trials, forest, seed 0>"
    long = Sweep.from_dict(content, "long", ["search.seed=7"])
    assert (long.spec.file.search.trials, long.spec.file.search.seed) == (30, 7)
    assert content["search"] == {"trials": 3}
    with pytest.raises(SpecError) as error:
        Sweep.from_dict({**content, "trial": {**content["trial"], "epochs": {"!int": [3, 1]}}})  # type: ignore[dict-item]
    assert error.value.lines == [
        "dictionary: trial.epochs: !int [3, 1] is reversed or empty; low must be below high"
    ]
    with pytest.raises(SpecError, match="dictionary: no profile 'lon'; did you mean 'long'"):
        Sweep.from_dict(content, "lon")
    with pytest.raises(SpecError, match="expected the keys of a sweep"):
        Sweep.from_dict(["trial"])  # type: ignore[arg-type]
