"""The papers in small: the numbers of the table, that nothing is done twice, and that the page has them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from scipy import stats

from benchmarks.reproduction import numbers, units
from benchmarks.reproduction.__main__ import KEPT, run_all, write
from benchmarks.reproduction.numbers import at_accuracy, common_accuracy
from benchmarks.reproduction.page import BEGIN, END, PAGE, as_csv, block, in_words, page, verdict
from benchmarks.reproduction.results import QUESTIONS, results
from benchmarks.reproduction.units import CONFIGURATIONS, PMG, TECOA, UNTRAINED, Configuration, Unit
from tests.records import records
from trainables.config import TrialConfig
from trainables.metrics.comparison import resampled
from trainables.metrics.resampling import squared_l2

IMAGES = {"fashion-mnist-8k": 250, "digits": 60}
DRAWS = 200


@pytest.fixture(scope="module")
def made_up(tmp_path_factory: pytest.TempPathFactory) -> list[Unit]:
    """Finished units of measurements that never took place."""
    found = units.units(tmp_path_factory.mktemp("reproduction"))
    for number, unit in enumerate(found):
        unit.folder.mkdir()
        skill = 0.5 + unit.seed / 50 + CONFIGURATIONS.index(unit.configuration) / 40
        for epoch in (1, 2) if unit.configuration.trained else (0,):
            file = unit.folder / f"epoch-{epoch:03d}.parquet"
            records(2 * number + epoch, IMAGES, skill=skill).to_parquet(file)
            busy = {"process_cpu_percentage": 50.0}
            told = {"system": busy, "training_seconds": 30, "evaluation_seconds": 10}
            file.with_suffix(".json").write_text(json.dumps(told))
        records(number, {"fashion-mnist-8k": 150}, skill=skill).to_parquet(unit.standard)
        unit.standard.with_suffix(".json").write_text("{}")
    return found


@pytest.fixture(scope="module")
def found(made_up: list[Unit]) -> dict[str, Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(numbers, "DRAWS", DRAWS)
        return results(made_up)


def tables(made_up: list[Unit], configuration: Configuration) -> list[pd.DataFrame]:
    """Records of the seeds, of the first set and the last epoch."""
    own = [unit for unit in made_up if unit.configuration == configuration]
    last = [pd.read_parquet(sorted(unit.folder.glob("epoch-???.parquet"))[-1]) for unit in own]
    return [table[table["set"] == "fashion-mnist-8k"].reset_index(drop=True) for table in last]


def ece(table: pd.DataFrame) -> float:
    bins = pd.cut(table["robust_confidence"], np.linspace(0, 1, 16))
    means = table.groupby(bins, observed=True)[["robust_correct", "robust_confidence"]].mean()
    share = table.groupby(bins, observed=True).size() / len(table)
    return float((share * (means["robust_correct"] - means["robust_confidence"]).abs()).sum())


def test_a_number_is_the_mean_over_seeds(made_up: list[Unit], found: dict[str, Any]) -> None:
    for configuration in CONFIGURATIONS:
        own = tables(made_up, configuration)
        expected = {
            "clean_accuracy": [table["clean_correct"].mean() for table in own],
            "robust_accuracy": [(table["broken_by"] == "").mean() for table in own],
            "robust_ece": [ece(table) for table in own],
            "entropy_shift": [(table["robust_entropy"] - table["clean_entropy"]).mean() for table in own],
        }
        of = found["configurations"][configuration.name]
        assert of["seeds"] == list(range(configuration.seeds))
        for metric, seeds in expected.items():
            assert of["of_seeds"][metric] == pytest.approx(seeds, rel=1e-5)
            assert of["metrics"][metric][0] == pytest.approx(np.mean(seeds), rel=1e-5)


def analytic(*parts: list[np.ndarray], signs: tuple[int, ...]) -> float:
    """Half the width of the interval, of per-image values of seeds, with the variances written out."""
    k = len(parts[0])
    images = sum(sign * np.mean(of, axis=0) for sign, of in zip(signs, parts, strict=True))
    of_images = images.var() / len(images)
    of_seeds = [np.mean(of, axis=1).var(ddof=1) / k for of in parts]
    total = of_images + sum(of_seeds)
    degrees = total**2 / sum(v**2 / (k - 1) for v in of_seeds)
    return float(stats.t(degrees).ppf(0.975) * np.sqrt(total))


def test_intervals_are_of_seeds_and_images(made_up: list[Unit], found: dict[str, Any]) -> None:
    correct = {
        each: [table["clean_correct"].to_numpy(float) for table in tables(made_up, each)]
        for each in (TECOA, PMG)
    }
    of = found["configurations"][PMG.name]
    for (value, low, high), half in (
        (of["metrics"]["clean_accuracy"], analytic(correct[PMG], signs=(1,))),
        (of["less_tecoa"]["clean_accuracy"], analytic(correct[PMG], correct[TECOA], signs=(1, -1))),
    ):
        assert high - value == pytest.approx(half, rel=0.12)
        assert value - low == pytest.approx(half, rel=0.12)
    difference = np.mean(correct[PMG]) - np.mean(correct[TECOA])
    assert of["less_tecoa"]["clean_accuracy"][0] == pytest.approx(difference, rel=1e-5)


def test_a_model_of_which_nothing_is_drawn_has_the_interval_of_its_images(
    made_up: list[Unit], found: dict[str, Any]
) -> None:
    (table,) = tables(made_up, UNTRAINED)
    value, low, high = found["configurations"][UNTRAINED.name]["metrics"]["clean_accuracy"]
    half = 1.96 * np.sqrt(value * (1 - value) / len(table))
    assert [value - low, high - value] == pytest.approx([half, half], rel=0.12)


def test_at_an_accuracy_is_between_epochs() -> None:
    accuracies = [np.array([[0.2, 0.3]]), np.array([[0.4, 0.5]]), np.array([[0.3, 0.7]])]
    errors = [np.array([[0.1, 0.1]]), np.array([[0.3, 0.2]]), np.array([[0.9, 0.4]])]
    np.testing.assert_allclose(at_accuracy(accuracies, errors, 0.35), [[0.25, 0.125]])
    np.testing.assert_allclose(
        at_accuracy(accuracies, errors, 0.6), [[0.3, 0.3]]
    )  # the first never gets there
    np.testing.assert_allclose(at_accuracy(accuracies, errors, 0.1), [[0.1, 0.1]])
    worse = [np.array([[0.1, 0.2]]), np.array([[0.35, 0.6]])]
    assert common_accuracy(accuracies, worse) == pytest.approx(0.35)
    assert common_accuracy(accuracies, worse[:1]) is None


def test_a_curve_that_falls_is_crossed_where_it_rises() -> None:
    """Once it has fallen, the error of a later epoch is not that of the accuracy it had."""
    accuracies = [np.array([[each]]) for each in (0.5, 0.6, 0.55, 0.65)]
    errors = [np.array([[each]]) for each in (0.1, 0.2, 0.15, 0.25)]
    assert at_accuracy(accuracies, errors, 0.62)[0, 0] == pytest.approx(0.15 + 0.7 * 0.1)
    assert at_accuracy(accuracies[:3], errors[:3], 0.6)[0, 0] == pytest.approx(0.2)


def off_by(gap: float, confidence: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Answers that are right less often than the confidence says."""
    correct = rng.random(len(confidence)) < confidence - gap
    return {"confidence": confidence, "correct": correct.astype(float)}


@pytest.mark.parametrize("gap", [0.0, 0.1])
def test_intervals_of_squared_errors_hold_the_truth(gap: float) -> None:
    """That of a difference to a calibrated model, too, of which that of ECEs does not."""
    rng, images, repeats = np.random.default_rng(0), 300, 150
    values, held = [], []
    for _ in range(repeats):
        confidence = rng.uniform(0.2, 1, images)
        weights = np.concatenate([np.ones((1, images)), resampled(rng, 200, images)])
        one, other = (squared_l2(off_by(each, confidence, rng), weights)[:, None] for each in (gap, 0))
        found = numbers.mean(one), numbers.difference(one, other)
        held.append([of.low <= gap**2 <= of.high for of in found])
        values.append([of.value for of in found])
    assert np.mean(held, axis=0).min() > 0.93
    error = np.std(values, axis=0) / np.sqrt(repeats)
    np.testing.assert_array_less(np.abs(np.mean(values, axis=0) - gap**2), 3 * error)


@pytest.mark.parametrize(
    ("difference", "expected", "said"),
    [
        ([0.1, 0.05, 0.2], "above", "**yes**"),
        ([0.1, 0.05, 0.2], "below", "**no**, above"),
        ([-0.1, -0.2, 0.0], "below", "not distinguishable"),
        ([-0.1, -0.2, -0.05], "other", "yes, below"),
        (None, "below", "never equal"),
    ],
)
def test_a_verdict_is_what_the_interval_allows(
    difference: list[float] | None, expected: str, said: str
) -> None:
    assert verdict({"difference": difference, "expected": expected}) == said


@pytest.mark.parametrize(
    ("difference", "said"),
    [
        (
            [0.04, 0.03, 0.05],
            "A has more attacked squared error than B where both have 60.0 % robust accuracy",
        ),
        ([-0.04, -0.05, -0.03], "A has less attacked squared error than B where both have 60.0 % robust"),
        ([-0.04, -0.05, 0.0], "A and B can't be told apart in attacked squared error where both have 60.0 %"),
        (None, "A and B were never equally robust, so"),
    ],
)
def test_a_sentence_says_what_the_interval_allows(difference: list[float] | None, said: str) -> None:
    row = {"metric": "robust_squared_l2", "of": "A", "less": "B", "difference": difference}
    assert in_words(row | ({"at": 0.6} if difference else {})).startswith(said)


def test_every_question_is_answered(found: dict[str, Any]) -> None:
    assert "Not whole" not in block(found)
    assert len(found["questions"]) == sum(len(question.pairs) for question in QUESTIONS)
    assert found["images"] == IMAGES | {"standard_accuracy": 150}
    assert found["configurations"][TECOA.name]["processor_seconds"] == 40


def test_what_is_written_is_the_same_again(made_up: list[Unit], tmp_path: Path) -> None:
    few = [unit for unit in made_up if unit.configuration in (UNTRAINED, TECOA, PMG)]
    files = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        folder.mkdir()
        write(few, folder, docs=False)
        files.append([(folder / f"results.{kind}").read_text("utf-8") for kind in ("json", "csv", "md")])
    assert files[0] == files[1]
    assert f"**Not whole**: of {len(few)} of {len(made_up)} " in files[0][2]
    lines = pd.read_csv(tmp_path / "a" / "results.csv")
    assert set(lines["configuration"]) == {UNTRAINED.name, TECOA.name, PMG.name}
    (own,) = lines[(lines["configuration"] == PMG.name) & (lines["metric"] == "robust_ece")].itertuples()
    of = json.loads(files[0][0])["configurations"][PMG.name]
    assert [own.value, own.low, own.high] == of["metrics"]["robust_ece"]
    assert [own.less_tecoa_value, own.less_tecoa_low, own.less_tecoa_high] == of["less_tecoa"]["robust_ece"]


# Units


def test_finished_units_are_skipped(
    made_up: list[Unit], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("trainables.finetune.Finetune", None)
    monkeypatch.setattr("trainables.finetune.measure", None)
    for unit in made_up:
        unit.run()
    run_all(made_up, 1)
    assert capsys.readouterr().out == f"{len(made_up)} of {len(made_up)} are finished\n"


def small(_: Configuration) -> dict[str, Any]:
    trial = {
        "method": {"name": "tecoa"},
        "data": {"train": "fashion-mnist-8k", "evaluate": ["fashion-mnist-8k", "digits"], "images": 64},
        "batch_size": 32,
        "epochs": 2,
    }
    whole = TrialConfig.model_validate(trial).model_dump(mode="json")
    return {"trial": whole, "evaluation": {"attack": {"epsilon": "8/255", "steps": 1}, "images": 16}}


def test_an_interrupted_unit_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To the numbers of one that was not, and again from what it has already."""
    from trainables.finetune import Finetune

    monkeypatch.setattr(Configuration, "settings", property(small))
    monkeypatch.setattr(
        units, "STANDARD", {"further_attacks": [{"name": "standard", "steps": 1}], "images": 4}
    )
    whole, broken, untrained = (
        Unit(TECOA, 0, tmp_path / "a"),
        Unit(TECOA, 0, tmp_path / "b"),
        Unit(UNTRAINED, 0, tmp_path),
    )
    whole.run()
    step = Finetune.step

    def stop(trial: Finetune) -> Any:
        if trial.trainer.epoch == 1:
            raise KeyboardInterrupt
        return step(trial)

    monkeypatch.setattr(Finetune, "step", stop)
    with pytest.raises(KeyboardInterrupt):
        broken.run()
    assert not broken.finished
    monkeypatch.setattr(Finetune, "step", step)
    broken.run()
    for each in (*whole.epochs, whole.standard):
        pd.testing.assert_frame_equal(pd.read_parquet(each), pd.read_parquet(broken.folder / each.name))
    untrained.run()
    found = results([whole, untrained])
    assert found["configurations"][TECOA.name]["seeds"] == [0]
    assert found["images"] == {"fashion-mnist-8k": 16, "digits": 16, "standard_accuracy": 4}


def test_other_settings_have_other_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = [unit.folder for unit in units.units(tmp_path)]
    assert len(set(before)) == len(before) == 1 + units.SEEDS * (len(CONFIGURATIONS) - 1)
    monkeypatch.setattr(units, "STANDARD", {"images": 4})
    assert not {unit.folder for unit in units.units(tmp_path)} & set(before)


def test_settings_are_those_of_the_published_spaces() -> None:
    """As the YAML has them: with defaults laid below, nothing is different."""
    for configuration in CONFIGURATIONS:
        file = yaml.safe_load((units.PUBLISHED / f"{configuration.file}.yaml").read_text("utf-8"))
        expected = file["trial"]
        if configuration.profile:
            over = file["profiles"][configuration.profile]["trial"]
            assert over.keys() == {"method"}
            expected = expected | {"method": expected["method"] | over["method"]}
        settings = configuration.settings
        assert TrialConfig.model_validate(settings["trial"]) == TrialConfig.model_validate(expected)
        assert settings["evaluation"] == file["evaluation"]


# What is committed


def test_the_page_has_the_committed_numbers() -> None:
    kept = json.loads((KEPT / "results.json").read_text("utf-8"))
    text = PAGE.read_text("utf-8")
    assert text.count(BEGIN) == text.count(END) == 1
    assert page(text, kept) == text
    assert block(kept) in text
    assert (KEPT / "results.csv").read_text("utf-8") == as_csv(kept)
    assert (KEPT / "results.md").read_text("utf-8") == block(kept) + "\n"


def test_the_committed_numbers_are_of_these_settings() -> None:
    kept = json.loads((KEPT / "results.json").read_text("utf-8"))
    assert kept["standard"] == units.STANDARD
    known = {each.name: each for each in CONFIGURATIONS}
    assert kept["configurations"].keys() <= known.keys()
    for name, of in kept["configurations"].items():
        assert of["settings"] == known[name].settings
