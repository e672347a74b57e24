"""The README and docs/: every command and block is run or validated, every link leads somewhere, and messages
lead to the page that explains them."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
import typing
from contextlib import nullcontext, redirect_stdout, suppress
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import click
import pytest
from pydantic import BaseModel

from sweeper import Sweep, spec, tree
from sweeper.cli import main
from sweeper.files import read_json, write_json
from sweeper.run import Run
from sweeper.spec import SweepFile
from tests.command import called
from tests.finished import finished_run
from tests.pages import (
    DOCS,
    PAGES,
    REPOSITORY,
    Block,
    anchors,
    blocks,
    codes,
    commands,
    fragments,
    links,
    matches,
    messages,
    name_of,
)
from trainables.alterations.names import ALTERATIONS
from trainables.config import EvaluationConfig, TrialConfig
from trainables.data.config import DataSet
from trainables.methods import METHODS
from trainables.metrics import names
from trainables.suites import NAMES as SUITES

READ = ("status", "pareto", "logs", "report", "export", "plan", "compare")
"""Verbs that are run as they stand, on a finished run. The others are parsed; what they do takes longer."""
EXAMPLES = {"t001@2": "t001@1", "quickstart-20261124-142522": "RUN"}
"""What the pages call a trial and a run, and what there is in their place."""
OTHER_RUN = "dirichlet-20261125-091500"
ELSEWHERE = {"mlflow.pyfunc.load_model": "tests/test_export.py"}
"""Calls that take a server: the test that makes them."""
CODE = ("sweeper", "trainables", "tests", "benchmarks", "clusters", "search_spaces")
OWN_METHOD = DOCS / "your-method.md"
OTHERS = {
    "ray": r"(up|get-auth-token|attach|exec|dashboard|down) ?.*",
    "aws": r"ssm put-parameter .*",
    "pip": r"install (\.|--no-deps torchattacks==[\d.]+)",
    "uv": r"(tool install \.|venv \S+|pip install --python \S+ \S+)",
    "source": r"\.venv/bin/activate",
    "eval": r"\$\(sweeper completion (bash|zsh)\)",
    "optuna-dashboard": r"runs/\S+/study\.journal",
}
"""Commands of others, and what we tell to call them with."""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Beside it lies another run, which has the same trials."""
    run = finished_run(tmp_path_factory.mktemp("docs") / "runs")
    other = run.path.parent / OTHER_RUN
    shutil.copytree(run.path, other)
    write_json(other / "run.json", read_json(other / "run.json") | {"id": OTHER_RUN})
    return run


def load_page_maker() -> Any:
    about = importlib.util.spec_from_file_location("generate", DOCS / "generate.py")
    assert about is not None
    assert about.loader is not None
    module = importlib.util.module_from_spec(about)
    about.loader.exec_module(module)
    return module


# Blocks


class Reader:
    """Does what a page says, from its top to its end, in an empty folder beside a finished run."""

    def __init__(self, run: Run) -> None:
        self.names: dict[str, Any] = {"run": run}

    def read(self, block: Block) -> None:
        rule = getattr(self, f"read_{block.kind.strip('{}')}", None)
        assert rule is not None, f"{block}: no rule for a block of kind {block.kind!r}"
        rule(block)

    def read_text(self, block: Block) -> None:
        """Output, or a picture. Examples in it, as the help has them, are parsed."""
        for line in re.findall(r"^ +(sweeper \w.*)$", block.text, re.MULTILINE):
            for words in commands(line):
                parsed(words[1:])

    def read_toctree(self, _: Block) -> None:
        """Built by Sphinx, which warns of what is wrong: see the test below."""

    read_include = read_toctree

    def read_yaml(self, block: Block) -> None:
        """A sweep file, or keys of one or of a trial, which are laid over the first one of sweep-file.md."""
        root = tree.parse(block.text, str(block))
        assert isinstance(root, tree.Mapping)
        if "name" in root.items and "trial" in root.items:
            sweep = spec.validate(root)
            Path(f"{sweep.file.name}.yaml").write_text(block.text, encoding="utf-8")
            return
        trial = {key for key in root.items if key in TrialConfig.model_fields}
        assert root.items.keys() - trial <= SweepFile.model_fields.keys(), block
        below = tree.Mapping({key: root.items[key] for key in trial}, root.place)
        over = spec.without(root, *trial)
        spec.validate(tree.merge(tree.merge(base(), over), tree.Mapping({"trial": below}, root.place)))

    def read_python(self, block: Block) -> None:
        for call, test in ELSEWHERE.items():
            if call in block.text:
                assert call in (REPOSITORY / test).read_text(encoding="utf-8")
                compile(block.text, str(block), "exec")
                return
        exec(compile(block.text, str(block), "exec"), self.names)

    def read_bash(self, block: Block) -> None:
        for words in commands(block.text):
            command, *arguments = words
            rule = getattr(self, f"call_{command}", None)
            if rule is not None:
                rule(block, arguments)
                continue
            assert command in OTHERS, f"{block}: no rule for the command {command!r}"
            assert re.fullmatch(OTHERS[command], " ".join(arguments)), f"{block}: {' '.join(words)}"
            for word in arguments:
                if word.endswith((".yaml", "activate")) and not word.startswith("."):
                    assert (REPOSITORY / word).is_file(), f"{block}: {word}"

    def read_bibtex(self, block: Block) -> None:
        for entry in re.split(r"\n(?=@)", block.text.strip()):
            assert re.match(r"@(inproceedings|article|software)\{\w+,\n", entry), entry
            assert entry.count("{") == entry.count("}"), entry
            assert {"title", "author"} <= set(re.findall(r"^\s+(\w+) *= \{", entry, re.MULTILINE)), entry

    def call_sweeper(self, block: Block, arguments: list[str]) -> None:
        context = parsed(arguments)
        verb, *rest = arguments
        cluster = context.params.get("cluster") or "--cluster" in arguments
        if verb in READ and not cluster and "--register" not in arguments:
            given = [word for word in rest if word != "--memory"]  # which tests/test_spec.py asks for
            called(verb, *given)
        elif "file" in context.params and verb in ("run", "plan", "submit"):
            given = context.params
            spec.load(given["file"], given["profile"], given["overrides"])

    def call_make(self, block: Block, arguments: list[str]) -> None:
        makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
        for target in arguments:
            assert f"\n{target}:" in makefile, f"{block}: make {target}"

    def call_python(self, block: Block, arguments: list[str]) -> None:
        assert arguments[0] == "-m", f"{block}: a file finds its neighbours only with `python -m`"
        with pytest.MonkeyPatch.context() as patch, redirect_stdout(StringIO()) as said:
            patch.setattr(sys, "argv", [*arguments[1:], "--help"])
            with pytest.raises(SystemExit) as left:
                runpy.run_module(arguments[1], run_name="__main__")
        assert left.value.code == 0
        assert said.getvalue().startswith("usage: "), f"{block}: {' '.join(arguments)}"

    def call_export(self, block: Block, arguments: list[str]) -> None:
        known = (DOCS / "environment.md").read_text(encoding="utf-8")
        for name in (each.partition("=")[0] for each in arguments):
            assert f"`{name}`" in known, f"{block}: {name}"


def base() -> tree.Node:
    first = next(block for block in blocks(DOCS / "sweep-file.md") if block.kind == "yaml")
    return tree.parse(first.text, str(first))


def parsed(arguments: list[str]) -> click.Context:
    """Raises UsageError for a verb, option or argument that is not there. Nothing is done."""
    verb, *rest = arguments
    top, command = click.Context(main, info_name="sweeper", **main.context_settings), main.commands[verb]
    with pytest.MonkeyPatch.context() as patch:
        for parameter in command.params:
            if parameter.name == "cluster":  # which would do it on a cluster
                patch.setattr(parameter, "callback", None)
        return command.make_context(verb, rest, top)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_a_page_does_what_it_says(
    page: Path, finished: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import open_clip

    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").symlink_to(finished.path.parent)
    monkeypatch.setattr(Sweep, "run", lambda *_, **__: finished)  # which takes minutes
    tiny = REPOSITORY / "trainables/embedded/clip-tiny/open_clip_config.json"
    config = json.loads(tiny.read_text(encoding="utf-8"))["model_cfg"]
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "ViT-B-32", config)  # which takes 600 MB
    reader = Reader(finished)
    for block in blocks(page):
        if page != OWN_METHOD:  # which has tests of its own, for each of its blocks
            reader.read(replace(block, text=as_there(block.text, finished)))


def as_there(text: str, run: Run) -> str:
    for name, there in EXAMPLES.items():
        text = text.replace(name, run.name if there == "RUN" else there)
    return text


@pytest.fixture
def trades(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for PYTHONPATH with the package that the page about methods describes, and its sweep."""
    assert {block.kind for block in blocks(OWN_METHOD)} == {"python", "toml", "yaml", "bash"}
    method, _ = (block.text for block in blocks(OWN_METHOD) if block.kind == "python")
    (package,) = (block.text for block in blocks(OWN_METHOD) if block.kind == "toml")
    (sweep,) = (block.text for block in blocks(OWN_METHOD) if block.kind == "yaml")
    group, name, value = re.findall(r'entry-points\."(\S+)"\]\n(\w+) = "(.+)"', package)[0]
    about = tmp_path / "my_methods-0.1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: my-methods\nVersion: 0.1.0\n")
    (about / "entry_points.txt").write_text(f"[{group}]\n{name} = {value}\n")
    (tmp_path / "my_methods").mkdir()
    (tmp_path / "my_methods" / "trades.py").write_text(method)
    (tmp_path / "trades.yaml").write_text(sweep)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr("trainables.methods.base.METHODS", dict(METHODS))
    monkeypatch.delitem(sys.modules, "my_methods.trades", raising=False)
    return tmp_path


def test_a_method_of_ones_own_trains(trades: Path) -> None:
    """An epoch with the file that the page shows, and the test that it shows."""
    from trainables.training import Trainer

    module = importlib.import_module("my_methods.trades")
    file = (trades / "trades.yaml").read_text(encoding="utf-8")
    few = ["trial.data.images=64", "trial.batch_size=32", "trial.method={name: tecoa}"]
    sweep = spec.from_text(file, "trades.yaml", None, few)
    trainer = Trainer(TrialConfig.model_validate(sweep.base_trial()), seed=0)
    trainer.method = module.TRADES()
    before = trainer.model.clip.visual.proj.detach().clone()
    assert set(trainer.train_epoch().parts) == {"cross_entropy", "divergence"}
    assert not trainer.model.clip.visual.proj.equal(before)
    _, test = (block.text for block in blocks(OWN_METHOD) if block.kind == "python")
    exec(compile(test, "your-method.md", "exec"), {})


def test_a_method_of_an_installed_package_is_found(trades: Path) -> None:
    (shell,) = (block.text for block in blocks(OWN_METHOD) if block.kind == "bash")
    assert list(commands(shell)) == [["sweeper", verb, "trades.yaml"] for verb in ("plan", "run")]
    done = in_a_process(trades, "plan", "trades.yaml")
    assert done.returncode == 0, done.stderr
    assert "!loguniform [0.5, 20]" in done.stdout
    file = trades / "my_methods" / "trades.py"
    file.write_text(file.read_text().replace('Literal["trades"] =', 'Literal["trade"] ='))
    done = in_a_process(trades, "plan", "trades.yaml")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert 'TRADES needs the field `name: Literal["trades"] = "trades"`' in line
    assert line.endswith("(see docs/your-method.md#messages)")


def in_a_process(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    own = {**os.environ, "PYTHONPATH": f"{folder}:{REPOSITORY}"}
    command = [sys.executable, "-m", "sweeper", *arguments]
    return subprocess.run(command, cwd=folder, env=own, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_a_command_in_a_sentence_is_one(page: Path) -> None:
    for code in codes(page):
        words = re.sub(r"\bN\b", "1", re.sub(r"[\[\]]", "", code)).split()
        if len(words) > 1 and words[0] == "sweeper" and words[1].isalpha() and words[1].islower():
            # a sentence may leave out what it is about, and may be about --help
            with suppress(click.MissingParameter, click.exceptions.Exit):
                parsed(words[1:])
        if words[:2] == ["python", "-m"]:
            assert importlib.util.find_spec(words[2]), f"{name_of(page)}: {code}"
        elif words[:1] == ["python"]:
            assert (REPOSITORY / words[1]).is_file(), f"{name_of(page)}: {code}"
            assert not words[1].startswith("benchmarks/"), f"{code}: it finds its neighbours only with -m"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    for link in links(page):
        if link.startswith(("https://", "http://")):
            continue
        file, _, anchor = link.partition("#")
        target = (page.parent / file).resolve() if file else page
        assert target.is_file(), f"{name_of(page)}: {link}"
        assert not anchor or anchor in anchors(target), f"{name_of(page)}: {link}"


def test_the_readme_is_short() -> None:
    assert len((REPOSITORY / "README.md").read_text(encoding="utf-8").splitlines()) < 200


# Pages that are made


def test_what_is_made_from_the_code_is_up_to_date() -> None:
    for page, text in load_page_maker().PAGES.items():
        assert (DOCS / page).read_text(encoding="utf-8") == text(), "run: python docs/generate.py"


def test_sphinx_builds_the_pages_without_a_warning(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "sphinx",
        "--quiet",
        "--fail-on-warning",
        str(DOCS),
        str(tmp_path / "html"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    formulas = (tmp_path / "html" / "objectives.html").read_text(encoding="utf-8")
    assert formulas.count("<math") > 10
    assert "MathJax" not in formulas


def test_every_key_has_a_row_and_says_what_it_is() -> None:
    text = (DOCS / "sweep-file-reference.md").read_text(encoding="utf-8")
    sections = dict(re.findall(r"^#+ `(.+)`\n((?:.|\n(?!#))*)", text, re.MULTILINE))
    sections[""] = text.partition("\n## ")[0]
    count = 0
    for path, model in every_model("", SweepFile):
        own = next(
            own for title, own in sections.items() if title in (path, f"{path}: {default_name(model)}")
        )
        for name, field in model.model_fields.items():
            row = re.search(rf"^\| `{name}` \|[^|]+\|[^|]*\| (.+) \|$", own, re.MULTILINE)
            assert row, f"{path}.{name} ({field}) has no row that says what it is"
            count += 1
    assert count > 120


def default_name(model: type[BaseModel]) -> str:
    return str(model.model_fields["name"].default) if "name" in model.model_fields else ""


def every_model(path: str, model: type[BaseModel]) -> list[tuple[str, type[BaseModel]]]:
    """All models of a sweep file, each under the path of its key."""
    brought = {"trial": TrialConfig, "evaluation": EvaluationConfig}
    found = [(path, model)]
    for name, hint in typing.get_type_hints(model).items():
        if name not in model.model_fields:
            continue
        inner = f"{path}.{name}" if path else name
        for each in [brought[inner]] if inner in brought else inside(hint):
            if inner == "trial.data.train" or each is not DataSet:
                found += every_model(inner, each)
    return found


def inside(hint: Any) -> list[type[BaseModel]]:
    if isinstance(hint, type) and issubclass(hint, BaseModel):
        return [hint]
    return [model for each in typing.get_args(hint) for model in inside(each)]


def test_every_metric_is_explained() -> None:
    explained = [*codes(DOCS / "metrics.md"), *codes(DOCS / "suites.md")]
    for name in (*names.DESCRIPTIONS, *names.UNDEFINED_AT_TIMES, *names.OF_SET, *names.OUTSIDE):
        assert name in explained, name
    assert {*SUITES, *ALTERATIONS} <= set(explained)
    assert {f"{version}_" for version in names.VERSIONS + names.CONFIDENCE_VERSIONS} <= set(explained)


# Messages


def strings(*folders: str) -> list[str]:
    """All texts in the code, in the pieces that stand between what is filled in."""
    found = []
    for folder in folders:
        for file in (REPOSITORY / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found.append(node.value)
    return found


def test_messages_that_are_explained_are_those_of_the_program() -> None:
    said = "\n".join(strings("sweeper", "trainables"))
    explained = [(page.name, pattern) for page in PAGES for pattern in messages(page)]
    assert len(explained) > 90
    unsaid = [
        (page, pattern, words)
        for page, pattern in explained
        for words in fragments(pattern)
        if words not in said
    ]
    assert not unsaid


def test_pages_that_the_code_mentions_are_there() -> None:
    files = [*REPOSITORY.glob("*.*"), *(f for d in CODE for f in (REPOSITORY / d).rglob("*.*"))]
    for file in files:
        if file.suffix in (".py", ".yaml", ".toml", ".cff", ".md"):
            for name in re.findall(r"\bdocs/([\w-]+\.md)", file.read_text(encoding="utf-8")):
                assert (DOCS / name).is_file(), f"{file}: docs/{name}"


def test_pages_that_errors_name_are_there() -> None:
    places = [
        each for each in strings("sweeper", "trainables") if re.fullmatch(r"[\w-]+\.md(#[\w-]+)?", each)
    ]
    named = [each for each in places if (DOCS / each.partition("#")[0]).is_file() or "#" in each]
    assert len(named) > 15
    for file, _, anchor in (each.partition("#") for each in named):
        assert not anchor or anchor in anchors(DOCS / file), f"{file}#{anchor}"


SWEEP = """\
name: mine
trial:
  data: {train: DATA}
  method: {name: tecoa}
search: {trials: 2}
"""
MISTAKES = {
    "a misspelt key": (["plan", "FILE", "--set", "trial.epoch=2"], "sweep-file.md"),
    "a misspelt metric": (["plan", "FILE", "--set", "pareto.maximize=[robust_acuracy]"], "metrics.md"),
    "a range that is reversed": (
        ["plan", "FILE", "--set", "trial.optimizer.learning_rate=!loguniform [1, 0.1]"],
        "sweep-file.md#distributions",
    ),
    "an override without a value": (["plan", "FILE", "--set", "search.trials"], "sweep-file.md#overrides"),
    "a profile that is not there": (["plan", "quickstart", "--profile", "vit-l"], "sweep-file.md#profiles"),
    "a folder that is not there": (
        ["run", "FILE", "--set", "trial.data.train={image_folder: /nowhere}"],
        "data.md#sets-of-your-own",
    ),
    "images that are not in classes": (
        ["run", "FILE", "--set", "trial.data.train={image_folder: FLAT}"],
        "data.md#sets-of-your-own",
    ),
    "a data set that is not unpacked": (
        ["run", "FILE", "--set", "trial.data.train=cars"],
        "data.md#known-sets",
    ),
    "weights that there are not": (
        ["run", "FILE", "--set", "trial.model={name: ViT-B-32, pretrained: opnai}"],
        "models.md",
    ),
    "a model that there is not": (
        ["run", "FILE", "--set", "trial.model={name: ViT-B32, pretrained: openai}"],
        "models.md",
    ),
    "more GPUs than there are": (["run", "FILE", "--set", "resources.gpus=64"], "gpus.md#what-a-trial-takes"),
    "an attack that there is not": (
        ["run", "FILE", "--set", "final.further_attacks=[torchattacks.Sqare]"],
        "evaluation.md#attacks",
    ),
    "a cluster that is away": (["run", "FILE"], "clusters.md#messages"),
    "no runs": (["pareto", "--runs", "nothing"], "quickstart.md"),
    "a result that there is not": (["leaderboard", "nothing.json"], "leaderboard.md#messages"),
    "a trial that is not there": (["evaluate", "t007", "RUN"], "results.md#messages"),
    "a run that goes on": (["resume", "RUN"], "storage.md#who-drives"),
    "an MLflow that is away": (["track", "RUN"], "mlflow.md#messages"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_leads_to_the_page_that_explains_it(
    mistake: str, finished: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments, page = MISTAKES[mistake]
    (tmp_path / "flat").mkdir()
    file = tmp_path / "mine.yaml"
    file.write_text(SWEEP.replace("DATA", "fashion-mnist-8k"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SWEEPER_DATA", str(tmp_path))
    if "cluster" in mistake:
        monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    given = {"FILE": str(file), "RUN": str(finished.path), "FLAT": str(tmp_path / "flat")}
    full = [re.sub("FILE|RUN|FLAT", lambda name: given[name[0]], word) for word in arguments]
    with finished.driving() if "goes on" in mistake else nullcontext():
        mlflow = "http://127.0.0.1:1" if "MLflow" in mistake else None
        said = called(*full, code=2, MLFLOW_TRACKING_URI=mlflow).stderr
    (line,) = said.splitlines()
    assert line.endswith(f"(see docs/{page})")
    name, _, anchor = page.partition("#")
    assert not anchor or anchor in anchors(DOCS / name)
    explained = [pattern for pattern in messages(DOCS / name) if matches(pattern, line)]
    assert explained, f"{page} does not explain: {line}"
    assert explained[0] in (DOCS / "troubleshooting.md").read_text(encoding="utf-8").replace("\\", "")
