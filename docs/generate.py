"""Writes the pages that are made from something else: every key of a sweep file, every verb of the command,
and the messages that the other pages explain.

python docs/generate.py        # `make docs` does it before it builds
"""

from __future__ import annotations

import inspect
import re
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin

import click
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from sweeper.cli import main
from sweeper.spec import SweepFile
from trainables.config import EvaluationConfig, TrialConfig

FOLDER = Path(__file__).parent
TYPES = {"trial": TrialConfig, "evaluation": EvaluationConfig}
"""Of the keys whose types the trainable brings."""
ELSEWHERE = {
    "final": "The keys of [`evaluation`](#evaluation).",
    "trial.data.evaluate": "Each is a name, or has the keys of [`trial.data.train`](#trialdatatrain).",
    "evaluation.further_sets": "Each is a name, or has the keys of [`trial.data.train`](#trialdatatrain).",
    "profiles": "Each name stands for keys of this page: [Profiles](sweep-file.md#profiles).",
}
"""What is said of keys whose keys have a section already."""

SWEEP_FILE = """\
# Every key of a sweep file

Made from the types that validate the file, by `docs/generate.py`. [A sweep file](sweep-file.md) says how
one is written. Below `trial` a distribution may stand in place of any value: `!choice`, `!grid`, `!uniform`,
`!loguniform`, `!int`. Numbers may be written as fractions, `8/255`. Where no default stands, the key may be
left out all the same, and its description says what holds then.
"""
TROUBLESHOOTING = """\
# Troubleshooting

What is wrong is said in one line: what, where, what was expected, what to do, and in brackets the page that
says more. Search this page for a few words of it; `...` stands for what differs. The entries are those of the
pages' own sections, put together by `docs/generate.py`.

A traceback is a mistake of the program. Report it with what you did and the run's `log.txt`; secrets are not
in it. [When something fails](failures.md) goes by what fails.
"""
COMMAND_LINE = """\
# The command line

What `sweeper VERB --help` says, written by `docs/generate.py`. FILE is a sweep file, or the name of a
shipped one (`quickstart`). RUN is a folder, an address in a bucket or a name under `--runs`, and the latest
run when left out. [Environment](environment.md) has the variables that are read and the exit codes.
"""


def sweep_file() -> str:
    return SWEEP_FILE + "".join(section("", SweepFile, 1))


def section(path: str, model: type[BaseModel], depth: int) -> Iterator[str]:
    """The keys of one model as a table, and a section for each key that has keys of its own."""
    if path:
        yield f"\n{heading(path, depth)}\n\n{inspect.cleandoc(model.__doc__ or '')}\n"
    properties = model.model_json_schema(mode="serialization")["properties"]
    rows = [row(join(path, name), field, properties[name]) for name, field in model.model_fields.items()]
    yield "\n".join(["\n| key | value | default | what it is |", "| --- | --- | --- | --- |", *rows]) + "\n"
    for name, field in model.model_fields.items():
        yield from below(join(path, name), field, depth + 1)


def join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def below(path: str, field: FieldInfo, depth: int) -> Iterator[str]:
    """The sections of a key: one, or one for each kind of thing that may stand there."""
    if path in ELSEWHERE:
        yield f"\n{heading(path, depth)}\n\n{ELSEWHERE[path]}\n"
        return
    for title, model in sections(path, field):
        yield from section(title, model, depth)


def sections(path: str, field: FieldInfo) -> list[tuple[str, type[BaseModel]]]:
    """Titles and models of a key's sections."""
    models = [TYPES[path]] if path in TYPES else list(models_in(field.annotation))
    if len(models) == 1:
        return [(path, models[0])]
    return [(f"{path}: {model.model_fields['name'].default}", model) for model in models]


def heading(path: str, depth: int) -> str:
    return f"{'#' * min(depth, 4)} `{path}`"


def models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """The models among what an annotation allows."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif get_origin(annotation) in (Union, types.UnionType, list, Annotated):
        for inner in get_args(annotation):
            yield from models_in(inner)


def row(path: str, field: FieldInfo, schema: dict[str, Any]) -> str:
    what = "Says which method these keys are of." if "const" in schema else field.description or ""
    titles = [path] if path in ELSEWHERE else [title for title, _ in sections(path, field)]
    kind = value(schema)
    if titles:
        anchor = re.sub(r"[^\w -]", "", titles[0]).replace(" ", "-").lower()
        kind = kind.replace("keys", f"[keys](#{anchor})")
    cells = (f"`{path.rpartition('.')[2]}`", kind, default(field, schema), what)
    return f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |"


def default(field: FieldInfo, schema: dict[str, Any]) -> str:
    if field.is_required():
        return "required"
    given = schema.get("default")
    if given is None or given in ({}, []) or isinstance(given, dict):
        return ""
    if isinstance(given, float) and given and abs(given) < 1e-3:
        return f"`{given:.0e}`".replace("e-0", "e-")
    if isinstance(given, bool):
        return f"`{str(given).lower()}`"
    return f"`{given:.6g}`" if isinstance(given, float) else f"`{given}`".replace("'", "")


def value(schema: dict[str, Any]) -> str:
    """What may stand there, in words."""
    if "anyOf" in schema or "oneOf" in schema:
        return alternatives(schema.get("anyOf") or schema["oneOf"], schema)
    if "enum" in schema or "const" in schema:
        return ", ".join(f"`{each}`" for each in schema.get("enum", [schema.get("const")]))
    words: dict[str, Callable[[], str]] = {
        "integer": lambda: "whole number" + bounds(schema),
        "number": lambda: "number" + bounds(schema),
        "boolean": lambda: "`true`, `false`",
        "string": lambda: "path" if schema.get("format") == "path" else "text",
        "array": lambda: f"list: {value(schema['items'])}",
        "object": lambda: "keys",
    }
    return words[schema["type"]]() if "type" in schema else "keys" if "$ref" in schema else "any"


def alternatives(members: list[dict[str, Any]], schema: dict[str, Any]) -> str:
    kinds = {member.get("type") for member in members}
    if kinds == {"string", "number"}:
        return "number or `n/255`" + bounds(schema)
    return " or ".join(dict.fromkeys(value(member) for member in members if member.get("type") != "null"))


def bounds(schema: dict[str, Any]) -> str:
    names = {
        "minimum": "at least",
        "ge": "at least",
        "exclusiveMinimum": "above",
        "maximum": "at most",
        "exclusiveMaximum": "below",
    }
    found = [f"{words} {schema[name]:g}" for name, words in names.items() if name in schema]
    return ", " + ", ".join(found) if found else ""


def command_line() -> str:
    top = click.Context(main, info_name="sweeper", terminal_width=100, color=False, **main.context_settings)
    own = {name: click.Context(verb, top, info_name=name) for name, verb in main.commands.items()}
    verbs = [f"\n## {name}\n\n{helped(context)}" for name, context in own.items()]
    return f"{COMMAND_LINE}\n{helped(top)}{''.join(verbs)}"


def helped(context: click.Context) -> str:
    return f"```text\n{context.get_help()}\n```\n"


def troubleshooting() -> str:
    return TROUBLESHOOTING + "".join(messages(page) for page in MESSAGES)


def messages(page: str) -> str:
    """The section "Messages" of a page, under the page's title."""
    text = (FOLDER / page).read_text(encoding="utf-8")
    name = text.partition("\n")[0].removeprefix("# ")
    own = text.partition("\n## Messages\n")[2].partition("\n## ")[0].rstrip()
    return f"\n## {name}\n\nMore: [{name}]({page}).\n{own.replace('](#', f']({page}#')}\n"


MESSAGES = (
    "quickstart.md",
    "sweep-file.md",
    "data.md",
    "models.md",
    "your-method.md",
    "evaluation.md",
    "metrics.md",
    "gpus.md",
    "results.md",
    "leaderboard.md",
    "mlflow.md",
    "clusters.md",
    "storage.md",
    "failures.md",
    "security.md",
)
"""Pages with messages, what comes first first."""
PAGES = {
    "sweep-file-reference.md": sweep_file,
    "command-line.md": command_line,
    "troubleshooting.md": troubleshooting,
}


if __name__ == "__main__":
    for page, text in PAGES.items():
        (FOLDER / page).write_text(text(), encoding="utf-8")
