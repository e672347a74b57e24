"""Where MLflow is, and what a user is told if it does not answer."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

from sweeper.redact import one_line, redacted
from sweeper.run import Run

if TYPE_CHECKING:
    from mlflow import MlflowClient

REQUEST_SECONDS = "15"
DATABASE = "mlflow.db"
PORT = 5000
"""Of the page that `sweeper ui` serves from a database."""
REFUSALS = (401, 403)
CREDENTIALS = "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN,"


def tracking_uri(run: Run) -> str:
    """MLFLOW_TRACKING_URI, or a SQLite file in the run folder. To be shown only as `redacted`."""
    return os.environ.get("MLFLOW_TRACKING_URI") or sqlite(run.path / DATABASE)


def sqlite(file: Path) -> str:
    return f"sqlite:///{file}"


def is_server(uri: str) -> bool:
    return uri.startswith(("http:", "https:"))


def page(uri: str) -> str:
    """The address of a server's page, without user, password and whatever else may be secret."""
    scheme, place, path, _, _ = urlsplit(uri)
    return urlunsplit((scheme, place.rpartition("@")[2], path.rstrip("/"), "", ""))


def page_of_database(port: int = PORT) -> str:
    """Where `sweeper ui` serves it."""
    return f"http://127.0.0.1:{port}"


def client_at(uri: str) -> MlflowClient:
    """A client of MLflow's that says nothing, and sends no request twice by itself."""
    # A request whose answer was lost must not be sent again before it was looked what it did.
    os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "0"
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", REQUEST_SECONDS)
    os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"  # of each trial, with its password
    from mlflow import MlflowClient

    for name in ("mlflow", "mlflow.store.db.utils", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)
    return MlflowClient(tracking_uri=uri)


def trouble(run: Run, error: Exception) -> str:
    """What a user is to know of an exception of MLflow's or its client's: which server, what it does, and
    what to do if it refuses."""
    server, reason = f"MLflow at {redacted(tracking_uri(run))}", one_line(error)
    if status(error) not in REFUSALS:
        return f"{server} can't be reached ({reason}): see MLFLOW_TRACKING_URI"
    return f"{server} refuses ({reason}): set {CREDENTIALS} to what it takes"


def status(error: Exception) -> int | None:
    """The HTTP status with which a server has answered; None if it has not."""
    from mlflow.exceptions import MlflowException
    from requests import HTTPError

    if isinstance(error, MlflowException):
        return int(error.get_http_status_code())
    answer = error.response if isinstance(error, HTTPError) else None
    return None if answer is None else int(answer.status_code)
