"""Numbers as tables, in Markdown and CSV, and the part of docs/reproduction.md that is made of them."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from io import StringIO
from pathlib import Path
from typing import Any

from benchmarks.reproduction.results import SQUARED, STANDARD
from benchmarks.reproduction.units import TECOA

PAGE = Path(__file__).parents[2] / "docs" / "reproduction.md"
BEGIN, END = "<!-- made by `python -m benchmarks.reproduction --docs` -->", "<!-- until here -->"
COLUMNS = {
    "clean_accuracy": "clean accuracy",
    "robust_accuracy": "robust accuracy",
    STANDARD: "`standard`",
    "clean_ece": "clean ECE",
    "robust_ece": "attacked ECE",
    SQUARED: "attacked squared error",
    "digits.clean_accuracy": "digits, clean",
    "digits.robust_accuracy": "digits, attacked",
    "entropy_shift": "entropy shift",
    "epistemic_shift": "epistemic shift",
}
Results = dict[str, Any]


def written(metric: str, estimate: list[float]) -> str:
    """Value and interval in per cent; the epistemic uncertainty is too small for that."""
    value, low, high = estimate
    if metric == SQUARED:
        return f"{100 * value:.2f} [{100 * low:.2f}, {100 * high:.2f}]"
    if metric == "epistemic_shift":
        return f"{value:.1e} [{low:.1e}, {high:.1e}]"
    return f"{100 * value:.1f} [{100 * low:.1f}, {100 * high:.1f}]"


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [list(head), *map(list, rows)]
    lines.insert(1, ["---"] * len(lines[0]))
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def means(results: Results) -> str:
    rows = (
        [name, str(len(of["seeds"])), *(written(m, of["metrics"][m]) for m in COLUMNS)]
        for name, of in results["configurations"].items()
    )
    return table(["", "seeds", *COLUMNS.values()], rows)


def differences(results: Results) -> str:
    rows = (
        [name, *(written(m, of["less_tecoa"][m]) for m in COLUMNS)]
        for name, of in results["configurations"].items()
        if name != TECOA.name and of["less_tecoa"]
    )
    return table([f"less {TECOA.name}", *COLUMNS.values()], rows)


def questions(results: Results) -> str:
    rows = (
        [row["question"], compared(row), *measured(row), verdict(row)]
        for row in without_repeats(results["questions"])
    )
    return table(["", "", "difference", ""], rows)


def without_repeats(rows: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """A question stands in the first of its rows."""
    said = None
    for row in rows:
        yield row | {"question": "" if row["question"] == said else row["question"]}
        said = row["question"]


def compared(row: dict[str, Any]) -> str:
    pair = row["of"] if row["less"] is None else f"{row['of']} − {row['less']}"
    return f"{pair}, at {100 * row['at']:.1f}" if "at" in row else pair


def measured(row: dict[str, Any]) -> list[str]:
    return ["" if row["difference"] is None else written(row["metric"], row["difference"])]


def verdict(row: dict[str, Any]) -> str:
    """yes or no where the interval leaves out 0."""
    if row["difference"] is None:
        return "never equal"
    _, low, high = row["difference"]
    if low <= 0 <= high:
        return "not distinguishable"
    found = "above" if low > 0 else "below"
    if row["expected"] == "other":
        return f"yes, {found}"
    return "**yes**" if found == row["expected"] else f"**no**, {found}"


def in_words(row: dict[str, Any]) -> str:
    """A comparison of two configurations as a sentence that its interval allows."""
    what, of, less = COLUMNS[row["metric"]], row["of"], row["less"]
    where = f" where both have {100 * row['at']:.1f} % robust accuracy" if "at" in row else ""
    if row["difference"] is None:
        return f"{of} and {less} were never equally robust, so their {what} is not compared there."
    _, low, high = row["difference"]
    shown = written(row["metric"], row["difference"])
    if low <= 0 <= high:
        return f"{of} and {less} can't be told apart in {what}{where}: {shown}."
    return f"{of} has {'more' if low > 0 else 'less'} {what} than {less}{where}: {shown}."


def in_short(results: Results) -> str:
    """What became of calibration, in sentences: against TeCoA, by evidence, by scale."""
    rows = (row for row in results["questions"] if row["metric"] == SQUARED)
    return "".join(f"* {in_words(row)}\n" for row in rows)


def block(results: Results) -> str:
    """The part of the page that is made."""
    images, machine, steps = (
        results["images"],
        results["machine"],
        results["standard"]["further_attacks"][0]["steps"],
    )
    inside, *others = (name for name in images if name != STANDARD)
    sizes = ", ".join(f"{images[name]} of {name}" for name in (inside, *others))
    seconds = [
        of["processor_seconds"] for of in results["configurations"].values() if of["processor_seconds"]
    ]
    return f"""{BEGIN}

{incomplete(results)}Measured on {machine["cores"]} cores of an {machine["processor"]} with torch
{machine["torch"]}; to train a configuration with one seed and to measure its epochs took {min(seconds):.0f}
to {max(seconds):.0f} processor seconds.
Validation images: {sizes}; `standard`, with {steps} steps, on {images[STANDARD]} of {inside}.

In short, of calibration under attack:

{in_short(results)}
All but the epistemic shift in per cent, with 95 % intervals.

{means(results)}
Differences to TeCoA, on the same images:

{differences(results)}
Questions:

{questions(results)}
{END}"""


def incomplete(results: Results) -> str:
    """What has to be said of a table that is not whole."""
    finished, wanted = results["units"]["finished"], results["units"]["wanted"]
    if finished == wanted:
        return ""
    return f"""**Not whole**: of {finished} of {wanted} trainings and measurements; the command goes on
with the others. Where a trained configuration has a single seed, its intervals are of the images alone: with
another seed a number may leave them, and a *yes* or *no* is of that one training.

"""


def page(text: str, results: Results) -> str:
    """The page with its block made anew."""
    before, _, rest = text.partition(BEGIN)
    return before + block(results) + rest.partition(END)[2]


def as_csv(results: Results) -> str:
    """One line for each metric of each configuration."""
    file = StringIO()
    writer = csv.writer(file, lineterminator="\n")
    ends = ("value", "low", "high")
    writer.writerow(["configuration", "seeds", "metric", *ends, *(f"less_tecoa_{end}" for end in ends)])
    for name, of in results["configurations"].items():
        for metric, own in of["metrics"].items():
            less = of["less_tecoa"].get(metric, ["", "", ""])
            writer.writerow([name, len(of["seeds"]), metric, *own, *less])
    return file.getvalue()
