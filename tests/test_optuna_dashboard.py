"""optuna-dashboard opens the study of a run."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

from benchmarks.driven import finished_run
from tests.command import PATIENCE, wait_for

TRIALS = 4


def test_the_study_opens(tmp_path: Path) -> None:
    run = finished_run(tmp_path, TRIALS)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(Path(sys.executable).with_name("optuna-dashboard")), str(run.journal), "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def asked(path: str) -> Any:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/{path}", timeout=PATIENCE) as answer:
            return json.loads(answer.read())

    def answers() -> bool:
        assert process.poll() is None, "it has ended"
        with socket.socket() as client:
            return client.connect_ex(("127.0.0.1", port)) == 0

    try:
        wait_for(answers)
        (study,) = asked("studies")["study_summaries"]
        assert study["study_name"] == run.id
        assert study["directions"] == ["maximize", "maximize", "minimize"]
        shown = asked(f"studies/{study['study_id']}")
        ended = [trial for trial in shown["trials"] if trial["state"] != "Running"]
        assert len(ended) == TRIALS
        drawn = {parameter["name"] for trial in ended for parameter in trial["params"]}
        assert {"attack.epsilon", "method", "optimizer.learning_rate", "epochs"} <= drawn
    finally:
        process.terminate()
        process.wait(PATIENCE)
