"""What others expect: a version, a licence, a citation, a wheel that works, a study that opens."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml

from benchmarks.driven import finished_run
from sweeper.errors import EXITS
from tests.pages import REPOSITORY

VARIABLE = re.compile(r"_?(SWEEPER|MLFLOW|RAY|TUNE|XDG|AWS|HF|HUGGING_FACE|DATABRICKS|AZURE)_\w+")
NOT_READ = ("_SWEEPER_COMPLETE",)  # between the shell and its completion


def text(name: str) -> str:
    return (REPOSITORY / name).read_text(encoding="utf-8")


def test_the_version_is_one() -> None:
    released = re.findall(r"^## \[(\d+\.\d+\.\d+)\]", text("CHANGELOG.md"), re.MULTILINE)
    assert re.fullmatch(r"\d+\.\d+\.\d+", version("clip-sweeper"))
    assert released[0] == version("clip-sweeper") == yaml.safe_load(text("CITATION.cff"))["version"]
    assert f"version = {{{released[0]}}}" in text("docs/cite.md")
    assert "## [Unreleased]" in text("CHANGELOG.md")


def test_the_citation_has_what_its_format_asks_for() -> None:
    """Citation File Format 1.2.0, whose schema allows no other keys than these and a few more."""
    found = yaml.safe_load(text("CITATION.cff"))
    assert {"cff-version", "message", "title", "authors"} <= found.keys()
    assert found.keys() <= {
        *("cff-version", "message", "title", "type", "authors", "version", "license", "abstract", "keywords"),
        *(
            "date-released",
            "doi",
            "identifiers",
            "repository-code",
            "url",
            "references",
            "preferred-citation",
        ),
    }
    assert found["cff-version"] == "1.2.0"
    assert found["type"] == "software"
    assert all(author.keys() <= {"name", "website", "email"} for author in found["authors"])


def test_every_publication_of_a_method_can_be_cited() -> None:
    cited = text("docs/cite.md")
    for file in (REPOSITORY / "trainables" / "methods").glob("*.py"):
        for number in re.findall(r"arXiv (\d{4}\.\d{5})", file.read_text(encoding="utf-8")):
            assert number in cited, f"{file.name}: arXiv {number}"


def test_the_licence_is_the_one_that_is_told() -> None:
    assert yaml.safe_load(text("CITATION.cff"))["license"] == "Apache-2.0"
    licence = text("LICENSE")
    assert "Apache License\n                           Version 2.0, January 2004" in licence
    assert "END OF TERMS AND CONDITIONS" in licence


def test_every_variable_that_is_read_is_told() -> None:
    told = text("docs/environment.md")
    found = set()
    for folder in ("sweeper", "trainables"):
        for file in (REPOSITORY / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Constant) and VARIABLE.fullmatch(str(node.value)):
                    found.add(str(node.value))
    assert len(found) > 40
    assert not [name for name in found - set(NOT_READ) if f"`{name}`" not in told]


def test_every_exit_code_is_told() -> None:
    told = text("docs/environment.md")
    for code, meaning in EXITS.items():
        assert f"| {int(code)} | {meaning} |" in told


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `pip install .` installs, in a folder of its own."""
    source, built, installed = (tmp_path_factory.mktemp(name) for name in ("source", "built", "installed"))
    for name in ("sweeper", "trainables", "search_spaces"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(REPOSITORY / name, source / name, symlinks=True, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, source)
    build = f"from setuptools import build_meta; build_meta.build_wheel({str(built)!r})"
    subprocess.run([sys.executable, "-c", build], cwd=source, check=True, capture_output=True)
    (wheel,) = built.glob("clip_sweeper-*-py3-none-any.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(installed)
    return installed


def test_the_wheel_has_all_that_is_needed(installed: Path) -> None:
    there = {file.relative_to(installed).as_posix() for file in installed.rglob("*")}
    for folder in ("sweeper", "trainables"):
        for file in (REPOSITORY / folder).rglob("*"):
            if file.is_file() and "__pycache__" not in file.parts:
                assert file.relative_to(REPOSITORY).as_posix() in there
    assert {"sweeper/py.typed", "trainables/py.typed"} <= there
    assert {name.partition("/")[0] for name in there} == {"sweeper", "trainables", about_of(installed).name}
    licences = {file.name for file in about_of(installed).rglob("*LICENSE")}
    assert licences == {"LICENSE", "FASHION-MNIST-LICENSE"}
    about = (about_of(installed) / "METADATA").read_text(encoding="utf-8")
    assert "\nLicense-Expression: Apache-2.0\n" in about


def about_of(installed: Path) -> Path:
    return installed / f"clip_sweeper-{version('clip-sweeper')}.dist-info"


def test_an_installed_sweeper_runs_anywhere(installed: Path, tmp_path: Path) -> None:
    """By its entry points, without a checkout: shipped sweeps go by name."""
    entry = (about_of(installed) / "entry_points.txt").read_text()
    assert "sweeper = sweeper.cli:main" in entry
    own = {**os.environ, "PYTHONPATH": str(installed)}
    script = "from sweeper import cli; print(cli.__file__); cli.main()"
    command = [sys.executable, "-c", script, "plan", "published/tecoa"]
    done = subprocess.run(command, cwd=tmp_path, env=own, capture_output=True, text=True, check=True)
    assert str(installed / "sweeper") in done.stdout
    assert "sweep published-tecoa: 1 trial," in done.stdout


def test_the_optuna_dashboard_opens_the_study(tmp_path: Path) -> None:
    """As `optuna-dashboard RUN/study.journal` does."""
    from optuna_dashboard import wsgi
    from optuna_dashboard._storage_url import get_storage
    from werkzeug.test import Client

    run = finished_run(tmp_path, 6, ["search.early_stopping="])
    client = Client(wsgi(get_storage(str(run.journal))))
    (study,) = client.get("/api/studies").json["study_summaries"]
    assert study["study_name"] == run.id
    detail = client.get(f"/api/studies/{study['study_id']}").json
    assert len(detail["trials"]) == 6
    assert {trial["state"] for trial in detail["trials"]} == {"Complete"}
    assert detail["objective_names"] == run.spec.file.pareto.metrics
