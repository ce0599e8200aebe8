"""RecordDict ⇄ file: to the bit, mapped, and what damaged files say."""

from __future__ import annotations

import json
import math
import os
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedpkg import client
from fedpkg.apps import Array, ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict
from fedpkg.apps.message_file import read_message, write_message
from fedpkg.client import arrays as arrays_module
from fedpkg.client.errors import ClientError
from fedpkg.formats.base import ModelForm
from fedpkg.formats.records_file import read_records
from fedpkg.formats.records_file import write_records as write_again
from fedpkg.records.files import read_content, write_content
from fedpkg.weights.weights import raw_bytes

SUFFIX = pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
DTYPES = [
    one for name in sorted(arrays_module.NUMPY | arrays_module.BITS.keys()) if (one := getattr(torch, name, None))
]
NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=5) | st.sampled_from(
    ["a/b", "%json", "%empty", "fc.weight", "__metadata__", "größe", "..", "%2F"]
)
INTEGERS = st.integers(-(2**63), 2**64 - 1)
FLOATS = st.floats() | st.sampled_from([-0.0, math.inf, struct.unpack(">d", bytes.fromhex("7ff8000000000123"))[0]])
TEXTS = st.text(st.characters(), max_size=5) | st.just("\ud800") | st.just("x" * 3000)
BYTES = st.binary(max_size=5) | st.just(b"\0" * 3000)


@st.composite
def tensors(draw: st.DrawFn) -> torch.Tensor:
    """Any bits of any dtype, also transposed, expanded, strided, empty and without dimensions."""
    dtype = draw(st.sampled_from(DTYPES))
    shape = draw(st.lists(st.integers(0, 3), max_size=3))
    size = math.prod(shape) * dtype.itemsize
    content = bytearray(draw(st.binary(min_size=size, max_size=size)))
    if dtype == torch.bool:
        content = bytearray(one & 1 for one in content)
    tensor = torch.frombuffer(content, dtype=dtype).reshape(shape) if size else torch.empty(shape, dtype=dtype)
    way = draw(st.sampled_from(["as it is", "transposed", "strided", "expanded"]))
    if way == "transposed":
        return tensor.permute(tuple(range(tensor.ndim)[::-1]))
    if way == "strided" and tensor.ndim:
        return tensor[::2]
    return tensor.expand(2, *tensor.shape) if way == "expanded" else tensor


def lists_of(values: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Any]]:
    many = st.integers(250, 300).flatmap(lambda size: values.map(lambda one: [one] * size))
    return st.lists(values, max_size=3) | many


METRICS = INTEGERS | FLOATS | lists_of(INTEGERS) | lists_of(FLOATS)
CONFIGS = METRICS | TEXTS | BYTES | st.booleans() | lists_of(st.booleans()) | lists_of(TEXTS) | lists_of(BYTES)
FOREIGN = st.builds(lambda data: Array("float32", [2, 3], "my.stype", data), st.binary(max_size=5))
ARRAYS = st.dictionaries(NAMES, tensors(), max_size=3).map(ArrayRecord) | st.dictionaries(
    NAMES, FOREIGN, max_size=2
).map(ArrayRecord)
RECORDS = (
    ARRAYS
    | st.dictionaries(NAMES, METRICS, max_size=3).map(MetricRecord)
    | st.dictionaries(NAMES, CONFIGS).map(ConfigRecord)
)
CONTENTS = st.dictionaries(NAMES, RECORDS, max_size=4).map(RecordDict)


def told(content: RecordDict) -> list[Any]:
    """All of it: order, types and bits."""

    def bits(value: Any) -> Any:
        if isinstance(value, list):
            return [bits(one) for one in value]
        return (type(value), struct.pack(">d", value) if isinstance(value, float) else value)

    found: list[Any] = []
    for name, record in content.items():
        if isinstance(record, ArrayRecord):
            values = [(key, one.dtype, one.shape, one.stype, one.data) for key, one in record.items()]
        else:
            values = [(key, bits(one)) for key, one in record.items()]
        found.append((name, type(record), values))
    return found


@SUFFIX
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=CONTENTS)
def test_content_comes_back_to_the_bit_also_through_the_controller(
    tmp_path: Path, suffix: str, content: RecordDict
) -> None:
    path, again = tmp_path / f"in{suffix}", tmp_path / f"out{suffix}"
    write_content(path, content)
    found, about = read_content(path)
    assert (told(found), about) == (told(content), {})
    before = path.read_bytes()
    write_content(path, found)
    assert path.read_bytes() == before  # equal content, equal bytes
    write_again(again, read_records(path), ModelForm(suffix))  # type: ignore[arg-type]
    assert told(read_content(again)[0]) == told(content)


@SUFFIX
@settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(state=st.dictionaries(NAMES, tensors(), max_size=4))
def test_state_dict_comes_back_to_the_bit(tmp_path: Path, suffix: str, state: dict[str, torch.Tensor]) -> None:
    path = tmp_path / f"in{suffix}"
    write_content(path, RecordDict({"arrays": ArrayRecord(state)}))
    found = read_content(path)[0]["arrays"].to_torch_state_dict()  # type: ignore[union-attr]
    assert list(found) == list(state)
    for key, tensor in state.items():
        assert (found[key].dtype, found[key].shape) == (tensor.dtype, tensor.shape)
        assert torch.equal(raw_bytes(found[key]), raw_bytes(tensor))


@SUFFIX
def test_tied_tensors_are_stored_once_and_stay_tied(tmp_path: Path, suffix: str) -> None:
    shared = torch.randn(1000)
    record = ArrayRecord({"a": torch.zeros(1), "b": shared, "c": torch.ones(1), "d": shared})
    write_content(tmp_path / f"x{suffix}", RecordDict({"arrays": record}))
    assert (tmp_path / f"x{suffix}").stat().st_size < 6000
    [again] = read_content(tmp_path / f"x{suffix}")[0].array_records.values()
    assert list(again) == ["a", "b", "c", "d"] and again == record
    found = again.to_torch_state_dict()
    assert found["b"] is found["d"] and torch.equal(found["d"], shared)


@SUFFIX
@pytest.mark.parametrize("is_error", [False, True])
def test_message_comes_back(tmp_path: Path, suffix: str, is_error: bool) -> None:
    message = Message(RecordDict({"c": ConfigRecord({"lr": 0.1})}), 4, "train.apply_gradients", group_id="2")
    message = Message(Error(2, "größer"), reply_to=message) if is_error else message
    path = tmp_path / f"m{suffix}"
    write_message(path, message)
    again = read_message(path)
    assert again.metadata == message.metadata and again.has_error() == is_error
    assert again.error == message.error if is_error else again.content == message.content


def test_arrays_are_sets_that_others_read(tmp_path: Path) -> None:
    """The page promises it: the controller combines them without this module."""
    path = tmp_path / "x.npz"
    content = RecordDict({"arrays": ArrayRecord({"fc.weight": np.ones(2)}), "metrics": MetricRecord({"loss": 0.5})})
    write_content(path, content)
    found = client.load_records(path)
    assert found.sets["arrays"]["fc.weight"].tolist() == [1, 1] and list(found.sets) == ["arrays"]
    assert found.data == {
        "message_app": 1,
        "records": [
            {"name": "arrays", "kind": "arrays"},
            {"name": "metrics", "kind": "metrics", "values": {"loss": 0.5}},
        ],
    }


@SUFFIX
def test_large_file_is_mapped(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"large{suffix}"
    state = {
        "w": torch.randn(1000, 500),
        "half": torch.randn(300_001).bfloat16(),
        "complex": torch.randn(9, dtype=torch.cdouble),
    }
    write_content(path, RecordDict({"arrays": ArrayRecord(state), "c": ConfigRecord({"odd": b"x" * 1001})}))
    record = read_content(path)[0]["arrays"]
    assert isinstance(record, ArrayRecord)
    assert [bool(one.plain().file and one.plain().file.is_mapped) for one in record.values()][:2] == [True, True]
    found = record.to_torch_state_dict()
    found["w"] *= 2  # as training does
    found["half"].zero_()
    assert torch.equal(found["w"], 2 * state["w"]) and torch.equal(found["complex"], state["complex"])
    assert record == ArrayRecord(state) == read_content(path)[0]["arrays"]
    assert all(one.data_ptr() % one.element_size() == 0 for one in found.values())


def test_lists_that_were_changed_are_checked_again(tmp_path: Path) -> None:
    record = MetricRecord({"a": [1, 2]})
    record["a"].append("text")
    with pytest.raises(TypeError, match=r"MetricRecord: key 'a', index 2: expected int, float, got str"):
        write_content(tmp_path / "x.npz", RecordDict({"m": record}))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (RecordDict({"\ud800": ArrayRecord()}), r"'\\ud800' cannot be a name in records"),
        (RecordDict({"a": ArrayRecord({"\ud800": np.zeros(1)})}), r"'\\ud800' cannot be a name in records"),
        (RecordDict({"a": ConfigRecord({"\ud800": b"x" * 5000})}), r"'\\ud800' cannot be a name in records"),
    ],
)
def test_names_are_unicode(tmp_path: Path, content: RecordDict, reason: str) -> None:
    with pytest.raises(ClientError, match=reason):
        write_content(tmp_path / "x.npz", content)
    assert not list(tmp_path.iterdir())


# ---- damaged files


def of(data: Any, **arrays: np.ndarray[Any, Any]) -> Callable[[Path], None]:
    text = np.frombuffer(data if isinstance(data, bytes) else json.dumps(data).encode(), np.uint8)
    return lambda path: np.savez(path, **{"%json": text, **arrays})  # type: ignore[arg-type]


def app(*records: Any, **more: Any) -> Any:
    return {"message_app": 1, "records": list(records), **more}


def values(**found: Any) -> Any:
    return app({"name": "c", "kind": "config", "values": found})


def arrays(**more: Any) -> Any:
    return app({"name": "a", "kind": "arrays", **more})


W = {"a/w": np.zeros(3, np.uint16)}
DAMAGED: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no JSON": (lambda path: np.savez(path, **{"a/w": np.zeros(1)}), "are not the content of a message"),
    "other records": (of({"rows": 3}), "are not the content of a message"),
    "newer": (of({"message_app": 2}), "(?s)has version 2.*newer version of fedpkg"),
    "no records": (of({"message_app": 1}), "damaged: its records: KeyError"),
    "no list": (of({"message_app": 1, "records": 3}), "damaged: its records: TypeError"),
    "no entry": (of(app(3)), "damaged"),
    "no name": (of(app({"kind": "config"})), "damaged"),
    "name is no text": (of(app({"name": [], "kind": "config", "values": {}})), "damaged"),
    "name is a number": (of(app({"name": 3, "kind": "config", "values": {}})), "a key must be str, got int"),
    "twice": (
        of(app(*[{"name": "c", "kind": "config", "values": {}}] * 2)),
        "record 'c': ValueError: it is there twice",
    ),
    "unknown kind": (of(app({"name": "c", "kind": "model", "values": {}})), "record 'c': KeyError: 'model'"),
    "values are a list": (of(app({"name": "c", "kind": "config", "values": [1]})), "damaged: record 'c'"),
    "null": (of(values(x=None)), "key 'x': expected .* got None"),
    "huge integer": (of(values(x=2**80)), "does not fit into 64"),
    "mixed": (of(values(x=[1, 2.0])), "a list has values of one type"),
    "unknown mark": (of(values(x={"%pickle": "AAAA"})), "unknown mark '%pickle'"),
    "two marks": (of(values(x={"%bytes": "", "%text": ""})), "damaged: record 'c'"),
    "empty mark": (of(values(x={})), "damaged: record 'c'"),
    "no base64": (of(values(x={"%bytes": "?"})), "damaged: record 'c'"),
    "base64 of a number": (of(values(x={"%bytes": 3})), "damaged: record 'c'"),
    "no float": (of(values(x={"%float": "7f"})), "damaged: record 'c'"),
    "no hex": (of(values(x={"%float": "zz"})), "damaged: record 'c'"),
    "missing array": (of(values(x={"%array": "bytes"})), "damaged: record 'c': KeyError: 'x'"),
    "array of another kind": (of(values(x={"%array": "model"}), **{"c/x": np.zeros(2)}), "unknown mark '%model'"),
    "array of two dimensions": (of(values(x={"%array": "list"}), **{"c/x": np.zeros((2, 2))}), "index 0: expected"),
    "no UTF-8": (of(values(x={"%array": "text"}), **{"c/x": np.full(3, 255, np.uint8)}), "damaged: record 'c'"),
    "message is a list": (of(app(message=[])), "what is said about the message is no object"),
    "unknown dtype": (of(arrays(forms={"w": ["float7", [3]]}), **W), "damaged: record 'a'"),
    "object dtype": (of(arrays(forms={"w": ["O", [3]]}), **W), "damaged: record 'a'"),
    "other bits": (of(arrays(forms={"w": ["float8_e5m2", [3]]}), **W), "is stored as uint16"),
    "other shape": (of(arrays(forms={"w": ["bfloat16", [4]]}), **W), "damaged: record 'a'"),
    "form is a number": (of(arrays(forms={"w": 3}), **W), "damaged: record 'a'"),
    "forms are a list": (of(arrays(forms=[]), **W), "damaged: record 'a'"),
    "tied to nothing": (of(arrays(names=["x"], tied={"x": "y"}), **W), "damaged: record 'a': KeyError: 'y'"),
    "names are a number": (of(arrays(names=3), **W), "damaged: record 'a'"),
    "deep": (of(b"[" * 100_000), "does not contain records"),
    "a pickle": (lambda path: np.savez(path, **{"a/w": np.array([{}])}), "'a/w': it has the dtype object"),
    "texts": (lambda path: np.savez(path, **{"a/w": np.array(["x"])}), "is no array of numbers"),
    "a model": (lambda path: np.savez(path, w=np.zeros(1)), "does not contain records"),
    "nothing": (lambda path: path.touch(), "the file is empty"),
    "a folder": (lambda path: path.mkdir(), "IsADirectory|is not a regular file"),
    "a pipe": (lambda path: os.mkfifo(path), "is not a regular file"),
    "noise": (lambda path: path.write_bytes(b"noise" * 99), "cannot be read as .npz or .safetensors"),
    "zip without an end": (
        lambda path: path.write_bytes(b"PK\3\4" + b"x" * 99),
        "cannot be read as .npz or .safetensors",
    ),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_damaged_file_is_an_error_that_names_it(tmp_path: Path, case: str) -> None:
    path = tmp_path / "größe 1.npz"
    make, reason = DAMAGED[case]
    make(path)
    with pytest.raises(ClientError, match=reason) as caught:
        read_content(path)
    assert str(path) in str(caught.value) and len(str(caught.value)) < 700


@SUFFIX
def test_truncated_or_changed_file_is_an_error_or_other_content(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"x{suffix}"
    write_content(path, RecordDict({"a": ArrayRecord({"w": np.arange(9)}), "c": ConfigRecord({"x": b"x" * 2000})}))
    content = path.read_bytes()
    rng = np.random.default_rng(0)
    for size in rng.integers(0, len(content), 40).tolist():
        path.write_bytes(content[:size])
        with pytest.raises(ClientError):
            read_content(path)
    for place in rng.integers(0, len(content), 200).tolist():
        path.write_bytes(content[:place] + bytes([content[place] ^ 0x41]) + content[place + 1 :])
        try:
            assert isinstance(read_content(path)[0], RecordDict)
        except ClientError:
            pass


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ({}, "KeyError: 'run_id'"),
        ({"message_type": "foo"}, "KeyError"),
    ],
)
def test_file_without_a_message_is_an_error(tmp_path: Path, message: dict[str, Any], reason: str) -> None:
    path = tmp_path / "x.npz"
    write_content(path, RecordDict(), message=message)
    with pytest.raises(ClientError, match=rf"x.npz: what it has about the message is damaged: {reason}"):
        read_message(path)


def test_too_many_arrays_are_an_error_that_says_so(tmp_path: Path) -> None:
    one = Array(np.zeros(1, np.int8))
    record = ArrayRecord({str(number): Array.from_plain(one.plain()) for number in range(1 << 16)})
    with pytest.raises(ClientError, match="fewer than 65536 tensors"):
        write_content(tmp_path / "x.npz", RecordDict({"a": record}))


def test_files_need_no_torch(tmp_path: Path) -> None:
    code = """
import sys
sys.modules["torch"] = None
import numpy as np
from fedpkg.apps import *
from fedpkg.records.files import read_content, write_content
for suffix in ".npz", ".safetensors":
    content, _ = read_content("in" + suffix)
    assert [one.dtype for one in content["a"].values()] == ["bfloat16", "float8_e4m3fn", "float32"]
    content["n"] = ArrayRecord([np.arange(2), np.zeros(300_000, complex)])
    write_content("out" + suffix, content)
"""
    state = {"b": torch.ones(3).bfloat16(), "f": torch.ones(3).to(torch.float8_e4m3fn), "x": torch.ones(3)}
    content = RecordDict({"a": ArrayRecord(state)})
    for suffix in (".npz", ".safetensors"):
        write_content(tmp_path / f"in{suffix}", content)
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)
    for suffix in (".npz", ".safetensors"):
        found, _ = read_content(tmp_path / f"out{suffix}")
        assert found["a"] == content["a"] and found["n"]["1"].shape == (300_000,)  # type: ignore[index]


def test_importing_loads_neither_numpy_nor_torch_nor_the_rest_of_fedpkg() -> None:
    code = """
import sys, fedpkg.apps, fedpkg.records
heavy = {"numpy", "torch"} & sys.modules.keys()
rest = [name for name in sys.modules if name.startswith("fedpkg.")]
print(sorted(heavy), rest, [name for name in fedpkg.apps.__all__ if not hasattr(fedpkg.apps, name)])
allowed = ("fedpkg.apps", "fedpkg.records", "fedpkg.client")
rest = [name for name in sys.modules if name.startswith("fedpkg.") and not name.startswith(allowed)]
print(rest, "torch" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[] ['fedpkg.apps', 'fedpkg.records'] []\n[] False\n"
