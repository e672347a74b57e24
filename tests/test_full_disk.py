"""A full disk, met by whatever the driver writes. See tests/test_failures.py for a real one."""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from optuna.storages.journal import JournalFileBackend

from sweeper import run as folder
from sweeper.limits import full_disk
from sweeper.run import Run
from sweeper.simulator import Curves
from sweeper.spec import from_text
from sweeper.tune import Breaker
from tests.command import called
from tests.curves import curves
from tests.scheduler_contract import sweep
from tests.sweeps import SMALL
from tests.timing import Tune, outcome

FULL = Path("/dev/full")  # whatever is written there finds no space


def a_run(root: Path) -> Run:
    return Run.create(root, from_text(SMALL, "small.yaml"), {"seed": 3, "directory": os.getcwd()})


@pytest.mark.parametrize(
    ("number", "full"), [(errno.ENOSPC, True), (errno.EDQUOT, True), (errno.EIO, False), (None, False)]
)
def test_a_quota_that_is_used_up_is_a_full_disk_too(number: int | None, full: bool) -> None:
    outer = RuntimeError("what others make of it")
    outer.__cause__ = OSError(number, "said the system") if number else OSError("said nobody")
    assert bool(full_disk(outer)) == full


def test_the_log_does_without_a_line(tmp_path: Path) -> None:
    """It may be another thread's, and the line that says how a sweep ended."""
    run = a_run(tmp_path)
    run.log_file.symlink_to(FULL)
    run.log("a line")


def test_any_verb_says_it_in_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, *_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self))

    run = a_run(tmp_path)
    before = (run.path / "run.json").read_text()
    monkeypatch.setattr(Path, "write_text", full)
    said = called("resume", run.path, "--trials", "9", code=2).stderr
    assert said.startswith("no space is left for what this writes: ")
    assert said.count("\n") == 1
    assert (run.path / "run.json").read_text() == before


class Filling(Tune):
    """Whose disk becomes full at some writes: with probability `full` at each. What is then in the file is
    half a line where one was added, and nothing where a file was to be written."""

    def __init__(self, *arguments: Any, full: float) -> None:
        super().__init__(*arguments)
        self.full = full
        self.breaker = Breaker(self.searcher)
        for part in (self.searcher, self.scheduler):
            self.breaker.guard(part)

    def _maybe_die(self) -> None:
        self.breaker.on_step_end(0, [])

    def go(self) -> None:
        with self._limited():
            super().go()

    @contextmanager
    def _limited(self) -> Iterator[None]:
        append, write = JournalFileBackend.append_logs, folder.write_text

        def added(backend: JournalFileBackend, logs: list[dict[str, Any]]) -> None:
            self._write(Path(backend._file_path), '{"op_code":')
            append(backend, logs)

        def written(file: Path, text: str) -> None:
            if file.name in ("status.json", "config.json"):  # the driver's
                self._write(None)
            write(file, text)

        def decided(run: Run, decision: folder.Decision) -> None:
            self._write(run.rungs_file, '{"trial":')
            decide(run, decision)

        decide = Run.add_decision
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(JournalFileBackend, "append_logs", added)
            patch.setattr(folder, "write_text", written)
            patch.setattr(Run, "add_decision", decided)
            yield

    def _write(self, file: Path | None, half: str = "") -> None:
        if self.rng.random() < self.full:
            if file is not None:
                with open(file, "a", encoding="utf-8") as opened:
                    opened.write(half)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(file))


def filled(driver: Filling) -> bool:
    """Whether it came to the end of the sweep."""
    try:
        driver.go()
    except OSError as error:
        if full_disk(error):
            return False
        raise
    return True


def test_whatever_write_meets_it_the_sweep_goes_on_as_if_none_had(tmp_path: Path) -> None:
    made = sweep("{}", trials=16, sampler="tpe", constrained=True, deterministic=True)
    table = Curves(curves(made, 40, 9, seed=8))
    whole = Run.create(tmp_path / "whole", made, {"seed": 3})
    Tune(whole, table, 3, random.Random(0)).go()
    expected = outcome(made, whole.trials(), whole.decisions())
    for seed in range(3):
        run, rng, drivers = Run.create(tmp_path / str(seed), made, {"seed": 3}), random.Random(seed), 1
        while not filled(Filling(run, table, 3, rng, full=0.05)):
            drivers += 1
        assert drivers > 3
        assert outcome(made, run.trials(), run.decisions()) == expected


def test_who_fails_at_a_trials_end_ends_the_sweep_and_not_the_trial(tmp_path: Path) -> None:
    """Tune would call the searcher once more, with an error of the trial."""
    told: list[str] = []
    driver = Filling(
        Run.create(tmp_path, sweep(trials=4), {"seed": 3}),
        Curves(curves(sweep(trials=4), 4, 9, seed=8)),
        1,
        random.Random(0),
        full=0,
    )

    class Part:
        def __init__(self, name: str, error: Exception | None) -> None:
            self.name, self.error = name, error

        def on_trial_complete(self) -> None:
            told.append(self.name)
            if self.error:
                raise self.error

    full = OSError(errno.ENOSPC, "full")
    for part in (Part("first", None), Part("second", full), Part("third", None)):
        driver.breaker.guard(part).on_trial_complete()
    assert told == ["first", "second"]
    assert driver.searcher.suggest("0") == driver.searcher.FINISHED
    with pytest.raises(OSError, match="full"):
        driver.breaker.on_step_end(0, [])
