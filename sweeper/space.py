"""The search space: a trial's configuration with distributions in place of some of its values."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from sweeper.errors import SpecError, suggestion
from sweeper.tree import Choice, Mapping, Node, Place, Range, Scalar, Sequence, join, number, tag

Path = tuple[str | int, ...]
Decide = Callable[[str, "Choice | Range"], Any]
"""(parameter name, distribution) -> the label of an option, or a number."""


@dataclass(frozen=True)
class Resolved:
    """A configuration without distributions, where each of its values stands, and what was drawn:
    the picked numbers and labels, by their dotted path in the configuration."""

    value: Any
    places: dict[Path, Place]
    drawn: dict[str, Any]


def labels(choice: Choice) -> list[str]:
    """A short, unique name of each option: its value, its `name`, its `name` and what else it says where
    names repeat, or its number."""
    names = []
    for option in choice.options:
        named = option.items.get("name") if isinstance(option, Mapping) else option
        names.append(str(named.value) if isinstance(named, Scalar) else "")
    for known in (
        names,
        [_in_full(option, name) for option, name in zip(choice.options, names, strict=True)],
    ):
        if "" not in known and len(set(known)) == len(known):
            return known
    return [str(index) for index in range(len(names))]


def _in_full(option: Node, name: str) -> str:
    """`ViT-B-32/openai`; empty if the option says more than a few plain values."""
    values = list(option.items.values()) if isinstance(option, Mapping) else [option]
    plain = [str(value.value) for value in values if isinstance(value, Scalar)]
    return "/".join([name, *(value for value in plain if value != name)]) if len(plain) == len(values) else ""


def resolve(node: Node, decide: Decide) -> Resolved:
    """The configuration that `decide` picks. Parameters are named by their dotted path; inside an
    option of a choice the option's label is part of it: `method`, `method.pmg.alpha`."""
    places: dict[Path, Place] = {}
    drawn: dict[str, Any] = {}

    def visit(node: Node, name: str, path: Path) -> Any:
        places[path] = node.place
        if isinstance(node, Mapping):
            for key, place in node.keys.items():
                places[(*path, key, "")] = place  # where the key itself stands
            return {k: visit(v, join(name, k), (*path, k)) for k, v in node.items.items()}
        if isinstance(node, Sequence):
            return [visit(v, join(name, str(i)), (*path, i)) for i, v in enumerate(node.items)]
        if isinstance(node, Choice):
            label = drawn[".".join(map(str, path))] = decide(name, node)
            option = node.options[labels(node).index(label)]
            inner = join(name, label) if not isinstance(option, Scalar) else name
            return visit(option, inner, path)
        if isinstance(node, Range):
            value = int(decide(name, node)) if node.integer else float(decide(name, node))
            drawn[".".join(map(str, path))] = value
            return value
        return node.value

    return Resolved(visit(node, "", ()), places, drawn)


@dataclass(frozen=True)
class Decision:
    """A parameter, and what is to be decided after it: by its label if it is a choice."""

    name: str
    distribution: Choice | Range
    inner: dict[str, list[Decision]]


def decisions(node: Node, name: str = "") -> list[Decision]:
    """What `resolve` asks for, in its order, without the rest of the configuration."""
    if isinstance(node, Range):
        return [Decision(name, node, {})]
    if isinstance(node, Choice):
        options = zip(labels(node), node.options, strict=True)
        inner = {label: decisions(option, join(name, label)) for label, option in options}
        return [Decision(name, node, inner)]
    if isinstance(node, (Mapping, Sequence)):
        return [each for inner, child in _children(node, name) for each in decisions(child, inner)]
    return []


def probes(node: Node, found: dict[str, Choice | Range] | None = None) -> Iterator[Resolved]:
    """Configurations that together use every option and both ends of every range at least once.

    If all of them are valid, every option is valid where it stands. The distributions met on the
    way are noted in `found`, by name.
    """
    visited: set[tuple[str, Any]] = set()
    waiting: list[dict[str, Any]] = [{}]
    while waiting:
        assignment = waiting.pop(0)

        def decide(name: str, distribution: Choice | Range, assignment: dict[str, Any] = assignment) -> Any:
            if found is not None:
                found[name] = distribution
            first, *others = values(distribution)
            for other in others:
                if (name, other) not in visited:
                    visited.add((name, other))
                    waiting.append({**assignment, name: other})
            return assignment.get(name, first)

        yield resolve(node, decide)


def values(distribution: Choice | Range) -> list[Any]:
    """All options of a choice, both ends of a range."""
    if isinstance(distribution, Choice):
        return labels(distribution)
    return [distribution.low, distribution.high]


def grid(node: Node) -> list[dict[str, str]]:
    """All combinations of the `!grid` values, as {parameter name: label}; one empty without grids.

    Raises SpecError for a grid inside a choice, whose number of combinations would be random.
    """
    return _grid(node, "", inside_choice=False)


def _grid(node: Node, name: str, *, inside_choice: bool) -> list[dict[str, str]]:
    if isinstance(node, (Mapping, Sequence)):
        combinations: list[dict[str, str]] = [{}]
        for child_name, child in _children(node, name):
            inner = _grid(child, child_name, inside_choice=inside_choice)
            combinations = [{**a, **b} for a in combinations for b in inner]
        return combinations
    if not isinstance(node, Choice):
        return [{}]
    if node.grid and inside_choice:
        raise SpecError(
            [f"{node.place}: trial.{name}: !grid inside a !choice; use !choice here, or !grid outside too"]
        )
    found: list[dict[str, str]] = []
    for label, option in zip(labels(node), node.options, strict=True):
        inner = _grid(option, join(name, label), inside_choice=inside_choice or not node.grid)
        found += [{name: label, **combination} for combination in inner] if node.grid else []
    return found if node.grid else [{}]


def distributions(node: Node) -> dict[str, Choice | Range]:
    """Every parameter of the space by name, conditional ones included."""
    found: dict[str, Choice | Range] = {}
    for _ in probes(node, found):
        pass
    return found


def canonical(value: Any, distribution: Choice | Range) -> str | int | float:
    """A value that was written for a parameter, as the sampler would give it. Raises ValueError outside."""
    if isinstance(distribution, Choice):
        if str(value) not in labels(distribution):
            raise ValueError(f"{value!r} is no option{suggestion(str(value), labels(distribution))}")
        return str(value)
    read = None if isinstance(value, bool) else number(str(value))
    whole = read is not None and (not distribution.integer or read == int(read))
    if read is None or not whole or not distribution.low <= read <= distribution.high:
        raise ValueError(f"{value!r} is not in {describe(distribution)}")
    return int(read) if distribution.integer else read


def locate(node: Node, value: Any, name: str = "", path: str = "") -> dict[str, Any]:
    """The parameters that give a configuration, {name: label or number}. What is not searched is compared
    only to tell options apart.

    Raises ValueError if the space has no such point.
    """
    if isinstance(node, (Mapping, Sequence)):
        keys = list(node.items) if isinstance(node, Mapping) else [str(i) for i in range(len(node.items))]
        found: dict[str, Any] = {}
        for key, (inner, child) in zip(keys, _children(node, name), strict=True):
            found |= locate(child, _item(value, key), inner, join(path, key))
        return found
    if isinstance(node, Choice):
        for label, option in zip(labels(node), node.options, strict=True):
            if _resembles(option, value):
                return {name: label, **locate(option, value, join(name, label), path)}
        raise ValueError(f"{path} has a value that is not in {describe(node)}")
    if isinstance(node, Range):
        try:
            return {name: canonical(value, node)}
        except ValueError as error:
            raise ValueError(f"{path} {error}") from None
    return {}


def _item(value: Any, key: str) -> Any:
    if isinstance(value, list):
        return value[int(key)] if int(key) < len(value) else None
    return value.get(key) if isinstance(value, dict) else None


def _resembles(node: Node, value: Any) -> bool:
    """Whether a value can come from an option; numbers may be written in several ways."""
    if isinstance(node, Scalar):
        read = [None if isinstance(each, bool) else number(str(each)) for each in (node.value, value)]
        return node.value == value or (read[0] is not None and read[0] == read[1])
    if isinstance(node, (Mapping, Sequence)):
        keys = list(node.items) if isinstance(node, Mapping) else [str(i) for i in range(len(node.items))]
        return all(
            _resembles(child, _item(value, key))
            for key, (_, child) in zip(keys, _children(node, ""), strict=True)
        )
    return isinstance(node, Range) or any(_resembles(option, value) for option in node.options)


def condition(name: str, parameters: dict[str, Choice | Range]) -> dict[str, str]:
    """What has to be picked for a parameter to exist: {choice: label}, empty for an unconditional one."""
    return {
        other: label
        for other, distribution in parameters.items()
        if isinstance(distribution, Choice)
        for label in labels(distribution)
        if name.startswith(f"{join(other, label)}.")
    }


def every(node: Node, given: dict[str, Any] | None = None, name: str = "") -> Iterator[dict[str, Any]]:
    """Every configuration of a space without real ranges, one after another in the order in which the
    options stand, as {parameter name: label or number}. given: parameters that have this value only."""
    given = given or {}
    if isinstance(node, (Mapping, Sequence)):
        yield from _products(_children(node, name), given)
    elif isinstance(node, Choice):
        for label, option in zip(labels(node), node.options, strict=True):
            for inner in every(option, given, join(name, label)) if given.get(name, label) == label else ():
                yield {name: label, **inner}
    elif isinstance(node, Range):
        numbers = [given[name]] if name in given else range(int(node.low), int(node.high) + 1)
        yield from ({name: value} for value in numbers)
    else:
        yield {}


def _products(children: list[tuple[str, Node]], given: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if not children:
        yield {}
        return
    (name, first), *others = children
    for chosen in every(first, given, name):
        for rest in _products(others, given):
            yield {**chosen, **rest}


def count(node: Node) -> int | None:
    """How many configurations the space has; None if a real range makes them infinitely many."""
    if isinstance(node, Range):
        return int(node.high) - int(node.low) + 1 if node.integer else None
    if not isinstance(node, (Mapping, Sequence, Choice)):
        return 1
    inner = node.options if isinstance(node, Choice) else [child for _, child in _children(node, "")]
    counts = [n for n in map(count, inner) if n is not None]
    if len(counts) < len(inner):
        return None
    return sum(counts) if isinstance(node, Choice) else math.prod(counts)


def _children(node: Mapping | Sequence, name: str) -> list[tuple[str, Node]]:
    if isinstance(node, Mapping):
        return [(join(name, key), child) for key, child in node.items.items()]
    return [(join(name, str(index)), child) for index, child in enumerate(node.items)]


def with_grid(node: Node, point: dict[str, Any]) -> list[dict[str, Any]]:
    """A point of the space with every combination of the `!grid` values that it leaves open."""
    return [
        {**combination, **point}
        for combination in grid(node)
        if all(point.get(name, label) == label for name, label in combination.items())
    ]


def describe(distribution: Choice | Range) -> str:
    """As it would be written in a sweep file, options by their labels."""
    if isinstance(distribution, Choice):
        return f"{tag(distribution)} [{', '.join(labels(distribution))}]"
    return f"{tag(distribution)} [{distribution.low:g}, {distribution.high:g}]"
