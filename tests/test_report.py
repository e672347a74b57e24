"""The report, on a small run folder made up here."""

from __future__ import annotations

import html
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest

from sweeper import spec
from sweeper.files import write_json
from sweeper.report import plots, write_report
from sweeper.report.plots import pictures, smooth, spread
from sweeper.report.prepare import (
    diagrams,
    measured,
    number_axis,
    option_axis,
    parallel_axes,
    point,
    words,
)
from sweeper.result import ranked_members
from sweeper.run import Run
from sweeper.search import Suggestion
from sweeper.trial import STAGES, Metrics, epoch_file
from trainables.metrics.calibration import expected_calibration_error, reliability

if TYPE_CHECKING:
    from pathlib import Path

    from sweeper.trial import Status

SWEEP = """
name: tiny
trial:
  attack: {epsilon: !choice [4/255, 8/255]}
  method: !choice
    - {name: tecoa}
    - {name: pmg, alpha: !loguniform [0.1, 10]}
  optimizer: {learning_rate: !loguniform [1e-3, 1e-1]}
  epochs: 2
evaluation: {images: 40}
pareto: {maximize: [robust_accuracy, clean_accuracy], minimize: [robust_ece]}
search: {trials: 4, seed: 7}
"""
IMAGES = 40
HOSTILE = "<script>alert('$x$ & $y$')</script>"


def made_up_records(seed: int) -> pd.DataFrame:
    """Records of two sets, of which the first counts."""
    draw = np.random.default_rng(seed)
    columns: dict[str, Any] = {"set": ["fashion-mnist-8k"] * IMAGES + ["digits"] * IMAGES}
    columns["index"] = [*range(IMAGES)] * 2
    for version, skill in (("clean", 0.5 + 0.4 * draw.random()), ("robust", 0.5 * draw.random())):
        columns[f"{version}_correct"] = draw.random(2 * IMAGES) < skill
        columns[f"{version}_confidence"] = draw.uniform(0.1, 1, 2 * IMAGES)
    columns["broken_by"] = np.where(columns["robust_correct"], "", "PGD-10")
    return pd.DataFrame(columns)


def made_up_metrics(records: pd.DataFrame) -> Metrics:
    first = records[:IMAGES]
    metrics = {}
    for version in ("clean", "robust"):
        correct, confidence = first[f"{version}_correct"], first[f"{version}_confidence"]
        metrics[f"{version}_accuracy"] = float(correct.mean())
        metrics[f"{version}_ece"] = expected_calibration_error(confidence, correct)
    return metrics


@dataclass
class Maker:
    """Fills a run folder as a sweep would."""

    run: Run

    def measure(self, file: Path, seed: int, **more: Any) -> None:
        records = made_up_records(seed)
        file.parent.mkdir(parents=True, exist_ok=True)
        records.to_parquet(file.with_suffix(".parquet"))
        write_json(file, {"metrics": made_up_metrics(records), **more})

    def untrained(self) -> None:
        self.measure(self.run.baseline_file, 1000)

    def trial(
        self, number: int, status: Status | None = "completed", epochs: int = 2, reason: str = ""
    ) -> None:
        method = ("tecoa", "pmg")[number % 2]
        drawn = {"attack.epsilon": ("4/255", "8/255")[number // 2 % 2], "method": method}
        drawn |= {"method.alpha": 0.5 + number} if method == "pmg" else {}
        drawn |= {"optimizer.learning_rate": 0.001 * 1.9 ** (number % 7)}
        config = self.run.spec.trial({"method": {"name": method}, "epochs": 2})
        record = self.run.add_trial(Suggestion(number, config, drawn, seed=number))
        for epoch in range(1, epochs + 1):
            self.measure(record.folder / f"epoch-{epoch:03d}.json", 10 * number + epoch, epoch=epoch)
            epoch_file(record.folder, epoch, "safetensors").touch()
        if status:
            self.run.end_trial(record, status, reason or None)

    def final(self) -> None:
        candidates = [row["id"] for row in self.run.pareto()["candidates"]]
        for index, name in enumerate(["baseline", *candidates]):
            self.measure(self.run.final_file(name, "validation"), 2000 + index)
        members = [row["id"] for row in self.run.pareto()["candidates"] if row["pareto"]]
        for index, name in enumerate(["baseline", *members]):
            self.measure(self.run.final_file(name, "test"), 3000 + index)


def new_run(root: Path, sweep: str = SWEEP) -> Maker:
    about = {"seed": 7, "versions": {"python": "3.11", "ray": "2.60.0"}}
    return Maker(Run.create(root, spec.from_text(sweep, "tiny.yaml"), about))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Run:
    maker = new_run(tmp_path_factory.mktemp("runs"))
    maker.untrained()
    for number in range(4):
        maker.trial(number)
    maker.final()
    return maker.run


@pytest.fixture(scope="module")
def page(finished: Run) -> str:
    """The report of the finished run, written over an older one."""
    (finished.path / "report").mkdir()
    (finished.path / "report" / "t099-reliability.png").touch()
    return report(finished)


def report(run: Run) -> str:
    return write_report(run).read_text(encoding="utf-8")


def rows_of(page: str, table: str) -> dict[str, list[str]]:
    """The cells of a table of the page by their row's first one."""
    body = re.search(rf'<table id="{table}">.*?<tbody>(.*?)</tbody>', page, re.DOTALL)
    assert body
    rows = [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in re.findall(r"<tr.*?</tr>", body[1], re.DOTALL)]
    return {row[0]: [html.unescape(cell) for cell in row[1:]] for row in rows}


def pictures_of(run: Run) -> set[str]:
    files = list((run.path / "report").glob("*.png"))
    assert all(file.stat().st_size > 5_000 for file in files)
    return {file.name for file in files}


def test_page_needs_nothing_but_itself(page: str) -> None:
    targets = re.findall(r"(?:src|href)\s*=\s*[\"']([^\"']*)", page) + re.findall(r"url\((.*?)\)", page)
    assert targets
    assert all(target.startswith("data:") for target in targets)
    assert page.count("data:image/png;base64,") == 4
    assert "http" not in re.sub(r"data:image/png;base64,[^\"]*", "", page)


def test_page_has_the_numbers_of_the_result(finished: Run, page: str) -> None:
    content = finished.pareto()
    names = [*content["maximize"], *content["minimize"]]
    trials, pareto = rows_of(page, "trials"), rows_of(page, "pareto")
    assert list(trials) == [row["id"] for row in content["trials"]]
    for row in content["trials"]:
        assert trials[row["id"]][3:6] == [f"{row['validation'][name]:.4f}" for name in names]
    members = [row for row in content["candidates"] if row["pareto"]]
    assert set(pareto) == {"baseline", *(row["id"] for row in members)}
    for row in [content["baseline"], *members]:
        numbers = [f"{row[stage][name]:.4f}" for stage in STAGES for name in names]
        assert pareto[row["id"]][1:10] == numbers


def test_page_says_what_the_numbers_are(finished: Run, page: str) -> None:
    text = html.unescape(page)
    said = "PGD-10 at epsilon 8/255, pixels of native size, ECE with 15 equal-width bins"
    assert f"validation images (40 of each set), {said}" in text
    assert "sweeper run sweep.yaml" in text
    assert (finished.path / "sweep.yaml").read_text() in text
    assert "ray 2.60.0" in text
    assert "not finished" not in text


@pytest.mark.usefixtures("page")
def test_pictures_lie_beside_the_page(finished: Run) -> None:
    members = {f"{row['id']}-reliability.png" for row in ranked_members(finished.pareto())}
    assert members
    assert pictures_of(finished) == members | {"front.png", "parallel.png", "reliability.png", "curves.png"}


def test_names_are_escaped(tmp_path: Path) -> None:
    maker = new_run(tmp_path, SWEEP.replace("epochs: 2", f'epochs: 2\n  data: {{prompt: "{HOSTILE} {{}}"}}'))
    maker.untrained()
    maker.trial(0, "failed", 1, HOSTILE)
    maker.trial(1)
    config = maker.run.trial_folder(1) / "config.json"
    config.write_text(config.read_text().replace('"8/255"', '"<b>8</b>"').replace('"4/255"', f'"{HOSTILE}"'))
    page = report(maker.run)
    assert "<script" not in page
    assert page.count(html.escape(HOSTILE).replace("&#x27;", "&#39;")) >= 3


@pytest.mark.parametrize("untrained", [False, True])
def test_run_that_has_just_begun(tmp_path: Path, untrained: bool) -> None:
    maker = new_run(tmp_path)
    if untrained:
        maker.untrained()
    page = report(maker.run)
    assert "not finished" in page
    assert ("not been measured" in page) is not untrained
    assert pictures_of(maker.run) == ({"reliability.png"} if untrained else set())


def test_unfinished_run(tmp_path: Path) -> None:
    maker = new_run(tmp_path)
    maker.untrained()
    maker.trial(0)
    maker.trial(1, status=None, epochs=1)
    maker.trial(2, status=None, epochs=0)
    page = report(maker.run)
    assert "1 of 4 have ended" in page
    trials = rows_of(page, "trials")
    assert [cells[1] for cells in trials.values()] == ["completed", "unfinished", "unfinished"]
    assert trials["t002"][3:6] == ["-", "-", "-"]
    members = {row["id"] for row in maker.run.pareto()["candidates"]}
    assert {name.partition("@")[0] for name in members} == {"t000"}
    rows = rows_of(page, "pareto")
    assert set(rows) == {"baseline", *members}
    assert all(rows[name][4:10] == ["-"] * 6 for name in members)
    assert {f"{name}-reliability.png" for name in members} <= pictures_of(maker.run)


def test_failed_and_stopped_trials(tmp_path: Path) -> None:
    maker = new_run(tmp_path)
    maker.untrained()
    maker.trial(0, "failed", 0, "loss is not finite")
    maker.trial(1, "stopped", 1, "stopped early after epoch 1")
    page = report(maker.run)
    assert rows_of(page, "trials")["t000"][1] == "failed: loss is not finite"
    assert set(rows_of(page, "pareto")) == {"baseline", "t001@1"}
    assert [row["id"] for row in measured(maker.run.pareto())] == ["t001"]
    pictures = {"front.png", "parallel.png", "reliability.png", "curves.png"}
    assert pictures_of(maker.run) == {*pictures, "t001@1-reliability.png"}


def test_only_failed_trials(tmp_path: Path) -> None:
    maker = new_run(tmp_path)
    maker.trial(0, "failed", 0, "out of memory")
    assert "out of memory" in report(maker.run)
    assert pictures_of(maker.run) == set()


@pytest.mark.parametrize(
    "pareto",
    [
        "{maximize: [robust_accuracy], minimize: []}",
        "{maximize: [], minimize: [robust_ece]}",
        "{maximize: [robust_accuracy], minimize: [robust_ece]}",
        "{maximize: [robust_accuracy, clean_accuracy], minimize: [robust_ece, clean_ece]}",
    ],
)
def test_any_number_of_objectives(tmp_path: Path, pareto: str) -> None:
    maker = new_run(tmp_path, re.sub(r"pareto: .*", f"pareto: {pareto}", SWEEP))
    maker.untrained()
    maker.trial(0)
    drawn = list(pictures(maker.run, maker.run.pareto()))
    assert [picture.file for picture in drawn] == [
        "front.png",
        "parallel.png",
        "reliability.png",
        "curves.png",
    ]


def test_reliability_is_that_of_the_metrics(finished: Run) -> None:
    trial = finished.trial(1)
    of = diagrams("t001 pmg", "pmg", trial.point().records)
    records = pd.read_parquet(trial.point().records)[:IMAGES]
    assert (of.set, of.images) == ("fashion-mnist-8k", IMAGES)
    for version, diagram in of.versions.items():
        expected = reliability(records[f"{version}_confidence"], records[f"{version}_correct"])
        np.testing.assert_array_equal(diagram.count, expected[0])
        np.testing.assert_array_equal(diagram.confidence, expected[1])
        np.testing.assert_array_equal(diagram.accuracy, expected[2])
        assert diagram.ece == (trial.metrics or {})[f"{version}_ece"]
        gaps = diagram.shares * np.abs(diagram.accuracy - diagram.confidence)
        assert gaps.sum() == pytest.approx(diagram.ece)


def test_large_front_is_cut_and_says_so(finished: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plots, "SHOWN_MEMBERS", 1)
    content = finished.pareto()
    members = ranked_members(content)
    assert len(members) > 1
    drawn = plots.reliability_picture(finished, content, plots.Look.of(content))
    assert f"the first 1 of {len(members)} members of the Pareto set by robust accuracy" in drawn.title
    titles = [axes.get_title(loc="left") or axes.get_title() for axes in drawn.figure.axes]
    shown = {title.split(",")[0] for title in titles if title}
    assert shown == {"untrained", f"{members[0]['id']} {members[0]['method']}"}
    ece = members[0]["validation"]["robust_ece"]
    assert any(f"attacked\nECE {ece:.4f}, n = {IMAGES}" in title for title in titles)


def test_point_of_the_front() -> None:
    metrics = {"a": 0.1, "b": 0.2, "c": 0.3}
    three = point({"maximize": ["a", "b"], "minimize": ["c"]}, metrics, 5)
    assert (three.y, three.x, three.shade) == (0.1, 0.2, 0.3)
    one = point({"maximize": ["a"], "minimize": []}, metrics, 5)
    assert (one.y, one.x, one.shade) == (0.1, 5, None)


def test_members_are_ranked_best_first() -> None:
    rows = [{"id": str(v), "pareto": v < 3, "validation": {"m": v}, "final": None} for v in (1, 2, 0, 3)]
    up = ranked_members({"maximize": ["m"], "minimize": [], "candidates": rows})
    down = ranked_members({"maximize": [], "minimize": ["m"], "candidates": rows})
    assert [row["id"] for row in up] == ["2", "1", "0"]
    assert [row["id"] for row in down] == ["0", "1", "2"]


def test_parallel_axes_are_the_common_settings_and_the_metrics(finished: Run) -> None:
    content = finished.pareto()
    axes = parallel_axes(content, measured(content))
    labels = [axis.label.split("\n")[0] for axis in axes]
    assert labels == ["attack", "method", "optimizer", "robust accuracy", "clean accuracy", "robust ECE"]
    robust_ece = [row["validation"]["robust_ece"] for row in content["trials"]]
    assert np.argmax(axes[-1].heights) == np.argmin(robust_ece)
    assert all(0 <= height <= 1 for axis in axes for height in [*axis.heights, *axis.ticks.values()])


def test_axes_of_numbers_and_options() -> None:
    log = number_axis("rate", [0.001, 0.01, 0.1], log=True)
    assert log.heights == pytest.approx([0, 0.5, 1])
    assert log.ticks["0.01"] == pytest.approx(0.5)
    assert number_axis("one", [3.0]).heights == [0.5]
    assert list(option_axis("epsilon", ["16/255", "8/255", "8/255"]).ticks) == ["8/255", "16/255"]
    assert list(option_axis("method", ["tecoa", "pmg"]).ticks) == ["pmg", "tecoa"]


def test_lines_and_labels() -> None:
    x, y = smooth([0.0, 1.0, 0.5])
    assert y[np.isin(x, [0, 1, 2])] == pytest.approx([0, 1, 0.5])
    assert smooth([0.3])[1] == pytest.approx([0.3])
    assert spread({"a": 0.5, "b": 0.5, "c": 0.1}, 0.2) == pytest.approx({"c": 0.1, "a": 0.5, "b": 0.7})
    assert words("transfer.robust_ece") == "transfer.robust ECE"
