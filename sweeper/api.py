"""The sweeper from Python: what the command line does, from a script or a notebook."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sweeper import runner, spec, storage, tree
from sweeper.run import Run


class Sweep:
    """A validated sweep, ready to run: `Sweep.from_yaml(FILE).run().pareto()`."""

    def __init__(self, sweep: spec.SweepSpec) -> None:
        self.spec = sweep

    @classmethod
    def from_yaml(cls, path: str | Path, profile: str | None = None, overrides: Sequence[str] = ()) -> Sweep:
        """Raises SpecError with one line for every mistake in the file."""
        return cls(spec.load(Path(path), profile, overrides))

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Sweep:
        """As a YAML file of the same content; a distribution is `{"!uniform": [0, 1]}`.

        Raises SpecError with one line for every mistake.
        """
        return cls(spec.validate(tree.from_plain(dict(content), "dictionary")))

    def run(self, runs: str | Path = "runs", *, quiet: bool = False) -> Run:
        """Runs the sweep to its end. runs: a folder, or s3://BUCKET/FOLDER. Raises UserError if data, weights
        or resources are missing."""
        return runner.drive(runner.start(self.spec, storage.root(str(runs))), quiet=quiet)
