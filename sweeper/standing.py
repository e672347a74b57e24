"""A leaderboard for the terminal, and the words that all its forms have in common."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from sweeper.table import ARROW

Content = Mapping[str, Any]
Row = Mapping[str, Any]

WIDTH = 5
"""Columns side by side, in 80 characters."""
MARK = "†"
"""Of what others measured."""


def tables(content: Content) -> RenderableType:
    parts: list[RenderableType] = []
    for suite in content["suites"]:
        for start in range(0, len(suite["columns"]), WIDTH):
            parts += [part(suite, slice(start, start + WIDTH)), Text()]
        parts += [*(Text(line, "dim") for line in explained(suite)), Text()]
    return Group(*parts, *(Text(note, "dim") for note in notes(content)))


def part(suite: Row, shown: slice) -> Table:
    """Below a value its interval, and below that its rank."""
    made = Table(title=title(suite), title_justify="left", box=None, pad_edge=False, header_style="bold")
    made.add_column("", max_width=20, overflow="fold")
    for column in suite["columns"][shown]:
        words, arrow, ball = parts_of_head(column)
        made.add_column("\n".join((f"{words} {arrow}".replace(" ", "\n", 1).strip(), ball)), max_width=14)
    for row in suite["rows"]:
        below = [row["method"]] if row["method"] else []
        cells = [cell_text(cell) for cell in row["cells"][shown]]
        made.add_row("\n".join([marked(row), *below]), *cells)
    return made


def cell_text(cell: Row | None) -> Text:
    if cell is None:
        return Text("-")
    lines = [each for each in (spread(cell), rank(cell)) if each]
    return Text.assemble((number(cell), "bold" if cell["best"] else ""), *(f"\n{line}" for line in lines))


def title(suite: Row) -> str:
    return f"{suite['suite']}: {suite['about']}".rstrip(": ")


def head(column: Row) -> str:
    """`clean accuracy ↑`, `robust ece ↓ 4/255`."""
    return " ".join(filter(None, parts_of_head(column)))


def parts_of_head(column: Row) -> tuple[str, str, str]:
    """Metric, which way is better, and in which ball images were attacked."""
    arrow = ARROW[column["better"]] if column["better"] else ""
    return column["name"].replace("_", " "), arrow, (column["attack"] or "").removeprefix("linf ")


def marked(row: Row) -> str:
    return f"{row['model']} {MARK}" if row["foreign"] else str(row["model"])


def number(cell: Row) -> str:
    """As in other tables; tiny ones with their power of ten."""
    value = cell["value"]
    return f"{value:.1e}" if 0 < abs(value) < 1e-3 else f"{value:.4f}"


def spread(cell: Row) -> str:
    """`.410–.502`; empty where there is no interval."""
    if cell["low"] is None:
        return ""
    return "–".join(f"{end:.3f}".replace("0.", ".", 1) for end in (cell["low"], cell["high"]))


def rank(cell: Row) -> str:
    """`1–3`, or `2` where nothing else is within noise; `-` for none."""
    if cell["rank"] is None:
        return "-"
    first, last = cell["rank"]
    return f"{first}" if first == last else f"{first}–{last}"


def explained(suite: Row) -> Iterator[str]:
    """What the numbers of each column are, and why some have no rank."""
    by_text: dict[str, list[str]] = {}
    for column in suite["columns"]:
        by_text.setdefault(column["text"], []).append(head(column))
    for text, heads in by_text.items():
        yield f"{', '.join(heads)}: {text}."
    for place, column in enumerate(suite["columns"]):
        shown = sum(row["cells"][place] is not None for row in suite["rows"])
        if column["unranked"]:
            yield f"No ranks of {head(column)}: {column['unranked']}."
        elif column["ranked"] < shown:
            yield f"Ranks of {head(column)} are among the {column['ranked']} models whose images are known."


def notes(content: Content) -> Iterator[str]:
    yield from (f"{letter}: {run}" for run, letter in content["runs"].items())
    yield (
        "With a number: its 95 % interval, and its rank, from 1 + how many models are better beyond noise to "
        "how many are not worse beyond noise. With 95 % confidence all ranks of a column are in theirs: "
        f"simultaneous over its pairs, paired on {content['draws']} samples of the images (seed "
        f"{content['seed']}), but not over columns. Bold: no model is better beyond noise."
    )
    rows = [row for suite in content["suites"] for row in suite["rows"] if row["foreign"]]
    if rows:
        forms = ", ".join(dict.fromkeys(row["foreign"] for row in rows))
        yield (
            f"{MARK} by others ({forms}): which images they measured is not known, so these have "
            "no rank and count in none. An interval, where there is one, is the file's own, or Wilson's, of "
            "the accuracy and the number of images alone."
        )
    attacks = dict.fromkeys((row["foreign"], row["attacked_by"]) for row in rows if row["attacked_by"])
    yield from (f"{MARK} {form}: attacked by {by}." for form, by in attacks)
    yield from content["notes"]
