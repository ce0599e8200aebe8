"""Inputs and results as production serialises them, and errors that name the function and the place."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sameness import assert_same

from fedpkg.analytics import serialise
from fedpkg.analytics.places import DeserialisationError, SerialisationError
from fedpkg.analytics.serialise import SerialisationWarning, from_json, read, split, to_json, write

WHAT = "result of partial_mean"
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(JSON)
def test_json_is_that_of_production(value: Any) -> None:
    content = to_json(value, what=WHAT)
    assert content == json.dumps(value).encode()
    assert_same(from_json(content, what=WHAT), value)


def test_tuples_become_lists_and_keys_text() -> None:
    assert from_json(to_json({1: (1, 2), "1": None}, what=WHAT), what=WHAT) == {"1": None}
    assert from_json(to_json({2: (1, 2), None: 1}, what=WHAT), what=WHAT) == {"2": [1, 2], "null": 1}


inside: dict[str, Any] = {"a": []}
inside["a"].append(inside)
deep: Any = []
for _ in range(100_000):
    deep = [deep]


@pytest.mark.parametrize(
    ("value", "message", "hint"),
    [
        ({"mean": np.int64(1)}, "['mean'] is of the type numpy.int64; JSON has no such type", "int(…)"),
        ([1, {"a": np.float32(1)}], "[1]['a'] is of the type numpy.float32", "float(…)"),
        (np.bool_(True), f"{WHAT}: it is of the type numpy.bool", "bool(…)"),
        (np.zeros(2), "it is of the type numpy.ndarray", ".tolist()"),
        (pd.DataFrame({"a": [1]}), "it is of the type pandas.DataFrame", "pandas.read_json"),
        ({"a": pd.Series([1])}, "['a'] is of the type pandas.Series", ".to_dict()"),
        ({"a": {1, 2}}, "['a'] is of the type set", "sorted(…)"),
        ({"when": pd.Timestamp("2020")}, "['when'] is of the type pandas.Timestamp", ".isoformat()"),
        ({"a": [object()]}, "['a'][0] is of the type object; JSON has no such type", None),
        ({"a": {("x", 1): 2}}, "['a'] has the key ('x', 1) of the type tuple", "str(…)"),
        ({np.int64(1): 2}, "it has the key np.int64(1) of the type numpy.int64", "str(…)"),
        (inside, "['a'][0] is inside itself", None),
        (deep, "it cannot be written as JSON", None),
    ],
)
def test_what_json_lacks_is_named_with_its_place(value: Any, message: str, hint: str | None) -> None:
    with pytest.raises(SerialisationError) as raised:
        to_json(value, what=WHAT)
    assert str(raised.value).startswith(WHAT)
    assert message in raised.value.message
    assert hint is None or hint in raised.value.hint
    with pytest.raises((TypeError, ValueError, RecursionError)):  # so it fails in production
        json.dumps(value)


def test_what_production_accepts_is_accepted() -> None:
    """A float64 of NumPy is a float of Python."""
    assert to_json(np.float64(0.1), what=WHAT) == b"0.1"


@pytest.mark.parametrize(
    ("value", "place"),
    [({"mean": float("nan")}, "['mean'] is nan"), ([1.0, [float("-inf")]], "[1][0] is -inf")],
)
def test_nan_is_written_with_a_warning(value: Any, place: str) -> None:
    with pytest.warns(SerialisationWarning, match="partial_mean") as caught:
        content = to_json(value, what=WHAT)
    assert place in str(caught[0].message)
    assert content == json.dumps(value).encode()
    assert_same(from_json(content, what=WHAT), value)


def test_the_word_nan_is_no_number() -> None:
    assert to_json({"NaN": "Infinity"}, what=WHAT) == b'{"NaN": "Infinity"}'


@pytest.mark.parametrize("data", [b"{", b"\xff", b"", b"[" * 100_000])
def test_what_is_no_json_is_refused(data: bytes) -> None:
    with pytest.raises(DeserialisationError, match=WHAT):
        from_json(data, what=WHAT)


# ---- versions 1 to 3


@pytest.mark.parametrize("form", [None, "pickle", "PICKLE", "typed"])
def test_python_values_are_kept_without_a_pickle(form: str | None) -> None:
    value = {(1, "a"): np.float32(1.5), "frame": pd.DataFrame({"a": [1]}), None: {2}}
    content = write(value, form, what=WHAT)
    assert content.startswith(b"typed.")
    assert_same(read(content, what=WHAT), value)
    assert_same(read(memoryview(bytearray(content)), what=WHAT), value)


def test_output_format_json_writes_frames_as_pandas_does() -> None:
    frame = pd.DataFrame({"a": [1, 2]}, index=["x", "y"])
    assert write(frame, "json", what=WHAT) == b"json." + frame.to_json().encode()
    assert write(frame["a"], "JSON", what=WHAT) == b'json.{"x":1,"y":2}'
    assert read(write({1: (2,)}, "json", what=WHAT), what=WHAT) == {"1": [2]}
    with pytest.raises(SerialisationError, match=r"numpy\.int64"):
        write({"a": np.int64(1)}, "json", what=WHAT)


@pytest.mark.parametrize("form", ["csv", "", 5])
def test_an_unknown_output_format_is_an_error(form: Any) -> None:
    with pytest.raises(SerialisationError, match="result of partial_mean: there is no output_format"):
        write(1, form, what=WHAT)


@pytest.mark.parametrize(
    ("data", "word", "content"),
    [
        (b'json.{"a": 1}', "json", b'{"a": 1}'),
        (b"JSON.1.5", "json", b"1.5"),
        (b"pickle.\x80", "pickle", b"\x80"),
        (b"\x80\x04K\x01.", "", b"\x80\x04K\x01."),
        (b"(lp0\nI1\naI2.5", "", b"(lp0\nI1\naI2.5"),
        (b'{"method": 1.5}', "", b'{"method": 1.5}'),
        (b"json", "", b"json"),
        (b"0123456789.", "", b"0123456789."),
        (b"", "", b""),
    ],
)
def test_the_format_is_a_word_before_the_first_dot(data: bytes, word: str, content: bytes) -> None:
    found = split(data, what=WHAT)
    assert (found[0], bytes(found[1])) == (word, content)


def test_an_unknown_format_is_an_error() -> None:
    with pytest.raises(DeserialisationError, match="there is no format 'yaml'"):
        read(b"yaml.a: 1", what=WHAT)


def test_json_without_its_word_is_named() -> None:
    with pytest.raises(DeserialisationError) as raised:
        read(b'{"method": "mean"}', what="input of mean", allow_pickle=True)
    assert "write json. before the JSON" in str(raised.value)


class Touch:
    """When its pickle is read, a file is made."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("word", [b"", b"pickle."])
def test_a_pickle_is_not_read_unless_it_is_allowed(tmp_path: Path, word: bytes) -> None:
    content = word + pickle.dumps(Touch(tmp_path / "was read"))
    with pytest.raises(DeserialisationError, match="it is a pickle, which is not read") as raised:
        read(content, what="input of mean")
    assert "--allow-pickle" in raised.value.hint
    assert not list(tmp_path.iterdir())
    read(content, what="input of mean", allow_pickle=True)
    assert list(tmp_path.iterdir())


class Model:
    coefficient = 0.0


def test_objects_are_written_as_pickles_only_if_these_are_allowed() -> None:
    model = Model()
    model.coefficient = 1.5
    with pytest.raises(SerialisationError) as raised:
        write({"model": model}, what="result of RPC_fit")
    assert "result of RPC_fit: ['model'] is of the type test_serialise.Model" in raised.value.message
    assert "--allow-pickle" in raised.value.hint
    content = write({"model": model}, what="result of RPC_fit", allow_pickle=True)
    assert content.startswith(b"pickle.")
    assert read(content, what="result of RPC_fit", allow_pickle=True)["model"].coefficient == 1.5
    with pytest.raises(SerialisationError, match="cannot be written as a pickle"):
        write(lambda: 1, what="result of RPC_fit", allow_pickle=True)


def test_damaged_content_is_named(tmp_path: Path) -> None:
    for content in (b"typed.", b"typed.\2" + bytes(20), b"json.{", b"pickle.x"):
        with pytest.raises(DeserialisationError, match="result of RPC_fit"):
            read(content, what="result of RPC_fit", allow_pickle=True)


def test_forms_are_those_of_the_page() -> None:
    assert serialise.FORMS == ("json", "pickle", "typed")
