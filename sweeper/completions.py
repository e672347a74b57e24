"""What a shell offers for an argument that is being typed. Called at every TAB, so nothing heavy is imported,
and what can't be read is not offered."""

from __future__ import annotations

import os
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

import click
from click.shell_completion import CompletionItem

from sweeper.errors import SpecError

Offered = list[CompletionItem]


def sweep_files(_: click.Context, __: click.Parameter, incomplete: str) -> Offered:
    """Those of `search_spaces`, as long as one is meant, and else any file."""
    known = (str(file) for file in Path("search_spaces").rglob("*.yaml"))
    return matching(known, incomplete) or [CompletionItem(incomplete, type="file")]


def runs(ctx: click.Context, _: click.Parameter, incomplete: str) -> Offered:
    """Names of runs below --runs, as long as one is meant, and else any folder."""
    return matching((folder.name for folder in known_runs(ctx)), incomplete) or folders(incomplete)


def results(ctx: click.Context, _: click.Parameter, incomplete: str) -> Offered:
    """Names of runs, as long as one is meant, and else any file."""
    return matching((folder.name for folder in known_runs(ctx)), incomplete) or [
        CompletionItem(incomplete, type="file")
    ]


def kept_trials(ctx: click.Context, _: click.Parameter, incomplete: str) -> Offered:
    """t003@5 and t003 for each epoch of the run whose weights were kept, and else any folder."""
    names = set()
    for file in (run_of(ctx) or Path(os.devnull)).glob("trials/t*/epoch-*.safetensors"):
        trial, epoch = file.parent.name, file.stem.removeprefix("epoch-")
        names |= {trial, f"{trial}@{int(epoch)}"}
    return matching(names, incomplete) or folders(incomplete)


def models(ctx: click.Context, param: click.Parameter, incomplete: str) -> Offered:
    """As `kept_trials`, and the untrained model."""
    return matching(["baseline", "pareto"], incomplete) + kept_trials(ctx, param, incomplete)


def suites(_: click.Context, __: click.Parameter, incomplete: str) -> Offered:
    """Those of ours, as long as one is meant, and else any file."""
    (package,) = find_spec("trainables").submodule_search_locations  # type: ignore[union-attr, misc]
    known = (file.stem for file in (Path(package) / "suites").glob("*.yaml"))
    return matching(known, incomplete) or [CompletionItem(incomplete, type="file")]


def profiles(ctx: click.Context, _: click.Parameter, incomplete: str) -> Offered:
    """Those of the sweep file that was typed before."""
    from sweeper.tree import Mapping, parse

    file = typed(ctx, "file")
    try:
        root = parse(Path(file).read_text(encoding="utf-8"), str(file)) if file else None
    except (OSError, UnicodeDecodeError, SpecError):
        return []
    found = root.items.get("profiles") if isinstance(root, Mapping) else None
    return matching(found.items, incomplete) if isinstance(found, Mapping) else []


def matching(names: Iterable[str], incomplete: str) -> Offered:
    return [CompletionItem(name) for name in sorted(names) if name.startswith(incomplete)]


def folders(incomplete: str) -> Offered:
    return [CompletionItem(incomplete, type="dir")]


def typed(ctx: click.Context, name: str) -> str | None:
    """An argument that stands before. Behind an option without its value, click has not sorted them yet."""
    value = ctx.params.get(name) or next(iter(ctx.args), None)
    return None if value is None else str(value)


def known_runs(ctx: click.Context) -> list[Path]:
    """Latest last; none in a bucket, which nobody waits for at a TAB."""
    root = str(ctx.params.get("runs") or os.environ.get("SWEEPER_RUNS") or "runs")
    files = sorted(Path(root).glob("*/run.json"), key=lambda file: file.stat().st_mtime)
    return [file.parent for file in files]


def run_of(ctx: click.Context) -> Path | None:
    """The run that was typed before, or the latest."""
    known = known_runs(ctx)
    if name := typed(ctx, "run"):
        return next((folder for folder in known if folder.name == name), Path(name))
    return known[-1] if known else None
