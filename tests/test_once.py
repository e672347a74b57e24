"""The store of what is computed once: whole entries or none, checked, by one of many processes."""

from __future__ import annotations

import fcntl
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainables import once
from trainables.once import MANIFEST, Store, array_kind, canonical, source_digest

KIND = array_kind("numbers")
KEY = {"model": "a", "images": ["b", 3], "epsilon": 8 / 255}
RESULT = np.arange(12, dtype=np.float32).reshape(4, 3)


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "cache")


@pytest.fixture(autouse=True)
def _warnings_are_errors():
    """Nothing is reported where a test does not say so."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        yield


def put(store, key=KEY, result=RESULT):
    return store.get(KIND, key, lambda: result)


def served(store, key=KEY):
    return store.get(KIND, key, lambda: pytest.fail("computed again"))


def entries(store):
    return [file.parent for file in sorted(store.folder.glob(f"{KIND.name}/*/{MANIFEST}"))]


def in_a_new_process(monkeypatch):
    """As far as the store can tell: digests of files are remembered within a process."""
    monkeypatch.setattr(once, "_digests", {})


def test_a_result_is_computed_once_and_served_bit_for_bit_from_a_memory_map(store):
    assert np.array_equal(put(store), RESULT)
    again = served(store)
    assert isinstance(again, np.memmap)
    assert again.dtype == np.float32
    assert np.array_equal(again, RESULT)
    assert np.array_equal(served(Store(store.folder)), RESULT)


def test_without_a_folder_everything_is_computed():
    assert put(Store()) is RESULT
    with pytest.raises(pytest.fail.Exception, match="computed again"):
        served(Store())


def test_what_can_not_be_computed_leaves_nothing(store):
    def fails():
        raise FileNotFoundError("no images")

    with pytest.raises(FileNotFoundError, match="no images"):
        store.get(KIND, KEY, fails)
    assert not entries(store)
    assert np.array_equal(put(store), RESULT)


# ---- keys

SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
KEYS = st.dictionaries(st.text(), VALUES, max_size=4)


def typed(value):
    """Compares as the value does, but 1, 1.0 and True apart."""
    if isinstance(value, dict):
        return {name: typed(each) for name, each in value.items()}
    return [typed(each) for each in value] if isinstance(value, list) else (type(value), repr(value))


def reordered(value):
    if isinstance(value, dict):
        return {name: reordered(value[name]) for name in reversed(value)}
    return [reordered(each) for each in value] if isinstance(value, list) else value


@given(KEYS, KEYS)
def test_equal_keys_are_one_entry_in_any_order_and_different_ones_are_not(one, other):
    assert canonical(one) == canonical(reordered(one))
    assert (canonical(one) == canonical(other)) == (typed(one) == typed(other))


@given(KEYS, st.data())
def test_any_change_of_a_key_is_another_entry(key, data):
    name = data.draw(st.sampled_from(sorted(key)) if key else st.text())
    changed = {**key, name: data.draw(VALUES)}
    assert (canonical(key) == canonical(changed)) == (typed(key) == typed(changed))


@pytest.mark.parametrize(
    "change", [{"model": "A"}, {"images": ["b", 4]}, {"epsilon": 4 / 255}, {"more": None}]
)
def test_another_key_is_computed_for_itself(store, change):
    put(store)
    other = put(store, {**KEY, **change}, RESULT + 1)
    assert np.array_equal(other, RESULT + 1)
    assert np.array_equal(served(store), RESULT)


def test_another_kind_is_computed_for_itself(store):
    put(store)
    assert np.array_equal(store.get(array_kind("others"), KEY, lambda: RESULT + 1), RESULT + 1)


@pytest.mark.parametrize("what", ["source", "packages"])
def test_other_code_computes_for_itself(store, monkeypatch, what):
    put(store)
    other = {**once.provenance(), what: "changed"}
    monkeypatch.setattr(once, "provenance", lambda: other)
    assert np.array_equal(put(store, result=RESULT + 1), RESULT + 1)


def test_the_code_is_all_python_files_by_name_and_content(tmp_path):
    (tmp_path / "part").mkdir()
    for name in ("a.py", "part/b.py"):
        (tmp_path / name).write_text("x = 1\n")
    seen = [source_digest(tmp_path)]
    (tmp_path / "part" / "b.py").write_text("x = 2\n")
    seen.append(source_digest(tmp_path))
    (tmp_path / "part" / "b.py").rename(tmp_path / "part" / "c.py")
    seen.append(source_digest(tmp_path))
    (tmp_path / "notes.txt").write_text("no code")
    assert len({*seen}) == 3
    assert source_digest(tmp_path) == seen[-1]


def test_the_packages_that_compute_are_named_with_their_versions():
    import torch

    assert once.provenance()["packages"]["torch"] == torch.__version__.partition("+")[0]
    assert once.installed("no-such-package") is None


# ---- damage


def flip_a_byte(entry, _):
    file = entry / "array.npy"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    state = file.stat()
    file.write_bytes(content)
    os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns))  # as a failing disk does it


def truncate(entry, _):
    os.truncate(entry / "array.npy", 100)


def lose_a_file(entry, _):
    (entry / "array.npy").unlink()


def lose_the_manifest(entry, _):
    (entry / MANIFEST).unlink()


def cut_the_manifest(entry, _):
    file = entry / MANIFEST
    file.write_text(file.read_text()[:-20])


def change_the_key(entry, _):
    file = entry / MANIFEST
    file.write_text(file.read_text().replace('"model": "a"', '"model": "z"'))


def change_a_digest(entry, _):
    manifest = json.loads((entry / MANIFEST).read_text())
    manifest["files"]["array.npy"]["sha256"] = "0" * 64
    (entry / MANIFEST).write_text(json.dumps(manifest))


def name_no_files(entry, _):
    manifest = json.loads((entry / MANIFEST).read_text())
    (entry / MANIFEST).write_text(json.dumps({**manifest, "files": {}}))


def not_a_manifest(entry, _):
    (entry / MANIFEST).write_text("[]")


def take_anothers_place(entry, store):
    put(store, {"model": "another"}, RESULT + 9)
    other = next(each for each in entries(store) if each != entry)
    shutil.rmtree(entry)
    shutil.copytree(other, entry)


DAMAGE = {
    flip_a_byte: "array.npy changed",
    truncate: "array.npy changed",
    lose_a_file: "other files than in",
    lose_the_manifest: "can't be read",
    cut_the_manifest: "can't be read",
    change_the_key: "of another result",
    change_a_digest: "array.npy changed",
    name_no_files: "other files than in",
    not_a_manifest: "can't be read",
    take_anothers_place: "of another result",
}


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda damage: damage.__name__)
def test_a_damaged_entry_is_reported_moved_away_and_computed_again(store, monkeypatch, damage):
    put(store)
    (entry,) = entries(store)
    damage(entry, store)
    in_a_new_process(monkeypatch)
    with pytest.warns(UserWarning, match=DAMAGE[damage]) as seen:
        again = put(store, result=RESULT + 1)
    assert len(seen) == 1
    assert str(entry) in str(seen[0].message)
    assert np.array_equal(again, RESULT + 1)
    assert np.array_equal(served(store), RESULT + 1)
    assert len(list(entry.parent.glob("*.damaged"))) == 1


def test_a_large_file_is_read_once_per_process(store, monkeypatch):
    read = []
    original = once.sha256
    monkeypatch.setattr(once, "sha256", lambda file: read.append(file) or original(file))
    put(store)
    in_a_new_process(monkeypatch)
    read.clear()
    served(store)
    served(store)
    assert [file.name for file in read] == ["array.npy"]


# ---- no place to write


def test_where_nothing_can_be_written_the_result_is_returned(tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.warns(UserWarning, match="can't be kept in .*file/cache") as seen:
        assert put(Store(tmp_path / "file" / "cache")) is RESULT
    assert len(seen) == 1


def test_a_full_disk_costs_the_entry_and_not_the_result(store):
    large = np.zeros(100_000, dtype=np.float32)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.warns(UserWarning, match="can't be kept") as seen:
            assert put(store, result=large) is large
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert len(seen) == 1
    assert [file.suffix for file in store.folder.glob("*/*")] == [".lock"]
    put(store, result=large)
    assert np.array_equal(served(store), large)


def test_a_damaged_entry_that_can_not_be_moved_is_not_served(store, monkeypatch):
    put(store)
    (entry,) = entries(store)
    truncate(entry, store)

    def read_only(*_):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("pathlib.Path.rename", read_only)
    with pytest.warns(UserWarning, match="changed|Read-only") as seen:
        assert np.array_equal(put(store, result=RESULT + 1), RESULT + 1)
    assert len(seen) == 2


def test_a_folder_deleted_in_between_is_no_error(store):
    def compute():
        shutil.rmtree(store.folder)
        return RESULT

    with pytest.warns(UserWarning, match="can't be kept"):
        assert store.get(KIND, KEY, compute) is RESULT
    assert np.array_equal(put(store), RESULT)


# ---- several processes

PRELUDE = """
import os, sys, time
from pathlib import Path
import numpy as np
from trainables.once import Kind, Store, array_kind

folder, own, others = Path(sys.argv[1]), sys.argv[2], sys.argv[3:]
KIND, KEY = array_kind("numbers"), {"model": "a", "images": ["b", 3], "epsilon": 8 / 255}

def wait_for(file):
    while not file.exists():
        time.sleep(0.01)

def mark(text):
    with open(folder / "log", "a") as log:
        log.write(text + "\\n")
"""

RACE = (
    PRELUDE
    + """
def compute():
    mark("computed")
    for other in others:
        wait_for(folder / f"{other}.there")
    time.sleep(0.3)  # for the others to be at the lock
    return np.random.default_rng().random((50, 20))

(folder / f"{own}.there").touch()
np.save(folder / f"{own}.npy", Store(folder / "cache").get(KIND, KEY, compute))
"""
)

STUCK_COMPUTING = (
    PRELUDE
    + """
def compute():
    mark("computing")
    time.sleep(600)

Store(folder / "cache").get(KIND, KEY, compute)
"""
)

STUCK_WRITING = (
    PRELUDE
    + """
def write(array, folder):
    KIND.write(array[:1], folder)
    mark("writing")
    time.sleep(600)

Store(folder / "cache").get(Kind("numbers", write, KIND.read), KEY, lambda: np.zeros((4, 3)))
"""
)


def start(script, *arguments):
    return subprocess.Popen([sys.executable, "-c", script, *map(str, arguments)])


def test_of_processes_racing_for_an_entry_one_computes_and_all_get_the_same(tmp_path):
    names = ["a", "b", "c"]
    racing = [start(RACE, tmp_path, name, *(other for other in names if other != name)) for name in names]
    assert [process.wait(60) for process in racing] == [0, 0, 0]
    assert (tmp_path / "log").read_text().split() == ["computed"]
    first, *others = (np.load(tmp_path / f"{name}.npy") for name in names)
    assert all(np.array_equal(first, other) for other in others)
    assert np.array_equal(served(Store(tmp_path / "cache")), first)


@pytest.mark.parametrize("script", [STUCK_COMPUTING, STUCK_WRITING], ids=["computing", "writing"])
def test_a_killed_process_leaves_its_lock_and_nothing_that_is_served(tmp_path, script):
    store = Store(tmp_path / "cache")
    killed = start(script, tmp_path, "a")
    deadline = time.monotonic() + 60
    while not (tmp_path / "log").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.wait(60)
    assert not entries(store)
    assert len(list(store.folder.glob("*/*.partial"))) == (script is STUCK_WRITING)
    assert np.array_equal(put(store), RESULT)
    assert np.array_equal(served(store), RESULT)
    assert not list(store.folder.glob("*/*.partial"))


def test_without_locks_all_compute_and_the_first_entry_stays(store, monkeypatch):
    def unsupported(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", unsupported)

    def compute():
        assert np.array_equal(put(store, result=RESULT + 1), RESULT + 1)  # another process, faster
        return RESULT

    assert np.array_equal(store.get(KIND, KEY, compute), RESULT + 1)
    assert np.array_equal(served(store), RESULT + 1)
    assert not list(store.folder.glob("*/*.partial"))
