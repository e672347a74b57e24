"""Secrets come from the environment and stay there: what is shown or written has none of them."""

from __future__ import annotations

import os
import re

SECRETS = (
    "MLFLOW_TRACKING_PASSWORD",
    "MLFLOW_TRACKING_TOKEN",
    "MLFLOW_FLASK_SERVER_SECRET_KEY",
    "MLFLOW_AUTH_ADMIN_PASSWORD",
    "MLFLOW_CRYPTO_KEK_PASSPHRASE",
    "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY",
    "DATABRICKS_TOKEN",
    "DATABRICKS_CLIENT_SECRET",
    "DATABRICKS_PASSWORD",
    "HF_TOKEN",
    "HUGGING_FACE_HUB_TOKEN",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN",
    "AZURE_STORAGE_ACCESS_KEY",
    "AZURE_STORAGE_CONNECTION_STRING",
    "AZURE_STORAGE_SAS_TOKEN",
    "RAY_AUTH_TOKEN",
    "RAY_REDIS_PASSWORD",
)
"""Those that MLflow, its stores for artifacts, Hugging Face's hub, pyarrow and Ray read."""
HIDDEN = "***"


def redacted(text: str) -> str:
    """Without the values of `SECRETS`, and without the user, password and secret parameters of any URI."""
    for name in SECRETS:
        if value := os.environ.get(name):
            text = text.replace(value, HIDDEN)
    text = re.sub(r"://[^/\s@]+@", f"://{HIDDEN}@", text)
    return re.sub(r"((?:password|token|secret)\w*=)[^&\s'\"]+", rf"\1{HIDDEN}", text, flags=re.IGNORECASE)


def one_line(error: BaseException, length: int = 300) -> str:
    """What an exception of others says, in a line and without secrets."""
    return redacted(" ".join(str(error).split()))[:length]
