"""Leaderboards: what stands beside what, ranks with ties within noise, results of others, and all forms."""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from rich.console import Console

from sweeper import foreign
from sweeper.cli import main
from sweeper.files import read_json, write_json
from sweeper.leaderboard import leaderboard
from sweeper.measured import find, of_file
from sweeper.ranks import rank_intervals
from sweeper.report.leaderboard import latex, markdown, to_csv
from sweeper.report.leaderboard import page as page_of
from sweeper.run import Run
from sweeper.standing import tables
from tests.browser import browser, page  # noqa: F401
from tests.finished import finished_run
from tests.made_up import made_up_run
from tests.records import class_bins, records
from trainables.evaluate import Evaluation
from trainables.metrics.comparison import resampled
from trainables.metrics.intervals import wilson
from trainables.metrics.names import BENCHMARK_METRICS, of_one_set
from trainables.metrics.resampling import resample

if TYPE_CHECKING:
    from playwright.sync_api import Page

DRAWS = 300
SETS = {"fashion-mnist-8k": 200, "digits": 100, "letters": 100}
SHOW = ["clean_accuracy", "robust_accuracy", "clean_ece_class_wise", "clean_entropy"]
SUITE = {"name": "written", "about": "Digits & letters?", "sets": ["digits", "letters"], "show": SHOW}
ROBUSTBENCH = {  # the keys and kinds of values of RobustBench's model_info/cifar10/Linf/*.json
    "link": "https://example.org",
    "name": "A title of a publication",
    "authors": "A. Nobody",
    "additional_data": True,
    "number_forward_passes": 2,
    "dataset": "fashion-mnist-8k",
    "venue": "None",
    "architecture": "WideResNet-94-16",
    "eps": "8/255",
    "clean_acc": "95.19",
    "reported": "69.71",
    "autoattack_acc": "70.08",
    "external": "69.71",
    "unreliable": False,
}
CLIP_BENCHMARK = {  # as its `eval` dumps it
    "dataset": "wds/digits",
    "model": "ViT-B-32",
    "pretrained": "openai",
    "task": "zeroshot_classification",
    "metrics": {"acc1": 0.54636, "acc5": 0.72856, "mean_per_class_recall": 0.54522},
    "language": "en",
}


@pytest.fixture(autouse=True, scope="module")
def _few_draws() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sweeper.leaderboard.DRAWS", DRAWS)
        yield


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 1)


def sweeper(*arguments: Any, code: int = 0) -> str:
    result = CliRunner().invoke(main, [str(each) for each in arguments])
    assert result.exit_code == code, result.output
    return result.output


def measurement(
    folder: Path,
    name: str,
    seed: int,
    skill: float = 0.6,
    *,
    attack: dict[str, Any] | None = None,
    about: dict[str, Any] | None = None,
    split: str = "test",
    stamp: str = "20261124-142522-000000",
) -> Path:
    """A result of `sweeper evaluate NAME --suite written`, from made-up records."""
    made = records(seed, SETS, skill=skill)
    made = made.drop(columns=[column for column in made if column.startswith("confidence_")])
    made["groups"] = made["set"].map({"fashion-mnist-8k": ""}).fillna("written")
    made["split"] = split
    evaluation = Evaluation(made, class_bins(SETS))
    file = folder / f"{name}-{split}-{stamp}.json"
    folder.mkdir(parents=True, exist_ok=True)
    evaluation.save(file.with_suffix(".parquet"))
    sets = [
        {"set": of, "images": images, "classes": 3, "size": [28, 28], "digest": "a", "altered": None}
        | {"groups": ["written"] if index else []}
        | (about or {})
        for index, (of, images) in enumerate(SETS.items())
    ]
    ball = {"norm": "linf", "epsilon": "4/255", "steps": 10} | (attack or {})
    how = {"attack": ball, "further_attacks": [], "confidence_attack": None, "suites": [SUITE], "seed": 0}
    how |= {"precision": "float32", "images": None}
    model = {"model": {"name": name, "pretrained": None}, "evaluation": how, "weights": None}
    write_json(file, {"split": split, "measurement": model, **evaluation.report(), "sets": sets})
    return file


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models of which the first two are equal."""
    folder = tmp_path_factory.mktemp("board") / "records"
    for name, seed, skill in (("one", 1, 0.6), ("twin", 1, 0.6), ("best_&_50%", 2, 0.95), ("worst", 3, 0.1)):
        measurement(folder, name, seed, skill)
    return folder.parent


def content_of(*places: Path | str, **options: Any) -> dict[str, Any]:
    return leaderboard(find([str(place) for place in places], "runs", options.pop("split", None)), **options)


@pytest.fixture(scope="module")
def content(board: Path) -> dict[str, Any]:
    return content_of(board)


def suite_of(content: dict[str, Any], name: str) -> dict[str, Any]:
    return next(suite for suite in content["suites"] if suite["suite"] == name)


def cells_of(content: dict[str, Any], suite: str, metric: str) -> dict[str, dict[str, Any]]:
    """By model."""
    found = suite_of(content, suite)
    place = [column["metric"] for column in found["columns"]].index(metric)
    return {row["model"]: row["cells"][place] for row in found["rows"]}


# Ranks


def simulated(generator: np.random.Generator, skills: np.ndarray, images: int) -> tuple[Any, Any]:
    """Accuracies, as costs, of models that find the same images difficult; and draws."""
    difficulty = np.sqrt(0.5) * generator.normal(size=(images, 1))
    own = np.sqrt(0.5) * generator.normal(size=(images, len(skills)))
    wrong = (difficulty + own > skills).astype(float)
    weights = resampled(generator, 300, images)
    return wrong.mean(axis=0), weights @ wrong / images


@pytest.mark.parametrize(
    "skills", [[0.0] * 5, [0.6, 0.5, 0.4, 0.1, 0.0], [0.5, 0.5, 0.5, 0.0, 0.0, 0.0]], ids=str
)
def test_all_true_ranks_of_a_table_are_inside_with_95_percent(skills: list[float]) -> None:
    generator, known = np.random.default_rng(0), np.array(skills)
    first, last = 1 + (known > known[:, None]).sum(axis=1), (known >= known[:, None]).sum(axis=1)
    found = np.array([rank_intervals(*simulated(generator, known, 200)) for _ in range(200)])
    inside = (found[:, :, 0] <= first) & (found[:, :, 1] >= last)  # of equal models all ranks that they share
    assert inside.all(axis=1).mean() >= 0.95 - 2 * np.sqrt(0.95 * 0.05 / 200)  # what 200 tables can tell
    assert inside.mean() >= 0.95


def test_the_formula_is_that_of_simultaneous_intervals_of_all_pairs() -> None:
    """Computed here pair by pair."""
    generator = np.random.default_rng(1)
    costs, draws = simulated(generator, np.array([1.0, 0.6, 0.5, 0.5, 0.0]), 150)
    pairs = [(i, j) for i in range(5) for j in range(5) if i != j]
    noise = {(i, j): draws[:, i] - draws[:, j] - np.mean(draws[:, i] - draws[:, j]) for i, j in pairs}
    bound = np.quantile([max(abs(noise[p][d]) / np.std(noise[p]) for p in pairs) for d in range(300)], 0.95)
    differs = {(i, j): costs[i] - costs[j] > bound * np.std(noise[i, j]) for i, j in pairs}
    for model, (first, last) in enumerate(rank_intervals(costs, draws).tolist()):
        others = [other for other in range(5) if other != model]
        assert first == 1 + sum(differs[model, other] for other in others)
        assert last == 5 - sum(differs[other, model] for other in others)


def test_what_differs_by_rounding_is_a_tie_and_what_never_varies_is_none() -> None:
    generator = np.random.default_rng(2)
    draws = generator.normal(0.3, 0.01, (500, 1)) + np.array([0.0, 1e-8, -1e-8])
    assert rank_intervals([0.3, 0.3 + 1e-8, 0.3 - 1e-8], draws).tolist() == [[1, 3]] * 3
    assert rank_intervals([0.0, 1.0], np.tile([0.0, 1.0], (50, 1))).tolist() == [[1, 1], [2, 2]]
    assert rank_intervals([0.5], np.full((50, 1), 0.5)).tolist() == [[1, 1]]


def test_equal_models_tie_and_a_better_one_is_first(content: dict[str, Any]) -> None:
    for suite, prefix in (("fashion-mnist-8k", ""), ("written", "written.")):
        cells = cells_of(content, suite, f"{prefix}clean_accuracy")
        ranks = {model: cell["rank"] for model, cell in cells.items()}
        assert ranks == {"best_&_50%": [1, 1], "one": [2, 3], "twin": [2, 3], "worst": [4, 4]}
        assert [model for model, cell in cells.items() if cell["best"]] == ["best_&_50%"]
        assert next(iter(ranks)) == "best_&_50%"
        assert list(ranks)[-1] == "worst"


# Values


def test_values_and_intervals_are_those_measured(board: Path, content: dict[str, Any]) -> None:
    for file in (board / "records").glob("*.json"):
        result = read_json(file)
        name = result["measurement"]["model"]["name"]
        cell = cells_of(content, "fashion-mnist-8k", "clean_accuracy")[name]
        assert cell["value"] == result["metrics"]["clean_accuracy"]
        assert [cell["low"], cell["high"]] == result["intervals"]["clean_accuracy"]
        own = pd.read_parquet(file.with_suffix(".parquet"))
        means = own[own["groups"] == "written"].groupby("set")["clean_correct"].mean()
        cell = cells_of(content, "written", "written.clean_accuracy")[name]
        assert cell["value"] == pytest.approx(means.mean())
        error = np.sqrt((means * (1 - means) / 100).sum()) / 2  # of a mean over two sets
        assert (cell["high"] - cell["low"]) / 2 == pytest.approx(1.96 * error, rel=0.15)
        assert cell["low"] < cell["value"] < cell["high"]


def test_what_cannot_be_resampled_or_has_no_better_end_has_no_rank(
    board: Path, content: dict[str, Any]
) -> None:
    columns = {column["name"]: column for column in suite_of(content, "written")["columns"]}
    assert "can't be resampled" in columns["clean_ece_class_wise"]["unranked"]
    assert "neither more nor less" in columns["clean_entropy"]["unranked"]
    for metric in ("clean_ece_class_wise", "clean_entropy"):
        cells = cells_of(content, "written", f"written.{metric}").values()
        assert [cell["rank"] for cell in cells] == [None] * 4
    directed = content_of(board, metrics=["minimize clean_entropy"], suites=["written"])
    assert [column["better"] for column in directed["suites"][0]["columns"]] == ["minimize"]
    cells = cells_of(directed, "written", "written.clean_entropy").values()
    assert [cell["rank"] for cell in cells] == [[1, 4]] * 4


def test_a_column_says_what_it_is(content: dict[str, Any]) -> None:
    clean, robust, *_ = suite_of(content, "written")["columns"]
    assert (clean["attack"], robust["attack"]) == (None, "linf 4/255")
    assert clean["split"] == "test"
    assert clean["sets"] == {"digits": 100, "letters": 100}
    assert clean["text"].startswith("mean over digits, letters: 200 test images")
    assert "clean alone" in clean["text"]
    assert "PGD-10 at epsilon 4/255" in robust["text"]
    assert "15 equal-width bins" in robust["text"]


def test_metrics_and_suites_are_chosen(board: Path) -> None:
    chosen = content_of(board, suites=["written", "digits"], metrics=["clean_nll", "written.worst_clean_ece"])
    names = {s["suite"]: [column["metric"] for column in s["columns"]] for s in chosen["suites"]}
    assert names == {
        "written": ["written.worst_clean_ece", "written.clean_nll"],
        "digits": ["digits.clean_nll"],
    }
    every = content_of(board, metrics=["clean_nll"])
    assert [s["suite"] for s in every["suites"]] == ["fashion-mnist-8k", "written"]
    worst = cells_of(chosen, "written", "written.worst_clean_ece")
    assert all(cell["rank"] and cell["low"] is None for cell in worst.values())


def test_several_epsilons_have_a_column_each(tmp_path: Path) -> None:
    for epsilon in ("1/255", "4/255"):
        for name, seed in (("one", 1), ("two", 2)):
            file = measurement(tmp_path / epsilon[0], name, seed, attack={"epsilon": epsilon})
            assert file.is_file()
    made = content_of(tmp_path / "1", tmp_path / "4")
    columns = [(c["name"], c["attack"]) for c in suite_of(made, "written")["columns"]]
    assert columns[:3] == [
        ("clean_accuracy", None),
        ("robust_accuracy", "linf 1/255"),
        ("robust_accuracy", "linf 4/255"),
    ]


# What can't stand beside each other


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"split": "validation"}, "split is test in one and validation in two; choose by --split"),
        ({"about": {"digest": "b"}}, "images.fashion-mnist-8k.digest is a in one and b in two"),
        ({"about": {"images": 50}}, "images.fashion-mnist-8k.images is 200 in one and 50 in two"),
        (
            {"attack": {"steps": 20}},
            "robust_accuracy was not measured alike: evaluation.attack.steps is 10 in one",
        ),
    ],
    ids=["split", "digest", "images", "attack"],
)
def test_what_was_not_measured_alike_is_one_line(tmp_path: Path, other: dict[str, Any], words: str) -> None:
    measurement(tmp_path, "one", 1, stamp="20261125-142522-000000")
    measurement(tmp_path, "two", 2, **other)
    said = sweeper("leaderboard", tmp_path, code=2)
    assert words in said
    assert said.count("\n") == 1
    assert said.endswith("(see docs/leaderboard.md#messages)\n")


def test_of_several_measurements_those_in_common_count(tmp_path: Path) -> None:
    measurement(tmp_path, "one", 1, 0.9, attack={"steps": 50}, stamp="20261126-142522-000000")
    measurement(tmp_path, "one", 1, 0.3, stamp="20261125-142522-000000")
    measurement(tmp_path, "two", 2, 0.3, stamp="20261124-142522-000000")
    made = content_of(tmp_path)
    known = read_json(tmp_path / "one-test-20261125-142522-000000.json")["metrics"]["robust_accuracy"]
    assert cells_of(made, "fashion-mnist-8k", "robust_accuracy")["one"]["value"] == known
    measurement(tmp_path, "two", 2, split="validation", stamp="20261127-142522-000000")
    assert content_of(tmp_path, split="test") == made


MISTAKES: dict[str, tuple[list[str], str]] = {
    "a file that is not there": (["nothing.json"], "no such file; expected a result"),
    "another file": (["other.json"], "expected a result of `sweeper evaluate`"),
    "a damaged file": (["damaged.json"], "Expecting value"),
    "an earlier version's": (["earlier.json"], "does not say what was measured"),
    "an empty folder": (["empty"], "no results in it"),
    "a suite that is not there": (["BOARD", "--suite", "writen"], "did you mean 'written'?; there is"),
    "a metric that is not there": (["BOARD", "--metric", "clean_bla"], "nothing was measured of clean_bla"),
    "a way that is none": (["BOARD", "--metric", "less clean_ece"], "expected NAME, 'maximize NAME'"),
    "a split without images": (
        ["BOARD", "--split", "validation"],
        "nothing was measured on validation images",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line(
    mistake: str, board: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    Path("other.json").write_text('{"a": 1}')
    Path("damaged.json").write_text("not JSON")
    Path("earlier.json").write_text('{"metrics": {}, "sets": []}')
    arguments, words = MISTAKES[mistake]
    given = [str(board) if word == "BOARD" else word for word in arguments]
    said = sweeper("leaderboard", *given, code=2)
    assert words in said
    assert said.count("\n") == 1


# Others


def test_the_names_of_metrics_are_those_that_we_write() -> None:
    assert set(BENCHMARK_METRICS.values()) <= set(of_one_set())


def test_a_model_info_of_robustbench(board: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model_info" / "fashion-mnist-8k" / "Linf"
    write_json(folder / "Some2024Model.json", ROBUSTBENCH)
    write_json(folder / "Counted2024.json", ROBUSTBENCH | {"n": 10000, "eps": "4/255", "external": None})
    made = content_of(board, folder)
    clean = cells_of(made, "fashion-mnist-8k", "clean_accuracy")
    assert clean["Some2024Model"] == {"value": 0.9519, "low": None, "high": None, "rank": None, "best": False}
    expected = wilson(9519, 10000)
    assert clean["Counted2024"]["low"] == pytest.approx(expected.low)
    assert clean["Counted2024"]["high"] == pytest.approx(expected.high)
    assert clean["one"]["rank"] == [2, 3]  # among ours alone
    robust = cells_of(made, "fashion-mnist-8k", "robust_accuracy")
    assert robust["Counted2024"]["value"] == pytest.approx(0.7008)
    assert robust["Some2024Model"] is None  # in another ball
    shown = printed(made)
    assert "Some2024Model †" in shown
    assert "† by others (RobustBench)" in shown
    assert "among the 4 models whose images are known" in shown


def test_the_lower_of_autoattack_and_an_external_attack_counts() -> None:
    assert foreign.robust(ROBUSTBENCH) == 69.71
    assert foreign.robust({"reported": "12.5"}) == 12.5
    corruptions = ROBUSTBENCH | {"eps": None, "reported": "", "dataset": "imagenet"}
    (record,) = foreign.records(corruptions, Path("corruptions/AlexNet.json"))
    assert list(record.values) == [("imagenet1k", "clean_accuracy", "")]
    l2 = ROBUSTBENCH | {"eps": "0.5"}
    (record,) = foreign.records(l2, Path("cifar10/L2/Standard.json"))
    assert ("fashion-mnist-8k", "robust_accuracy", "l2 127.5/255") in record.values


def test_records_of_clip_benchmark_and_its_table(board: Path, tmp_path: Path) -> None:
    """The table as its `build` makes it: metrics beside the other keys, in any order."""
    rows = [CLIP_BENCHMARK, CLIP_BENCHMARK | {"dataset": "letters", "metrics": {"acc1": 0.5}}]
    rows += [CLIP_BENCHMARK | {"task": "zeroshot_retrieval", "metrics": {"image_retrieval_recall@5": 0.5}}]
    for index, row in enumerate(rows[:2]):
        write_json(tmp_path / "json" / f"{index}.json", row)
    write_json(tmp_path / "list.json", rows)
    table = [row["metrics"] | {k: v for k, v in row.items() if k != "metrics"} for row in rows]
    names = sorted({name for row in table for name in row})
    text = io.StringIO()
    writer = csv.DictWriter(text, names)
    writer.writeheader()
    writer.writerows(table)
    (tmp_path / "benchmark.csv").write_text(text.getvalue())
    made = [content_of(board, tmp_path / name) for name in ("json", "list.json", "benchmark.csv")]
    assert made[0] == made[1] == made[2]
    cells = cells_of(made[0], "written", "written.clean_accuracy")  # which are both of its sets
    assert cells["ViT-B-32 openai"]["value"] == pytest.approx((0.54636 + 0.5) / 2)
    alone = content_of(tmp_path / "benchmark.csv")
    assert [suite["suite"] for suite in alone["suites"]] == ["digits", "letters"]


def test_our_own_records_in_that_form_keep_their_intervals(tmp_path: Path) -> None:
    row = CLIP_BENCHMARK | {"n": 50, "norm": "linf", "epsilon": "4/255", "attack": "PGD-2 at epsilon 4/255"}
    row |= {"metrics": {"acc1": 0.5, "robust_acc1": 0.25}, "intervals": {"acc1": [0.4, 0.6]}}
    write_json(tmp_path / "a.json", row)
    ((_, model),) = of_file(tmp_path / "a.json")
    assert model.record is not None
    assert model.record.values["digits", "clean_accuracy", ""].ends == (0.4, 0.6)
    robust = model.record.values["digits", "robust_accuracy", "linf 4/255"]
    assert robust.ends == pytest.approx(wilson(12.5, 50)[1:])


def test_what_has_no_place_is_told(board: Path, tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", CLIP_BENCHMARK | {"dataset": "wds/cars"})
    notes = content_of(board, tmp_path / "a.json")["notes"]
    assert any("ViT-B-32 openai (clip_benchmark) is in no table: of cars" in note for note in notes)


# Forms


def printed(content: dict[str, Any], width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width, markup=False, highlight=False, emoji=False)
    console.print(tables(content))
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_the_terminal_shows_all_of_it_in_80_columns(content: dict[str, Any]) -> None:
    shown = printed(content)
    assert max(map(len, shown.splitlines())) <= 80
    assert "…" not in shown
    for model in ("one", "twin", "best_&_50%", "worst"):
        assert model in shown
    assert "written: Digits & letters?" in shown
    assert "2–3" in shown


class Tables(HTMLParser):
    """The cells of each table, and how deep the tags are."""

    VOID = ("meta", "link", "input", "br", "img")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.rows: list[list[str]] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data


def test_the_page_has_all_cells_and_needs_nothing(content: dict[str, Any]) -> None:
    text = page_of(content)
    parsed = Tables()
    parsed.feed(text)
    assert parsed.open == []
    assert len(parsed.rows) == sum(1 + len(suite["rows"]) for suite in content["suites"])
    first = next(row for row in parsed.rows if row[0] == "best_&_50%")
    assert first[2].startswith(
        f"{cells_of(content, 'fashion-mnist-8k', 'clean_accuracy')[first[0]]['value']:.4f}"
    )
    assert "best_&amp;_50%" in text
    assert text.count('class="sortable"') == len(content["suites"])
    assert not re.findall(r'(?:src|href)="(?!data:)', text)
    assert len(text) < 200_000  # no plotly where nothing is plotted


def test_a_click_sorts_the_page(content: dict[str, Any], page: Page, tmp_path: Path) -> None:  # noqa: F811
    file = tmp_path / "leaderboard.html"
    file.write_text(page_of(content), encoding="utf-8")
    page.goto(file.as_uri())
    page.wait_for_selector("body[data-ready]")
    names = page.locator("#suite-1 tbody td:first-child")
    assert names.all_inner_texts()[0] == "best_&_50%"
    page.click("#suite-1 th:nth-child(3) button")
    assert names.all_inner_texts()[0] == "worst"
    assert page.locator("#trouble").is_hidden()


def test_csv_is_read_by_pandas(content: dict[str, Any]) -> None:
    table = pd.read_csv(io.StringIO(to_csv(content)))
    cells = [cell for suite in content["suites"] for row in suite["rows"] for cell in row["cells"]]
    assert table["value"].tolist() == [cell["value"] for cell in cells]
    own = table[(table["metric"] == "written.clean_accuracy") & (table["model"] == "one")].iloc[0]
    assert (own["rank_first"], own["rank_last"], own["split"], own["images"]) == (2, 3, "test", 200)


def test_markdown_has_as_many_cells_in_each_row(content: dict[str, Any]) -> None:
    text = markdown(content)
    for block in text.split("\n\n"):
        rows = [line for line in block.splitlines() if line.startswith("|")]
        assert len({line.count("|") for line in rows}) <= 1
    assert "| best_&_50% |  | **0." in text


def test_latex_is_balanced_and_escaped(board: Path, tmp_path: Path) -> None:
    write_json(tmp_path / "Some_100%.json", ROBUSTBENCH)
    text = latex(content_of(board, tmp_path / "Some_100%.json"))
    lines = [line for line in text.splitlines() if not line.startswith("%")]
    body = re.sub(r"\\[\\%&_#${}]", "", "\n".join(lines))
    assert body.count("{") == body.count("}")
    assert "%" not in body
    assert "_" not in body
    assert "#" not in body
    assert body.count("$") % 2 == 0
    assert sorted(re.findall(r"\\begin\{(\w+)\}", body)) == sorted(re.findall(r"\\end\{(\w+)\}", body))
    assert all(character.isascii() for character in body)
    columns = [len(each) for each in re.findall(r"\\begin\{tabular\}\{(\w+)\}", text)]
    widths = [line.replace("\\&", "").count("&") + 1 for line in lines if line.endswith("\\\\")]
    assert set(widths) == set(columns)
    assert r"Some\_100\% $^\dagger$" in text
    assert r"\textbf{0." in text


# Real ones


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return finished_run(tmp_path_factory.mktemp("runs"))


def test_a_run_with_what_evaluate_measured_beside_another_model(run: Run, tmp_path: Path) -> None:
    """The untrained model is clip-tiny: wherever both were measured alike, they tie."""
    quick = ["--suite", "embedded-ood", "--set", "images=40"]
    sweeper("evaluate", "pareto", run.path, *quick)
    sweeper("evaluate", "clip-tiny", *quick, "--to", tmp_path / "tiny")
    made = json.loads(
        sweeper("leaderboard", run.path, tmp_path / "tiny", "--suite", "embedded-ood", "--json")
    )
    members = [row["id"] for row in run.pareto()["candidates"] if row["pareto"]]
    (suite,) = made["suites"]
    assert {row["model"] for row in suite["rows"]} == {"baseline", "clip-tiny", *members}
    assert {row["method"] for row in suite["rows"]} >= {"untrained", ""}
    for column in suite["columns"]:
        cells = cells_of(made, "embedded-ood", column["metric"])
        assert cells["baseline"]["rank"] == cells["clip-tiny"]["rank"]
        assert cells["baseline"]["value"] == pytest.approx(cells["clip-tiny"]["value"], abs=1e-6)
    whole = content_of(run.path)
    assert [each["suite"] for each in whole["suites"]] == ["fashion-mnist-8k", "embedded-ood", "transfer"]
    tests = {row["id"]: row["test"] for row in run.pareto()["candidates"] if row["pareto"]}
    for name, cell in cells_of(whole, "transfer", "transfer.robust_accuracy").items():
        assert name == "baseline" or cell["value"] == tests[name]["transfer.robust_accuracy"]
    written = sweeper("leaderboard", run.path, "--to", tmp_path / "board")
    assert sorted(file.name for file in (tmp_path / "board").iterdir()) == [
        "leaderboard.csv",
        "leaderboard.html",
        "leaderboard.md",
        "leaderboard.tex",
    ]
    assert "written to" in written


def test_ranks_of_a_run_are_those_of_its_records(run: Run) -> None:
    made = content_of(run.path, split="validation")
    cells = cells_of(made, "fashion-mnist-8k", "robust_ece")
    files = [run.records(run.point(name), "final") for name in cells]
    found = resample([[file] for file in files], ["robust_ece"], draws=DRAWS, seed=0)
    order = rank_intervals(found.estimates[:, 0], found.draws[:, :, 0]).tolist()
    assert [cell["rank"] for cell in cells.values()] == order


def test_runs_beside_each_other_go_by_letters(tmp_path: Path) -> None:
    one, two = (made_up_run(tmp_path, [0.6], name=name, seed=seed) for name, seed in (("one", 1), ("two", 2)))
    made = content_of(one.path, two.path)
    assert made["runs"] == {one.name: "A", two.name: "B"}
    names = [row["model"] for row in made["suites"][0]["rows"]]
    assert sorted(names) == ["A baseline", "A t000@1", "B baseline", "B t000@1"]


def test_earlier_results_in_a_run_are_counted(tmp_path: Path) -> None:
    made = made_up_run(tmp_path, [0.6])
    write_json(
        made.path / "evaluations" / "t000-test-20261124-142522-123456.json", {"metrics": {}, "sets": []}
    )
    (note,) = content_of(made.path)["notes"]
    assert note.startswith("1 of ")
