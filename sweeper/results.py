"""What a run has found, for scripts and notebooks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union

import pandas as pd

from sweeper import frames, views
from sweeper.compare import compare
from sweeper.errors import UserError, near, suggestion
from sweeper.prefer import KNEE, ChosenBy, Prefer, Tolerance, best
from sweeper.result import ranked_members
from sweeper.run import Run
from sweeper.terminal import amount
from sweeper.trial import BASELINE, STAGES, Stage

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

Model = Union[str, "pd.Series[Any]"]
"""A model by its id, `t003@2`, or a row of a table of models, such as `Results.best` returns. `t003` is the
trial after its last epoch whose weights were kept, `baseline` the untrained model."""


class Results:
    """What a run has found, finished or not, as it was when it was first asked for.

    Tables are pandas DataFrames in full precision, a row per trial or model, with its id as index. A metric's
    column is named after the stage that measured it: `validation.robust_accuracy`, as the search sees a
    model; `final.robust_accuracy`, on validation images by what the sweep file calls `final`;
    `test.robust_accuracy`, so on test images. `protocol` says how each stage measures. The objectives come
    first, with the ends of their 95 % intervals, `.low` and `.high`.

    What a user can mend is raised as UserError, in one line.
    """

    def __init__(self, run: Run) -> None:
        self.run = run

    def __repr__(self) -> str:
        trials, members = len(self.content["trials"]), len(ranked_members(self.content))
        found = f"{amount(members, 'model')} in the Pareto set"
        return f"<Results of {self.run.name}: {amount(trials, 'trial')}, {found}>"

    @property
    def path(self) -> Path:
        """The run folder; of a run in a bucket this host's copy of it."""
        return self.run.path

    @cached_property
    def content(self) -> dict[str, Any]:
        """Everything as JSON values, as in the run's pareto.json: see `sweeper.result.result`."""
        return self.run.pareto()

    @property
    def protocol(self) -> dict[str, str]:
        """By stage, what its numbers are: images, attack, epsilon, steps, calibration bins, seed."""
        return {stage: self.content[stage]["text"] for stage in STAGES}

    def trials(self) -> pd.DataFrame:
        """Every trial, after its last epoch: `method`, `status` and the `reason` of a failure, `epochs`,
        whether one of its models is in the Pareto set (`pareto`), the highest `probability` that one is
        optimal, its `seed`, what was drawn (`drawn.attack.epsilon`, ...) and all validation metrics."""
        return frames.trials(self.content)

    def epochs(self) -> pd.DataFrame:
        """Every epoch of every trial: `trial`, `epoch`, `method`, whether its weights were `kept`, the
        seconds of training and evaluation, means over training (`training.loss`, ...) and all validation
        metrics."""
        return frames.epochs(self.content, self.run)

    def pareto(self, *, untrained: bool = False) -> pd.DataFrame:
        """The Pareto set, the best in the first objective first: `trial`, `epoch`, `method`, `probability` of
        being optimal, what was drawn, and all metrics of all stages.  untrained: begin with the untrained
        model, `baseline`, to compare with."""
        return frames.models(self.content, untrained=untrained)

    def best(
        self,
        prefer: Prefer = KNEE,
        *,
        tolerance: Tolerance = 0.0,
        subject_to: Mapping[str, str] | None = None,
        stage: ChosenBy | None = None,
    ) -> pd.Series[Any]:
        """The row of the Pareto set to take.

        prefer: `"knee"`, from which any gain in one objective costs most in the others; or a metric, or
        several in the order of their importance; or weights, `{"robust_accuracy": 2, "robust_ece": 1}`, of
        objectives that are scaled to [0, 1] over the front. Metrics that are no objectives are named with
        their direction, `"minimize transfer.robust_nll"`.
        tolerance: of metrics in order, how far from the best value still counts as equally good, in the
        metric's unit: one number, or one for each name. Among equals the next metric decides, then the
        objectives. subject_to: what it must satisfy, as in a sweep file: `{"clean_accuracy": ">= 0.9 *
        baseline"}`. stage: which numbers decide; `final` by default if there are any, else `validation`.
        Never those on test images: these are to say how good the chosen model is.

        Raises UserError, also if no model satisfies `subject_to`.
        """
        chosen = best(self.content, prefer, tolerance=tolerance, subject_to=subject_to, stage=stage)
        return self.pareto().loc[chosen["id"]]

    def records(self, model: Model, stage: Stage = "validation") -> pd.DataFrame:
        """Per-image records of a model: `set`, `index`, `label`, and for clean and attacked images (`clean_`,
        `robust_`) the prediction, whether it is `correct`, `confidence`, `margin`, `nll`, uncertainties, ...;
        what broke an image first (`broken_by`), "" if nothing did. `attrs["protocol"]` says how they were
        measured. Raises UserError if the model was not measured so."""
        name = self._name(model)
        file = self.run.records(self.run.point(name), stage)
        if not file.is_file():
            only = {"final": "; candidates of the front have", "test": "; the Pareto set has"}.get(stage, "")
            raise UserError(f"{name} of {self.run.name} has no records of the stage {stage!r}{only}")
        frame = pd.read_parquet(self.run.storage.fetch(file))
        frame.attrs |= {"model": name, "protocol": self.protocol[stage]}
        return frame

    def export(self, *models: Model, to: str | Path | None = None) -> dict[str, Path]:
        """Writes models, by default the whole Pareto set, as folders that
        `open_clip.create_model("local-dir:FOLDER")` loads, with a model card each; returns the folders by id.
        to: where these folders are made, `exports` in the run by default. Raises UserError."""
        from sweeper.export import exported

        names, folder = [self._name(model) for model in models], None if to is None else Path(to)
        return {point.id: made for point, made in exported(self.run, names, folder)}

    def compare(
        self, *others: Results, metrics: Sequence[str] = (), stage: Stage | None = None
    ) -> Comparison:
        """This run beside others: their joint front, who contributes what, the hypervolume that each gained.

        metrics: what to compare by, `"minimize NAME"` of what is no objective; by default the runs'
        objectives, which must be the same.  stage: as in `best`, or `test`. Raises UserError with one line if
        what was measured can't be compared, which says why.
        """
        return Comparison(compare([self.run, *(other.run for other in others)], metrics, stage))

    def figures(
        self, *names: str, stage: Stage = "validation", models: Sequence[Model] = ()
    ) -> dict[str, Figure]:
        """The report's figures by name, as plotly figures: `front`, `front-3d`, `methods`, `reliability`,
        `confidence`, `uncertainty`, `settings`, `importance`, `interaction`, `curves`, `hypervolume`, `rungs`
        and `timeline`; those for which there are no numbers are left out.

        names: only these; then UserError is raised if there is none.  stage: whose numbers the front and the
        figures of calibration show.  models: the rows of the latter; by default the foremost of the front.
        """
        from sweeper.report.chart import Absent
        from sweeper.report.figures import FIGURES
        from sweeper.report.notebook import Shown
        from sweeper.report.prepare import Material

        of = Material(self.run, self.content).at(stage, [self._name(model) for model in models])
        found = {}
        for name in names or FIGURES:
            if name not in FIGURES:
                raise UserError(f"there is no figure {name!r}{suggestion(name, FIGURES)}")
            chart = FIGURES[name](of)
            if isinstance(chart, Absent) and names:
                raise UserError(f"{name}: {chart.reason}")
            if not isinstance(chart, Absent):
                found[name] = Shown(chart)
        return found

    def report(self) -> Path:
        """Writes the report again and returns the page's path."""
        from sweeper.report import write_report

        return write_report(self.run, self.content)

    def _repr_html_(self) -> str:
        """The Pareto set, for notebooks."""
        return views.pareto(self.content)

    def _name(self, model: Model) -> str:
        """`baseline`, or a trial after an epoch."""
        name = model if isinstance(model, str) else str(model.name)
        if name == BASELINE:
            return name
        trial, at, epoch = name.partition("@")
        if trial not in (known := {row["id"]: row["kept"] for row in self.content["trials"]}):
            raise UserError(f"{self.run.name} has no trial {trial!r}{near(trial, known)}")
        if at and not epoch.isdecimal():
            raise UserError(f"{name!r}: expected a trial and an epoch, as in {trial}@1")
        return name if at else f"{trial}@{max(known[trial], default=1)}"


class Comparison:
    """Runs beside each other, as `sweeper compare` has them. content: see `sweeper.compare.compare`."""

    def __init__(self, content: dict[str, Any]) -> None:
        self.content = content

    def __repr__(self) -> str:
        runs, models = self.content["runs"], self.content["models"]
        joined = f"{sum(row['joint'] for row in models)} of {amount(len(models), 'model')}"
        return f"<Comparison of {len(runs)} runs: {joined} on the joint front>"

    def runs(self) -> pd.DataFrame:
        """Each run: how many `models` it has and how many of them are on the `joint` front, which `share` of
        it that is, `hypervolume`, what is `gained` of it by the run, both also as shares of the joint
        front's; ends of 95 % intervals in `.low` and `.high`."""
        return frames.shares(self.content["runs"], "run")

    def methods(self) -> pd.DataFrame:
        """As `runs`, by method."""
        return frames.shares(self.content["methods"], "method")

    def models(self) -> pd.DataFrame:
        """Every model: its `run`, whether it is on the `joint` front and with which `probability`, and what
        it was compared by."""
        return frames.compared(self.content)

    def figures(self) -> dict[str, Figure]:
        """Plotly figures by name: `joint-front`, of three objectives also `joint-front-3d`,
        `contributions`."""
        from sweeper.report.joint import charts
        from sweeper.report.notebook import Shown

        return {chart.name: Shown(chart) for chart in charts(self.content)}

    def write(self, to: str | Path) -> Path:
        """Writes a page (.html), or the joint front for a paper (.pdf, .svg, .png), and returns the path."""
        from sweeper.report.compare import write_comparison

        write_comparison(self.content, Path(to))
        return Path(to)

    def _repr_html_(self) -> str:
        return views.comparison(self.content)
