"""The command line itself: its help, what a shell completes, what it ends with, JSON for scripts."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import click
import pytest
from click.shell_completion import ShellComplete

from benchmarks.driven import finished_run
from sweeper import remote, runner, spec
from sweeper.cli import VERBS, main
from sweeper.errors import EXITS, Exit
from sweeper.run import Run
from tests.command import called
from tests.sweeps import SMALL

NAMES = [name for names in VERBS.values() for name in names]


def examples(verb: str) -> list[list[str]]:
    """Of its help, as words."""
    shown = called(verb, "--help").output
    lines = shown[shown.index("For example:\n") :].splitlines()[1:]
    words = [shlex.split(line, comments=True) for line in lines]
    return [line[line.index("sweeper") + 1 :] for line in words if "sweeper" in line]


@pytest.mark.parametrize("verb", NAMES)
def test_every_verb_has_its_file_and_an_example_that_can_be_typed(verb: str) -> None:
    assert Path("sweeper/commands", f"{verb}.py").is_file()
    command = main.commands[verb]
    found = examples(verb) if verb != "completion" else [[verb, "bash"]]
    assert found
    for words in found:
        assert words[0] == verb
        typed = words[1 : words.index("|")] if "|" in words else words[1:]
        known = {option for param in command.params for option in param.opts}
        assert {word for word in typed if word.startswith("--")} <= known
        for index, word in enumerate(typed):
            if word == "--cluster":
                typed[index : index + 2] = []  # else it would be done there
        command.make_context(verb, typed, click.Context(main, **main.context_settings))


def test_help_lists_the_verbs_by_what_they_are_for_and_the_exit_codes() -> None:
    shown = called("--help").output
    assert [name for name in NAMES if f"\n  {name} " not in shown] == []
    assert "..." not in shown.partition("Exit codes:")[0]  # each is said in full
    for title in VERBS:
        assert f"\n{title}:\n" in shown
    for code, meaning in EXITS.items():
        assert f"\n  {int(code)} " in shown
        assert meaning.split(";")[0].split(".")[0] in " ".join(shown.split())
    assert set(EXITS) == set(Exit)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["statsu"], "sweeper: No such command 'statsu'. Did you mean 'status'? `sweeper --help` says"),
        (
            ["status", "--jsn"],
            "sweeper status: No such option '--jsn'. Did you mean '--json'? `sweeper st",
        ),
        (["run"], "sweeper run: Missing argument 'FILE'. `sweeper run --help` says what there is."),
        (["--jsn"], "sweeper: No such option '--jsn'"),
    ],
)
def test_what_is_mistyped_is_a_line_with_a_hint(words: list[str], line: str) -> None:
    done = called(*words, code=Exit.USER)
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith(line)
    assert done.stdout == ""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with sweep files and two runs, the second with kept weights."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SWEEPER_RUNS", raising=False)
    (tmp_path / "search_spaces" / "published").mkdir(parents=True)
    for name in ("quickstart", "compare", "published/tecoa"):
        (tmp_path / "search_spaces" / f"{name}.yaml").write_text(SMALL)
    for name in ("first", "second"):
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "run.json").write_text("{}")
    for epoch in ("t000/epoch-002", "t003/epoch-001", "t003/epoch-012"):
        file = tmp_path / "runs" / "second" / "trials" / f"{epoch}.safetensors"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    return tmp_path


def offered(*words: str) -> list[str]:
    """For the last of the words; of files and folders, which the shell finds itself, their kind."""
    found = ShellComplete(main, {}, "sweeper", "_SWEEPER_COMPLETE").get_completions(
        list(words[:-1]), words[-1]
    )
    return [item.value if item.type == "plain" else f"<{item.type}>" for item in found]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["st"], ["status", "stop"]),
        (["status", "--j"], ["--json"]),
        (["status", ""], ["first", "second"]),
        (["pareto", "se"], ["second"]),
        (["status", "elsewhere/"], ["<dir>"]),
        (["status", "--runs", "nowhere", ""], ["<dir>"]),
        (["run", "search_spaces/q"], ["search_spaces/quickstart.yaml"]),
        (["run", "qu"], ["quickstart"]),
        (["run", "published/te"], ["published/tecoa"]),
        (["run", "dirichlet", "--profile", "v"], ["vit-b-32"]),
        (["plan", "mine/"], ["<file>"]),
        (["run", "search_spaces/compare.yaml", "--profile", ""], ["long"]),
        (["run", "search_spaces/gone.yaml", "--profile", ""], []),
        (["evaluate", "t003"], ["t003", "t003@1", "t003@12"]),
        (["evaluate", "b"], ["baseline", "<dir>"]),
        (["evaluate", "t003@1", "f"], ["first"]),
        (["export", "--trial", "t000"], ["t000", "t000@2"]),
        (["export", "first", "--trial", "t"], ["<dir>"]),
        (["export", "runs/second", "--trial", "t003@"], ["t003@1", "t003@12"]),
        (["completion", ""], ["bash", "zsh", "fish"]),
    ],
)
@pytest.mark.usefixtures("home")
def test_what_a_shell_is_offered(words: Sequence[str], expected: list[str]) -> None:
    assert offered(*words) == expected


@pytest.mark.usefixtures("home")
def test_completing_does_nothing_on_a_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "forward", lambda *_: pytest.fail("was forwarded"))
    assert offered("status", "--cluster", "cluster.yaml", "fi") == ["first"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_are_ones_of_their_shell(shell: str) -> None:
    script = called("completion", shell).stdout
    assert f"_SWEEPER_COMPLETE={shell}_complete" in script
    if shutil.which(shell):
        done = subprocess.run([shell, "-n"], input=script, text=True, capture_output=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")


def test_a_plan_as_json(tmp_path: Path) -> None:
    file = tmp_path / "small.yaml"
    file.write_text(SMALL)
    content = json.loads(called("plan", file, "--profile", "long", "--json").stdout)
    sweep = spec.load(file, "long")
    told = Path("docs/scripts.md").read_text(encoding="utf-8")
    assert [key for key in content if f"`{key}`" not in told] == []
    assert (content["trials"], content["epochs"], content["seed"]) == (8, 9, 3)
    assert content["parameters"]["attack.epsilon"] == "!choice [4/255, 8/255]"
    assert content["metrics"] == sweep.metrics
    assert content["measured_on"]["final"].startswith(
        "validation images (at most 40 of each set), PGD-5 at epsilon"
    )
    assert content["subject_to"] == ["clean_accuracy >= 0.5 * baseline"]


def test_what_goes_wrong_leaves_no_json(tmp_path: Path) -> None:
    for verb in ("status", "pareto", "report", "export", "track", "stop"):
        done = called(verb, "gone", "--runs", tmp_path, "--json", code=Exit.USER)
        assert done.stdout == ""
        assert done.stderr.count("\n") == 1


def test_an_interrupted_sweep_as_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def drive(_: Run) -> None:
        print("searching ...")
        raise KeyboardInterrupt

    monkeypatch.setattr(runner, "drive", drive)
    run = finished_run(tmp_path, 4)
    done = called("resume", run.path, "--json", code=Exit.INTERRUPTED)
    said = json.loads(done.stdout)
    assert (said["path"], said["finished"], said["page"]) == (str(run), False, None)
    assert said["pareto"] == run.pareto()
    assert "searching ...\n" in done.stderr
    assert f"go on with: sweeper resume {run}" in done.stderr


def test_stop_as_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run.create(tmp_path, spec.from_text(SMALL, "small.yaml"), {})
    stopped: list[Run] = []
    monkeypatch.setattr("sweeper.stopping.stop_driver", stopped.append)
    content = json.loads(called("stop", run.path, "--json").stdout)
    assert content == {"run": run.name, "path": str(run.path), "resume": f"sweeper resume {run.path}"}
    assert [each.path for each in stopped] == [run.path]


def test_ctrl_c_before_a_run_is_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(spec, "load", interrupted)
    done = called("plan", tmp_path / "x.yaml", code=Exit.INTERRUPTED)
    assert done.output == ""


def test_verbs_are_commands() -> None:
    assert all(isinstance(main.commands[name], click.Command) for name in NAMES)
    assert set(main.commands) == set(NAMES)
