"""Pydantic's complaints about a sweep file, as lines with place, key, what is wrong and what was expected."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, ValidationError

from sweeper import space
from sweeper.errors import Line, suggestion
from sweeper.tree import Place

QUIET_BESIDE_OTHERS = {"string_type", "model_type", "dict_type", "model_attributes_type"}


def explain(
    error: ValidationError, model: type[BaseModel], resolved: space.Resolved, value: Any, prefix: str = ""
) -> list[str]:
    """One line for each mistake: place, key path, what is wrong, what was expected."""
    found = [(real_path(item["loc"], value, item["type"]), item) for item in error.errors()]
    reasons = [(path, item["type"], reason(item, model, path, value)) for path, item in found]
    lines: list[str] = []
    for (path, kind, text), (_, item) in zip(reasons, found, strict=True):
        if kind in QUIET_BESIDE_OTHERS and any(
            other[: len(path)] == path and second not in QUIET_BESIDE_OTHERS for other, second, _ in reasons
        ):
            continue  # the other branch of a union says what is really wrong
        if kind == "missing" and any(
            other[:-1] == path[:-1] and f"did you mean {path[-1]!r}" in hint for other, _, hint in reasons
        ):
            continue  # it is there, misspelt
        key = ".".join(str(part) for part in (prefix, *path) if part != "")
        place = at(resolved.places, path, key=kind == "extra_forbidden")
        page = getattr(item.get("ctx", {}).get("error"), "page", "")
        lines.append(Line(f"{place}: {key}: {text}" if key else f"{place}: {text}", page))
    return lines


def real_path(loc: tuple[int | str, ...], value: Any, kind: str) -> space.Path:
    """Pydantic's location without the names of union members, which are not in the file."""
    path: list[int | str] = []
    for position, part in enumerate(loc):
        inside = (isinstance(value, dict) and part in value) or (
            isinstance(value, list) and isinstance(part, int) and part < len(value)
        )
        if inside:
            value = value[part]
            path.append(part)
        elif position == len(loc) - 1 and kind == "missing":
            path.append(part)
    return tuple(path)


def at(places: dict[space.Path, Place], path: space.Path, *, key: bool = False) -> Place:
    """Where the value at `path` stands, with `key` its key, or the nearest thing around it."""
    if key and (*path, "") in places:
        return places[(*path, "")]
    for length in range(len(path), -1, -1):
        if path[:length] in places:
            return places[path[:length]]
    return Place("sweep")


def reason(item: Any, model: type[BaseModel], path: space.Path, value: Any) -> str:
    kind, context, given = item["type"], item.get("ctx", {}), item.get("input")
    if kind == "extra_forbidden":
        return (
            f"unknown key{suggestion(str(path[-1]), known_keys(model.model_json_schema(), path[:-1], value))}"
        )
    if kind == "missing":
        return "this key is required"
    if kind in ("literal_error", "union_tag_invalid"):
        expected = re.findall(r"'([^']*)'", context.get("expected") or context.get("expected_tags", ""))
        given = context.get("tag", given)
        return f"{given!r} is not known{suggestion(str(given), expected)}"
    if kind == "union_tag_not_found":
        return "expected a `name` here, which says what the other keys mean"
    if kind in ("dict_type", "model_type", "model_attributes_type"):
        return f"expected keys and values here, got {given!r}"
    if kind == "value_error":
        return str(context["error"])
    if kind in ("int_parsing", "int_type", "int_from_float"):
        return f"should be a whole number, got {given!r}"
    message = item["msg"][0].lower() + item["msg"][1:]
    shown = repr(given) if not isinstance(given, (dict, list)) else f"a {type(given).__name__}"
    return f"{message.replace('input should', 'should')}, got {shown}"


def known_keys(schema: dict[str, Any], path: space.Path, value: Any) -> set[str]:
    """All keys that may stand at `path` of `value`. Of a union whose members are told apart by
    their `name`, only the member that `value` names counts."""
    definitions = schema.get("$defs", {})

    def expand(node: dict[str, Any], value: Any) -> Iterator[dict[str, Any]]:
        if "$ref" in node:
            yield from expand(definitions[node["$ref"].rsplit("/", 1)[1]], value)
            return
        name = node.get("properties", {}).get("name", {}).get("const")
        if name is None or not isinstance(value, dict) or value.get("name") == name:
            yield node
        for member in (*node.get("anyOf", ()), *node.get("oneOf", ())):
            yield from expand(member, value)

    nodes = list(expand(schema, value))
    for part in path:
        value = value[part]
        inner = [
            n.get("items") if isinstance(part, int) else n.get("properties", {}).get(part) for n in nodes
        ]
        nodes = [expanded for n in inner if n for expanded in expand(n, value)]
    return {key for n in nodes for key in n.get("properties", {})}
