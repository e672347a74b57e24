"""Objects in an S3 bucket, by pyarrow. What goes wrong is one line.

Credentials come from where AWS's own tools take them: the environment, ~/.aws, the role of a container or an
instance. AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL names another server than AWS's (pyarrow reads neither), and
the region is AWS_REGION's, AWS_DEFAULT_REGION's or the bucket's.
"""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from sweeper import pages
from sweeper.errors import Obstacle

if TYPE_CHECKING:
    from pyarrow import Buffer
    from pyarrow.fs import S3FileSystem

T = TypeVar("T")

SCHEME = "s3://"
ATTEMPTS = 3  # of the SDK, which waits for at most some seconds between them
CONNECT_SECONDS, SILENT_SECONDS = 3, 5
PATIENCE = 60.0  # seconds during which a sweep that runs tries again when the server is away
AT_ONCE = 32  # objects
CHUNK = 1 << 25  # bytes of one request

EXPIRED = ("ExpiredToken", "EXPIRED_TOKEN", "RequestExpired", "REQUEST_EXPIRED")
INVALID = (
    "INVALID_ACCESS_KEY_ID",
    "InvalidAccessKeyId",
    "SIGNATURE_DOES_NOT_MATCH",
    "InvalidToken",
    "INVALID_CLIENT_TOKEN_ID",
    "UNRECOGNIZED_CLIENT",
)
DENIED = ("ACCESS_DENIED", "AccessDenied", "HTTP status 401", "HTTP status 403")
ABSENT = (
    "NO_SUCH_BUCKET",
    "Bucket '",
    "Not a valid bucket name",
)  # the last two when its region is asked for
AWAY = (
    "NETWORK_CONNECTION",
    "SLOW_DOWN",
    "SERVICE_UNAVAILABLE",
    "INTERNAL_FAILURE",
    "REQUEST_TIMEOUT",
    "HTTP status 5",
)
SOURCES = ("AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_ROLE_ARN",
           "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI")  # fmt: skip


class StorageError(Obstacle):
    """Storage does not answer, refuses, or is not what it should be: why, in one line."""

    page = pages.STORAGE


@dataclass(frozen=True)
class Object:
    """name: below the prefix.  size: in bytes.  changed: by the server's clock, in whole seconds on AWS."""

    name: str
    size: int
    changed: float


class Objects:
    """The objects below `s3://BUCKET/PREFIX`. May be used by several threads.

    patience: for how many seconds a server that does not answer is tried again. What it refuses is refused
    at once, but for expired credentials: these are looked for once more, as they may have been renewed.
    """

    def __init__(self, url: str, patience: float = 0.0) -> None:
        """Raises StorageError if it is no address of a folder."""
        self.prefix, self.patience = url.removeprefix(SCHEME).rstrip("/"), patience
        self.url = f"{SCHEME}{self.prefix}"
        self.bucket = self.prefix.partition("/")[0]
        if not all(map(is_name, self.prefix.split("/"))):
            raise StorageError(f"{url}: expected s3://BUCKET/FOLDER, no part of it empty, `.` or `..`")
        self._lock = threading.Lock()
        self._connection: S3FileSystem | None = None

    def listed(self, under: str = "") -> list[Object]:
        """All objects whose name begins with the folder `under`."""
        from pyarrow.fs import FileSelector, FileType

        place = FileSelector(self._path(under), recursive=True, allow_not_found=True)
        found = self._do(lambda s3: s3.get_file_info(place))
        cut = len(self.prefix) + 1
        return [
            Object(info.path[cut:], info.size, info.mtime.timestamp())
            for info in found
            if info.type == FileType.File
        ]

    def folders(self) -> list[str]:
        """The first parts of the names that have several, but for those that can't be part of an address."""
        from pyarrow.fs import FileSelector, FileType

        place = FileSelector(self.prefix, allow_not_found=True)
        found = self._do(lambda s3: s3.get_file_info(place))
        names = (info.base_name for info in found if info.type == FileType.Directory)
        return [name for name in names if is_name(name)]

    def read(self, name: str) -> bytes | None:
        """None if there is no such object."""

        def content(s3: S3FileSystem) -> bytes:
            with s3.open_input_file(self._path(name)) as source:
                return source.read()

        try:
            return self._do(content)
        except FileNotFoundError:
            return None

    def write(self, name: str, content: bytes | Buffer) -> None:
        """Whole or not at all. A stream stores what it has when an exception closes it; so all is written at
        once, and in a thread of its own, as those that signals raise come to the main one."""

        def put(s3: S3FileSystem) -> None:
            with s3.open_output_stream(self._path(name)) as target:
                target.write(content)

        def apart(s3: S3FileSystem) -> None:
            with ThreadPoolExecutor(1) as thread:
                thread.submit(put, s3).result()

        self._do(apart)

    def upload(self, name: str, file: Path) -> None:
        """As `write`, without reading the file into memory before it is sent."""
        from pyarrow import memory_map

        with memory_map(str(file)) as source:
            self.write(name, source.read_buffer())

    def download(self, name: str, file: Path) -> None:
        """Whole or not at all. Raises FileNotFoundError if there is no such object."""
        partial = file.with_name(f"{file.name}.{os.getpid()}-{threading.get_ident()}.partial")

        def get(s3: S3FileSystem) -> None:
            with s3.open_input_file(self._path(name)) as source, open(partial, "wb") as target:
                shutil.copyfileobj(source, target, CHUNK)

        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._do(get)
            partial.replace(file)
        finally:
            partial.unlink(missing_ok=True)

    def delete(self, name: str) -> None:
        """Nothing if there is no such object."""
        with suppress(FileNotFoundError):
            self._do(lambda s3: s3.delete_file(self._path(name)))

    def _path(self, name: str) -> str:
        return f"{self.prefix}/{name}".rstrip("/")

    def _s3(self) -> S3FileSystem:
        with self._lock:
            if self._connection is None:
                self._connection = connection(self.bucket)
            return self._connection

    def _do(self, request: Callable[[S3FileSystem], T]) -> T:
        deadline, renewed, pause = time.monotonic() + self.patience, False, 1.0
        while True:
            try:
                return request(self._s3())
            except FileNotFoundError:
                raise
            except OSError as error:
                reason = self._reason(error)
                if any(code in reason for code in EXPIRED) and not renewed:
                    self._connection, renewed = None, True
                elif any(code in reason for code in AWAY) and time.monotonic() + pause < deadline:
                    time.sleep(pause)
                    pause = min(2 * pause, 10.0)
                else:
                    raise StorageError(f"{self.url}: {explained(reason)}") from None

    def _reason(self, error: OSError) -> str:
        """What the server says. An answer to HEAD has no body that says why, so another request is made.
        Errors of the own disk are raised as they are."""
        if error.errno is not None:
            raise error
        text = " ".join(str(error).split())
        if "No response body" in text:
            from pyarrow.fs import FileSelector

            try:
                self._s3().get_file_info(FileSelector(self.prefix, allow_not_found=True))
            except OSError as other:
                return " ".join(str(other).split())
        return text


def is_name(text: str) -> bool:
    """Whether it can be part of a path, and leads to what is called so and nowhere else."""
    return text not in ("", ".", "..") and "/" not in text


def connection(bucket: str) -> S3FileSystem:
    from pyarrow.fs import AwsStandardS3RetryStrategy, S3FileSystem

    endpoint = own_endpoint()
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    if region is None:
        region = "us-east-1" if endpoint else region_of(bucket)
    return S3FileSystem(
        endpoint_override=endpoint,
        region=region,
        connect_timeout=CONNECT_SECONDS,
        request_timeout=SILENT_SECONDS,
        retry_strategy=AwsStandardS3RetryStrategy(max_attempts=ATTEMPTS),
        allow_delayed_open=True,  # a small object is one request then, not three
    )


def region_of(bucket: str) -> str:
    """Raises OSError."""
    from pyarrow.fs import resolve_s3_region

    try:
        return str(resolve_s3_region(bucket))
    except ValueError as error:  # so it refuses a name
        raise OSError(str(error)) from None


def own_endpoint() -> str | None:
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or None


def explained(reason: str) -> str:
    """A line for what the server, or the way to it, says."""
    said = reason.partition("AWS Error ")[2].partition(" (Request ID")[0] or reason

    def says(codes: Iterable[str]) -> bool:
        return any(code in reason for code in codes)

    if says(EXPIRED):
        return f"the credentials have expired; renew them ({said})"
    if says(INVALID):
        return f"the credentials are not valid; see AWS_ACCESS_KEY_ID or ~/.aws/credentials ({said})"
    if says(ABSENT):
        return f"there is no such bucket; create it, or name another ({said})"
    if says(DENIED):
        set_here = any(os.environ.get(name) for name in SOURCES) or credentials_file().is_file()
        others = "" if set_here else (
            ", or if neither a role of this host nor ~/.aws/config gives credentials, set AWS_ACCESS_KEY_ID "
            "and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
        )  # fmt: skip
        return f"access is refused; ask for the right to list, read, write and delete there{others} ({said})"
    if "REQUEST_TIME_TOO_SKEWED" in reason:
        return f"this host's clock is wrong; set it ({said})"
    if says(AWAY):
        return f"{own_endpoint() or 'AWS'} does not answer; see AWS_ENDPOINT_URL and the network ({said})"
    return said


def credentials_file() -> Path:
    return Path(os.environ.get("AWS_SHARED_CREDENTIALS_FILE") or "~/.aws/credentials").expanduser()


def for_all(function: Callable[[T], Any], items: Iterable[T]) -> None:
    """Calls it for each, some at once; the first error is raised."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for _ in pool.map(function, items):
            pass
