"""What all tests share."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("repeatable", derandomize=True, database=None, deadline=None)
settings.load_profile("repeatable")

# Else the first cluster on a machine writes one to the home folder, and two that start at once write two.
os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
# Ray's workers are nice by default, so that tests beside them would make them wait for minutes.
os.environ.setdefault("RAY_worker_niceness", "0")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files come first, so that processes that share the files end together. Tests marked `gpu`
    are skipped where there is no CUDA device."""
    items.sort(
        key=lambda item: not (item.get_closest_marker("sweeps") or item.get_closest_marker("failures"))
    )
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if not marked:
        return
    import torch

    if not torch.cuda.is_available():
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Before the fixtures of each test: what a test calls may have set it to the number of cores."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def at_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """Verbs on a run go to where it was started; the next test begins at the top of the project again."""
    monkeypatch.chdir(Path(__file__).parent.parent)


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No decoded images and no listings but the test's own."""
    from trainables.data import registry

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    registry._listed.cache_clear()
