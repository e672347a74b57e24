"""What was computed is kept: a benchmark of hours goes on where it was interrupted."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

OURS = ("sweeper", "trainables", "benchmarks", "__main__")


def made_by(further: Iterable[Path]) -> str:
    """A digest of the modules of ours that are loaded, and of further files: what an outcome is of."""
    modules = [module for name, module in sys.modules.items() if name.partition(".")[0] in OURS]
    files = {module.__file__ for module in modules if hasattr(module, "__file__")}
    texts = sorted(Path(file).read_bytes() for file in (*files, *further) if file)
    return hashlib.sha256(b"".join(texts)).hexdigest()[:16]


class Outcomes:
    """Outcomes by what they are of, in a file: a line of JSON for each. Those of other code or of other
    contents of `further` files are not found."""

    def __init__(self, file: Path, further: Iterable[Path] = ()) -> None:
        self.file, self.by = file, made_by(further)
        self.known = {self._key(each["of"]): each for each in read(file) if each["by"] == self.by}

    def __contains__(self, of: dict[str, Any]) -> bool:
        return self._key(of) in self.known

    def __getitem__(self, of: dict[str, Any]) -> Any:
        return self.known[self._key(of)]["outcome"]

    def add(self, of: dict[str, Any], outcome: Any) -> None:
        record = {"of": of, "outcome": outcome, "by": self.by}
        self.known[self._key(of)] = record
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with self.file.open("a") as file:
            file.write(f"\n{json.dumps(record)}")  # first the newline: the line before may be cut off

    @staticmethod
    def _key(of: dict[str, Any]) -> str:
        return json.dumps(of, sort_keys=True)


def read(file: Path) -> Iterator[dict[str, Any]]:
    """The lines that are whole: where a writer was killed, one is cut off."""
    for line in file.read_text().splitlines() if file.exists() else ():
        with suppress(json.JSONDecodeError):
            yield json.loads(line)
