"""The sweep files that come with the project, which have a name: `sweeper run quickstart`."""

from __future__ import annotations

from pathlib import Path

from sweeper.errors import suggestion

FOLDER = Path(__file__).parent / "search_spaces"


def names() -> list[str]:
    """`quickstart`, ..., `published/tecoa`, ..."""
    return sorted(file.relative_to(FOLDER).with_suffix("").as_posix() for file in FOLDER.rglob("*.yaml"))


def file(given: Path) -> Path:
    """The file that is given; of a shipped name that is no file here, that one."""
    return FOLDER / f"{given}.yaml" if str(given) in names() and not given.exists() else given


def hint(given: Path) -> str:
    """What may be meant by a name that is neither a file nor shipped; empty for a path."""
    return "" if given.suffix or given.exists() else suggestion(str(given), names())
