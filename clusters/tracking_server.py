"""MLflow's server on this host's loopback, behind its log-in: tracking_server.py start|stop.

Where it listens, and the user and the password that it takes, are what MLflow's client reads:
MLFLOW_TRACKING_URI, MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD. `start` fails with a line unless
it then answers to them.
"""

import base64
import os
import secrets
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

FOLDER = Path("~/mlflow").expanduser()
LOG, PID = FOLDER / "log.txt", FOLDER / "pid"
PATIENCE = 120  # seconds


def start() -> None:
    if not os.environ.get("MLFLOW_TRACKING_PASSWORD"):
        sys.exit(
            "MLflow's server needs a password, and MLFLOW_TRACKING_PASSWORD is empty: see docs/clusters.md"
        )
    server = None if answer() else begin()
    deadline = time.monotonic() + PATIENCE
    while not (status := answer()):
        if time.monotonic() > deadline or (server and server.poll() is not None):
            sys.exit(f"MLflow's server does not come up: see {LOG}")
        time.sleep(0.5)
    if status != 200:
        sys.exit(
            f"what listens at {os.environ['MLFLOW_TRACKING_URI']} refuses our password: MLflow keeps the "
            f"first that it was given, in {FOLDER / 'basic_auth.db'}"
        )


def begin() -> subprocess.Popen[bytes]:
    FOLDER.mkdir(mode=0o700, exist_ok=True)
    own = {
        "MLFLOW_AUTH_ADMIN_USERNAME": os.environ["MLFLOW_TRACKING_USERNAME"],
        "MLFLOW_AUTH_ADMIN_PASSWORD": os.environ["MLFLOW_TRACKING_PASSWORD"],
        "MLFLOW_FLASK_SERVER_SECRET_KEY": secrets.token_hex(),
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    port = urllib.parse.urlsplit(os.environ["MLFLOW_TRACKING_URI"]).port
    command = f"-m mlflow server --app-name basic-auth --host 127.0.0.1 --port {port} --workers 1"
    with LOG.open("ab") as log:
        server = subprocess.Popen(
            [sys.executable, *command.split(), "--backend-store-uri", "sqlite:///mlflow.db"],
            cwd=FOLDER,
            env={**os.environ, **own},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    PID.write_text(str(server.pid))
    return server


def answer() -> int | None:
    """HTTP's status, to our user and password; None if nobody answers."""
    user, password = (os.environ[f"MLFLOW_TRACKING_{name}"] for name in ("USERNAME", "PASSWORD"))
    basic = base64.b64encode(f"{user}:{password}".encode()).decode()
    request = urllib.request.Request(
        f"{os.environ['MLFLOW_TRACKING_URI']}/api/2.0/mlflow/experiments/get?experiment_id=0",
        headers={"Authorization": f"Basic {basic}"},
    )
    try:
        return urllib.request.urlopen(request, timeout=10).status
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return None


def stop() -> None:
    deadline = time.monotonic() + 10
    while pid := running():
        os.killpg(pid, signal.SIGTERM if time.monotonic() < deadline else signal.SIGKILL)
        time.sleep(0.5)


def running() -> int | None:
    """The server's process, if it is one of MLflow's: else its number is another's by now."""
    if not PID.is_file():
        return None
    pid = int(PID.read_text())
    command = Path(f"/proc/{pid}/cmdline")
    return pid if command.is_file() and b"mlflow" in command.read_bytes() else None


if __name__ == "__main__":
    {"start": start, "stop": stop}[sys.argv[1]]()
