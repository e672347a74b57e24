"""Tables for the terminal."""

from __future__ import annotations

from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from sweeper.result import protocol_text, ranked_members

ARROW = {"maximize": "↑", "minimize": "↓"}


def pareto_table(content: dict[str, Any]) -> RenderableType:
    """The Pareto set and the untrained model on the validation and the test images; below, the
    configurations and what the numbers are."""
    objectives = [(name, ARROW[way]) for way in ARROW for name in content[way]]
    members = ranked_members(content)
    table = Table(
        title=f"Pareto set of {content['run']}: {len(members)} of {len(content['trials'])} trials",
        title_justify="left",
        box=None,
        header_style="bold",
    )
    table.add_column("")
    table.add_column("")
    for split in ("val", "test"):
        for name, arrow in objectives:
            words = name.replace("_", "\n").replace(".", "\n")
            table.add_column(f"{split}\n{words} {arrow}", justify="right")
    untrained = content["baseline"] | {"id": "", "method": "untrained"}
    for row in (untrained, *members):
        numbers = [number(row[split], name) for split in ("validation", "test") for name, _ in objectives]
        table.add_row(row["id"], row["method"], *numbers, style="dim" if row is untrained else None)
    configurations = [f"{row['id']} {row['method']}: {settings(row['drawn'])}" for row in members]
    notes = [
        f"val: {protocol_text(content['validation'])}",
        f"test: {protocol_text(content['test'])}",
        "Chosen on validation images; test images were touched once, for this table.",
        *(f"Subject to {constraint}." for constraint in content["subject_to"]),
    ]
    return Group(table, Text(), *map(Text, configurations), Text(), *(Text(note, "dim") for note in notes))


def number(metrics: dict[str, float] | None, name: str) -> str:
    return "-" if metrics is None else f"{metrics[name]:.4f}"


def settings(drawn: dict[str, Any]) -> str:
    """`attack.epsilon 8/255, method.alpha 1.2`, without the method's name."""
    return ", ".join(f"{name} {show(value)}" for name, value in drawn.items() if name != "method")


def show(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
