"""MLflow's page as a user sees it after a sweep: `sweeper ui`, and Chromium on the links that it prints."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote

from sweeper.result import ranked_members
from sweeper.run import Run
from tests.command import PATIENCE, environment, wait_for

if TYPE_CHECKING:
    from playwright.sync_api import Page

SCREENSHOTS = "SWEEPER_SCREENSHOTS"
"""Environment variable: a folder for the pictures."""
NO_ASSISTANT = (
    "try { localStorage.setItem('mlflow.assistant.fab.autoOpenedOnFirstLoad_v1', 'true') } catch {}"
)
"""Which covers a third of the page on a first visit. A report in MLflow's viewer has no storage."""
SECONDS = 1000.0


@contextmanager
def shown(run: Run) -> Iterator[dict[str, str]]:
    """Inside, the page is served. Gives the links that are printed, by what they are called."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "sweeper", "ui", str(run.path), "--port", str(port)]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment() | {"PYTHONUNBUFFERED": "1"},
        start_new_session=True,
    )
    assert process.stdout is not None
    try:
        lines = [process.stdout.readline().strip() for _ in range(3)]
        wait_for(lambda: answers(port))
        yield named(lines[1:])
    finally:
        os.killpg(process.pid, 15)
        process.wait(PATIENCE)


def named(lines: list[str]) -> dict[str, str]:
    """Links that were printed, by the words before them."""
    return dict(line.split(": ", 1) for line in lines)  # type: ignore[misc]


def answers(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


class Visit:
    """Looks at a sweep's pages one after another. Each method fails unless it sees what it is named after."""

    def __init__(self, page: Page, run: Run, links: dict[str, str], pictures: Path) -> None:
        self.page, self.run, self.links = page, run, links
        self.pictures = Path(os.environ.get(SCREENSHOTS) or pictures)
        self.pictures.mkdir(parents=True, exist_ok=True)
        self.content: dict[str, Any] = run.pareto()
        self.members = [row["trial"] for row in ranked_members(self.content)]
        self.server, _, _ = links["the front in MLflow"].partition("/#/")
        known = json.loads((run.path / "mlflow.json").read_text())
        self.experiment = re.findall(r"experiments/(\d+)/", known["sweep"])[0]
        self.sweep = known["sweep"]
        page.set_default_timeout(60 * SECONDS)
        page.set_viewport_size({"width": 1600, "height": 1000})
        page.add_init_script(NO_ASSISTANT)

    def all(self) -> None:
        self.the_table_filters_the_front()
        self.the_printed_view_begins_with_the_objectives()
        self.its_charts_have_our_parameters_and_metrics()
        self.the_printed_comparison_has_the_front_side_by_side()
        self.the_sweep_is_described_with_its_picture()
        self.the_report_is_rendered()
        self.a_trial_has_data_sets_and_system_metrics()
        self.the_front_is_models()

    def open(self, address: str) -> None:
        """From an empty page: one that differs behind the # only would not be loaded anew."""
        self.page.goto("about:blank")
        self.page.goto(address if address.startswith("http") else f"{self.server}/{address}")

    def picture(self, name: str) -> None:
        self.page.screenshot(path=self.pictures / f"mlflow-{name}.png")

    def listed(self) -> list[str]:
        """The trials in the table."""
        names = self.page.locator(".ag-pinned-left-cols-container a[href*='/runs/']").all_inner_texts()
        return sorted(name.split()[0] for name in names if re.match(r"t\d+ ", name))

    def the_table_filters_the_front(self) -> None:
        """Below their sweep, which MLflow shows with them."""
        self.open(f"#/experiments/{self.experiment}/runs?workflowType=machine_learning")
        self.page.get_by_role("link", name=self.run.name).first.wait_for()
        box = self.page.get_by_placeholder("metrics.rmse")
        box.fill('tags.pareto = "true"')
        box.press("Enter")
        self.page.wait_for_url(re.compile("searchFilter=tags"))
        row = self.page.locator(".ag-pinned-left-cols-container [role=row]").filter(has_text=self.run.name)
        row.locator("button").first.click()
        wait_for(lambda: len(self.listed()) > 0)
        assert self.listed() == sorted(set(self.members))
        self.picture("table")

    def the_printed_view_begins_with_the_objectives(self) -> None:
        self.open(self.links["the front in MLflow"])
        self.page.locator(".ag-header-viewport").get_by_text("test/robust_accuracy").wait_for()
        assert self.listed() == sorted(set(self.members))
        heads = self.page.locator(".ag-header-viewport .ag-header-cell")
        found = [heads.nth(index) for index in range(heads.count())]
        columns = sorted(found, key=lambda head: head.bounding_box()["x"])  # type: ignore[index]
        names = [head.get_attribute("col-id") for head in columns]
        objectives = self.run.spec.file.pareto.metrics
        assert names[: len(objectives)] == [f"metrics.`test/{name}`" for name in objectives]
        self.picture("front")

    def its_charts_have_our_parameters_and_metrics(self) -> None:
        self.open(self.links["the front in MLflow"].replace("runs?", "runs?compareRunsMode=CHART&"))
        self.page.get_by_text("What was searched, and what came of it").wait_for()
        for axis in ("method.name", "optimizer.learning_rate", "test/robust_ece"):
            self.page.locator("svg text:visible").get_by_text(axis, exact=True).first.wait_for()
        self.picture("charts")

    def the_printed_comparison_has_the_front_side_by_side(self) -> None:
        address = self.links["side by side"]
        runs = json.loads(parse_qs(address.partition("?")[2])["runs"][0])
        assert len(runs) == len(set(self.members))
        self.open(address)
        self.page.get_by_text(f"Comparing {len(runs)} Runs from 1 Experiment").wait_for()
        links = self.page.locator("table a[href*='/runs/']")
        links.first.wait_for()
        compared = {unquote(link.get_attribute("href") or "").split("/runs/")[1] for link in links.all()}
        assert {name[:32] for name in compared} == set(runs)
        plot = self.page.locator(".js-plotly-plot")
        first = f"validation/{self.run.spec.file.pareto.metrics[0]}"
        plot.get_by_text(first).first.wait_for()
        axes = plot.locator(".axis-title").all_text_contents()
        assert any(axis.startswith(("method.", "optimizer.", "attack.")) for axis in axes)
        self.picture("comparison")

    def the_sweep_is_described_with_its_picture(self) -> None:
        self.open(self.sweep)
        self.page.get_by_text("Show more").click()
        self.page.get_by_text(f"{len(self.members)} Pareto-optimal models").wait_for()
        self.page.get_by_text("sweeper run sweep.yaml").wait_for()
        image = self.page.locator("img[src*='front.png']")
        wait_for(lambda: bool(image.evaluate("image => image.complete && image.naturalWidth > 100")))
        self.page.get_by_role("link", name="side by side").wait_for()
        self.picture("sweep")

    def the_report_is_rendered(self) -> None:
        """In a frame without an origin of its own; the fixture fails if a script of it does."""
        self.open(self.sweep.replace("?", "/artifacts/report/index.html?"))
        report = self.page.frame_locator("iframe")
        report.get_by_text(self.run.name).first.wait_for()
        report.get_by_role("heading").first.wait_for()
        self.picture("report")

    def a_trial_has_data_sets_and_system_metrics(self) -> None:
        self.open(self.links["the front in MLflow"])
        self.page.locator(".ag-pinned-left-cols-container a[href*='/runs/']").first.click()
        self.page.get_by_role("tab", name="System metrics").wait_for()
        self.page.get_by_text("Pareto-optimal").first.wait_for()
        self.picture("trial")
        self.page.get_by_text("fashion-mnist-8k (").first.click()
        self.page.get_by_text("num rows").first.wait_for()
        self.picture("data")
        self.page.keyboard.press("Escape")
        self.page.get_by_role("tab", name="System metrics").click()
        self.page.get_by_text("process_memory_megabytes", exact=True).wait_for()
        self.page.locator(".js-plotly-plot").first.wait_for()
        self.picture("system")

    def the_front_is_models(self) -> None:
        self.open(f"#/experiments/{self.experiment}/models?workflowType=machine_learning")
        for row in self.content["candidates"]:
            link = self.page.get_by_role("link", name=row["id"], exact=True)
            if row["pareto"]:
                link.wait_for()
            else:
                assert link.count() == 0
        self.picture("models")
