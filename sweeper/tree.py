"""YAML as a tree that remembers where everything stands, and holds distributions as data.

A sweep file can hold plain YAML and five tags: `!choice`, `!grid`, `!uniform`, `!loguniform`,
`!int`. Any other tag is an error, so a file cannot construct an object or run code.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping as AbstractMapping
from dataclasses import dataclass, field, replace
from pathlib import PurePath
from typing import Any, Union

import yaml

from sweeper import pages
from sweeper.errors import SpecError, suggestion


@dataclass(frozen=True)
class Place:
    """Where a value stands: `file:line`, or the option of the command line that set it."""

    source: str
    line: int | None = None

    def __str__(self) -> str:
        return self.source if self.line is None else f"{self.source}:{self.line}"


@dataclass(frozen=True)
class Scalar:
    value: bool | int | float | str | None
    place: Place


@dataclass(frozen=True)
class Sequence:
    items: tuple[Node, ...]
    place: Place


@dataclass(frozen=True)
class Mapping:
    items: dict[str, Node]
    place: Place
    keys: dict[str, Place] = field(default_factory=dict)

    def with_item(self, key: str, node: Node, place: Place) -> Mapping:
        return replace(self, items={**self.items, key: node}, keys={**self.keys, key: place})


@dataclass(frozen=True)
class Choice:
    """One of several values, drawn by the sampler; with `grid` each of them is run."""

    options: tuple[Node, ...]
    grid: bool
    place: Place


@dataclass(frozen=True)
class Range:
    """A number between low and high, both included."""

    low: float
    high: float
    log: bool
    integer: bool
    place: Place


Node = Union[Scalar, Sequence, Mapping, Choice, Range]

PLAIN = ("map", "seq", "null", "bool", "int", "float", "str")
TAGS = ("!choice", "!grid", "!uniform", "!loguniform", "!int")
LARGEST = 100_000
"""Values that a file may hold, aliases written out: a few lines of them can stand for billions."""
FRACTION = re.compile(r"^\s*([-+0-9.eE]+)\s*/\s*([-+0-9.eE]+)\s*$")


class _Loader(yaml.SafeLoader):
    """Only composes and resolves scalars. Unlike YAML 1.1 it reads 1e-6 as a number."""

    def __init__(self, text: str, source: str, *, numbered: bool) -> None:
        super().__init__(text)
        self.source, self.numbered = source, numbered
        self.built = 0

    def place(self, node: yaml.Node) -> Place:
        return Place(self.source, node.start_mark.line + 1 if self.numbered else None)


_Loader.yaml_implicit_resolvers = {
    first: [pair for pair in pairs if pair[0] != "tag:yaml.org,2002:timestamp"]
    for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
    list("-+0123456789."),
)


def parse(text: str, source: str, path: str = "") -> Node:
    """The tree of a YAML text. Raises SpecError on anything that is not plain YAML and our tags.

    path: the key the text is the value of, for messages.
    """
    loader = _Loader(text, source, numbered=not path)
    try:
        node = loader.get_single_node()
        if node is None:
            raise SpecError([f"{source}: the file is empty; expected the keys of a sweep"])
        return _build(loader, node, path)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = source if mark is None or path else f"{source}:{mark.line + 1}"
        problem = (error.problem or "can't be read").replace("\n", " ")
        raise SpecError([f"{where}: not valid YAML: {problem}{yaml_hint(problem)}"]) from None
    except yaml.YAMLError as error:
        raise SpecError([f"{source}: not valid YAML: {' '.join(str(error).split())}"]) from None
    except ValueError as error:
        raise SpecError([f"{source}: not valid YAML: {error}"]) from None
    except RecursionError:
        raise SpecError([f"{source}: nested too deeply, or an alias contains itself"]) from None
    finally:
        loader.dispose()


def yaml_hint(problem: str) -> str:
    """What to do about what PyYAML says of a line that is not indented as it has to be."""
    if "'\\t'" in problem:
        return "; indent with spaces, not tabs"
    indented = ("expected <block end>", "could not find expected ':'", "mapping values are not allowed")
    return "; check this line's indentation" if problem.startswith(indented) else ""


def _build(loader: _Loader, node: yaml.Node, path: str) -> Node:
    place = loader.place(node)
    loader.built += 1
    if loader.built > LARGEST:
        raise SpecError([f"{place}: more than {LARGEST} values, aliases (*name) written out; leave some out"])
    if node.tag.startswith("!"):
        return _distribution(loader, node, place, path)
    if node.tag.removeprefix("tag:yaml.org,2002:") not in PLAIN:
        raise SpecError(
            [f"{place}: {path}: unknown tag {node.tag}{suggestion(node.tag, TAGS)}"], pages.DISTRIBUTIONS
        )
    if isinstance(node, yaml.MappingNode):
        items: dict[str, Node] = {}
        keys: dict[str, Place] = {}
        for key_node, value in node.value:
            key = str(key_node.value) if isinstance(key_node, yaml.ScalarNode) else None
            key_place = loader.place(key_node)
            if key is None:
                raise SpecError([f"{key_place}: {path or 'top level'}: a key must be a plain word"])
            inner = join(path, key)
            if key in items:
                raise SpecError(
                    [f"{key_place}: {inner}: key given twice, first on line {keys[key].line}; remove one"]
                )
            items[key], keys[key] = _build(loader, value, inner), key_place
        return Mapping(items, place, keys)
    if isinstance(node, yaml.SequenceNode):
        return Sequence(
            tuple(_build(loader, item, join(path, str(i))) for i, item in enumerate(node.value)),
            place,
        )
    return Scalar(loader.construct_object(node), place)


def _distribution(loader: _Loader, node: yaml.Node, place: Place, path: str) -> Node:
    if node.tag not in TAGS:
        raise SpecError(
            [f"{place}: {path}: unknown tag {node.tag}{suggestion(node.tag, TAGS)}"], pages.DISTRIBUTIONS
        )
    if not isinstance(node, yaml.SequenceNode):
        raise SpecError(
            [f"{place}: {path}: {node.tag} needs a list, as in {node.tag} [1, 2]"], pages.DISTRIBUTIONS
        )
    options = tuple(_build(loader, option, path) for option in node.value)
    return distribution(node.tag, options, place, path)


def distribution(tag: str, options: tuple[Node, ...], place: Place, path: str) -> Choice | Range:
    """The distribution that `tag` makes of a list. Raises SpecError if the list does not fit it."""
    if tag in ("!choice", "!grid"):
        if not options:
            raise SpecError(
                [f"{place}: {path}: {tag} is empty; give at least one value"], pages.DISTRIBUTIONS
            )
        return Choice(options, tag == "!grid", place)
    texts = [str(option.value) if isinstance(option, Scalar) else None for option in options]
    bounds = [number(text) for text in texts]
    if len(bounds) != 2 or None in bounds:
        raise SpecError(
            [f"{place}: {path}: {tag} needs two numbers, low and high, as in {tag} [1, 10]"],
            pages.DISTRIBUTIONS,
        )
    low, high = (float(bound) for bound in bounds if bound is not None)
    shown = f"{tag} [{texts[0]}, {texts[1]}]"
    if low >= high:
        raise SpecError(
            [f"{place}: {path}: {shown} is reversed or empty; low must be below high"], pages.DISTRIBUTIONS
        )
    if tag == "!int" and not (low.is_integer() and high.is_integer()):
        raise SpecError([f"{place}: {path}: {shown} needs whole numbers"], pages.DISTRIBUTIONS)
    if tag == "!loguniform" and low <= 0:
        raise SpecError([f"{place}: {path}: {shown} needs bounds above 0"], pages.DISTRIBUTIONS)
    return Range(low, high, log=tag == "!loguniform", integer=tag == "!int", place=place)


def from_plain(value: Any, source: str, path: str = "") -> Node:
    """The tree of ordinary Python values, the inverse of `plain`. source: its name in messages."""
    place = Place(source)
    if isinstance(value, PurePath):
        value = str(value)
    if isinstance(value, dict):
        tags = [key for key in value if key in TAGS]
        if tags and len(value) == 1 and isinstance(value[tags[0]], (list, tuple)):
            options = tuple(from_plain(item, source, path) for item in value[tags[0]])
            return distribution(tags[0], options, place, path)
        items = {str(key): from_plain(item, source, join(path, str(key))) for key, item in value.items()}
        return Mapping(items, place, dict.fromkeys(items, place))
    if isinstance(value, (list, tuple)):
        return Sequence(tuple(from_plain(v, source, join(path, str(i))) for i, v in enumerate(value)), place)
    if value is not None and not isinstance(value, (bool, int, float, str)):
        raise SpecError([f"{source}: {path}: a {type(value).__name__} is no configuration value"])
    return Scalar(value, place)


def number(text: str | None) -> float | None:
    """A finite number written as such or as a fraction, `8/255`; None if it is neither."""
    if text is None:
        return None
    match = FRACTION.match(text)
    try:
        value = float(match[1]) / float(match[2]) if match else float(text)
    except (ValueError, ZeroDivisionError):
        return None
    return value if math.isfinite(value) else None


def join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def merge(base: Node, over: Node) -> Node:
    """`over` laid on `base`: mappings key by key, everything else replaced. A mapping that names
    something else (`name: pmg` over `name: tecoa`) replaces too: its keys are another thing's."""
    if not isinstance(base, Mapping) or not isinstance(over, Mapping):
        return over
    if (
        "name" in base.items
        and "name" in over.items
        and plain(base.items["name"]) != plain(over.items["name"])
    ):
        return over
    merged = base
    for key, node in over.items.items():
        value = merge(base.items[key], node) if key in base.items else node
        merged = merged.with_item(key, value, over.keys.get(key, over.place))
    return merged


def override(root: Node, assignment: str) -> Node:
    """The tree with `KEY=VALUE` set; VALUE is YAML and may be a distribution."""
    source = f"--set {assignment}"
    key, equals, text = assignment.partition("=")
    if not equals or not key.strip():
        raise SpecError([f"{source}: expected KEY=VALUE, as in trial.epochs=5"], pages.OVERRIDES)
    value = parse(text, source, key.strip()) if text.strip() else Scalar(None, Place(source))
    return _set(root, key.strip().split("."), value, Place(source))


def _set(node: Node, path: list[str], value: Node, place: Place) -> Node:
    if not path:
        return _placed(value, place)
    head, *rest = path
    if isinstance(node, Sequence) and head.isdigit() and int(head) < len(node.items):
        items = list(node.items)
        items[int(head)] = _set(items[int(head)], rest, value, place)
        return replace(node, items=tuple(items))
    if not isinstance(node, Mapping):
        node = Mapping({}, place)
    child = node.items.get(head, Mapping({}, place))
    return node.with_item(head, _set(child, rest, value, place), place)


def _placed(node: Node, place: Place) -> Node:
    """The same tree, all of it standing at `place`."""
    if isinstance(node, Mapping):
        return Mapping(
            {k: _placed(v, place) for k, v in node.items.items()}, place, dict.fromkeys(node.items, place)
        )
    if isinstance(node, Sequence):
        return Sequence(tuple(_placed(item, place) for item in node.items), place)
    if isinstance(node, Choice):
        return Choice(tuple(_placed(option, place) for option in node.options), node.grid, place)
    return replace(node, place=place)


def plain(node: Node) -> Any:
    """Ordinary Python values; distributions as `{"!choice": [...]}`."""
    if isinstance(node, Mapping):
        return {key: plain(value) for key, value in node.items.items()}
    if isinstance(node, Sequence):
        return [plain(item) for item in node.items]
    if isinstance(node, Choice):
        return {tag(node): [plain(option) for option in node.options]}
    if isinstance(node, Range):
        return {tag(node): bounds(node)}
    return node.value


def bounds(node: Range) -> list[float]:
    """As they are written."""
    return [int(bound) if node.integer else bound for bound in (node.low, node.high)]


def tag(node: Choice | Range) -> str:
    """The tag a distribution is written with."""
    if isinstance(node, Choice):
        return "!grid" if node.grid else "!choice"
    return "!int" if node.integer else "!loguniform" if node.log else "!uniform"


class _Dumper(yaml.SafeDumper):
    """Writes a tree back as the YAML it came from, tags included."""


def _represent(dumper: _Dumper, node: Any) -> yaml.Node:
    if isinstance(node, Mapping):
        return dumper.represent_mapping("tag:yaml.org,2002:map", node.items)
    if isinstance(node, Sequence):
        return dumper.represent_sequence("tag:yaml.org,2002:seq", node.items)
    if isinstance(node, Choice):
        return dumper.represent_sequence(tag(node), node.options)
    if isinstance(node, Range):
        return dumper.represent_sequence(tag(node), bounds(node), flow_style=True)
    return dumper.represent_data(node.value)


for _kind in (Mapping, Sequence, Choice, Range, Scalar):
    _Dumper.add_representer(_kind, _represent)


def dump(node: Node) -> str:
    """The tree as YAML text that `parse` reads back."""
    return yaml.dump(node, Dumper=_Dumper, sort_keys=False, width=100)


def walk(value: AbstractMapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested dictionary with dotted names: `{"attack": {"steps": 2}}` -> `{"attack.steps": 2}`."""
    flat: dict[str, Any] = {}
    for key, item in value.items():
        name = join(prefix, str(key))
        flat |= walk(item, name) if isinstance(item, AbstractMapping) else {name: item}
    return flat


def first_difference(one: Any, other: Any, key: str = "") -> tuple[str, Any, Any]:
    """The dotted key of the first value in which two nested dictionaries differ, and the value in either;
    what one lacks is None."""
    if isinstance(one, AbstractMapping) and isinstance(other, AbstractMapping):
        for name in {**one, **other}:
            if one.get(name) != other.get(name):
                return first_difference(one.get(name), other.get(name), join(key, str(name)))
    return key, one, other
