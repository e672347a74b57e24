"""The page of the report in a browser, opened from its file, without a network: a run of 200 trials."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from sweeper import result, spec
from sweeper.optimality import Optimality
from sweeper.report import write_report
from sweeper.report.chart import DARK, INK
from sweeper.result import to_csv
from tests.browser import SIZE, browser, page  # noqa: F401
from tests.reported import SWEEP, finished

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

    from sweeper.run import Run
    from sweeper.trial import TrialRecord

TRIALS = 200
MEGABYTES = 6
FLUID_SECONDS = 1.0
"""For how long it may be busy with an answer; on two busy cores it was seen to take a tenth of that."""

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """Its probabilities are made up, too."""

    def optimality(_: Run, trials: Sequence[TrialRecord]) -> Optimality:
        chances = {point.id: trial.number % 11 / 10 for trial in trials for point in trial.points}
        return Optimality(chances, "P(optimal): made up.")

    sweep = SWEEP.replace("trials: 4", f"trials: {TRIALS}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(result, "optimality", optimality)
        yield finished(tmp_path_factory.mktemp("runs"), range(TRIALS), sweep)


@pytest.fixture(scope="module")
def content(run: Run) -> dict[str, Any]:
    return run.pareto()


@pytest.fixture(scope="module")
def file(run: Run, content: dict[str, Any]) -> Path:
    return write_report(run, content)


@pytest.fixture(scope="module")
def only(browser: Browser, file: Path) -> Iterator[Page]:  # noqa: F811
    """The page, opened once, when it has unpacked itself. Whatever it asks of a network fails, and this with
    it."""
    context = browser.new_context(viewport=SIZE, accept_downloads=True, offline=True)
    opened, asked, said = context.new_page(), list[str](), list[str]()
    opened.on("request", lambda request: asked.append(request.url))
    opened.on("console", lambda message: said.append(message.text) if message.type == "error" else None)
    opened.on("pageerror", lambda error: said.append(str(error)))
    opened.goto(file.as_uri())
    opened.wait_for_selector("body[data-ready]")
    yield opened
    context.close()
    assert not said
    assert {url.partition(":")[0] for url in asked} <= {"file", "blob", "data"}
    assert [url for url in asked if url.startswith("file")] == [file.as_uri()]


@pytest.fixture
def opened(only: Page) -> Page:
    """As it was in the beginning, but for figures and orders."""
    only.keyboard.press("Escape")
    only.locator("[data-filter]").fill("")
    only.set_viewport_size(SIZE)
    only.emulate_media(color_scheme="light")
    return only


def figure(page: Page, name: str) -> Locator:  # noqa: F811
    """A figure of the page, scrolled to and drawn."""
    found = page.locator(f"#figure-{name}")
    found.scroll_into_view_if_needed()
    found.locator(".js-plotly-plot .main-svg, .js-plotly-plot canvas").first.wait_for()
    return found


def test_every_figure_is_drawn(opened: Page, file: Path) -> None:
    assert file.stat().st_size < MEGABYTES * 1e6
    names = opened.evaluate("Object.keys(report.data.figures)")
    assert len(names) == 14
    for name in names:
        traces = figure(opened, name).locator(".plot").evaluate("node => node.data.length")
        assert traces > 0, name
    assert figure(opened, "front-3d").locator("canvas").count() > 0
    assert opened.locator("#trouble").is_hidden()


def test_a_point_shows_its_trial_and_a_click_its_configuration(opened: Page, content: dict[str, Any]) -> None:
    plot = figure(opened, "front").locator(".plot")
    member = next(row for row in content["candidates"] if row["pareto"])
    at = plot.evaluate(
        """(node, id) => {
            const trace = node.data.find((each) => each.customdata?.includes(id)), layout = node._fullLayout;
            const index = trace.customdata.indexOf(id), box = node.getBoundingClientRect();
            return [box.x + layout.xaxis._offset + layout.xaxis.d2p(trace.x[index]),
                    box.y + layout.yaxis._offset + layout.yaxis.d2p(trace.y[index])];
        }""",
        member["id"],
    )
    opened.mouse.move(*at)
    hovered = opened.locator("#figure-front .hoverlayer .hovertext")
    hovered.wait_for()
    assert f"{member['validation']['robust_accuracy']:.4f}" in hovered.text_content()
    opened.mouse.click(*at)
    details = opened.locator("#details")
    details.wait_for()
    told = details.inner_text()
    shown = details.locator("h2").inner_text().partition(" ")[0]
    row = next(row for row in content["candidates"] if row["id"] == shown)
    assert f"{row['test']['robust_accuracy']:.4f}" in told
    assert opened.url.endswith(f"#{shown}")
    sweep = spec.from_text(details.locator("pre").inner_text(), "details.yaml")
    assert sweep.base_trial() == row["config"]
    assert f"sweeper evaluate {shown} " in told
    details.locator(".js-plotly-plot").nth(1).wait_for()  # its curve and its reliability
    opened.keyboard.press("Escape")
    assert details.is_hidden()


def test_every_trial_has_its_details(opened: Page, content: dict[str, Any]) -> None:
    for row in [content["trials"][2], content["trials"][-1]]:
        opened.locator(f"#trials a[href='#{row['id']}']").click()
        details = opened.locator("#details")
        assert row["method"] in details.locator("h2").inner_text()
        drawn = details.locator("table").last.inner_text()
        assert row["drawn"]["attack.epsilon"] in drawn
        opened.locator("#details .close").click()


def test_axes_of_the_front_can_be_chosen(opened: Page, content: dict[str, Any]) -> None:
    block = figure(opened, "front")
    block.locator("select[name=x]").select_option("robust_ece")
    block.locator("select[name=stage]").select_option("test")
    block.locator("input[name=intervals]").check()
    known = {row["id"]: row for row in [content["baseline"], *content["candidates"]]}
    found = block.locator(".plot").evaluate(
        """(node) => node.data.filter((trace) => trace.customdata).flatMap((trace) =>
            trace.customdata.map((id, at) => [id, trace.x[at], trace.y[at], trace.error_y.array[at]]))"""
    )
    assert len(found) > TRIALS
    for id, x, y, up in found:
        test = known[id]["test"] if id in known else None
        assert (x, y) == ((test["robust_ece"], test["robust_accuracy"]) if test else (None, None))
        if test:
            low, high = known[id]["intervals"]["test"]["robust_accuracy"]
            assert low <= y
            assert up == pytest.approx(high - y)
    assert "test images" in block.locator("figcaption").inner_text()
    assert "--stage test" in block.locator("figcaption code").inner_text()


def test_tables_sort_and_filter(opened: Page, content: dict[str, Any]) -> None:
    def column(number: int) -> list[str]:
        rows = "[...document.querySelectorAll('#trials tbody tr:not([hidden])')]"
        return opened.evaluate(f"{rows}.map((row) => row.cells[{number}].dataset.value)")

    head = opened.locator("#trials thead th").nth(5)
    for way, name in (("ascending", False), ("descending", True)):
        head.locator("button").click()
        assert head.get_attribute("aria-sort") == way
        values = [float(value) for value in column(5)]
        assert values == sorted(values, reverse=name)
    assert sorted(values) == sorted(row["validation"]["robust_accuracy"] for row in content["trials"])
    epsilon = opened.locator("#trials thead th[data-name='attack.epsilon'] button")
    epsilon.focus()
    opened.keyboard.press("Enter")
    assert opened.evaluate("document.querySelector('#trials tbody tr').innerText").count("4/255") == 1
    opened.locator("[data-filter]").fill("pmg stopped")
    kept = [row for row in content["trials"] if row["method"] == "pmg" and row["status"] == "stopped"]
    assert len(column(0)) == len(kept) > 0


def test_downloads_have_the_numbers(opened: Page, content: dict[str, Any]) -> None:
    with opened.expect_download() as download:
        opened.locator("[data-file=csv]").first.click()
    assert download.value.suggested_filename == f"{content['run']}-pareto.csv"
    assert Path(download.value.path()).read_text() == to_csv(content)
    with opened.expect_download() as download:
        opened.locator("[data-rows=trials][data-kind=csv]").first.click()
    rows = list(csv.DictReader(io.StringIO(Path(download.value.path()).read_text())))
    with opened.expect_download() as download:
        opened.locator("[data-rows=trials][data-kind=json]").click()
    typed = json.loads(Path(download.value.path()).read_text())
    known = {row["id"]: row for row in content["trials"]}
    assert {text["trial"] for text in rows} == set(known)
    for text, value in zip(rows, typed, strict=True):  # in the order of the table
        row = known[text["trial"]]
        assert (value["trial"], text["status"]) == (row["id"], row["status"])
        for name in ("robust_accuracy", "robust_ece"):
            assert float(text[name]) == value[name] == row["validation"][name]
        assert value["optimizer.learning_rate"] == row["drawn"]["optimizer.learning_rate"]


def test_it_answers_at_once(opened: Page) -> None:
    """Zooming the front, showing a trial, sorting: for how long the page is busy."""
    plot = figure(opened, "front").locator(".plot")
    zoom = plot.evaluate(
        """async (node) => {
            const began = performance.now();
            for (const end of [0.7, 0.8, 0.9]) await Plotly.relayout(node, {"xaxis.range": [0.5, end]});
            return (performance.now() - began) / 3000;
        }"""
    )
    busy = "(node) => { const began = performance.now(); node.click(); document.body.offsetHeight; %s }"
    timed = busy % "return (performance.now() - began) / 1000;"
    click = opened.locator("#trials a").nth(100).evaluate(timed)
    order = opened.locator("#trials thead th button").nth(6).evaluate(timed)
    print(f"busy for: zoom {zoom:.3f} s, click {click:.3f} s, sort {order:.3f} s")
    assert max(zoom, click, order) < FLUID_SECONDS


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_follows_the_colours_of_the_system(opened: Page, scheme: Any) -> None:
    opened.emulate_media(color_scheme=scheme)
    figure(opened, "curves")
    ink = opened.evaluate("getComputedStyle(document.body).color")
    fill = "getComputedStyle(document.querySelector('#figure-curves .xtitle')).fill"
    opened.wait_for_function(f"{fill} === '{ink}'")


def test_in_a_frame_without_rights_it_is_whole(
    page: Page,  # noqa: F811
    file: Path,
    tmp_path: Path,
    content: dict[str, Any],
) -> None:
    """As MLflow shows it: a sandbox, of another origin than all else. Its address may name a trial."""
    row, outer = content["candidates"][0], tmp_path / "viewer.html"
    shown = f"{file.as_uri()}#{row['id']}"
    outer.write_text(f'<iframe sandbox="allow-scripts" width="1200" height="800" src="{shown}"></iframe>')
    page.goto(outer.as_uri())
    frame = page.frame_locator("iframe")
    frame.locator("#figure-front .main-svg").first.wait_for()
    assert frame.locator("#details h2").inner_text() == f"{row['id']} {row['method']}"
    frame.locator("#details .close").click()
    frame.locator("#pareto a").first.click()
    assert frame.locator("#details h2").inner_text() == "The untrained model"


def test_printed_it_is_whole_and_light(opened: Page) -> None:
    opened.emulate_media(color_scheme="dark")
    opened.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert opened.locator(".js-plotly-plot").count() == 14  # whether or not they were in sight
    colour = "document.querySelector('#figure-curves .plot').layout.font.color"
    assert opened.evaluate(colour) == INK
    opened.evaluate("dispatchEvent(new Event('afterprint'))")
    assert opened.evaluate(colour) == DARK[INK]


def test_on_a_phone_nothing_is_wider_than_it(opened: Page) -> None:
    opened.set_viewport_size({"width": 390, "height": 800})
    assert opened.evaluate("document.documentElement.scrollWidth") <= 390


def test_without_scripts_there_are_the_tables_and_the_front(
    browser: Browser,  # noqa: F811
    file: Path,
    content: dict[str, Any],
) -> None:
    context = browser.new_context(java_script_enabled=False)
    bare = context.new_page()
    bare.goto(file.as_uri())
    assert bare.locator("img.front").is_visible()
    assert bare.locator("#trials tbody tr").count() == TRIALS
    assert (
        f"{content['baseline']['validation']['robust_accuracy']:.4f}" in bare.locator("#pareto").inner_text()
    )
    context.close()
