"""YAML as a tree: tags, places, merging, overriding, and back to text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeper import tree
from sweeper.errors import SpecError
from sweeper.tree import Choice, Mapping, Range, Scalar

SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text()
)
KEYS = st.text(min_size=1).filter(lambda key: not key.startswith("!"))
DISTRIBUTIONS = st.one_of(
    st.lists(SCALARS, min_size=1, max_size=3).map(lambda options: {"!choice": options}),
    st.tuples(st.floats(-1e6, 0), st.floats(1e-3, 1e6)).map(lambda bounds: {"!uniform": list(bounds)}),
)
VALUES = st.recursive(
    st.one_of(SCALARS, DISTRIBUTIONS),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(KEYS, inner, max_size=3)),
    max_leaves=8,
)


@given(st.dictionaries(KEYS, VALUES, max_size=4))
def test_what_is_written_is_read_back(value: dict) -> None:
    node = tree.from_plain(value, "test")
    assert tree.plain(tree.parse(tree.dump(node), "test")) == tree.plain(node)


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-6", 1e-6), ("1E5", 1e5), ("8/255", "8/255"), ("2026-01-01", "2026-01-01"), ("3", 3), ("~", None)],
)
def test_scalars(text: str, value: object) -> None:
    assert tree.plain(tree.parse(text, "test")) == value


def test_distributions_are_data() -> None:
    node = tree.parse("{a: !choice [1, {name: x}], b: !loguniform [1e-3, 8/255], c: !int [1, 4]}", "test")
    assert isinstance(node, Mapping)
    choice, log, integer = node.items.values()
    assert isinstance(choice, Choice)
    assert len(choice.options) == 2
    assert isinstance(log, Range)
    assert (log.low, log.high, log.log) == (1e-3, 8 / 255, True)
    assert isinstance(integer, Range)
    assert integer.integer


def test_every_node_knows_its_line() -> None:
    node = tree.parse("a: 1\nb:\n  c: 2\n", "file.yaml")
    assert isinstance(node, Mapping)
    inner = node.items["b"]
    assert isinstance(inner, Mapping)
    assert str(inner.keys["c"]) == "file.yaml:3"


@pytest.mark.parametrize(
    "text",
    [
        "a: !!python/object/apply:os.system ['touch /tmp/owned']",
        "a: !!python/name:os.system",
        "a: !python/object:os.system {}",
        "a: !include /etc/passwd",
        "a: !!timestamp 2020-01-01x",
        "a: &x [*x]",
    ],
)
def test_nothing_in_a_file_is_executed(text: str) -> None:
    with pytest.raises(SpecError) as caught:
        tree.parse(text, "file.yaml")
    assert len(caught.value.lines) == 1
    assert "file.yaml" in caught.value.lines[0]


def test_merge_goes_key_by_key_and_replaces_another_thing() -> None:
    base = tree.from_plain({"method": {"name": "pmg", "alpha": 1}, "epochs": 3, "list": [1, 2]}, "base")
    same = tree.merge(base, tree.from_plain({"method": {"name": "pmg", "beta": 2}, "list": [3]}, "over"))
    assert tree.plain(same) == {"method": {"name": "pmg", "alpha": 1, "beta": 2}, "epochs": 3, "list": [3]}
    other = tree.merge(base, tree.from_plain({"method": {"name": "tecoa"}}, "over"))
    assert tree.plain(other)["method"] == {"name": "tecoa"}


def test_override_sets_any_key_and_remembers_the_option() -> None:
    root = tree.parse("trial: {epochs: 3, data: {evaluate: [a, b]}}", "file.yaml")
    root = tree.override(root, "trial.epochs=!int [1, 5]")
    root = tree.override(root, "trial.data.evaluate.1=c")
    root = tree.override(root, "search.trials=7")
    assert tree.plain(root) == {
        "trial": {"epochs": {"!int": [1.0, 5.0]}, "data": {"evaluate": ["a", "c"]}},
        "search": {"trials": 7},
    }
    assert isinstance(root, Mapping)
    search = root.items["search"]
    assert isinstance(search, Mapping)
    assert isinstance(search.items["trials"], Scalar)
    assert str(search.items["trials"].place) == "--set search.trials=7"


def test_override_without_equals_is_one_line() -> None:
    with pytest.raises(SpecError, match="expected KEY=VALUE"):
        tree.override(tree.parse("a: 1", "file.yaml"), "trial.epochs")
