"""Secrets come from the environment and stay there: what is shown or written has none of them."""

from __future__ import annotations

import os
import re

SECRETS = (
    "MLFLOW_TRACKING_PASSWORD",
    "MLFLOW_TRACKING_TOKEN",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "RAY_AUTH_TOKEN",
)
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
