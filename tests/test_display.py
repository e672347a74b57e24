"""What a terminal, a log file and another shell see of a sweep while it runs."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from benchmarks.driven import Drive, new_run
from sweeper import progress, status, terminal
from sweeper.bars import Sparse, shown
from sweeper.budget import Clock
from sweeper.display import Display
from sweeper.progress import At, Reporter, Told, file_of
from sweeper.run import Run
from sweeper.site import Site
from sweeper.state import State, Task, state, summary
from sweeper.terminal import duration, is_live, percent, strict
from sweeper.trainable import Trainable
from sweeper.view import About, screen
from tests.command import called
from trainables.progress import named, report

SIDE = 4


@pytest.fixture(scope="module")
def drive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Drive]:
    """In the middle of a made-up sweep: some trials have ended, some run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda _: None)
        run = new_run(tmp_path_factory.mktemp("runs"), 40, ["search.sampler=random", "search.budget.hours=3"])
        drive = Drive(run, SIDE)
        drive.go(reports=60)
        drive.display.clock.started -= 600
        yield drive


@pytest.fixture
def now(drive: Drive) -> State:
    return drive.display.state()


def lines_of(now: State, about: About, width: int, height: int) -> list[str]:
    console = Console(width=width, height=height, record=True, file=io.StringIO(), force_terminal=True)
    console.print(screen(now, about, width, height))
    return console.export_text().splitlines()


def crowd(now: State, count: int) -> State:
    tasks = [
        Task(f"t{500 + index}", "tecoa", epoch=index % 3, epochs=9, rung=1, next_rung=3)
        for index in range(count)
    ]
    return replace(now, running=tasks)


@pytest.mark.parametrize(("width", "height"), [(80, 24), (80, 40), (132, 50), (60, 20), (40, 24)])
@pytest.mark.parametrize("count", [0, 3, 64])
def test_the_view_is_one_screen_whatever_runs(
    drive: Drive, now: State, width: int, height: int, count: int
) -> None:
    lines = lines_of(crowd(now, count), drive.display.about, width, height)
    assert len(lines) < height
    assert max(map(len, lines)) <= width
    shown = sum(line.startswith("t5") for line in lines)
    assert ("... and" in "\n".join(lines)) == (shown < count)
    if shown < count:
        assert f"... and {count - shown} more" in lines


def test_the_view_says_all_that_is_wanted_at_80_columns(drive: Drive, now: State) -> None:
    tasks = list(crowd(now, 3).running)
    tasks[1] = replace(tasks[1], doing="decoding tiny-imagenet", share=0.347)
    tasks[2] = Task("t007@2", "carot", doing="measuring", share=0.5)
    lines = lines_of(replace(now, running=tasks), drive.display.about, 80, 40)
    text = "\n".join(lines)
    assert lines[0] == f"{drive.display.run.name}: random, seed 0, {SIDE} trials at a time"
    folded = " ".join(line.strip() for line in lines)
    assert "validation images (at most 600 of each set), PGD-10 at epsilon 8/255" in folded
    assert f"{now.ended}/40 trials" in text
    assert f"{now.counts['stopped']} stopped" in text
    assert "images/s" in text
    assert "trials/h" in text
    assert re.search(r"about \d+ (s|min|h).* left", text)
    assert re.search(r"budget: 2\.83 of 3 hours left", text)
    assert re.search(r"robust ↑ +clean ↑ robust ↓\n.*epoch .*rung .*accuracy accuracy +ece", text)
    front = [line for line in lines if re.match(r"t\d+@\d", line)]
    assert len(front) == 8 + 1  # and the one that is measured
    values = [float(line.split()[2]) for line in front[:8]]
    assert values == sorted(values, reverse=True)
    assert re.search(r"untrained +0\.050 +0\.900 +0\.868", text)
    assert re.search(r"t500 +tecoa +━* +0/9 +1→3", text)
    assert re.search(r"t501 +tecoa +decoding 34 % +1/9 +1→3", text)
    assert re.search(r"t007@2 +carot +━+.* 50 %", text)


def test_a_later_stage_has_its_own_bar(drive: Drive, now: State) -> None:
    task = Task("t007@2", "carot", doing="measuring", share=0.5)
    later = replace(now, stage="measuring the candidates", done=3, total=10, running=[task], seconds_left=200)
    assert later.share == 0.35
    lines = lines_of(later, drive.display.about, 80, 24)
    assert re.fullmatch(r"measuring the candidates ━+.* 3/10", lines[3])
    assert summary(later).startswith("35 %, 3 of 10, ")
    assert summary(later).endswith("about 3 min left")


def a_state(run: Run, what: At, **told: Told) -> State:
    return state(
        run,
        trials=run.trials(),
        twins={},
        front=[],
        untrained=run.baseline(),
        what=what,
        told=told,
        seconds=600,
        rungs=lambda _: [1, 3],
    )


def test_jobs_are_told_apart_by_what_they_are(drive: Drive) -> None:
    run = drive.display.run
    trial = next(trial for trial in run.trials() if len(trial.epochs) > 1)
    jobs = [trial.id, f"{trial.id}@2-final", "baseline-validation"]
    told = {trial.id: Told("training", 0.5), "baseline-validation": Told("class texts", 0.3)}
    training, final, baseline = a_state(run, At("searching", running=jobs), **told).running
    assert (training.method, training.epoch, training.epochs) == (
        trial.method,
        len(trial.epochs),
        trial.config["epochs"],
    )
    assert training.done == (len(trial.epochs) + 0.5) / trial.config["epochs"]
    assert training.metrics == trial.metrics
    assert (final.id, final.method, final.epochs) == (f"{trial.id}@2", trial.method, None)
    assert (baseline.method, baseline.doing, baseline.done) == ("untrained", "class texts", 0)


def test_the_time_left_is_that_of_the_epochs_left(tmp_path: Path) -> None:
    run = new_run(tmp_path, 3, ["search.sampler=random", "search.early_stopping=", "trial.epochs=4"])
    drive = Drive(run, side=2)
    assert drive.display.state().seconds_left is None
    drive.go(reports=3)  # of the untrained model, and an epoch of each trial
    epoch = run.trial(0).epochs[0]
    seconds = epoch["training_seconds"] + epoch["evaluation_seconds"]
    assert drive.display.state().seconds_left == pytest.approx(seconds * (3 + 3 + 4) / 2)
    assert drive.display.state().images_per_second == 2000


def test_a_log_has_plain_lines_with_the_time(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # as some CI sets it, in which nothing can be written over either
    monkeypatch.setattr("sweeper.display.LOOK", -1)
    monkeypatch.setattr("sweeper.display.Sparse", Always)
    run = new_run(tmp_path, 6, ["search.sampler=random"])
    display = Display(run, SIDE, Clock(run))
    with display:
        drive = Drive(run, SIDE, display)
        drive.go(reports=1)
        job = display.at.running[-1]
        Site({"run": str(run.path), "id": job}).tell(Told("decoding [bold]digits[/]", 0.25))
        drive.go(reports=4)
        assert (run.path / progress.FILE).is_file()
        drive.go()
    assert not (run.path / progress.FILE).exists()
    out, err = capsys.readouterr()
    assert err == ""
    assert "\x1b" not in out
    assert "\r" not in out
    lines = out.splitlines()
    assert all(re.match(r"\d\d:\d\d:\d\d \S", line) for line in lines)
    said = [line[9:] for line in lines]
    assert said == [line[20:] for line in run.log_file.read_text().splitlines()]
    assert said[0] == f"{run.name}: random, seed 0, {SIDE} trials at a time"
    assert said[1].startswith(
        "Measured on validation images (at most 600 of each set), PGD-10 at epsilon 8/255"
    )
    assert f"{job}: decoding [bold]digits[/], 25 %" in said
    assert sum(bool(re.match(r"t\d+ \w+: (completed|stopped early)", line)) for line in said) == 6
    assert any(re.match(r"\d of 6 trials ended, \d running", line) for line in said)
    assert any(re.match(r"measuring the candidates under the final attack: \d+ %, ", line) for line in said)
    assert sum(line.startswith("searching ...") for line in said) == 1


class Always(Sparse):
    def due(self, share: float) -> bool:
        return True


def test_sparse_lines_are_a_tenth_or_half_a_minute_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = 0.0
    monkeypatch.setattr("time.monotonic", lambda: clock)
    sparse, said = Sparse(told=0), []
    for clock in range(200):
        if sparse.due(min(clock / 40, 1)):
            said.append(clock)
    assert said[:8] == [5, 10, 15, 20, 25, 30, 35, 40]
    assert {after - before for before, after in zip(said[-4:], said[-3:], strict=False)} == {30}
    assert not Sparse(told=199).due(1.0)  # what is done at once is not told of


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("variables", "live"),
    [
        ({}, True),
        ({"NO_COLOR": "1"}, True),
        ({"CI": "false"}, True),
        ({"CI": "true"}, False),
        ({"TERM": "dumb"}, False),
        ({"TTY_INTERACTIVE": "0"}, False),
    ],
)
def test_the_view_is_live_where_lines_can_be_written_over(
    variables: dict[str, str], live: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain(monkeypatch, **variables)
    monkeypatch.setattr("sys.stdout", Screen())
    assert is_live(terminal.console()) == live
    monkeypatch.setattr("sys.stdout", io.StringIO())
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert not is_live(terminal.console())


def plain(monkeypatch: pytest.MonkeyPatch, **variables: str) -> None:
    """A usual terminal, and these."""
    for name in ("CI", "NO_COLOR", "FORCE_COLOR", "TTY_INTERACTIVE", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


COLOUR = re.compile(r"\x1b\[[\d;]*(3\d|4\d|9\d)[\d;]*m")


@pytest.mark.parametrize(
    ("variables", "tty", "styled", "coloured"),
    [
        ({}, True, True, True),
        ({"NO_COLOR": "1"}, True, True, False),
        ({}, False, False, False),
        ({"FORCE_COLOR": "1"}, False, True, True),
        ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, False, True, False),
    ],
)
def test_colours_follow_the_terminal_and_the_environment(
    *,
    drive: Drive,
    now: State,
    variables: dict[str, str],
    tty: bool,
    styled: bool,
    coloured: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plain(monkeypatch, **variables)
    stream = Screen() if tty else io.StringIO()
    monkeypatch.setattr("sys.stdout", stream)
    terminal.console().print(screen(now, drive.display.about, 80, 24))
    assert ("\x1b[1m" in stream.getvalue()) == styled
    assert bool(COLOUR.search(stream.getvalue())) == coloured


def test_what_can_not_be_drawn_ends_no_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain(monkeypatch)
    stream = Screen()
    monkeypatch.setattr("sys.stdout", stream)
    run = new_run(tmp_path, 2)
    with Display(run, 1, Clock(run)) as display:
        assert display.live is not None
        monkeypatch.setattr(display, "state", lambda: 1 / 0)
    assert "the live view can't be drawn: ZeroDivisionError" in stream.getvalue()


@pytest.fixture
def driven(drive: Drive) -> Iterator[Run]:
    """The run of `drive`, held by a driver that has said what it is at."""
    run = drive.display.run
    with run.driving():
        job = sorted(drive.display.at.running)[0]
        site = Site({"run": str(run.path), "id": job})
        site.tell(Told("training", 0.5))
        drive.display.looked = float("-inf")
        drive.display.tick()
        yield run
        site.tell(None)


def test_status_shows_a_sweep_that_runs_elsewhere(drive: Drive, driven: Run) -> None:
    done = called("status", driven.path, "--runs", driven.path.parent)
    lines = done.stdout.splitlines()
    assert re.search(r"of 40 trials \(.*4 unfinished\); running$", lines[0])
    assert re.match(r"driver: pid \d+ on .*, started \d+", lines[1])
    assert re.match(r"searching: \d+ of 40 trials ended, 4 running, .* images/s, .* left", lines[2])
    for job in drive.display.at.running:
        assert re.search(rf"{job} +\w+ +━*.* \d/\d", done.stdout)
    assert driven.log_file.read_text().splitlines()[-1] in lines
    assert lines[-1] == f"* {driven.path}"


def test_status_as_json(drive: Drive, driven: Run) -> None:
    content = json.loads(called("status", driven.path, "--runs", driven.path.parent, "--json").stdout)
    assert list(content) == [
        "run", "path", "status", "driver", "stage", "stage_done", "stage_total", "trials",
        "images_per_second", "trials_per_hour", "seconds_left", "budget", "running", "untrained", "front",
        "measured_on", "failed", "log", "runs",
    ]  # fmt: skip
    told = Path("docs/scripts.md").read_text(encoding="utf-8")
    for part in (content, content["trials"], content["running"][0], content["front"][0], content["driver"]):
        assert [key for key in part if f"`{key}`" not in told] == []
    assert (content["run"], content["path"], content["status"]) == (driven.name, str(driven.path), "running")
    assert set(content["driver"]) == {"pid", "host", "started"}
    assert content["stage"] == "searching"
    trials = driven.trials()
    assert content["trials"]["started"] == len(trials)
    assert content["trials"]["unfinished"] == SIDE
    assert content["budget"]["hours"]["limit"] == 3
    running = {task["id"]: task for task in content["running"]}
    assert set(running) == {trial.id for trial in trials if trial.status == "unfinished"}
    first = running[min(running)]
    assert set(first) == {
        "id", "method", "epoch", "epochs", "rung", "next_rung", "metrics", "doing", "share", "done",
    }  # fmt: skip
    assert (first["doing"], first["share"]) == ("training", 0.5)
    assert {point["id"] for point in content["front"]} == {p.id for p in drive.display.state().front}
    assert content["runs"] == [str(driven.path)]


def test_status_of_a_run_that_nobody_drives(drive: Drive) -> None:
    run = drive.display.run
    shown = called("status", run.path, "--watch").stdout  # which ends at once
    assert f"interrupted; go on with: sweeper resume {run.name}" in shown
    assert "driver:" not in shown
    content = json.loads(called("status", run.path, "--json").stdout)
    assert (content["status"], content["driver"], content["running"]) == ("interrupted", None, [])
    assert content["front"]


def test_a_run_is_watched_until_its_driver_ends(driven: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[float] = []
    holder = Run.driver

    def sleep(seconds: float) -> None:
        looks.append(seconds)
        monkeypatch.setattr(Run, "driver", holder if len(looks) < 2 else lambda _: None)

    monkeypatch.setattr(status.time, "sleep", sleep)
    shown = called("status", driven.path, "--watch").stdout.splitlines()
    assert [bool(re.match(r"\d\d:\d\d:\d\d searching: .* 4 running", line)) for line in shown[:3]] == [
        True,
        True,
        False,
    ]
    assert "interrupted" in shown[2]


def test_ctrl_c_in_a_verb_that_only_looks_has_its_exit_code(
    drive: Drive, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(status.Looker, "look", interrupted)
    assert called("status", drive.display.run.path, code=130).output == ""


class Place:
    """Where a worker says how far it is."""

    every = 0.01

    def __init__(self) -> None:
        self.heard: list[Told | None] = []

    def tell(self, told: Told | None) -> None:
        self.heard.append(told)
        if told == Told("broken", 0.0):
            raise OSError("no space is left")


def test_a_worker_says_the_latest_and_takes_it_back() -> None:
    place = Place()
    reporter = Reporter(place)
    for doing in ("broken", "training"):
        reporter(doing, 0.0)
        while Told(doing, 0.0) not in place.heard:
            pass
    reporter.close()
    assert place.heard[-2:] == [Told("training", 0.0), None]
    short = Place()
    reporter = Reporter(short)
    reporter.close()
    assert short.heard == []  # of a moment's work nothing is said


def test_what_workers_and_driver_say_lies_in_the_run_folder(tmp_path: Path) -> None:
    run = new_run(tmp_path, 2)
    assert (progress.at(run).stage, progress.at(run).running) == ("", [])
    assert progress.told(run, ["t000"]) == {}
    site = Site({"run": str(run.path), "id": "t000"})
    site.tell(Told("training", 0.25))
    Site({"run": str(run.path), "id": "t001"}).tell(Told("training", 0.5))
    what = At("searching", 1000.0, 1, 2, ["t000"])
    progress.say_at(run, what)
    assert progress.at(run) == what
    progress.say_at(run, replace(what, running=["../../t000", "t000@2-final"]))
    assert progress.at(run).running == ["t000@2-final"]
    assert progress.told(run, ["t000", "t002"]) == {"t000": Told("training", 0.25)}
    site.tell(None)
    site.tell(None)
    assert progress.told(run, ["t000"]) == {}
    progress.forget(run)
    assert not file_of(run.path, "t001").exists()
    assert progress.at(run).stage == ""


@pytest.mark.parametrize("live", [True, False])
def test_what_a_verb_does_by_itself_has_a_bar_or_lines(live: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    plain(monkeypatch)
    stream = Screen() if live else io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    monkeypatch.setattr("sweeper.bars.Sparse", Always)
    trainable = Trainable.find("finetune")
    with shown(trainable):
        with named("decoding digits"):
            report(1, 2)
        with named("measuring"):
            report(1, 4)
    with named("measuring"):
        report(1, 3)  # nobody listens any more
    said = re.sub(r"\x1b\[[\d;?]*\w", "", stream.getvalue())
    assert ("\x1b" in stream.getvalue()) == live
    if live:
        assert re.search(r"measuring ━+.* 25%", said)
    else:
        lines = [line[9:] for line in said.splitlines()]
        assert lines == ["decoding digits, 0 %", "decoding digits, 50 %", "measuring, 0 %", "measuring, 25 %"]


def test_durations_and_shares_in_words() -> None:
    assert [duration(s) for s in (0.4, 59.4, 59.6, 3599, 8040, 90000)] == [
        "0 s", "59 s", "1 min", "1 h 0 min", "2 h 14 min", "1 d 1 h",
    ]  # fmt: skip
    assert [percent(share) for share in (0, 0.346, 0.999, 1)] == ["0 %", "34 %", "99 %", "100 %"]


def test_json_knows_no_number_that_is_not_finite() -> None:
    assert strict({"a": [float("nan"), (1.5, float("inf"))], "b": "nan"}) == {
        "a": [None, [1.5, None]],
        "b": "nan",
    }
