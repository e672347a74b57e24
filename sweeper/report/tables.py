"""The Pareto set as a table for papers: LaTeX, for `booktabs`, and Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sweeper.report.chart import UNTRAINED
from sweeper.report.prepare import Material, Model, words
from sweeper.table import ARROW, LABEL, interval, models_of, number, percent
from sweeper.trial import STAGES, Stage

TEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "–": "--",
    "κ": r"$\kappa$",
    "×": r"$\times$",
}


def last_stage(of: Material) -> Stage:
    """The last in which all of the Pareto set were measured."""
    models = [*of.members, *([of.untrained] if of.untrained else [])]
    return [stage for stage in STAGES if all(model.measured(stage, of.names) for model in models)][-1]


def rows(of: Material, stage: Stage) -> Iterator[tuple[Model, list[tuple[str, str]], str]]:
    """Each model, its objectives with their intervals, and P(optimal)."""
    for model in (of.untrained, *of.members):
        if model and model.measured(stage, of.names):
            cells = [
                (number(model.metrics[stage], name), interval(model.intervals[stage], name))
                for name in of.names
            ]
            yield model, cells, percent(model.probability) if model.method != UNTRAINED else ""


def heads(of: Material) -> list[str]:
    arrows = {name: ARROW[way] for way in ARROW for name in of.content[way]}
    return ["model", "method", *(f"{words(name)} {arrows[name]}" for name in of.names), "P(optimal)"]


def caption(of: Material, stage: Stage) -> str:
    """What the numbers are."""
    probability = f" {of.content['probability']}" if of.content["probability"] else ""
    return (
        f"Pareto set of {of.content['run']} ({models_of(of.members, of.content)}), "
        f"{LABEL[stage]}: {of.content[stage]['text']}. Beside a number: its 95 % interval. A model "
        f"is a trial after an epoch, trial@epoch.{probability}"
    )


def latex(of: Material, stage: Stage | None = None) -> str:
    """A `table` for a document with `\\usepackage{booktabs}`. stage: the last by default."""
    stage = stage or last_stage(of)
    body = [
        line([tex(name(model)), tex(method(model)), *map(tex_cell, cells), tex(p)])
        for model, cells, p in rows(of, stage)
    ]
    return "\n".join(
        [
            r"\begin{table}",
            r"  \centering",
            rf"  \caption{{{tex(caption(of, stage))}}}",
            rf"  \label{{tab:{''.join(c if c.isalnum() else '-' for c in str(of.content['run']))}}}",
            rf"  \begin{{tabular}}{{ll{'l' * len(of.names)}r}}",
            r"    \toprule",
            line(map(tex, heads(of))),
            r"    \midrule",
            *body,
            r"    \bottomrule",
            r"  \end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def name(model: Model) -> str:
    return model.id if model.trial else UNTRAINED


def method(model: Model) -> str:
    return model.method if model.trial else ""


def line(cells: Iterator[str] | Sequence[str]) -> str:
    return f"    {' & '.join(cells)} \\\\"


def tex(text: str) -> str:
    return "".join(TEX.get(character, character) for character in text)


def tex_cell(cell: tuple[str, str]) -> str:
    value, ends = cell
    return f"{value} {{\\scriptsize {tex(ends)}}}" if ends else value


def markdown(of: Material, stage: Stage | None = None) -> str:
    """A table as GitHub reads it, and what the numbers are. stage: the last by default."""
    stage = stage or last_stage(of)
    cells = [heads(of), ["---"] * (len(of.names) + 3)]
    cells += [
        [name(model), method(model), *(" ".join(cell).strip() for cell in values), p]
        for model, values, p in rows(of, stage)
    ]
    table = ["| " + " | ".join(map(escaped, row)) + " |" for row in cells]
    return "\n".join([*table, "", escaped(caption(of, stage)), ""])


def escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")
