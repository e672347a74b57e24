"""What listeners hear of long work."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

import pytest

from trainables import progress
from trainables.progress import counted, named, part, report


@pytest.fixture
def heard() -> Iterator[list[tuple[str, float]]]:
    told: list[tuple[str, float]] = []
    progress.listen(lambda name, share: told.append((name, round(share, 3))))
    yield told
    progress.listen(None)


def test_work_inside_of_work_has_its_own_name_or_is_a_share_of_it(heard: list[tuple[str, float]]) -> None:
    with named("outer"):
        with part(0, 1, 4):
            report(1, 2)
        with named("inner"):
            for _ in counted("ab"):
                pass
        with part(1, 4, 4), part(0, 500, 300):  # a last batch may be cut
            report(3, 3)
    report(1, 2)  # about nothing
    assert [each for each, _ in groupby(heard)] == [
        ("outer", 0), ("outer", 0.125), ("outer", 0.25),
        ("inner", 0), ("inner", 0.5), ("inner", 1),
        ("outer", 0.25), ("outer", 1),
    ]  # fmt: skip


def test_work_that_fails_is_not_taken_for_what_comes_next(heard: list[tuple[str, float]]) -> None:
    with pytest.raises(ValueError, match="broken"), named("a"), part(0, 1, 2):
        raise ValueError("broken")
    with named("b"):
        report(1, 1)
    assert heard[-1] == ("b", 1)


def test_nobody_has_to_listen() -> None:
    with named("a"), part(0, 1, 2):
        report(1, 1)
