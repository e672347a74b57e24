"""The sweeper from Python: what the command line does, from a script or a notebook."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweeper import runner, spec, storage, tree
from sweeper.errors import Obstacle, SpecError, UserError
from sweeper.run import Run

if TYPE_CHECKING:
    from sweeper.results import Results


class Sweep:
    """A validated sweep, ready to run: `Sweep.from_yaml(FILE).run().pareto()`.

    What a user can mend is raised as UserError or SpecError, which a notebook shows as one line per mistake.
    """

    def __init__(self, sweep: spec.SweepSpec) -> None:
        self.spec = sweep

    def __repr__(self) -> str:
        search = self.spec.file.search
        return f"<Sweep {self.spec.file.name}: {search.trials} trials, {search.sampler}, seed {search.seed}>"

    @classmethod
    def from_yaml(cls, path: str | Path, profile: str | None = None, overrides: Sequence[str] = ()) -> Sweep:
        """The sweep in a file.

        profile: of the file's `profiles`, laid over it.  overrides: `KEY=VALUE` each, as `--set` has them:
        `["search.trials=3", "trial.epochs=!int [1, 4]"]`.  Raises SpecError with one line for every mistake.
        """
        return cls(spec.load(Path(path), profile, overrides))

    @classmethod
    def from_dict(
        cls, content: Mapping[str, Any], profile: str | None = None, overrides: Sequence[str] = ()
    ) -> Sweep:
        """The sweep in a dictionary of what a file holds: `{"name": ..., "trial": {...}, ...}`.

        A distribution is a dictionary with its tag as the only key: `{"!loguniform": [1e-4, 1e-2]}`,
        `{"!choice": ["4/255", "8/255"]}`, `{"!grid": [{"name": "tecoa"}, {"name": "carot"}]}`.
        profile, overrides: as in `from_yaml`.  Raises SpecError with one line for every mistake.
        """
        if not isinstance(content, Mapping):
            raise SpecError([f"dictionary: expected the keys of a sweep (name, trial, ...), got {content!r}"])
        root = tree.from_plain(dict(content), "dictionary")
        return cls(spec.from_tree(root, "dictionary", profile, overrides))

    def to_dict(self) -> dict[str, Any]:
        """What `from_dict` makes the same sweep of, as JSON values; profile and overrides applied."""
        content: dict[str, Any] = tree.plain(self.spec.tree)
        return content

    @staticmethod
    def load(run: str | Path | None = None, runs: str | Path = "runs") -> Results:
        """The results of a run, finished or not.

        run: its name in the folder `runs`, its path, or its address in a bucket; the latest by default.
        runs: a folder, or s3://BUCKET/FOLDER.  Raises UserError if there is none.
        """
        from sweeper.results import Results

        return Results(Run.find(None if run is None else str(run), storage.root(str(runs))))

    def run(self, runs: str | Path = "runs", *, quiet: bool = False) -> Results:
        """Runs the sweep to its end and returns its results.

        runs: the folder in which the run's own is made, or s3://BUCKET/FOLDER.  quiet: show no progress.
        Raises UserError if data, weights or resources are missing, before anything is started; and
        KeyboardInterrupt after Ctrl-C, or a notebook's interrupt: what was finished is kept then, and the
        command `sweeper resume` goes on with it.
        """
        from sweeper.results import Results

        _without_widgets()
        run = runner.start(self.spec, storage.root(str(runs)))
        try:
            return Results(runner.drive(run, quiet=quiet))
        except KeyboardInterrupt:
            print(f"interrupted; go on with: sweeper resume {run}", file=sys.stderr)
            raise
        except Obstacle as error:
            raise UserError(f"{error}; nothing is lost, go on with: sweeper resume {run}") from error


def _without_widgets() -> None:
    """Not said in a notebook: that tqdm and Ray miss ipywidgets, which nothing here needs."""
    warnings.filterwarnings("ignore", message="IProgress not found")
    logging.getLogger("ray.widgets.util").setLevel(logging.WARNING)
