"""The notebook of the documentation: executed anew, it shows what it is stored with."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbformat import NotebookNode

TOP = Path(__file__).parent.parent
FILE = TOP / "docs" / "notebook.ipynb"
WITHOUT_CLUSTER = "from tests.alone import install\n\ninstall()"
NUMBER = re.compile(r"\d+\.\d+")
NEAR = 0.06
"""Another processor rounds otherwise, and a few images of a hundred may turn for it."""


def executed(folder: Path, monkeypatch: pytest.MonkeyPatch, *before: str) -> NotebookNode:
    """The notebook after all of its cells, and `before` them others, have run in a new kernel."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(TOP), os.environ.get("PYTHONPATH")])))
    notebook = nbformat.read(FILE, as_version=4)
    notebook.cells[:0] = [nbformat.v4.new_code_cell(source) for source in before]
    place = {"metadata": {"path": str(folder)}}
    NotebookClient(notebook, timeout=900, kernel_name="python3", resources=place).execute()
    del notebook.cells[: len(before)]
    return notebook


def shown(notebook: NotebookNode) -> dict[str, str]:
    """What each cell shows, by its source; without times in names of runs, and pictures."""
    found = {}
    for cell in notebook.cells:
        if cell.cell_type == "code":
            parts = [output.get("data") or {"error": output.get("evalue")} for output in cell.outputs]
            kept = [{kind: part[kind] for kind in part if kind != "image/png"} for part in parts]
            found[cell.source] = re.sub(r"-\d{8}-\d{6}", "", json.dumps(kept, sort_keys=True))
    return found


def check(notebook: NotebookNode) -> None:
    """The trials have nearly the same metrics; and where these are the same to the last digit, so is all
    else."""
    before, after = shown(nbformat.read(FILE, as_version=4)), shown(notebook)
    assert list(before) == list(after)
    trials = next(source for source in before if "results.trials()" in source)
    pairs = list(zip(NUMBER.findall(before[trials]), NUMBER.findall(after[trials]), strict=True))
    assert len(pairs) >= 4 * 4
    assert [pair for pair in pairs if abs(float(pair[0]) - float(pair[1])) > NEAR] == []
    for source in before if before[trials] == after[trials] else ():
        assert after[source] == before[source], source


def test_the_notebook_shows_what_it_is_stored_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its sweeps in the kernel itself: a cluster would take longer than they do."""
    check(executed(tmp_path, monkeypatch, WITHOUT_CLUSTER))


@pytest.mark.slow
def test_so_it_does_on_a_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check(executed(tmp_path, monkeypatch))


def test_the_notebook_was_executed_in_order_and_is_small() -> None:
    stored = nbformat.read(FILE, as_version=4)
    counts = [cell.execution_count for cell in stored.cells if cell.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1))
    assert FILE.stat().st_size < 300_000
    assert not re.search(r"/(root|home|tmp|work|Users)/", FILE.read_text(encoding="utf-8"))
