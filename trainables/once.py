"""What is computed once and found by whoever needs it next: a folder of results, by all they depend on.

    <kind>/<SHA-256 of the key>/manifest.json    the key, and digest and size of every other file
                               /...              the result
    <kind>/<SHA-256 of the key>.lock             held while it is computed

An entry is written beside its place and renamed into it, so it is whole or not there. While a process
computes, others that want the same wait; its lock ends with it. On a file system without locks all
compute, and the first entry stays. An entry is checked before it is read: one that is not as it was
written is moved away (`.damaged`) and computed again. Where nothing can be written, the result is
returned all the same. The folder can be deleted at any time.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np

from trainables.data.cache import locked

if TYPE_CHECKING:
    from numpy.typing import NDArray

T = TypeVar("T")
Key = Mapping[str, Any]
"""Strings, numbers, booleans, None, and lists and dictionaries (by strings) of them."""

MANIFEST = "manifest.json"
PACKAGES = ("torch", "open_clip_torch", "timm", "transformers", "torchattacks", "numpy", "scipy", "pandas")
"""Those that results come from."""


@dataclass(frozen=True)
class Kind(Generic[T]):
    """What a result is as files. write: into an empty folder.  read: the same again."""

    name: str
    write: Callable[[T, Path], object]
    read: Callable[[Path], T]


def array_kind(name: str) -> Kind[NDArray[Any]]:
    """An array, read as a memory map: all processes of a machine share one copy of it."""
    return Kind(
        name,
        write=lambda array, folder: np.save(folder / "array.npy", array, allow_pickle=False),
        read=lambda folder: np.load(folder / "array.npy", mmap_mode="r", allow_pickle=False),
    )


@dataclass(frozen=True)
class Store:
    """Results in `folder`; without one nothing is kept, and everything is computed when it is asked for."""

    folder: Path | None = None

    def get(self, kind: Kind[T], key: Key, compute: Callable[[], T]) -> T:
        """The result that `compute` gives, computed at most once for a key.

        key: all that the result depends on, by content, but for the program itself, see `provenance`.
        """
        if self.folder is None:
            return compute()
        entry = Entry(kind, {**key, **provenance()}, self.folder / kind.name)
        found = entry.read()
        if found is not None:
            return found
        with entry.alone():
            found = entry.read()  # by whom we waited for
            return entry.make(compute) if found is None else found


NOWHERE = Store()


def canonical(key: Key) -> str:
    """The same text for equal keys only, whatever the order in their dictionaries."""
    return json.dumps(key, sort_keys=True, separators=(",", ":"), allow_nan=False)


@cache
def provenance() -> dict[str, Any]:
    """What computes: the source of this package, and versions of what it computes with.

    All of the source, because nothing tells which lines a number depends on: to compute again after a
    change costs minutes, to be served a number of the code before it costs the comparison.
    """
    return {"source": source_digest(Path(__file__).parent), "packages": {p: installed(p) for p in PACKAGES}}


def source_digest(package: Path) -> str:
    """Of all Python files of a package, by name and content."""
    digest = hashlib.sha256()
    for file in sorted(package.rglob("*.py")):
        digest.update(f"{file.relative_to(package).as_posix()} {sha256(file)}\n".encode())
    return digest.hexdigest()


def installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


class Entry(Generic[T]):
    """One result in its folder, there or not."""

    def __init__(self, kind: Kind[T], key: Key, folder: Path) -> None:
        self.kind, self.key = kind, json.loads(canonical(key))
        self.folder = folder / hashlib.sha256(canonical(key).encode()).hexdigest()

    def read(self) -> T | None:
        """The result; None if it is not there, or not as it was written."""
        with suppress(FileNotFoundError):  # the folder may be deleted at any time
            if os.path.isdir(self.folder) and self.damage() is None:
                return self.kind.read(self.folder)
        return None

    def damage(self) -> str | None:
        """What is wrong with the files, in words. Large ones are read once per process."""
        try:
            manifest = json.loads((self.folder / MANIFEST).read_bytes())
            if manifest["key"] != self.key:
                return f"{MANIFEST} is of another result"
            if manifest["files"].keys() != {file.name for file in self.contents()}:
                return f"other files than in {MANIFEST}"
            changed = [file.name for file in self.contents() if about(file) != manifest["files"][file.name]]
            return f"{', '.join(changed)} changed" if changed else None
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            return f"{MANIFEST} can't be read ({type(error).__name__}: {error})"

    def contents(self) -> list[Path]:
        return sorted(file for file in self.folder.iterdir() if file.name != MANIFEST)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """One process at a time, and what killed ones left is removed; where there are no locks, all at
        once."""
        with ExitStack() as stack:
            with suppress(OSError):
                self.folder.parent.mkdir(parents=True, exist_ok=True)
                stack.enter_context(locked(self.folder.with_suffix(".lock")))
                for left in self.folder.parent.glob(f"{self.folder.name}.*.partial"):
                    shutil.rmtree(left, ignore_errors=True)
            yield

    def make(self, compute: Callable[[], T]) -> T:
        """Computes the result, and keeps it in the place of a damaged one or of none, if that can be."""
        self._move_damaged()
        result, reason = compute(), ""
        try:
            self._write(result)
        except OSError as error:
            reason = f": {error}"
        kept = self.read()  # our own, or that of a process which was faster
        if kept is not None:
            return kept
        warnings.warn(f"results can't be kept in {self.folder.parent}{reason}", stacklevel=3)
        return result

    def _move_damaged(self) -> None:
        if not os.path.isdir(self.folder):
            return
        warnings.warn(f"{self.folder}: {self.damage()}; moved away and computed again", stacklevel=4)
        with suppress(OSError):  # then the new result can't be kept, which `make` says
            self.folder.rename(self._beside("damaged"))

    def _write(self, result: T) -> None:
        partial = self._beside("partial")
        partial.mkdir()
        try:
            self.kind.write(result, partial)
            files = {file.name: about(file) for file in partial.iterdir()}
            manifest = {"key": self.key, "files": files}
            (partial / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
            partial.rename(self.folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)

    def _beside(self, what: str) -> Path:
        """A path that no other process uses."""
        return self.folder.with_name(f"{self.folder.name}.{uuid.uuid4().hex}.{what}")


_digests: dict[tuple[Path, int, int, int], str] = {}


def about(file: Path) -> dict[str, Any]:
    """Digest and size of a file, which is read anew only if it has changed."""
    state = file.stat()
    known = file, state.st_ino, state.st_size, state.st_mtime_ns
    if known not in _digests:
        _digests[known] = sha256(file)
    return {"sha256": _digests[known], "bytes": state.st_size}


def sha256(file: Path) -> str:
    digest = hashlib.sha256()
    with open(file, "rb") as opened:
        while chunk := opened.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
