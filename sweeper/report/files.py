"""Figures and tables of a report as files of their own, for papers."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from sweeper import pages
from sweeper.errors import UserError, suggestion
from sweeper.report.chart import Absent, Chart
from sweeper.report.figures import FIGURES, OF_MODELS, STAGED
from sweeper.report.interactive import alone
from sweeper.report.prepare import Material
from sweeper.report.static import FORMATS, save
from sweeper.report.tables import latex, markdown
from sweeper.result import to_csv
from sweeper.run import Run
from sweeper.table import LABEL
from sweeper.trial import BASELINE, Stage

KINDS = (*FORMATS, "html")


@dataclass(frozen=True)
class Wish:
    """What a user asks for. names: of figures, all by default.  kinds: as `pdf`, which is the default.
    stage: as `search`.  models: as t003@5 or baseline.  to: a folder, or the file for a single figure; by
    default RUN/report/figures."""

    names: Sequence[str] = ()
    kinds: Sequence[str] = ()
    stage: str | None = None
    models: Sequence[str] = ()
    to: Path | None = None


def write_figures(run: Run, wish: Wish) -> Iterator[tuple[Path, str]]:
    """Writes figures and yields each file with its caption. Raises UserError, before anything is written, for
    what can't be drawn; where all are asked for, these are left out."""
    names = wish.names or list(FIGURES)
    for name in names:
        if name not in FIGURES:
            raise UserError(
                f"--figure {name}: there is none of that name{suggestion(name, FIGURES)}", pages.FIGURES
            )
    stage = stage_named(wish.stage)
    check(wish, names)
    whole = Material(run, run.pareto())
    of = whole.at(stage, [known(whole, model) for model in wish.models])
    charts = [FIGURES[name](of) for name in names]
    for chart in charts:
        if isinstance(chart, Absent) and wish.names:
            raise UserError(f"--figure {chart.name}: {chart.reason}")
    targets = list(files(run, [chart for chart in charts if isinstance(chart, Chart)], wish))
    for chart, file in targets:
        file.parent.mkdir(parents=True, exist_ok=True)
        if file.suffix == ".html":
            interactive(chart, file)
        else:
            save(chart, file)
        yield file, chart.caption
    if wish.to is None:
        run.storage.push(default_folder(run))


def check(wish: Wish, names: Sequence[str]) -> None:
    """Raises UserError where --stage or --trial would do nothing."""
    for given, able, option in ((wish.stage, STAGED, "--stage"), (wish.models, OF_MODELS, "--trial")):
        if given and not set(names) & set(able):
            raise UserError(f"{option} goes with --figure {', '.join(able)}")


def files(run: Run, charts: Sequence[Chart], wish: Wish) -> Iterator[tuple[Chart, Path]]:
    """Where each figure is written. A name of a file says its format."""
    to, kinds = wish.to or default_folder(run), list(wish.kinds)
    if to.suffix[1:] in KINDS:
        kinds = kinds or [to.suffix[1:]]
        if len(charts) > 1 or kinds != [to.suffix[1:]]:
            raise UserError(f"--to {to}: a single file; name one --figure and no other --format, or a folder")
        yield charts[0], to
        return
    for chart in charts:
        yield from ((chart, to / f"{chart.name}.{kind}") for kind in kinds or ["pdf"])


def default_folder(run: Run) -> Path:
    return run.path / "report" / "figures"


def stage_named(label: str | None) -> Stage:
    return next((stage for stage, text in LABEL.items() if text == label), "validation")


def known(of: Material, name: str) -> str:
    """The id of a model: of a trial's last epoch where none is named. Raises UserError if there is none."""
    if name == BASELINE and of.untrained:
        return name
    found = re.fullmatch(r"t(\d+)(?:@(\d+))?", name)
    if found and (of.run.trial_folder(int(found[1])) / "config.json").exists():
        trial = of.run.trial(int(found[1]))
        epoch = int(found[2] or len(trial.epochs))
        if 1 <= epoch <= len(trial.epochs):
            return trial.point(epoch).id
    raise UserError(
        f"--trial {name}: {of.run.name} has nothing measured of that name; t003@5 is a trial after an "
        f"epoch, t003 after its last, {BASELINE} the untrained model"
    )


def interactive(chart: Chart, file: Path) -> None:
    """As a page of its own."""
    from plotly.graph_objects import Figure

    Figure(alone(chart)).write_html(file)


def table(run: Run, kind: str, stage: str | None = None) -> str:
    """The Pareto set. kind: latex, markdown or csv; the latter has all stages, in full precision. Raises
    UserError if nothing is known to fill it with."""
    content = run.pareto()
    if kind == "csv":
        return to_csv(content)
    of, asked = Material(run, content), stage_named(stage)
    if not any(model.measured(asked, of.names) for model in of.members):
        raise UserError(f"{run} has no Pareto set yet that was measured so ({LABEL[asked]})")
    return {"latex": latex, "markdown": markdown}[kind](of, asked if stage else None)


def write_table(run: Run, kind: str, stage: str | None, to: Path | None) -> str:
    """The table, or the file that it was written to."""
    text = table(run, kind, stage)
    if to is None:
        return text
    to.parent.mkdir(parents=True, exist_ok=True)
    to.write_text(text, encoding="utf-8")
    return str(to)
