"""An S3 server on loopback, moto's, that refuses whom it is told to refuse."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from http.client import HTTPConnection
from typing import Any

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from pyarrow.fs import S3FileSystem
from werkzeug.serving import WSGIRequestHandler, make_server

REGION = "us-east-1"
REFUSAL = "<?xml version='1.0'?><Error><Code>{code}</Code><Message>refused</Message></Error>"


class Quiet(WSGIRequestHandler):
    def log(self, *_: Any) -> None:
        pass


class Server:
    """refused: error codes by access key.  read_only: keys that may not write.  requests: so far."""

    def __init__(self) -> None:
        self.app = DomainDispatcherApplication(create_backend_app)
        self.refused: dict[str, str] = {}
        self.read_only: set[str] = set()
        self.requests: list[tuple[str, str]] = []
        self.http = make_server("127.0.0.1", 0, self, threaded=True, request_handler=Quiet)
        self.thread = threading.Thread(target=self.http.serve_forever, daemon=True)
        self.thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http.server_port}"

    def environment(self, key: str = "KEY") -> dict[str, str]:
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": key,
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_REGION": REGION,
        }

    def __call__(self, environ: dict[str, Any], start: Any) -> Iterable[bytes]:
        key = environ.get("HTTP_AUTHORIZATION", "").partition("Credential=")[2].partition("/")[0]
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        self.requests.append((method, path))
        writes = method not in ("GET", "HEAD")
        code = self.refused.get(key) or ("AccessDenied" if writes and key in self.read_only else None)
        if code:
            body = REFUSAL.format(code=code).encode()
            headers = [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))]
            start("503 Slow Down" if code == "SlowDown" else "403 Forbidden", headers)
            return [] if method == "HEAD" else [body]
        answer: Iterable[bytes] = self.app(environ, start)
        return answer

    def puts(self, ending: str) -> int:
        """How often an object was written whose name ends so."""
        return sum(method == "PUT" and path.endswith(ending) for method, path in self.requests)

    def make_bucket(self, name: str) -> str:
        """Its address."""
        S3FileSystem(
            access_key="ADMIN",
            secret_key="secret",
            region=REGION,
            endpoint_override=self.url,
            allow_bucket_creation=True,
        ).create_dir(name)
        return f"s3://{name}/runs"

    def put(self, key: str, content: bytes) -> None:
        """Writes an object as any client may name it; ours would make a path of the name. key: with the
        bucket's name."""
        there = HTTPConnection("127.0.0.1", self.http.server_port)
        signed = f"AWS4-HMAC-SHA256 Credential=OTHER/20260101/{REGION}/s3/aws4_request"
        there.request("PUT", f"/{key}", content, {"Authorization": signed})
        assert there.getresponse().status == 200
        there.close()

    def close(self) -> None:
        self.http.shutdown()
        self.thread.join()
        self.http.server_close()
