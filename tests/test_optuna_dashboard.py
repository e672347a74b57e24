"""optuna-dashboard opens the study of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from optuna_dashboard import wsgi
from optuna_dashboard._storage_url import get_storage  # as its command reads its argument
from werkzeug.test import Client

from benchmarks.driven import finished_run

TRIALS = 4


def test_the_study_opens(tmp_path: Path) -> None:
    run = finished_run(tmp_path, TRIALS)
    page = Client(wsgi(get_storage(str(run.journal))))

    def asked(path: str) -> Any:
        return page.get(f"/api/{path}").json

    (study,) = asked("studies")["study_summaries"]
    assert study["study_name"] == run.id
    assert study["directions"] == ["maximize", "maximize", "minimize"]
    shown = asked(f"studies/{study['study_id']}")
    ended = [trial for trial in shown["trials"] if trial["state"] != "Running"]
    assert len(ended) == TRIALS
    drawn = {parameter["name"] for trial in ended for parameter in trial["params"]}
    assert {"attack.epsilon", "method", "optimizer.learning_rate", "epochs"} <= drawn
