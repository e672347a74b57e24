"""MLflow's own server with a SQL database, over HTTP on loopback: in this process, where its answers can be
lost, or as one that can be killed."""

from __future__ import annotations

import os
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from werkzeug.serving import make_server

PATIENCE = 120  # seconds
READY = 2
"""Of a model: LoggedModelStatus."""
Fault = Callable[[int], bool]


def application(folder: Path) -> Any:
    """MLflow's WSGI application. One folder per process."""
    os.environ["_MLFLOW_SERVER_FILE_STORE"] = f"sqlite:///{folder / 'mlflow.db'}"
    os.environ["_MLFLOW_SERVER_ARTIFACT_ROOT"] = "mlflow-artifacts:/"
    os.environ["_MLFLOW_SERVER_ARTIFACT_DESTINATION"] = str(folder / "artifacts")
    os.environ["_MLFLOW_SERVER_SERVE_ARTIFACTS"] = "true"
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    from mlflow.server import app

    return app


class Server:
    """In this process. requests: paths of those answered since `forget`.  lost: whether the answer to the
    request of that index is lost.  authorization: without this header everything is refused.  unknown: the
    beginning of paths that it does not know, as an older version."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.app = application(folder)
        self.requests: list[str] = []
        self.lost: Fault = never
        self.authorization: str | None = None
        self.unknown: str | None = None
        self.server = make_server("127.0.0.1", 0, self, threaded=True)
        self.uri = f"http://127.0.0.1:{self.server.server_port}"

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
        if self.authorization is not None and environ.get("HTTP_AUTHORIZATION") != self.authorization:
            start_response("401 Unauthorized", [("Content-Type", "text/plain")])
            return [b"You are not authenticated."]
        if self.unknown is not None and environ["PATH_INFO"].startswith(self.unknown):
            start_response("404 Not Found", [("Content-Type", "text/html")])
            return [b"<title>404 Not Found</title>"]
        lost = self.lost(len(self.requests))
        self.requests.append(environ["PATH_INFO"])
        if not lost:
            return self.app(environ, start_response)
        b"".join(self.app(environ, lambda *_: None))
        environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
        raise ConnectionError("the answer is lost")

    def metrics(self, run_id: str) -> dict[str, list[tuple[int, float]]]:
        """Step and value of all that was logged, by name."""
        found: dict[str, list[tuple[int, float]]] = {}
        with closing(sqlite3.connect(self.folder / "mlflow.db")) as database:
            query = "select key, step, value from metrics where run_uuid = ? order by key, step"
            for name, step, value in database.execute(query, (run_id,)):
                found.setdefault(name, []).append((step, value))
        return found

    def models(self, run_id: str) -> dict[str, list[tuple[str, int, float]]]:
        """Name, step and value of what was logged of each model of a run that is not deleted, by its name;
        fails if a model is there twice, or not whole."""
        found: dict[str, list[tuple[str, int, float]]] = {}
        with closing(sqlite3.connect(self.folder / "mlflow.db")) as database:
            query = (
                "select model_id, name, status, lifecycle_stage from logged_models where source_run_id = ?"
            )
            for model, name, status, stage in database.execute(query, (run_id,)).fetchall():
                if stage == "deleted":
                    continue
                assert name not in found
                assert status == READY
                query = "select metric_name, metric_step, metric_value from logged_model_metrics"
                metrics = database.execute(f"{query} where model_id = ?", (model,)).fetchall()
                found[name] = sorted(metrics)
        return found

    def artifacts(self, run_id: str) -> list[str]:
        """Paths of the files."""
        root = next(self.folder.glob(f"artifacts/*/{run_id}/artifacts"), None)
        return (
            sorted(str(file.relative_to(root)) for file in root.rglob("*") if file.is_file()) if root else []
        )

    def forget(self, lost: Fault | None = None) -> None:
        self.requests, self.lost = [], lost or never


def never(_: int) -> bool:
    return False


@contextmanager
def served(folder: Path) -> Iterator[Server]:
    made = Server(folder)
    thread = threading.Thread(target=made.server.serve_forever, daemon=True)
    thread.start()
    first = "api/2.0/mlflow/experiments/get-by-name?experiment_name=Default"
    urllib.request.urlopen(f"{made.uri}/{first}", timeout=PATIENCE)  # it sets MLflow's URI
    yield made
    made.server.shutdown()
    thread.join()


@contextmanager
def refusing(status: str) -> Iterator[str]:
    """The address of a server that answers everything with a status, as `403 Forbidden`."""

    def answer(_: Any, start_response: Any) -> list[bytes]:
        start_response(status, [("Content-Type", "text/plain")])
        return [b"no"]

    server = make_server("127.0.0.1", 0, answer, threaded=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()


class Process:
    """As a process of its own. start and stop as often as wanted; it keeps its port and its data."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> Process:
        command = [sys.executable, "-m", "tests.mlflow_server", str(self.folder), str(self.port)]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return self

    def wait(self) -> None:
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                urllib.request.urlopen(f"{self.uri}/health", timeout=5)
                return
            except (urllib.error.URLError, OSError):
                assert time.monotonic() < deadline, "MLflow's server did not start"
                time.sleep(0.2)

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


if __name__ == "__main__":
    make_server("127.0.0.1", int(sys.argv[2]), application(Path(sys.argv[1])), threaded=True).serve_forever()
