"""Runs beside each other: which ones can be compared, and what is said of them."""

from __future__ import annotations

import csv
import io
import itertools
import json
import math
import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from sweeper import Comparison
from sweeper import compare as comparison
from sweeper.cli import main
from sweeper.compare import compare
from sweeper.errors import UserError
from sweeper.report.chart import Lines, Points
from sweeper.report.joint import charts
from sweeper.run import Run
from tests.browser import browser, page  # noqa: F401
from tests.made_up import made_up_run

if TYPE_CHECKING:
    from playwright.sync_api import Page

OBJECTIVES = ("robust_accuracy", "clean_accuracy", "robust_nll")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs `one` and `two`, of one configuration in common."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sweeper.optimality.DRAWS", 20)  # P(optimal) is not what is looked at here
        made_up_run(folder, [0.4, 0.6, 0.66, 0.7], name="one", seed=1)
        made_up_run(folder, [0.69, 0.7, 0.67], name="two", seed=2, method="carot")
        made_up_run(folder, [0.7, 0.68], name="three", seed=3)
        made_up_run(folder, [0.6, 0.7], name="bounded", seed=4, overrides=[
            'pareto.subject_to={clean_accuracy: ">= 1.5 * baseline"}'])  # fmt: skip
        made_up_run(folder, [0.6], name="weaker", overrides=["final.attack.steps=4"])
        made_up_run(folder, [0.6], name="fewer", overrides=["pareto.minimize=[]"])
        made_up_run(folder, [0.6], name="elsewhere", digest="of other images")
    return folder


def runs(root: Path, *names: str) -> list[Run]:
    return [Run.find(next(root.glob(f"{name}-*")).name, root) for name in names]


@pytest.fixture(scope="module")
def content(root: Path) -> dict:
    return compare(runs(root, "one", "two", "three"))


def measured(content: dict) -> tuple[np.ndarray, np.ndarray]:
    """Values and letters of all models."""
    models = content["models"]
    values = np.array([[row["metrics"][name] for name in OBJECTIVES] for row in models])
    return values, np.array([row["run"] for row in models])


def beats(one: np.ndarray, other: np.ndarray) -> bool:
    """The first two are to be maximized, the third to be minimized."""
    signed = (one - other) * [1, 1, -1]
    return bool((signed >= 0).all() and (signed > 0).any())


def test_the_models_are_the_candidates_as_final_measured_them(root: Path, content: dict) -> None:
    assert content["stage"] == "final"
    assert content["protocol"].startswith(
        "validation images (at most 120 of each set), PGD-5 at epsilon 8/255"
    )
    for letter, run in zip("ABC", runs(root, "one", "two", "three"), strict=True):
        for row in run.pareto()["candidates"]:
            model = next(m for m in content["models"] if (m["run"], m["id"]) == (letter, row["id"]))
            assert model["metrics"] == {name: row["final"][name] for name in OBJECTIVES}
            records = pd.read_parquet(run.final_file(row["id"], "validation").with_suffix(".parquet"))
            own = records[records["set"] == "fashion-mnist-8k"]
            assert model["metrics"]["robust_nll"] == own["robust_nll"].mean()
    assert len(content["models"]) == sum(row["models"] for row in content["runs"])


def test_the_joint_front_and_who_contributes_what(content: dict) -> None:
    values, letters = measured(content)
    joint = [not any(beats(other, model) for other in values) for model in values]
    assert [row["joint"] for row in content["models"]] == joint
    for row in content["runs"]:
        assert row["joint"] == sum(np.array(joint)[letters == row["letter"]])
        assert row["share"] == row["joint"] / sum(joint)
    for row in content["methods"]:
        of_method = [model["joint"] for model in content["models"] if model["method"] == row["method"]]
        assert (row["models"], row["joint"]) == (len(of_method), sum(of_method))


def test_hypervolumes_are_those_of_random_points(content: dict) -> None:
    """The share of uniform points between the reference and the best of each objective that are dominated."""
    values, letters = measured(content)
    reference = np.array([content["reference"][name] for name in OBJECTIVES])
    best = np.array([values[:, 0].max(), values[:, 1].max(), values[:, 2].min()])
    points = reference + np.random.default_rng(0).random((200_000, 3)) * (best - reference)
    box = float(np.abs(best - reference).prod())
    hit = np.array([((value - points) * [1, 1, -1] >= 0).all(axis=1) for value in values])
    tolerance = 5 * box / np.sqrt(4 * len(points))
    assert content["hypervolume"]["value"] == pytest.approx(box * hit.any(axis=0).mean(), abs=tolerance)
    for row in content["runs"]:
        own = letters == row["letter"]
        assert row["hypervolume"]["value"] == pytest.approx(box * hit[own].any(axis=0).mean(), abs=tolerance)
        gained = hit.any(axis=0).mean() - hit[~own].any(axis=0).mean()
        assert row["gained"]["value"] == pytest.approx(box * gained, abs=tolerance)
        part = row["gained"]["value"] / content["hypervolume"]["value"]
        assert row["gained_share"]["value"] == pytest.approx(part)


def test_the_reference_is_the_worst_there_is_and_a_tenth_beyond(root: Path, content: dict) -> None:
    """Of the joint front and the untrained models."""
    values = measured(content)[0][[row["joint"] for row in content["models"]]]
    untrained = [run.baseline("final") or {} for run in runs(root, "one", "two", "three")]
    values = np.vstack([values, [[each[name] for name in OBJECTIVES] for each in untrained]])
    worst, best = values.min(axis=0), values.max(axis=0)
    worst[2], best[2] = best[2], worst[2]
    assert list(content["reference"].values()) == pytest.approx(worst + 0.1 * (worst - best))


def test_intervals_hold_what_was_measured(content: dict) -> None:
    for row in content["runs"]:
        for of in (row["hypervolume"], row["gained"], row["gained_share"]):
            assert 0 <= of["low"] <= of["high"]
        assert row["hypervolume"]["low"] < row["hypervolume"]["value"] < row["hypervolume"]["high"]
    for row in content["models"]:
        assert 0 <= row["probability"] <= 1
    certain = [row["joint"] for row in content["models"] if row["probability"] > 0.95]
    assert all(certain)
    assert (
        "1000 samples of the validation images (seed 0), which are the same for all" in content["intervals"]
    )


def test_the_order_of_the_runs_does_not_matter(root: Path, content: dict) -> None:
    turned = compare(runs(root, "three", "one", "two"))
    assert turned["hypervolume"] == pytest.approx(content["hypervolume"])
    assert turned["reference"] == content["reference"]
    by_name = {row["run"]: row for row in turned["runs"]}
    for row in content["runs"]:
        for key in ("models", "joint", "hypervolume", "gained", "gained_share"):
            assert by_name[row["run"]][key] == pytest.approx(row[key])


def test_models_of_the_same_configuration_are_named(tmp_path: Path) -> None:
    one, other = (made_up_run(tmp_path, [0.5], name=name, seed=5) for name in ("this", "that"))
    found = compare([one, other])
    assert [row["same"] for row in found["models"]] == [["B t000@1"], ["A t000@1"]]
    assert [row["gained"]["value"] for row in found["runs"]] == [0, 0]
    assert [row["share"] for row in found["runs"]] == [0.5, 0.5]
    assert list(comparison.explanations(found))[-1] == "The same configuration: A t000@1 and B t000@1."


def test_constraints_of_all_runs_hold_for_all(root: Path) -> None:
    found = compare(runs(root, "one", "bounded"))
    assert found["subject_to"] == ["clean_accuracy >= 1.5 * baseline"]
    assert found["notes"] == [
        "A did not search subject to clean_accuracy >= 1.5 * baseline: those of its models count that hold "
        "it, and others that do may not be on its front."
    ]
    both = dict(zip("AB", runs(root, "one", "bounded"), strict=True))
    for row in found["models"]:
        untrained = both[row["run"]].baseline("final") or {}
        assert row["holds"] == (row["metrics"]["clean_accuracy"] >= 1.5 * untrained["clean_accuracy"])
        assert row["holds"] or not row["joint"]
    assert not all(row["holds"] for row in found["models"])


def test_without_records_there_are_no_intervals(tmp_path: Path) -> None:
    made = [made_up_run(tmp_path, [0.5, 0.6], name=name, seed=seed) for seed, name in enumerate(("a", "b"))]
    gone = next((made[1].path / "final" / "validation").glob("t*@1.parquet"))
    gone.unlink()
    found = compare(made)
    assert found["intervals"] == f"There are no intervals, as {gone} is not there."
    assert found["runs"][0]["gained"]["low"] is None
    assert found["models"][0]["probability"] is None
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def refused(root: Path, *arguments: str) -> str:
    """What the command complains of, in a line."""
    names = [next(root.glob(f"{each}-*")).name if each[0] != "-" else each for each in arguments[:2]]
    done = CliRunner().invoke(main, ["compare", *names, *arguments[2:], "--runs", str(root)])
    assert done.exit_code == 2, done.output
    assert done.output.count("\n") == 1
    return re.sub(r"-\d{8}-\d{6}", "", done.output)


def test_what_was_not_measured_alike_is_one_line(root: Path) -> None:
    assert refused(root, "one", "weaker") == (
        "robust_accuracy was not measured alike: final.attack.steps is 5 in one and 4 in weaker; "
        "compare by --metrics clean_accuracy\n"
    )
    assert refused(root, "one", "weaker", "--metrics", "robust_accuracy") == (
        "robust_accuracy was not measured alike: final.attack.steps is 5 in one and 4 in weaker; "
        "compare by --stage search\n"
    )
    line = refused(root, "one", "elsewhere")
    assert "images.fashion-mnist-8k.digest is validation in one and of other images in elsewhere; `" in line
    assert refused(root, "one", "fewer") == (
        "one has the objectives maximize robust_accuracy, maximize clean_accuracy, minimize robust_nll, fewer"
        " maximize robust_accuracy, maximize clean_accuracy; choose with --metrics robust_accuracy,"
        "clean_accuracy\n"
    )
    assert "are the same run; name another one" in refused(root, "one", "one")
    assert "did you mean 'clean_accuracy'?" in refused(root, "one", "two", "--metrics", "clean_acuracy")
    assert "say 'maximize clean_brier' or 'minimize clean_brier'" in refused(
        root, "one", "two", "--metrics", "clean_brier"
    )
    assert "no metric 'clean_brir' was measured of all these models; did you mean 'clean_brier'?" in refused(
        root, "one", "two", "--metrics", "minimize clean_brir"
    )
    assert "a comparison needs two runs or more" in refused(root, "one", "--json")


def test_what_differs_and_does_not_matter_is_compared(root: Path) -> None:
    by = compare(runs(root, "one", "weaker"), ["clean_accuracy", "minimize clean_nll"])
    assert (by["maximize"], by["minimize"]) == (["clean_accuracy"], ["clean_nll"])
    assert compare(runs(root, "one", "weaker"), stage="validation")["stage"] == "validation"
    on_test = compare(runs(root, "one", "two"), stage="test")
    assert on_test["protocol"].startswith("test images")
    assert {row["id"] for row in on_test["models"] if row["run"] == "A"} == {
        row["id"] for row in runs(root, "one")[0].pareto()["candidates"] if row["pareto"]
    }


def test_a_run_under_way_is_compared_as_the_search_sees_it(tmp_path: Path) -> None:
    made = [made_up_run(tmp_path, [0.5, 0.6], name=name, seed=seed) for seed, name in enumerate(("a", "b"))]
    under_way = made[1]
    (under_way.path / "pareto.json").unlink()
    for file in under_way.path.glob("final/*/t*.json"):
        file.unlink()
    assert compare(made)["stage"] == "validation"
    with pytest.raises(UserError, match="has no model that was measured in the stage 'final' yet; go on"):
        compare(made, stage="final")
    for trial in under_way.trials():
        under_way.end_trial(trial, "failed")
    with pytest.raises(UserError, match="has no front yet; go on with it: sweeper resume"):
        compare(made)


def test_the_command_says_it_as_table_json_and_csv(root: Path, content: dict) -> None:
    names = [run.name for run in runs(root, "one", "two", "three")]

    def said(*options: str) -> str:
        done = CliRunner().invoke(main, ["compare", *names, *options, "--runs", str(root)])
        assert done.exit_code == 0, done.output
        return done.output

    assert json.loads(said("--json")) == content
    rows = list(csv.DictReader(io.StringIO(said("--csv"))))
    assert len(rows) == len(content["models"])
    for row, model in zip(rows, content["models"], strict=True):
        assert row["id"] == model["id"]
        assert {name: float(row[name]) for name in OBJECTIVES} == model["metrics"]
        assert (row["joint"] == "True") == model["joint"]
    table = said()
    assert max(map(len, table.splitlines())) <= 80
    assert f"Joint front of 3 runs: {sum(row['joint'] for row in content['models'])} of" in table
    for row in content["runs"]:
        assert f"{row['letter']}: {row['run']}, {row['trials']} trials" in table
        assert f"{row['gained_share']['value']:.0%}".replace("%", " %") in table
    for row in content["models"]:
        assert (f"{row['run']} {row['id']}" in table) == row["joint"]
    assert "Hypervolume: what models dominate, up to" in table


def test_a_comparison_writes_nothing_into_the_runs(root: Path) -> None:
    before = {file: file.stat().st_mtime_ns for file in root.rglob("*") if file.is_file()}
    compare(runs(root, "one", "two"))
    assert {file: file.stat().st_mtime_ns for file in root.rglob("*") if file.is_file()} == before


# Figures


def test_the_figures_show_the_numbers(content: dict) -> None:
    front, solid, contributions = charts(content)
    assert len(front.panels) == 3
    for panel, (up, right) in zip(front.panels, itertools.combinations(OBJECTIVES, 2), strict=True):
        drawn = {
            (x, y)
            for mark in panel.marks
            if isinstance(mark, Points)
            for x, y in zip(mark.x, mark.y, strict=True)
            if not math.isnan(x)
        }
        assert drawn == {(row["metrics"][right], row["metrics"][up]) for row in content["models"]}
    assert solid.scene is not None
    heights = [height for cloud in solid.scene.clouds for height in cloud.z]
    assert sorted(heights) == sorted(row["metrics"]["robust_accuracy"] for row in content["models"])
    for panel, key in zip(contributions.panels, ("hypervolume_share", "gained_share"), strict=True):
        rows = [*content["runs"], *content["methods"]]
        values = [mark.x[0] for mark in panel.marks if isinstance(mark, Points)]
        assert values == [row[key]["value"] for row in rows]


def test_of_two_objectives_a_line_shows_what_a_run_attains(root: Path) -> None:
    two = compare(runs(root, "one", "two"), OBJECTIVES[:2])
    front, contributions = charts(two)
    assert contributions.name == "contributions"
    for line in (mark for mark in front.panels[0].marks if isinstance(mark, Lines)):
        ((x, y),) = line.paths
        assert list(x) == sorted(x, reverse=True)
        assert list(y) == sorted(y)


def test_the_joint_front_as_a_file_for_papers(root: Path, tmp_path: Path) -> None:
    names = [run.name for run in runs(root, "one", "two")]
    file = tmp_path / "figures" / "joint.pdf"
    done = CliRunner().invoke(main, ["compare", *names, "--runs", str(root), "--to", str(file)])
    assert done.output.endswith(f"written to {file}\n")
    assert file.read_bytes().startswith(b"%PDF")
    assert ".html, .png, .pdf, .svg" in refused(root, "one", "two", "--to", "joint.jpg")


@pytest.mark.browser
def test_the_page_in_a_browser(content: dict, tmp_path: Path, page: Page) -> None:  # noqa: F811
    file = Comparison(content).write(tmp_path / "comparison.html")
    assert file.stat().st_size < 3_000_000
    page.goto(file.as_uri())
    page.wait_for_selector("body[data-ready]")
    for chart in charts(content):
        page.locator(f"#figure-{chart.name}").scroll_into_view_if_needed()
        page.wait_for_selector(f"#figure-{chart.name} .js-plotly-plot")
    cells = page.locator("#models tbody tr").evaluate_all(
        "rows => rows.map(row => row.cells[5].dataset.value)"
    )
    assert [float(cell) for cell in cells] == [row["metrics"]["robust_accuracy"] for row in content["models"]]
    page.locator("#models thead th").nth(5).locator("button").click()
    first = page.locator("#models tbody tr").first.locator("td").nth(5)
    assert float(first.get_attribute("data-value") or "") == min(map(float, cells))
    shown = page.locator("#runs tbody tr").all_inner_texts()
    for row, text in zip(content["runs"], shown, strict=True):
        assert row["run"] in text
        assert f"{row['gained_share']['value'] * 100:.0f} %" in text
    with page.expect_download() as download:
        page.get_by_text("Download CSV").click()
    assert download.value.suggested_filename == "comparison-models.csv"
