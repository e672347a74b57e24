"""A Ray that is started on this machine: who can reach it, and the token that it asks for."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sweeper import pages
from sweeper.errors import UserError


@contextmanager
def on_loopback() -> Iterator[None]:
    """Inside, a Ray that is started here listens on the loopback address alone, not on all of the machine's.

    Ray does so by itself where it makes no clusters, on macOS and Windows, and has no other switch for it: a
    `_node_ip_address` of 127.0.0.1 is replaced by the machine's.
    """
    from ray._private import ray_constants

    before = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


def token_file() -> Path:
    """Where Ray looks for the token unless RAY_AUTH_TOKEN is set."""
    return Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or "~/.ray/auth_token").expanduser()


def check_token() -> None:
    """Raises UserError if Ray is to use a token and finds none: it would end this process without a word."""
    wanted = os.environ.get("RAY_AUTH_MODE", "").lower() == "token" or "RAY_AUTH_TOKEN_PATH" in os.environ
    if wanted and not os.environ.get("RAY_AUTH_TOKEN") and not token_file().is_file():
        raise UserError(
            f"there is no token for the Ray cluster: {token_file()} is missing; copy it from the cluster's "
            "head, or set RAY_AUTH_TOKEN to what it holds",
            pages.CLUSTERS,
        )


def write_token() -> None:
    """Makes the token that Ray asks every client for, unless there is one. Ray would make it readable for
    every user of the machine, and two sweeps that start at once would make two."""
    file = token_file()
    if file.exists() or "RAY_AUTH_TOKEN" in os.environ or "RAY_AUTH_TOKEN_PATH" in os.environ:
        return
    file.parent.mkdir(mode=0o700, exist_ok=True)
    own = file.with_name(f"auth_token.{os.getpid()}")
    with open(os.open(own, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="ascii") as stream:
        stream.write(secrets.token_hex(32))
    try:
        os.link(own, file)  # the first one counts, and is whole
    except FileExistsError:
        pass
    finally:
        own.unlink()
