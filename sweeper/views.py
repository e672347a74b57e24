"""Tables for notebooks, as HTML. Whatever comes from a run is escaped."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from sweeper.compare import explanations, heading, joint_front, percent, spread
from sweeper.result import objectives, ranked_members
from sweeper.table import ARROW, LABEL, interval, models_of, number, remarks
from sweeper.table import percent as probability
from sweeper.trial import Stage

Content = Mapping[str, Any]


def pareto(content: Content) -> str:
    """The untrained model and the Pareto set, as the last stage measured them of which there are numbers."""
    members = ranked_members(content)
    stage: Stage = "final" if all(row["final"] for row in members) else "validation"
    heads = ["model", "method", *metric_heads(content), "P(optimal)"]
    rows = []
    for row in (content["baseline"] | {"method": "untrained"}, *members):
        cells = [with_interval(row[stage], row["intervals"][stage], name) for name in objectives(content)]
        rows.append([row["id"], row["method"], *cells, probability(row.get("probability"))])
    title = f"Pareto set of {content['run']}: {models_of(members, content)}"
    notes = [f"{LABEL[stage]}: {content[stage]['text']}", *remarks(dict(content))]
    return page(title, heads, rows, notes)


def comparison(content: Content) -> str:
    runs, joined = content["runs"], joint_front(content)
    heads = ["", "run", "models", "on the joint front", "hypervolume of the joint front's", "gained"]
    rows = [
        [
            row["letter"],
            row["run"],
            str(row["models"]),
            f"{row['joint']} ({percent(row['share'])})",
            spread(row["hypervolume_share"]),
            spread(row["gained_share"]),
        ]
        for row in runs
    ]
    first = page(heading(content), heads, rows)
    heads = ["run", "model", "method", *metric_heads(content), "P(joint)"]
    rows = [
        [
            row["run"],
            row["id"],
            row["method"],
            *(with_interval(row["metrics"], row["intervals"], name) for name in objectives(content)),
            probability(row["probability"]),
        ]
        for row in joined
    ]
    return first + page("", heads, rows, explanations(content))


def metric_heads(content: Content) -> list[str]:
    return [f"{name} {ARROW[way]}" for way in ARROW for name in content[way]]


def with_interval(metrics: Any, intervals: Any, name: str) -> str:
    return f"{number(metrics, name)} {interval(intervals, name)}".rstrip()


def page(title: str, heads: Sequence[str], rows: Sequence[Sequence[str]], notes: Iterable[str] = ()) -> str:
    def line(tag: str, cells: Sequence[str]) -> str:
        return "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    caption = f"<p><b>{escape(title)}</b></p>" if title else ""
    body = "".join(line("td", row) for row in rows)
    small = "".join(f"{escape(note)}<br>" for note in notes)
    table = f'<table class="dataframe"><thead>{line("th", heads)}</thead><tbody>{body}</tbody></table>'
    return f"{caption}{table}<small>{small}</small>"
