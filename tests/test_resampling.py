"""Metrics on resampled images: what they are of, and what is drawn together."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.records import VERSIONS, class_bins, records
from trainables.data.role import Role
from trainables.errors import MetricError
from trainables.metrics.comparison import resampled
from trainables.metrics.debiased import bin_statistics, squared_error
from trainables.metrics.names import metric_names
from trainables.metrics.resampling import OF_SET, STATISTICS, _parts, resample
from trainables.metrics.summary import summarize

IMAGES = {"a": 90, "b": 60, "c": 40}
NOT_RESAMPLED = ("ece_class_wise", "ece_null_mean", "ece_null_95")
METRICS = [
    name for name in metric_names(dict.fromkeys(IMAGES, Role()), VERSIONS) if not name.endswith(NOT_RESAMPLED)
]


def stored(folder: Path, *tables: pd.DataFrame) -> list[Path]:
    files = [folder / f"{len(list(folder.iterdir())) + k}.parquet" for k in range(len(tables))]
    for file, table in zip(files, tables, strict=True):
        table.to_parquet(file)
    return files


def test_without_resampling_they_are_the_metrics_of_the_evaluation(tmp_path: Path) -> None:
    table = records(0, IMAGES)
    expected = summarize(table, class_bins(IMAGES)).metrics
    estimates = resample([stored(tmp_path, table)], METRICS, draws=1).estimates[0]
    assert estimates.tolist() == pytest.approx([expected[name] for name in METRICS], rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("seed", [0, 1])
def test_an_image_drawn_twice_counts_as_two(seed: int) -> None:
    n = 50
    table = records(seed, {"a": n}, skill=0.5 + seed / 2)
    weights = resampled(np.random.default_rng(seed), 3, n)
    (part,) = _parts(table)
    for draw in range(3):
        repeated = table.loc[np.repeat(np.arange(n), weights[draw].astype(int))]
        expected = summarize(repeated, class_bins({"a": n})).metrics
        for name, statistic in STATISTICS.items():
            if name.endswith("squared_l2"):
                expected[name] = squared_error(
                    bin_statistics(
                        repeated[name.replace("squared_l2", "confidence")],
                        repeated[name.replace("squared_l2", "correct")],
                    )
                )
            assert statistic(part.columns, weights)[draw] == pytest.approx(
                expected[name], rel=1e-9, abs=1e-7
            ), name


def test_every_metric_but_three_can_be_resampled() -> None:
    left = {name for name in metric_names({"a": Role()}, VERSIONS) if name not in STATISTICS}
    assert left == {f"{version}_{name}" for version in VERSIONS for name in NOT_RESAMPLED}
    assert set(OF_SET) <= set(STATISTICS)


def test_a_metric_that_can_not_is_named(tmp_path: Path) -> None:
    files = stored(tmp_path, records(0, {"a": 10}))
    with pytest.raises(MetricError, match=r"^a\.clean_ece_class_wise can't be resampled"):
        resample([files], ["a.clean_ece_class_wise"])


def test_draws_have_the_variance_of_the_estimate_and_transfer_is_a_mean(tmp_path: Path) -> None:
    table = records(1, IMAGES)
    names = ["clean_accuracy", "transfer.clean_accuracy", "b.clean_accuracy", "c.clean_accuracy"]
    result = resample([stored(tmp_path, table)], names, draws=4000)
    own, transfer, b, c = result.draws[:, 0].T
    share = result.estimates[0, 0]
    assert own.var() == pytest.approx(share * (1 - share) / IMAGES["a"], rel=0.08)
    assert transfer == pytest.approx((b + c) / 2)
    assert abs(np.corrcoef(b, c)[0, 1]) < 0.06  # sets are resampled apart


def test_the_same_images_are_drawn_for_all_and_others_are_not(tmp_path: Path) -> None:
    table = records(2, IMAGES)
    easier = table.assign(clean_nll=table["clean_nll"] / 2 + 1)
    elsewhere = table.assign(index=table["index"] + 10_000)
    files = stored(tmp_path, table, easier, elsewhere)
    draws = resample([[file] for file in files], ["clean_nll"], draws=2000).draws[:, :, 0]
    assert draws[:, 1] == pytest.approx(draws[:, 0] / 2 + 1)
    assert abs(np.corrcoef(draws[:, 0], draws[:, 2])[0, 1]) < 0.08


def test_sets_of_one_source_are_resampled_by_whole_images(tmp_path: Path) -> None:
    """An image's errors go together: the mean over its alterations varies as a mean of images' means does."""
    n, sets = 80, ("plain", "fog", "snow", "frost")
    table = records(5, dict.fromkeys(sets, n)).assign(source="listed")
    table["clean_nll"] += np.tile(np.random.default_rng(0).exponential(size=n), len(sets))
    table["clean_correct"] = np.tile(table["clean_correct"][:n], len(sets))
    names = ["clean_accuracy", "fog.clean_accuracy", "transfer.clean_nll"]
    own, fog, mean = resample([stored(tmp_path, table)], names, draws=4000).draws[:, 0].T
    assert (own == fog).all()
    of_images = table[table["set"] != "plain"].groupby("index")["clean_nll"].mean()
    assert mean.std() == pytest.approx(of_images.std(ddof=0) / np.sqrt(n), rel=0.05)
    (apart,) = resample([stored(tmp_path, table.drop(columns="source"))], names[2:], draws=4000).draws.T
    assert apart.std() < 0.8 * mean.std()  # as sets of different images


def test_what_has_some_of_a_source_takes_the_weights_of_its_own(tmp_path: Path) -> None:
    few = records(6, {"few": 60}).iloc[::-3].assign(source="listed")
    table = pd.concat([records(6, {"all": 60}).assign(source="listed"), few], ignore_index=True)
    table["clean_nll"] = table["index"].astype(float)
    whole, part = resample([stored(tmp_path, table)], ["clean_nll", "few.clean_nll"], draws=3).draws[:, 0].T
    weights = resampled(np.random.default_rng(np.random.SeedSequence(0).spawn(2)[1]), 3, 60)
    assert whole == pytest.approx(weights @ np.arange(60) / 60)
    own = np.sort(few["index"])
    assert part == pytest.approx(weights[:, own] @ own / weights[:, own].sum(axis=1))


def test_a_draw_without_any_image_of_a_set_takes_them_as_they_are(tmp_path: Path) -> None:
    tables = [records(7, {name: n}).assign(source="listed") for name, n in (("all", 50), ("lone", 1))]
    known = [name for name in METRICS if name[:2] not in ("a.", "b.", "c.")]
    names = known + [f"lone.{name}" for name in known if "." not in name]
    found = resample([stored(tmp_path, pd.concat(tables, ignore_index=True))], names, draws=50)
    assert np.isfinite(found.draws).all()
    lone = found.draws[:, 0, names.index("lone.clean_nll")]
    assert lone == pytest.approx(found.estimates[0, names.index("lone.clean_nll")])


def test_records_of_an_earlier_version_are_paired_with_those_that_say_more(tmp_path: Path) -> None:
    table = records(8, {"a": 40, "b": 40})
    files = stored(tmp_path, table, table.assign(source="listed"), table)
    draws = resample([[file] for file in files], ["clean_nll", "b.clean_nll"], draws=30).draws
    assert (draws[:, 0] == draws[:, 1]).all()
    assert (draws[:, 2] == draws[:, 1]).all()


def test_deterministic_and_independent_of_the_other_configurations(tmp_path: Path) -> None:
    files = [[file] for file in stored(tmp_path, records(3, IMAGES), records(4, IMAGES))]
    names = ["robust_accuracy", "robust_ece"]
    both, again = (resample(files, names, draws=20, seed=5).draws for _ in range(2))
    assert (both == again).all()
    assert both[:, :1] == pytest.approx(resample(files[:1], names, draws=20, seed=5).draws)
    assert (resample(files, names, draws=20, seed=6).draws != both).any()


def test_draws_over_chunks_are_as_many_as_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = [stored(tmp_path, records(3, IMAGES))]
    whole = resample(files, ["clean_ece"], draws=25).draws
    monkeypatch.setattr("trainables.metrics.resampling.CHUNK", 400)
    assert resample(files, ["clean_ece"], draws=25).draws == pytest.approx(whole)


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_seeds_add_the_variance_of_their_mean(tmp_path: Path, seeds: int) -> None:
    """All images are alike, so that nothing but the seeds varies."""
    values = np.linspace(0, 1, seeds) ** 2
    tables = [records(0, {"a": 5}).assign(clean_nll=value) for value in values]
    result = resample([stored(tmp_path, *tables)], ["clean_nll"], draws=20_000)
    assert result.estimates[0, 0] == pytest.approx(values.mean())
    assert result.draws.mean() == pytest.approx(values.mean(), abs=0.01)
    assert result.draws.var() == pytest.approx(values.var(ddof=1) / seeds, rel=0.05)
