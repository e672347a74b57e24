"""The report of a small run that is made up: its page, its tables, its command. What figures show is in
test_figures.py, the page in a browser in test_page.py."""

from __future__ import annotations

import base64
import gzip
import html
import json
import re
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from sweeper import spec
from sweeper.cli import main
from sweeper.files import write_json
from sweeper.report import write_report
from sweeper.report.figures import FIGURES, STAGED
from sweeper.report.page import one_trial
from sweeper.report.prepare import Material
from sweeper.report.tables import latex, markdown
from sweeper.result import ranked_members, to_csv
from sweeper.results import Results
from sweeper.trial import STAGES
from tests.reported import IMAGES, SWEEP, finished, new_run

if TYPE_CHECKING:
    from pathlib import Path

    from sweeper.run import Run

TRIALS = 13
HOSTILE = "<script>alert('$x$ & $y$')</script>"
SAID = "PGD-10 at epsilon 8/255, pixels of native size, ECE with 15 equal-width bins"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return finished(
        tmp_path_factory.mktemp("runs"), range(TRIALS), SWEEP.replace("trials: 4", f"trials: {TRIALS}")
    )


@pytest.fixture(scope="module")
def content(run: Run) -> dict[str, Any]:
    """Written, so that it is computed once."""
    write_json(run.path / "pareto.json", run.pareto())
    return run.pareto()


@pytest.fixture(scope="module")
def page(run: Run, content: dict[str, Any]) -> str:
    """The report of the finished run, written over an older one."""
    (run.path / "report").mkdir()
    (run.path / "report" / "t099-reliability.png").touch()
    return write_report(run, content).read_text(encoding="utf-8")


def report(run: Run) -> str:
    return write_report(run).read_text(encoding="utf-8")


def rows_of(page: str, table: str) -> dict[str, list[str]]:
    """The cells of a table of the page by their row's first one, without what stands below a number."""
    body = re.search(rf'<table id="{table}".*?<tbody>(.*?)</tbody>', page, re.DOTALL)
    assert body
    rows = [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in re.findall(r"<tr.*?</tr>", body[1], re.DOTALL)]
    words = [[re.sub(r"<small>.*?</small>|<[^>]*>", "", cell) for cell in row] for row in rows]
    return {row[0]: [html.unescape(cell) for cell in row[1:]] for row in words}


def embedded(page: str) -> dict[str, Any]:
    """What the page's script reads."""
    packed = re.search(r'id="data">(.*?)</script>', page)
    assert packed
    data: dict[str, Any] = json.loads(gzip.decompress(base64.b64decode(packed[1])))
    return data


def pictures_of(run: Run) -> set[str]:
    files = list((run.path / "report").glob("*.png"))
    assert all(file.stat().st_size > 5_000 for file in files)
    return {file.name for file in files}


# the page


def test_page_needs_nothing_but_itself(page: str) -> None:
    targets = re.findall(r"(?:src|href)\s*=\s*[\"']([^\"']*)", page) + re.findall(r"url\((.*?)\)", page)
    assert targets
    assert all(target.startswith(("data:", "#")) for target in targets)
    assert "http:" not in page
    assert "https:" not in page
    assert "default-src 'none'" in page


def test_page_has_the_numbers_of_the_result(content: dict[str, Any], page: str) -> None:
    names = [*content["maximize"], *content["minimize"]]
    trials, pareto = rows_of(page, "trials"), rows_of(page, "pareto")
    assert list(trials) == [row["id"] for row in content["trials"]]
    for row in content["trials"]:
        assert trials[row["id"]][4:7] == [f"{row['validation'][name]:.4f}" for name in names]
    members = [row for row in content["candidates"] if row["pareto"]]
    assert set(pareto) == {"untrained", *(row["id"] for row in members)}
    for row in [content["baseline"] | {"id": "untrained"}, *members]:
        numbers = [f"{row[stage][name]:.4f}" for stage in STAGES for name in names]
        assert pareto[row["id"]][2:11] == numbers


def test_page_embeds_the_numbers_of_the_result(content: dict[str, Any], page: str) -> None:
    data = embedded(page)
    assert data["files"]["csv"] == to_csv(content)
    for row in [content["baseline"], *content["candidates"]]:
        model = data["models"][row["id"]]
        assert model["metrics"] == {stage: row[stage] for stage in STAGES}
        assert model["intervals"] == row["intervals"]
        assert model["probability"] == row.get("probability")
    for row in content["trials"]:
        assert data["models"][f"{row['id']}@{row['epochs']}"]["metrics"]["validation"] == row["validation"]
        for name in content["maximize"]:
            assert data["trials"][row["id"]]["curve"][name][-1] == row["validation"][name]


def test_diagrams_of_the_page_are_those_of_the_metrics(content: dict[str, Any], page: str) -> None:
    data = embedded(page)
    assert set(data["reliability"]) == set(data["models"])
    for row in [content["baseline"], *content["candidates"]]:
        for stage in (stage for stage in STAGES if row[stage]):
            shown = data["reliability"][row["id"]][stage]
            assert list(shown) == ["clean", "attacked", "clean, T = 1.25", "attacked, T = 1.25"]
            assert shown["clean"][3] == row[stage]["clean_ece"]
            assert shown["attacked"][3] == row[stage]["robust_ece"]
            assert sum(shown["clean"][0]) == IMAGES


def test_every_figure_says_what_its_numbers_are_and_how_to_make_it(run: Run, page: str) -> None:
    data = embedded(page)
    assert set(data["figures"]) == set(FIGURES)
    for name, stages in data["figures"].items():
        assert set(stages) == (set(STAGES) if name in STAGED else {"validation"})
        for stage, shown in stages.items():
            assert f"sweeper report {run.name} --figure {name} " in shown["command"]
            assert ("--stage test" in shown["command"]) is (stage == "test")
            said = re.search("PGD-10 at epsilon 8/255.*15 equal-width bins, attack seed 0", shown["caption"])
            assert said or name == "timeline"  # which shows times
            assert html.escape(shown["command"]) in page or stage != "validation"


def test_page_says_what_the_numbers_are(run: Run, page: str) -> None:
    text = html.unescape(page)
    assert f"validation images (at most 40 of each set), {SAID}" in text
    assert "sweeper run sweep.yaml" in text
    assert (run.path / "sweep.yaml").read_text() in text
    assert "ray 2.60.0" in text
    assert "not finished" not in text
    assert "95 % interval" in text


@pytest.mark.usefixtures("page")
def test_pictures_lie_beside_the_page(run: Run, content: dict[str, Any]) -> None:
    members = {f"{row['id']}-reliability.png" for row in ranked_members(content)}
    assert members
    assert pictures_of(run) == members | {"front.png"}


def test_a_trial_of_the_page_is_a_sweep_file_that_trains_it_once_more(
    run: Run, content: dict[str, Any]
) -> None:
    of = Material(run, content)
    for trial in list(of.trials.values())[:3]:
        sweep = spec.from_text(one_trial(of, trial), "trial.yaml")
        assert sweep.base_trial() == trial.config
        assert (sweep.evaluation, sweep.final) == (run.spec.evaluation, run.spec.final)
        assert (sweep.file.pareto, sweep.file.search.trials) == (run.spec.file.pareto, 1)
        assert spec_seed(sweep, trial.config) == trial.seed


def spec_seed(sweep: spec.SweepSpec, config: dict[str, Any]) -> int:
    from sweeper.hashes import trial_seed

    return trial_seed(sweep.file.search.seed, config)


# runs of all kinds


def test_names_are_escaped(tmp_path: Path) -> None:
    maker = new_run(tmp_path, SWEEP.replace("epochs: 2", f'epochs: 2\n  data: {{prompt: "{HOSTILE} {{}}"}}'))
    maker.untrained()
    maker.trial(0, "failed", 1, HOSTILE)
    maker.trial(1)
    config = maker.run.trial_folder(1) / "config.json"
    config.write_text(
        re.sub(r'"attack.epsilon": "\d+/255"', f'"attack.epsilon": "{HOSTILE}"', config.read_text())
    )
    page = report(maker.run)
    assert page.count("<script") == page.count("</script>") == 4
    assert HOSTILE not in page
    assert page.count(html.escape(HOSTILE).replace("&#x27;", "&#39;")) >= 3
    for stages in embedded(page)["figures"].values():  # plotly reads some HTML
        assert not re.search(r"<(?!br>)", json.dumps(stages["validation"]["data"]))


@pytest.mark.parametrize("untrained", [False, True])
def test_run_that_has_just_begun(tmp_path: Path, untrained: bool) -> None:
    maker = new_run(tmp_path)
    if untrained:
        maker.untrained()
    page = report(maker.run)
    assert "not finished" in page
    assert ("not been measured" in page) is not untrained
    assert pictures_of(maker.run) == set()
    known = {"reliability", "confidence", "uncertainty"} if untrained else set()
    assert set(embedded(page)["figures"]) == known
    assert "No trial has ended yet." in page


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
    assert trials["t002"][4:7] == ["-", "-", "-"]
    members = {row["id"] for row in maker.run.pareto()["candidates"]}
    assert {name.partition("@")[0] for name in members} == {"t000"}
    rows = rows_of(page, "pareto")
    assert set(rows) == {"untrained", *members}
    assert all(rows[name][5:11] == ["-"] * 6 for name in members)
    assert {f"{name}-reliability.png" for name in members} <= pictures_of(maker.run)


def test_failed_and_stopped_trials(tmp_path: Path) -> None:
    maker = new_run(tmp_path)
    maker.untrained()
    maker.trial(0, "failed", 0, "loss is not finite")
    maker.trial(1, "stopped", 1, "stopped early after epoch 1")
    page = report(maker.run)
    assert rows_of(page, "trials")["t000"][1] == "failed"
    assert "<small>loss is not finite</small>" in page
    assert set(rows_of(page, "pareto")) == {"untrained", "t001@1"}
    assert pictures_of(maker.run) == {"front.png", "t001@1-reliability.png"}


def test_only_failed_trials(tmp_path: Path) -> None:
    maker = new_run(tmp_path)
    maker.trial(0, "failed", 0, "out of memory")
    assert "out of memory" in report(maker.run)
    assert pictures_of(maker.run) == set()


@pytest.mark.parametrize(
    ("pareto", "missing"),
    [
        ("{maximize: [robust_accuracy], minimize: []}", {"front-3d"}),
        ("{maximize: [], minimize: [robust_ece]}", {"front-3d"}),
        ("{maximize: [robust_accuracy], minimize: [robust_ece]}", {"front-3d"}),
        ("{maximize: [robust_accuracy, clean_accuracy], minimize: [robust_ece, clean_ece]}", set()),
    ],
)
def test_any_number_of_objectives(tmp_path: Path, pareto: str, missing: set[str]) -> None:
    maker = new_run(tmp_path, re.sub(r"pareto: .*", f"pareto: {pareto}", SWEEP))
    maker.untrained()
    maker.trial(0)
    few = {"importance", "interaction", "methods"}  # a single trial
    assert set(Results(maker.run).figures()) == set(FIGURES) - missing - few
    assert "At least 12 trials" in called(maker.run, "--figure", "importance", code=2)


# tables


def test_tables_for_papers(run: Run, content: dict[str, Any]) -> None:
    of = Material(run, content)
    text, rows = latex(of), ranked_members(content)
    body = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert len(body) == 2 + len(rows)
    assert {line.count("&") for line in body} == {5}
    assert balanced(text)
    for row, line in zip(rows, body[2:], strict=True):
        assert row["id"] in line
        assert f"{row['test']['robust_accuracy']:.4f}" in line
    assert r"robust accuracy $\uparrow$" in text
    assert "test images" in text
    told = [line for line in markdown(of).splitlines() if line.startswith("|")]
    assert len(told) == 3 + len(rows)
    assert {line.count("|") for line in told} == {7}
    assert f"{rows[0]['validation']['clean_accuracy']:.4f}" in markdown(of, "validation")


def balanced(tex: str) -> bool:
    """As far as braces, environments and characters go that mean something to TeX."""
    bare = re.sub(r"\\[{}\\&%$#_]", "", tex)
    depth = [bare[: at + 1].count("{") - bare[: at + 1].count("}") for at in range(len(bare))]
    begun, ended = re.findall(r"\\begin{(\w+)}", tex), re.findall(r"\\end{(\w+)}", tex)
    assert begun == ended[::-1]
    return min(depth) == 0 == depth[-1] and bare.count("$") % 2 == 0 and not set(bare) & set("%#_^~")


def test_latex_takes_every_name(run: Run, content: dict[str, Any]) -> None:
    odd = content | {"run": r"50%_a&b#c$d{e}~^\<x>"}
    assert balanced(latex(Material(run, odd)))


# the command


def called(run: Run, *arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(main, ["report", str(run.path), *arguments])
    assert result.exit_code == code, result.output
    return result.output


def test_a_figure_as_files(run: Run, tmp_path: Path) -> None:
    told = called(run, "--figure", "front", "--format", "pdf", "--format", "svg", "--to", str(tmp_path))
    assert {file.name for file in tmp_path.iterdir()} == {"front.pdf", "front.svg"}
    assert SAID in told
    called(run, "--figure", "curves", "--to", str(tmp_path / "one.png"))
    assert (tmp_path / "one.png").read_bytes().startswith(b"\x89PNG")
    told = called(
        run, "--figure", "reliability", "--stage", "test", "--trial", "baseline", "--format", "html"
    )
    assert "test images" in told
    assert "plotly" in (run.path / "report" / "figures" / "reliability.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--figure", "frnt"], "--figure frnt: there is none of that name; did you mean 'front'?"),
        (["--figure", "curves", "--stage", "test"], "--stage goes with --figure front"),
        (["--figure", "front", "--trial", "t000"], "--trial goes with --figure reliability"),
        (["--figure", "reliability", "--trial", "t000@9"], "has nothing measured of that name"),
        (["--format", "pdf", "--to", "all.pdf"], "a single file"),
        (["--to", "x"], "go with --figure NAME, --format or --table"),
        (["--table", "latex", "--figure", "front"], "--table goes with --stage and --to alone"),
    ],
)
def test_mistakes_are_one_line(run: Run, arguments: list[str], message: str) -> None:
    told = called(run, *arguments, code=2)
    assert message in told
    assert told.count("\n") == 1


def test_tables_on_the_command_line(run: Run, content: dict[str, Any], tmp_path: Path) -> None:
    of = Material(run, content)
    assert called(run, "--table", "csv") == to_csv(content)
    assert called(run, "--table", "markdown", "--stage", "search") == markdown(of, "validation")
    called(run, "--table", "latex", "--to", str(tmp_path / "table.tex"))
    assert (tmp_path / "table.tex").read_text(encoding="utf-8") == latex(of)
