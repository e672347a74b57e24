"""Tables for the terminal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from sweeper.result import SPLITS, objectives, ranked_members
from sweeper.run import Intervals, Metrics
from trainables.metrics.names import ZERO_GRADIENTS

ARROW = {"maximize": "↑", "minimize": "↓"}


def pareto_table(content: dict[str, Any]) -> RenderableType:
    """The Pareto set and the untrained model on the validation and the test images; below, the
    configurations and what the numbers are."""
    columns = [(name, ARROW[way]) for way in ARROW for name in content[way]]
    members = ranked_members(content)
    table = Table(
        title=f"Pareto set of {content['run']}: {len(members)} of {len(content['trials'])} trials",
        title_justify="left",
        box=None,
        collapse_padding=True,  # to fit three objectives into 80 columns
        pad_edge=False,
        header_style="bold",
    )
    table.add_column("")
    table.add_column("")
    for split in ("val", "test"):
        for name, arrow in columns:
            words = name.replace("_", "\n").replace(".", "\n")
            table.add_column(f"{split}\n{words} {arrow}", justify="right")
    table.add_column("P(opti-\nmal)", justify="right")
    untrained = content["baseline"] | {"id": "", "method": "untrained"}
    for row in (untrained, *members):
        numbers = [
            f"{number(row[split], name)}\n{interval(row['intervals'][split], name)}".rstrip()
            for split in SPLITS
            for name, _ in columns
        ]
        table.add_row(
            row["id"],
            row["method"],
            *numbers,
            percent(row.get("probability")),
            style="dim" if row is untrained else None,
        )
    configurations = [f"{row['id']} {row['method']}: {settings(row['drawn'])}" for row in members]
    notes = [
        f"val: {content['validation']['text']}",
        f"test: {content['test']['text']}",
        *images_of(content),
        "Below a number: its 95 % interval.",
        *([content["probability"]] if content["probability"] else []),
        *calibrated_by_chance(content, [untrained, *members]),
        *missing_gradients([untrained, *members]),
        "Chosen on validation images; test images were touched once, for this table.",
        *(f"Subject to {constraint}." for constraint in content["subject_to"]),
    ]
    return Group(table, Text(), *map(Text, configurations), Text(), *(Text(note, "dim") for note in notes))


def number(metrics: Metrics | None, name: str) -> str:
    return f"{metrics[name]:.4f}" if metrics and name in metrics else "-"


def percent(probability: float | None) -> str:
    """`93 %`; empty where there is none."""
    if probability is None:
        return ""
    shown = f"{probability:.0%}".replace("%", " %")
    return {"100 %": "> 99 %", "0 %": "< 1 %"}.get(shown, shown)  # of so many draws none is certain


def interval(intervals: Intervals | None, name: str) -> str:
    """`.410–.502`; empty where there is none."""
    if not intervals or name not in intervals:
        return ""
    return "–".join(f"{end:.3f}".replace("0.", ".", 1) for end in intervals[name])


def images_of(content: dict[str, Any]) -> Iterator[str]:
    """Which images of each set the numbers are from, and what there is to know of these data."""
    for short, split in (("val", "validation"), ("test", "test")):
        sets = content["data"][split]
        if sets:
            yield f"{short} images: " + ", ".join(f"{of['origin']} of {of['set']}" for of in sets)
    sets = [of for split in SPLITS for of in content["data"][split]]
    notes = [f"Note: {of['set']}: {note}." for of in sets for note in of["notes"]]
    yield from dict.fromkeys(notes)


def calibrated_by_chance(content: dict[str, Any], rows: list[dict[str, Any]]) -> Iterator[str]:
    """How large an ECE on so few images says nothing, for each ECE that is an objective."""
    for name in objectives(content):
        quantiles = {
            split: max((row[split] or {}).get(f"{name}_null_95", 0.0) for row in rows) for split in SPLITS
        }
        if any(quantiles.values()):
            shown = ", ".join(
                f"{quantile:.3f} ({split})" for split, quantile in quantiles.items() if quantile
            )
            yield f"A perfectly calibrated model scores a {name} of up to {shown}, by chance."


def missing_gradients(rows: list[dict[str, Any]]) -> Iterator[str]:
    """A warning where the attack had nothing to follow, and robustness is overstated for it."""
    for row in rows:
        share = max((row[split] or {}).get("zero_gradients", 0.0) for split in SPLITS)
        if share > ZERO_GRADIENTS:
            yield (
                f"Warning: {share:.1%} of the attack's gradients on {row['id'] or row['method']} are exactly "
                "zero, so its robustness is overstated; see `zero_gradients`."
            )


def settings(drawn: dict[str, Any]) -> str:
    """`attack.epsilon 8/255, method.alpha 1.2`, without the method's name."""
    return ", ".join(f"{name} {show(value)}" for name, value in drawn.items() if name != "method")


def show(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
