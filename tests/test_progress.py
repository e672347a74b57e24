"""What listeners hear of long work."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

import pytest
from PIL import Image

from trainables import models, progress
from trainables.config import EvaluationConfig, TrialConfig
from trainables.data import registry
from trainables.data.config import DataSet
from trainables.data.fit import Fit
from trainables.evaluate import evaluate
from trainables.once import NOWHERE
from trainables.progress import counted, named, part, report
from trainables.training import Trainer


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


def shares(heard: list[tuple[str, float]], name: str) -> list[float]:
    return [share for told, share in heard if told == name]


def test_an_evaluation_is_told_of_as_a_whole(heard: list[tuple[str, float]]) -> None:
    """Of all sets and attacks together, and never back."""
    attacks = [{"name": "apgd-ce", "steps": 2}, {"name": "margin-pgd", "steps": 2}]
    ruler = {"attack": {"epsilon": 4 / 255, "steps": 2}, "images": 20, "batch_size": 8}
    config = EvaluationConfig.model_validate({**ruler, "further_attacks": attacks})
    sets = [registry.load(name, "validation", Fit((28, 28))) for name in ("fashion-mnist-8k", "digits")]
    model = models.load("clip-tiny", None, "cpu")
    model.keep_class_texts(NOWHERE)  # a test before this may have had it keep them where they are found
    evaluate(model, sets, config)
    told = shares(heard, progress.MEASURING)
    assert told == sorted(told)
    assert (told[0], told[-1]) == (0, 1)
    assert len(set(told)) > 2 * (3 + 2)
    assert 0.5 in told  # after the first of two sets
    assert shares(heard, "class texts")[-1] == 1


def test_an_epoch_and_what_comes_before_it(heard: list[tuple[str, float]]) -> None:
    settings = {"method": {"name": "fare"}, "data": {"images": 64}}
    settings |= {"batch_size": 16, "attack": {"steps": 1}}
    Trainer(TrialConfig.model_validate(settings), seed=0).train_epoch()
    assert list(dict.fromkeys(share for share in shares(heard, progress.TRAINING))) == [0, 0.25, 0.5, 0.75, 1]
    assert shares(heard, "frozen features")[-1] == 1


def test_decoding(heard: list[tuple[str, float]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("trainables.data.decode.CHUNK", 2)
    for name in ("cat", "dog"):
        (tmp_path / "pets" / "test" / name).mkdir(parents=True)
        for index in range(2):
            image = Image.new("RGB", (8 + index, 8), (index, 0, 0))
            image.save(tmp_path / "pets" / "test" / name / f"{index}.png")
            (tmp_path / "pets" / "train" / name).mkdir(parents=True, exist_ok=True)
            image.save(tmp_path / "pets" / "train" / name / f"{index}.png")
    config = DataSet.model_validate({"image_folder": str(tmp_path / "pets")})
    registry.load(config, "test", Fit((8, 8)), decode="once")
    assert shares(heard, "decoding pets") == [0, 0.5, 1]
