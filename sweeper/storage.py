"""Where runs lie, and how every process comes to see the files of one.

On a path, local or shared (NFS), all see the same files, and there is nothing to do. In a bucket,
`s3://BUCKET/FOLDER`, each process works on a copy: the driver of a sweep and whoever reads a run, on one that
stays on its host, below SWEEPER_SCRATCH; a worker, see `sweeper.site`, on one that goes with its job. What
is written is pushed before it takes effect, and the bucket is the truth, which copies follow file for file.
Two kinds of files are treated apart:

* Of large ones (weights, records) the copy has an empty stand-in of the same name, until one is fetched.
* Growing ones lie in pieces, `study.journal.00000`, ..., of which only the last is written again, so that
  what is sent for a trial does not depend on how many there were before it.
"""

from __future__ import annotations

import fcntl
import glob
import os
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path, PurePosixPath

from sweeper import pages
from sweeper.lease import FOLDER as CLAIMS
from sweeper.lease import Lease, Who, holder
from sweeper.lock import locked_by
from sweeper.objects import PATIENCE, SCHEME, Object, Objects, StorageError, for_all

Root = Path | str
"""A folder of runs: a path, or the address of one in a bucket."""

LARGE = (".safetensors", ".parquet")
GROWING = ("study.journal", "rungs.jsonl", "log.txt")
PIECE = 1 << 16  # bytes
A_PIECE = re.compile(rf"({'|'.join(map(re.escape, GROWING))})\.\d{{5}}$")
OWN = re.compile(r"ray/|mlartifacts/|mlflow\.db|(mlflow|driver|copy|study\.journal)\.lock|.*\.partial$")
"""What belongs to a host: Ray's folder, MLflow's database, which can be made again, and locks."""
MARK = "copy.lock"
"""Is in every copy from its beginning: a folder without it is somebody else's."""
MADE = "made"
"""A folder in which a new run is claimed."""
UNREAD = ("exports/", "evaluations/", f"{CLAIMS}/", f"{MADE}/")
"""What is written and never read again."""
SEEN_WITHIN = 90.0  # seconds; an NFS client may take a list of files for current for 60
A_SECOND = 2.0  # and a margin: S3 tells changes within a second not apart


def is_address(text: str) -> bool:
    return text.startswith(SCHEME)


def root(text: str) -> Root:
    """Raises StorageError for an address of no folder."""
    return Objects(text).url if is_address(text) else Path(text)


def scratch() -> Path:
    """SWEEPER_SCRATCH, or `clip-sweeper/runs` in the user's cache."""
    own, cache = os.environ.get("SWEEPER_SCRATCH"), os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(own or f"{cache}/clip-sweeper/runs").expanduser().absolute()


def copy_of(address: str) -> Path:
    """Where a host has its copy of what lies at an address. Raises StorageError for one of no folder."""
    return scratch() / Objects(address).prefix


class Storage:
    """A run folder that all processes see."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()

    @staticmethod
    def at(place: Root) -> Storage:
        """That of the run at a path or an address."""
        text = str(place)
        return Bucket(text) if is_address(text) else Storage(Path(text))

    @staticmethod
    def all(place: Root) -> list[Storage]:
        """Of the runs below `place`, in no order."""
        if isinstance(place, str):
            found = [Bucket(f"{place}/{name}") for name in Objects(place).folders()]
            return [each for each in found if each.bring("run.json")]
        return [Storage(file.parent) for file in place.glob("*/run.json")]

    @property
    def address(self) -> str | None:
        """None for a path."""
        return None

    def __str__(self) -> str:
        """As a user names it."""
        return str(self.address or self.path)

    def create(self) -> None:
        """Raises FileExistsError if there is something, OSError if there can't be."""
        self.path.mkdir(parents=True)

    def bring(self, name: str) -> bool:
        """Whether there is a file of that name; it is then here."""
        return (self.path / name).is_file()

    def check_links(self) -> None:
        """Raises StorageError if a link leads out of the folder. Of a folder that others have made, we would
        write, delete or upload there in their place."""
        own = os.path.realpath(self.path)
        for link in links(self.path):
            there = os.path.realpath(link)
            if os.path.commonpath((own, there)) != own:
                raise StorageError(
                    f"{link} leads out of the run folder, to {there}; delete this link", pages.SECURITY
                )

    def refresh(self) -> None:
        """Makes sure that the files are those that other processes have written, as far as they are told."""

    def look(self, folder: Path) -> None:
        """As `refresh`, for one folder, of which a worker may have been lost."""

    def follow(self, file: Path) -> None:
        """As `refresh`, for a growing file."""

    def reported(self, files: Iterable[str]) -> None:
        """Makes sure that files, by their names in the run, are seen here, which a worker reports to have
        written. Raises StorageError if they can't be."""
        deadline = time.monotonic() + SEEN_WITHIN
        for name in files:
            file = self.path / name
            while not is_listed(file):
                if time.monotonic() > deadline:
                    raise StorageError(
                        f"{file}: a worker reports that it wrote this file, and it is not seen here after "
                        f"{SEEN_WITHIN:.0f} seconds; is the run folder shared by all nodes?"
                    )
                time.sleep(0.2)

    def fetch(self, file: Path) -> Path:
        """The file, to be read, and others of its kind beside it under its name."""
        return file

    def push(self, *files: Path) -> None:
        """Stores files, or all in a folder, that were written here. Raises StorageError."""

    def push_later(self, file: Path) -> None:
        """As `push`, of what may be lost of the last seconds."""

    def remove(self, *files: Path) -> None:
        """Deletes what is there of them."""
        for file in files:
            file.unlink(missing_ok=True)

    @contextmanager
    def held(self, who: Who, dead: str | None) -> Iterator[None]:
        """Inside, no other host drives the run; the lock file sees to that where it is shared."""
        yield

    def holder(self) -> Who | None:
        """Who drives the run on another host, where the lock file does not tell."""
        return None


def links(folder: Path) -> Iterator[str]:
    """Symbolic links in a folder and below it; none is followed. Raises StorageError if it can't be known."""
    folders = [str(folder)]
    while folders:
        try:
            with os.scandir(folders.pop()) as entries:
                for entry in entries:
                    if entry.is_symlink():
                        yield entry.path
                    elif entry.is_dir():
                        folders.append(entry.path)
        except FileNotFoundError:  # taken away meanwhile
            continue
        except OSError as error:
            raise StorageError(f"{error.filename} can't be looked into: {error.strerror}") from None


def is_listed(file: Path) -> bool:
    """Whether it is there for those who list its folder, which NFS clients learn later than who opens it."""
    try:
        return file.name in os.listdir(file.parent)
    except FileNotFoundError:
        return False


def check(place: Root) -> None:
    """Raises StorageError unless runs can be written below `place`, read and deleted again."""
    if isinstance(place, str):
        objects, probe = Objects(place), f"probe-{os.getpid()}-{time.time_ns()}"
        objects.listed(probe)
        objects.write(probe, b"probe")
        if objects.read(probe) != b"probe":
            raise StorageError(f"{place}: what was written there can't be read again")
        objects.delete(probe)


class Bucket(Storage):
    """A run in a bucket, and the copy of it on this host."""

    def __init__(self, address: str) -> None:
        super().__init__(copy_of(address))
        self.objects = Objects(address)
        self.lease: Lease | None = None
        self.later: set[Path] = set()
        self.waiting = threading.Lock()
        self.stored: dict[str, int] = {}  # bytes of growing files

    @property
    def address(self) -> str:
        return self.objects.url

    def create(self) -> None:
        made = f"{MADE}/{secrets.token_hex(8)}"
        self.objects.write(made, b"")  # a list has it, so that of two at once at least one sees the other
        if len(self.objects.listed()) > 1 or self.path.exists():
            self.objects.delete(made)
            raise FileExistsError(str(self))
        self._begin()

    def _begin(self) -> None:
        """Makes the folder of the copy if there is none. Raises StorageError if what is there is none: files
        of a copy that the bucket does not have are deleted."""
        self.path.mkdir(parents=True, exist_ok=True)
        there = os.listdir(self.path)
        if there and MARK not in there:
            raise StorageError(f"{self}: {self.path}, where its copy belongs, holds other files; move them")
        (self.path / MARK).touch()

    def bring(self, name: str) -> bool:
        content = self.objects.read(name)
        if content is not None:
            self._begin()
            file = self.path / name
            file.parent.mkdir(parents=True, exist_ok=True)
            replace(file, content)
        return content is not None

    def refresh(self) -> None:
        self._unless_driven_here(self._follow)

    def follow(self, file: Path) -> None:
        self._unless_driven_here(lambda: self._grow(self.name(file)))

    def _unless_driven_here(self, follow: Callable[[], None]) -> None:
        """If the run is driven on this host, its copy is ahead of the bucket."""
        self._begin()
        with open(self.path / MARK, "w", encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if locked_by(self.path) is None:
                follow()

    def look(self, folder: Path) -> None:
        self._follow(self.name(folder))

    def reported(self, files: Iterable[str]) -> None:
        new = set(files)
        for folder in {str(PurePosixPath(name).parent) for name in new}:
            self._follow(folder, lambda each: each.name in new or not (self.path / each.name).exists())

    def fetch(self, file: Path) -> Path:
        for each in beside(file):
            if each.suffix == file.suffix and each.stat().st_size == 0:
                try:
                    self.objects.download(self.name(each), each)
                except FileNotFoundError:
                    raise StorageError(f"{self}: {self.name(each)} is not there any more") from None
        return file

    def push(self, *files: Path) -> None:
        if self.lease:
            self.lease.check()
        for_all(self._push, [each for file in files for each in inside(file)])

    def push_later(self, file: Path) -> None:
        self.later.add(file)

    def remove(self, *files: Path) -> None:
        if self.lease:
            self.lease.check()
        for file in files:
            self.objects.delete(self.name(file))
        super().remove(*files)

    @contextmanager
    def held(self, who: Who, dead: str | None) -> Iterator[None]:
        with Lease(self.objects, who, dead, self._push_what_may_wait) as lease:
            self.lease = lease
            with open(self.path / MARK, "w", encoding="utf-8") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)  # whoever reads has come to its end
                self._follow()
            self.objects.patience = PATIENCE
            try:
                yield
            finally:
                self.objects.patience = 0.0
                with suppress(StorageError):  # it may be lost, and may be why this has come to its end
                    self._push_what_may_wait()
                self.lease = None

    def holder(self) -> Who | None:
        return holder(self.objects)

    def name(self, file: Path) -> str:
        return file.relative_to(self.path).as_posix()

    def _push_what_may_wait(self) -> None:
        with self.waiting:  # the lease's thread comes here too
            self.push(*(file for file in [*self.later] if file.exists()))

    def _push(self, file: Path) -> None:
        name = self.name(file)
        if name in GROWING:
            self._push_pieces(name)
        elif not OWN.match(name):
            self.objects.upload(name, file)

    def _push_pieces(self, name: str) -> None:
        index = self.stored.get(name, 0) // PIECE
        with open(self.path / name, "rb") as file:
            file.seek(index * PIECE)
            content = file.read()  # at once: what is added meanwhile would begin a piece of its own
        for start in range(0, len(content), PIECE):
            part = content[start : start + PIECE]
            self.objects.write(piece(name, index), part)
            self.stored[name] = index * PIECE + len(part)
            index += 1

    def _follow(self, folder: str = "", new: Callable[[Object], bool] = lambda _: True) -> None:
        """Makes the copy, or a folder of it, what the bucket has. new: whether a file may be another than the
        copy's."""
        files = [each for each in self.objects.listed(folder) if not is_apart(each.name)]
        pieces: dict[str, list[str]] = {}
        for each in files:
            if found := A_PIECE.match(each.name):
                pieces.setdefault(found[1], []).append(each.name)
        alone = {each.name: each for each in files if not A_PIECE.match(each.name)}
        for_all(self._take, filter(new, alone.values()))
        for name, names in pieces.items():
            self._join(name, self._read_pieces(sorted(names)))
        for file in inside(self.path / folder):
            name = self.name(file)
            if name not in alone and name not in pieces and not is_apart(name):
                file.unlink(missing_ok=True)

    def _take(self, each: Object) -> None:
        """One file as the bucket has it; known by its size and the time of its change."""
        file = within(self.path, each.name)
        known = file.stat() if file.exists() else None
        if file.suffix in LARGE:
            if not known or (known.st_size and known.st_mtime < each.changed):
                replace(file, b"")
            return
        if known and (known.st_size, known.st_mtime) == (each.size, each.changed):
            return
        with suppress(FileNotFoundError):  # deleted since the list was made
            self.objects.download(each.name, file)
            if time.time() - each.changed > A_SECOND:
                os.utime(file, (each.changed, each.changed))

    def _grow(self, name: str) -> None:
        """Brings the last piece that is here once more, and those that came after it."""
        index = self.stored.get(name, 0) // PIECE
        content = (self.path / name).read_bytes()[: index * PIECE] if index else b""
        self._join(name, content + self._read_pieces(piece(name, each) for each in count(index)))

    def _read_pieces(self, names: Iterable[str]) -> bytes:
        """To the first that is not full: what is behind it was written after it was read."""
        content = b""
        for name in names:
            new = self.objects.read(name) or b""
            content += new
            if len(new) < PIECE:
                break
        return content

    def _join(self, name: str, content: bytes) -> None:
        """A growing file as its pieces are; a line that its writer could not finish is dropped."""
        whole = content[: content.rfind(b"\n") + 1]
        replace(self.path / name, whole)
        self.stored[name] = len(whole)


def is_apart(name: str) -> bool:
    """Whether a copy does not follow the bucket in this file."""
    return bool(OWN.match(name)) or name.startswith(UNREAD)


def piece(name: str, index: int) -> str:
    return f"{name}.{index:05d}"


def replace(file: Path, content: bytes) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f"{file.name}.{os.getpid()}.partial")
    partial.write_bytes(content)
    partial.replace(file)


def within(folder: Path, name: str) -> Path:
    """Raises StorageError if a name leads out of the folder."""
    if ".." in PurePosixPath(name).parts or name.startswith("/"):
        raise StorageError(f"{folder}: an object is named {name!r}, which leads out of the run; delete it")
    return folder / name


def beside(file: Path) -> list[Path]:
    """What there is in its folder under its name: `a.json` has `a.parquet` and `a-class-bins.parquet`."""
    return [*file.parent.glob(f"{glob.escape(file.stem)}[.-]*")]


def inside(place: Path) -> list[Path]:
    """The file, or all files below a folder."""
    return [place] if place.is_file() else [file for file in place.rglob("*") if file.is_file()]
