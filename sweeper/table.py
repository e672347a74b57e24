"""Tables for the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sized
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from sweeper.pareto import Direction
from sweeper.result import objectives, ranked, ranked_members
from sweeper.terminal import amount
from sweeper.trial import SPLIT, STAGES, Intervals, Metrics, Stage
from trainables.metrics.names import ZERO_GRADIENTS

ARROW: dict[Direction, str] = {"maximize": "↑", "minimize": "↓"}
LABEL: dict[Stage, str] = {"validation": "search", "final": "final", "test": "test"}


def pareto_table(content: dict[str, Any]) -> RenderableType:
    """The untrained model and the candidates of the front, as the search saw them, under the final attack,
    and, if they are Pareto-optimal then, on the test images; below, their configurations and what the numbers
    are."""
    columns = [(name, ARROW[way]) for way in ARROW for name in content[way]]
    members = ranked_members(content)
    others = ranked(content, (row for row in content["candidates"] if not row["pareto"]))
    table = Table(
        title=f"Pareto set of {content['run']}: {models_of(members, content)}",
        title_justify="left",
        box=None,
        collapse_padding=True,  # to fit three objectives into 80 columns
        pad_edge=False,
        header_style="bold",
    )
    table.add_column("")
    table.add_column("")
    for name, arrow in columns:
        words = name.replace("_", "\n", 1).replace(".", "\n")
        table.add_column(f"{words} {arrow}", justify="left", no_wrap=True)
    table.add_column("P(opti-\nmal)", justify="right")
    names = [name for name, _ in columns]
    untrained = content["baseline"] | {"id": "untrained", "method": ""}
    add_model(table, untrained, names, "dim")
    for row in members:
        add_model(table, row, names)
    for row in others:
        add_model(table, row, names, "dim")
    shown = [*members, *others]
    configurations = [f"{row['id']} {row['method']}: {settings(row['drawn'])}" for row in shown]
    notes = [
        *(f"{LABEL[stage]}: {content[stage]['text']}" for stage in STAGES),
        *images_of(content),
        "Beside a number: its 95 % interval. A name is a trial's, after the epoch behind the @.",
        *remarks(content),
        *(f"Subject to {constraint}." for constraint in content["subject_to"]),
    ]
    return Group(table, Text(), *map(Text, configurations), Text(), *(Text(note, "dim") for note in notes))


def models_of(members: Sized, content: Mapping[str, Any]) -> str:
    """`9 models of 12 trials`."""
    return f"{amount(len(members), 'model')} of {amount(len(content['trials']), 'trial')}"


def remarks(content: dict[str, Any]) -> Iterator[str]:
    """What there is to know of the candidates, in a line each."""
    rows = content["candidates"]
    everything = [content["baseline"] | {"id": "untrained", "method": "untrained"}, *rows]
    yield from again(rows)
    if content["probability"]:
        yield content["probability"]
    yield from dropped([row for row in rows if not row["pareto"]])
    yield from masked(rows)
    yield from calibrated_by_chance(content, everything)
    yield from missing_gradients(everything)
    yield chosen(rows)


def add_model(table: Table, row: dict[str, Any], names: list[str], style: str | None = None) -> None:
    """A line for each stage in which the model was measured, and for its other seeds."""
    lines = [
        (LABEL[stage], [with_interval(row, stage, name) for name in names])
        for stage in STAGES
        if row[stage] is not None
    ]
    seeds = row.get("seeds") or {}
    for stage in STAGES:
        if seeds.get(stage):
            cells = [f"{seeds[stage][n]['mean']:.4f} ±{seeds[stage][n]['sd']:.3f}" for n in names]
            lines.append((f"{LABEL[stage]} x{seeds['count']}", cells))
    heads = [row["id"], row["method"]]
    for index, (label, cells) in enumerate(lines):
        head = heads[index] if index < len(heads) else ""
        table.add_row(head, label, *cells, "" if index else percent(row.get("probability")), style=style)


def with_interval(row: dict[str, Any], stage: str, name: str) -> str:
    return f"{number(row[stage], name)} {interval(row['intervals'][stage], name)}".rstrip()


def chosen(rows: list[dict[str, Any]]) -> str:
    """How the front was chosen, or that it is not yet."""
    if not rows or any(row["final"] is None for row in rows):
        return "Chosen on validation images; the candidates are not measured under the final attack yet."
    if any(row["pareto"] and row["test"] is None for row in rows):
        return "Chosen on validation images; the Pareto set is not measured on test images yet."
    return "Chosen on validation images; test images were touched once, for this table."


def again(rows: list[dict[str, Any]]) -> Iterator[str]:
    """What lines of several seeds are."""
    counts = {row["seeds"]["count"] for row in rows if row["seeds"] and row["seeds"]["validation"]}
    if counts:
        yield (
            f"x{max(counts)}: mean and standard deviation over so many trainings of the configuration that "
            "differ in their seed, the one above included."
        )
    failed = {row["trial"]: row["seeds"]["failed"] for row in rows if row["seeds"]}
    for trial, number in failed.items():
        if number:
            yield f"Warning: {number} further trainings of {trial} failed."


def dropped(rows: list[dict[str, Any]]) -> Iterator[str]:
    if rows:
        names = ", ".join(row["id"] for row in rows)
        yield f"Not Pareto-optimal any more under the final attack: {names}."


def masked(rows: list[dict[str, Any]]) -> Iterator[str]:
    """A warning for each model whose robustness may be masked gradients'."""
    for row in rows:
        if row["fall"] and row["fall"]["masked"]:
            before, after, images = (row["fall"][key] for key in ("before", "after", "images"))
            yield (
                f"Warning: the final attack brings the robust accuracy of {row['id']} from {before:.3f} down "
                f"to {after:.3f} on the same {images:.0f} images: its gradients may be masked; see `sweeper "
                f"evaluate {row['id']} --sanity`."
            )


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
    for split in dict.fromkeys(SPLIT.values()):
        measured: dict[str, dict[Stage, dict[str, Any]]] = {}
        for stage in STAGES:
            for of in content["data"][stage] if SPLIT[stage] == split else ():
                measured.setdefault(of["set"], {})[stage] = of
        if measured:
            yield f"{split} images: " + "; ".join(counted(name, by) for name, by in measured.items())
    sets = [of for stage in STAGES for of in content["data"][stage]]
    notes = [f"Note: {of['set']}: {note}." for of in sets for note in of["notes"]]
    yield from dict.fromkeys(notes)


def counted(name: str, measured: dict[Stage, dict[str, Any]]) -> str:
    """`200 (search) and 1600 (final) of digits, from 20 % of the training images`."""
    numbers = {LABEL[stage]: of["images"] for stage, of in measured.items()}
    each = [f"{number} ({label})" for label, number in numbers.items()]
    same = len(set(numbers.values())) == 1
    (origin, *_) = (of["origin"] for of in measured.values())
    return f"{next(iter(numbers.values())) if same else ' and '.join(each)} of {name}, from {origin}"


def calibrated_by_chance(content: dict[str, Any], rows: list[dict[str, Any]]) -> Iterator[str]:
    """How large an ECE on so few images says nothing, for each ECE that is an objective."""
    for name in objectives(content):
        quantiles = {
            LABEL[stage]: max((row[stage] or {}).get(f"{name}_null_95", 0.0) for row in rows)
            for stage in STAGES
        }
        if any(quantiles.values()):
            shown = ", ".join(
                f"{quantile:.3f} ({label})" for label, quantile in quantiles.items() if quantile
            )
            yield f"A perfectly calibrated model scores a {name} of up to {shown}, by chance."


def missing_gradients(rows: list[dict[str, Any]]) -> Iterator[str]:
    """A warning where the attack had nothing to follow, and robustness is overstated for it."""
    for row in rows:
        share = max((row[stage] or {}).get("zero_gradients", 0.0) for stage in STAGES)
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
