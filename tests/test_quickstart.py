"""The quickstart as the README has it, and MLflow's page after it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sweeper import Run
from tests.browser import browser, page  # noqa: F401
from tests.command import sweeper
from tests.mlflow_page import Visit, shown

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = [pytest.mark.slow, pytest.mark.browser, pytest.mark.timeout(1800)]


def test_mlflows_page_after_the_quickstart(page: Page, tmp_path: Path) -> None:  # noqa: F811
    sweeper("run", "search_spaces/quickstart.yaml", "--runs", tmp_path / "runs", patience=1500)
    run = Run.find(None, tmp_path / "runs")
    with shown(run) as links:
        Visit(page, run, links, tmp_path).all()
