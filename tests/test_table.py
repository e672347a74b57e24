"""What stands below the numbers of the Pareto table."""

from __future__ import annotations

from sweeper.table import calibrated_by_chance, images_of, interval, missing_gradients, number


def test_numbers_and_intervals() -> None:
    metrics, intervals = {"robust_accuracy": 0.4561}, {"robust_accuracy": (0.4096, 0.5034)}
    assert number(metrics, "robust_accuracy") == "0.4561"
    assert interval(intervals, "robust_accuracy") == ".410–.503"
    assert interval({"robust_accuracy": (0.96, 1.0)}, "robust_accuracy") == ".960–1.000"
    assert number(metrics, "robust_ece") == number(None, "robust_ece") == "-"
    assert interval(intervals, "robust_ece") == interval(None, "robust_ece") == ""


def row(name: str, **metrics: float) -> dict[str, object]:
    return {"id": name, "method": "tecoa", "validation": metrics, "final": None, "test": None}


def test_an_objective_that_is_an_ece_comes_with_what_chance_gives() -> None:
    content = {"maximize": ["robust_accuracy"], "minimize": ["robust_ece", "robust_nll"]}
    rows = [row("t000", robust_ece_null_95=0.05), row("t001", robust_ece_null_95=0.07)]
    assert list(calibrated_by_chance(content, rows)) == [
        "A perfectly calibrated model scores a robust_ece of up to 0.070 (search), by chance."
    ]
    assert not list(calibrated_by_chance({"maximize": ["robust_accuracy"], "minimize": []}, rows))


def test_how_many_images_numbers_are_from_is_what_there_were() -> None:
    def of(name: str, images: int) -> dict[str, object]:
        return {"set": name, "images": images, "origin": "20 % of the training images", "notes": []}

    data = {"validation": [of("a", 200), of("b", 19)], "final": [of("a", 1600), of("b", 19)], "test": []}
    assert list(images_of({"data": data})) == [
        "validation images: 200 (search) and 1600 (final) of a, from 20 % of the training images; "
        "19 of b, from 20 % of the training images"
    ]


def test_gradients_of_exactly_zero_are_warned_of() -> None:
    rows = [row("t000", zero_gradients=0.009), row("t001", zero_gradients=0.35)]
    (warning,) = missing_gradients(rows)
    assert "35.0%" in warning
    assert "t001" in warning
    assert "overstated" in warning
