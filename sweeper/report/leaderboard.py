"""A leaderboard as files: a page, Markdown, LaTeX and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sweeper.report.chart import DARK
from sweeper.report.document import document
from sweeper.report.tables import escaped, line, tex
from sweeper.standing import MARK, explained, head, marked, notes, number, rank, spread, title

Content = Mapping[str, Any]
Row = Mapping[str, Any]

CAPTION = (
    "With a number: its 95 % interval and, in brackets, its rank. Bold: no model is better beyond noise."
)
COLUMNS = (
    "suite",
    "metric",
    "better",
    "attack",
    "split",
    "images",
    "measured",
    "model",
    "method",
    "run",
    "foreign",
    "value",
    "low",
    "high",
    "rank_first",
    "rank_last",
    "best",
)


def write(content: Content, folder: Path) -> list[Path]:
    """Writes all of them, and returns the files."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for kind, make in {"html": page, "md": markdown, "tex": latex, "csv": to_csv}.items():
        file = folder / f"leaderboard.{kind}"
        file.write_text(make(content), encoding="utf-8")
        written.append(file)
    return written


def page(content: Content) -> str:
    """The template escapes what comes from models."""
    nothing: dict[str, Any] = {"objectives": [], "stages": {}, "models": {}, "trials": {}, "files": {}}
    return document(
        "leaderboard.html",
        {"run": "leaderboard", "dark": DARK, "colours": {}, "figures": {}, **nothing},
        {
            "explained": explained,
            "head": head,
            "marked": marked,
            "number": number,
            "rank": rank,
            "spread": spread,
            "title": title,
        },
        content=content,
        notes=list(notes(content)),
    )


def markdown(content: Content) -> str:
    """Tables as GitHub reads them, and what the numbers are."""
    parts = []
    for suite in content["suites"]:
        heads = ["model", "method", *map(head, suite["columns"])]
        rows = [
            [escaped(marked(row)), escaped(row["method"]), *map(markdown_cell, row["cells"])]
            for row in suite["rows"]
        ]
        lines = [map(escaped, heads), ["---"] * len(heads), *rows]
        table = "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
        parts += [f"## {escaped(title(suite))}", table, *map(escaped, explained(suite))]
    return "\n\n".join([*parts, *map(escaped, notes(content))]) + "\n"


def markdown_cell(cell: Row | None) -> str:
    if cell is None:
        return "-"
    value = f"**{number(cell)}**" if cell["best"] else number(cell)
    return " ".join(filter(None, (value, spread(cell), ranked(cell))))


def ranked(cell: Row) -> str:
    return f"({rank(cell)})" if cell["rank"] else ""


def latex(content: Content) -> str:
    """A `table` for each suite, for a document with `\\usepackage{booktabs}`; at the end, what it is."""
    tables = [text for suite in content["suites"] for text in latex_table(suite)]
    return "\n".join([*tables, *(f"% {note}" for note in notes(content)), ""])


def latex_table(suite: Row) -> Iterator[str]:
    about = title(suite) if title(suite).endswith((".", "?")) else f"{title(suite)}."
    caption = " ".join([about, *explained(suite), CAPTION])
    label = "".join(c if c.isalnum() else "-" for c in suite["suite"])
    columns = suite["columns"]
    yield r"\begin{table}"
    yield r"  \centering"
    yield rf"  \caption{{{marks(tex(caption))}}}"
    yield rf"  \label{{tab:leaderboard-{label}}}"
    yield rf"  \begin{{tabular}}{{ll{'l' * len(columns)}}}"
    yield r"    \toprule"
    yield line([tex(text) for text in ("model", "method", *map(head, columns))])
    yield r"    \midrule"
    for row in suite["rows"]:
        yield line([marks(tex(marked(row))), tex(row["method"]), *map(latex_cell, row["cells"])])
    yield r"    \bottomrule"
    yield r"  \end{tabular}"
    yield r"\end{table}"
    yield ""


def marks(text: str) -> str:
    return text.replace(MARK, r"$^\dagger$")


def latex_cell(cell: Row | None) -> str:
    if cell is None:
        return "--"
    value = rf"\textbf{{{number(cell)}}}" if cell["best"] else number(cell)
    below = " ".join(filter(None, (spread(cell), ranked(cell))))
    return f"{value} {{\\scriptsize {tex(below)}}}" if below else value


def to_csv(content: Content) -> str:
    """A line for each number, full precision."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for suite in content["suites"]:
        for row in suite["rows"]:
            for column, cell in zip(suite["columns"], row["cells"], strict=True):
                if cell is not None:
                    writer.writerow(flat(suite, column, row, cell))
    return buffer.getvalue()


def flat(suite: Row, column: Row, row: Row, cell: Row) -> dict[str, Any]:
    first, last = cell["rank"] or (None, None)
    own = {key: column[key] for key in ("metric", "better", "attack")}
    ours = {
        "split": column["split"],
        "images": sum(of or 0 for of in column["sets"].values()),
        "measured": column["text"],
    }
    return {
        "suite": suite["suite"],
        **own,
        **(ours if not row["foreign"] else {}),
        **{key: row[key] for key in ("model", "method", "run", "foreign")},
        **{key: cell[key] for key in ("value", "low", "high", "best")},
        "rank_first": first,
        "rank_last": last,
    }
