"""Where MLflow's page shows a sweep.

Links are kept in RUN/mlflow.json as they stand behind the page's address: a run's own database is served
wherever `sweeper ui` is called.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import quote

from sweeper.files import read_json, write_json
from sweeper.run import Run
from sweeper.tracking.server import PORT, is_server, page, page_of_database

FILE = "mlflow.json"
TRAINING = "workflowType=machine_learning"
"""MLflow's page has another side, for language models."""
PRINTED = 20
"""Runs in a link that is printed."""


@dataclass(frozen=True)
class Links:
    """parent: MLflow's run of the sweep.  members: those of the trials on the front, the best first."""

    run: Run
    experiment: str
    parent: str
    members: Sequence[str]

    @property
    def sweep(self) -> str:
        return f"{self._table}/{self.parent}?{TRAINING}"

    @property
    def trials(self) -> str:
        """All of the sweep, with our columns: see `sweeper.tracking.views`."""
        return f"{self._table}?{TRAINING}&viewStateShareKey={quote(self.run.id)}"

    @property
    def front(self) -> str:
        """The front, likewise."""
        return f"{self.trials}-front"

    @property
    def compare(self) -> str:
        """The runs of the front, and no others, side by side."""
        return f"#/compare-runs?runs={_list(self.members)}&experiments={_list([self.experiment])}&{TRAINING}"

    def artifact(self, path: str) -> str:
        """One of the sweep's, in MLflow's viewer."""
        return f"{self._table}/{self.parent}/artifacts/{quote(path)}?{TRAINING}"

    def picture(self, path: str) -> str:
        """One of the sweep's artifacts by itself."""
        return f"get-artifact?path={quote(path, safe='')}&run_uuid={self.parent}"

    @property
    def _table(self) -> str:
        return f"#/experiments/{self.experiment}/runs"

    def write(self, uri: str) -> None:
        names = ("sweep", "trials", "front", "compare")
        address = page(uri) if is_server(uri) else None
        file = self.run.path / FILE
        links = {name: getattr(self, name) for name in names}
        content = {"address": address, **links, "members": len(self.members)}
        if read_json(file) != content:
            write_json(file, content)
            self.run.storage.push_later(file)


def _list(values: Sequence[str]) -> str:
    return quote(json.dumps(list(values), separators=(",", ":")))


def lines(run: Run, port: int = PORT) -> list[str]:
    """What a user is told of MLflow's page; nothing as long as it does not have the result, or if nothing is
    on the front."""
    known = read_json(run.path / FILE)
    if known is None or known["members"] == 0:
        return []
    address = known["address"] or page_of_database(port)
    compared = f"{address}/{known['compare']}" if known["members"] <= PRINTED else f"see {run.path / FILE}"
    return [f"the front in MLflow: {address}/{known['front']}", f"side by side: {compared}"]
