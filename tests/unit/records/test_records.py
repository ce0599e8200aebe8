"""Records: what each takes, what it refuses, and what the refusal says; conversions of arrays."""

from __future__ import annotations

import copy
import enum
import gc
import io
import logging
import os
import pickle
import subprocess
import sys
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fedpkg.client.errors import ClientError
from fedpkg.records import (
    Array,
    ArrayRecord,
    ConfigRecord,
    ConfigsRecord,
    MetricRecord,
    MetricsRecord,
    ParametersRecord,
    RecordDict,
    RecordSet,
)


class Level(enum.IntEnum):
    HIGH = 3


class Name(str, enum.Enum):
    ADAM = "adam"


BOTH = pytest.mark.parametrize("kind", [MetricRecord, ConfigRecord])
FLOATS8 = [
    getattr(torch, name)
    for name in ("float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e8m0fnu")
    if hasattr(torch, name)
]


# ---- values


@BOTH
@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (3, 3),
        (0.5, 0.5),
        (np.float64(0.5), 0.5),
        (np.float32(0.5), 0.5),
        (np.float16(0.5), 0.5),
        (np.longdouble(0.5), 0.5),
        (np.int64(-3), -3),
        (np.uint64(2**64 - 1), 2**64 - 1),
        (np.array(0.25, np.float32), 0.25),
        (torch.tensor(0.25), 0.25),
        (torch.tensor(0.25, dtype=torch.bfloat16), 0.25),
        (torch.tensor(0.25, requires_grad=True), 0.25),
        (torch.tensor(7), 7),
        (Level.HIGH, 3),
        (-(2**63), -(2**63)),
        ([1, 2], [1, 2]),
        ([0.5], [0.5]),
        ([], []),
        ([np.float32(0.5), torch.tensor(0.25), 1.0], [0.5, 0.25, 1.0]),
        ([np.int8(1), 2], [1, 2]),
        (np.arange(3), [0, 1, 2]),
        (np.arange(6.0)[::2], [0.0, 2.0, 4.0]),
        (torch.tensor([0.5, 1.0]), [0.5, 1.0]),
    ],
)
def test_numbers_become_plain_numbers(kind: type[ConfigRecord], value: Any, plain: Any) -> None:
    record = kind({"a": value})
    found = record["a"]
    assert found == plain and type(found) is type(plain)
    assert [type(one) for one in (found if isinstance(found, list) else [])] == [
        type(one) for one in np.ravel(plain).tolist() if isinstance(plain, list)
    ]
    record["b"] = value
    assert record["b"] == plain


@BOTH
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), [float("nan"), 1.0]])
def test_numbers_need_not_be_finite(kind: type[ConfigRecord], value: Any) -> None:
    assert repr(kind({"a": value})["a"]) == repr(value)


@pytest.mark.parametrize(
    "value",
    [
        "",
        "ä",
        "\ud800",
        b"",
        b"\0",
        True,
        False,
        [True],
        ["a", ""],
        [b""],
        np.bool_(True),
        torch.tensor(True),
        np.str_("x"),
    ],
)
def test_settings_may_also_be_text_bytes_and_booleans(value: Any) -> None:
    found = ConfigRecord({"a": value})["a"]
    assert found == value and type(found) in (str, bytes, bool, list)
    with pytest.raises(TypeError, match="'a'"):
        MetricRecord({"a": value})


def test_text_of_an_enumeration_is_its_value() -> None:
    found = ConfigRecord({"a": Name.ADAM})["a"]
    assert (found, type(found)) == ("adam", str)


REFUSED = [
    (
        MetricRecord,
        True,
        r"key 'a': expected int, float, or a list of one of these, got bool \(True\); write int\(value\)",
    ),
    (MetricRecord, "0.5", r"got str \('0.5'\); put it into a ConfigRecord"),
    (MetricRecord, [1, True], r"key 'a', index 1: expected int, float, got bool \(True\); write int\(value\)"),
    (MetricRecord, [True, 1], r"key 'a', index 0: expected int, float, got bool"),
    (ConfigRecord, [1, True], r"index 1: a list has values of one type; the first is int, this one is bool .*one key"),
    (ConfigRecord, None, r"got None; leave the key out"),
    (ConfigRecord, {"lr": 1}, r"got dict .*; give each of its values a key, such as 'optimizer.lr'"),
    (ConfigRecord, ["a", None], r"key 'a', index 1: expected .*, got None"),
    (ConfigRecord, ["a", b"a"], r"index 1: a list has values of one type"),
    (ConfigRecord, bytearray(b"x"), r"got bytearray .*; write bytes\(value\)"),
    *[
        (kind, value, reason)
        for kind in (MetricRecord, ConfigRecord)
        for value, reason in [
            ((1, 2), r"key 'a': .* got tuple \(\(1, 2\)\); write list\(value\)"),
            ({1, 2}, r"got set .*write list\(value\)"),
            ([1, 2.0], r"key 'a', index 1: .* the first is int, this one is float \(2.0\); write floats only"),
            ([2.0, np.int64(1)], r"index 1: .* write floats only"),
            ([[1]], r"key 'a', index 0: expected"),
            (np.zeros((2, 2)), r"got ndarray of shape \(2, 2\); put arrays into an ArrayRecord"),
            (torch.zeros(1, 1), r"got Tensor of shape \(1, 1\); put arrays into an ArrayRecord"),
            (np.datetime64("2026-01-01", "ns"), r"got datetime64"),
            (1j, r"got complex"),
            (np.complex64(1), r"got complex"),
            (object(), r"key 'a': .*got object"),
        ]
    ],
]


@pytest.mark.parametrize(("kind", "value", "reason"), REFUSED)
def test_refusal_names_the_key_the_type_and_what_to_write(kind: type[ConfigRecord], value: Any, reason: str) -> None:
    for put in (lambda: kind({"ok": 1, "a": value}), lambda: kind().__setitem__("a", value)):
        with pytest.raises(TypeError, match=reason) as caught:
            put()
        assert kind.__name__ in str(caught.value)


@BOTH
@pytest.mark.parametrize(
    ("value", "where"), [(2**70, "'a': "), (-(2**63) - 1, "'a': "), ([0, 2**64], "'a', index 1: "), (2**64, "'a': ")]
)
def test_integers_beyond_64_bits_are_refused(kind: type[ConfigRecord], value: Any, where: str) -> None:
    with pytest.raises(ValueError, match=rf"{where}an integer of \d+ bits does not fit into 64; write float\(value\)"):
        kind({"a": value})


@pytest.mark.parametrize("kind", [MetricRecord, ConfigRecord, ArrayRecord, RecordDict])
@pytest.mark.parametrize("key", [1, None, b"a", ("a",)])
def test_keys_are_text(kind: type[Any], key: Any) -> None:
    value: Any = {ArrayRecord: Array(np.zeros(1)), RecordDict: MetricRecord()}.get(kind, 1)
    for put in (lambda: kind({key: value}), lambda: kind().__setitem__(key, value)):
        with pytest.raises(TypeError, match=f"{kind.__name__}: a key must be str, got {type(key).__name__}"):
            put()


@BOTH
def test_lists_are_copied(kind: type[ConfigRecord]) -> None:
    values = [1, 2]
    record = kind({"a": values})
    values.append(3)
    assert record["a"] == [1, 2]


@BOTH
def test_input_can_be_given_away(kind: type[ConfigRecord]) -> None:
    for record in (kind({"a": 1}), kind(OrderedDict(a=1), True)):
        assert record == {"a": 1}
    given = {"a": 1, "b": 2}
    assert kind(given, keep_input=False) == {"a": 1, "b": 2} and given == {}
    with pytest.raises(TypeError, match="expected a dictionary, got list"):
        kind([1])  # type: ignore[arg-type]


def test_bytes_are_counted_whatever_there_is() -> None:
    assert MetricRecord({"a": 1, "äb": [1.0, 2.0], "c": []}).count_bytes() == 1 + 8 + 3 + 16 + 1
    values = {"a": "", "b": [], "c": "ä", "d": b"xyz", "e": True, "f": ["", "xx"], "g": "\ud800", "\ud800": 1}
    assert ConfigRecord(values).count_bytes() == 1 + 1 + 3 + 4 + 2 + 3 + 4 + 3 + 8
    assert ArrayRecord({"w": np.zeros(3), "e": np.zeros(0)}).count_bytes() == 24 + 2
    assert RecordDict({"m": MetricRecord({"a": 1}), "e": ArrayRecord()}).count_bytes() == 9
    assert ArrayRecord({"w": Array("?", (), "other", b"abc")}).count_bytes() == 4


# ---- RecordDict


def test_record_dict_takes_records_only() -> None:
    with pytest.raises(TypeError, match=r"key 'm': expected an ArrayRecord, .* got dict; write ConfigRecord\(value\)"):
        RecordDict({"m": {"a": 1}})  # type: ignore[dict-item]
    with pytest.raises(TypeError, match="expected a dictionary of records, got list"):
        RecordDict([MetricRecord()])  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="got RecordDict"):
        RecordDict()["inner"] = RecordDict()  # type: ignore[assignment]


def test_views_write_through_and_see_later_changes() -> None:
    content = RecordDict({"c": ConfigRecord({"x": 1}), "m": MetricRecord({"y": 2}), "a": ArrayRecord()})
    metrics = content.metric_records
    assert metrics == {"m": content["m"]} and len(metrics) == 1 and "c" not in metrics
    metrics["n"] = MetricRecord({"z": 3})
    assert list(content) == ["c", "m", "a", "n"]
    del metrics["m"]
    assert list(content) == ["c", "a", "n"]
    content["later"] = MetricRecord()
    assert list(metrics) == ["n", "later"]
    assert list(content.config_records) == ["c"] and list(content.array_records) == ["a"]
    with pytest.raises(
        TypeError, match=r"key 'c': expected MetricRecord, got ConfigRecord; write MetricRecord\(value\)"
    ):
        metrics["c"] = ConfigRecord()  # type: ignore[assignment]
    for what in (lambda: metrics["c"], lambda: metrics.__delitem__("c")):
        with pytest.raises(KeyError, match="there is no MetricRecord 'c'; there is 'n', 'later'"):
            what()


def test_record_of_another_kind_is_replaced_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    content = RecordDict({"a": ConfigRecord()})
    with caplog.at_level(logging.WARNING, "fedpkg.records"):
        content["a"] = ConfigRecord()
        assert not caplog.records
        content["a"] = MetricRecord()
    assert "record 'a' was replaced: ConfigRecord by MetricRecord" in caplog.text


def test_missing_key_says_what_there_is() -> None:
    with pytest.raises(KeyError, match="RecordDict has no 'model'; it has 'arrays'"):
        _ = RecordDict({"arrays": ArrayRecord()})["model"]
    with pytest.raises(KeyError, match="MetricRecord has no 'x'; it has nothing"):
        del MetricRecord()["x"]
    many = RecordDict({f"r{number}": ConfigRecord() for number in range(21)})
    for one in (many, many.config_records):
        with pytest.raises(KeyError, match="'r18', 'r19', …"):
            _ = one["model"]
    assert ConfigRecord({"a": 1}).get("b", 2) == 2 and "b" not in ConfigRecord({"a": 1})


def test_records_are_equal_by_content_and_kind() -> None:
    assert ConfigRecord({"a": 1}) == ConfigRecord({"a": 1}) == {"a": 1}
    assert ConfigRecord({"a": 1}) != ConfigRecord({"a": 2}) and ConfigRecord({"a": 1}) != MetricRecord({"a": 1})
    assert ConfigRecord() != 1 and ConfigRecord().__eq__(1) is NotImplemented
    assert RecordDict({"a": MetricRecord({"x": 1})}) == RecordSet(metrics_records={"a": MetricRecord({"x": 1})})
    assert ArrayRecord({"w": np.zeros(1)}) == ArrayRecord({"w": np.zeros(1)})
    assert ArrayRecord({"w": np.zeros(1)}) != ArrayRecord({"w": np.ones(1)})
    for one in (ConfigRecord(), MetricRecord(), ArrayRecord(), RecordDict(), Array(np.zeros(1))):
        with pytest.raises(TypeError, match="unhashable"):
            hash(one)


def test_records_can_be_copied_and_pickled() -> None:
    content = RecordDict({"a": ArrayRecord({"w": torch.ones(2).bfloat16()}), "c": ConfigRecord({"l": [1]})})
    for again in (copy.deepcopy(content), pickle.loads(pickle.dumps(content))):
        assert again == content
        again["c"]["l"].append(2)
        assert content["c"] == {"l": [1]}
    for record in (content, content["a"], content["c"], MetricRecord({"m": 1})):
        for again in (copy.copy(record), record.copy()):
            assert type(again) is type(record) and again == record
            again.clear()
            assert record, "a copy has keys of its own"
    foreign = Array("x", (1,), "other", b"1")
    assert pickle.loads(pickle.dumps(foreign)) == foreign == copy.copy(foreign)


def test_former_names_work() -> None:
    content = RecordSet(
        parameters_records={"p": ParametersRecord()},
        metrics_records={"m": MetricsRecord({"a": 1})},
        configs_records={"c": ConfigsRecord()},
    )
    assert isinstance(content, RecordDict)
    assert list(content.parameters_records) == ["p"] and list(content.metrics_records) == ["m"]
    assert RecordDict(content).configs_records == {"c": ConfigRecord()}
    assert RecordSet() == RecordDict()


# ---- Array


def npy(array: np.ndarray[Any, Any]) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def test_array_is_made_from_each_form_by_position_and_keyword() -> None:
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    expected = Array(values)
    parts = ("float32", [2, 3], "numpy.ndarray", npy(values))
    for made in (
        Array(ndarray=values),
        Array.from_numpy_ndarray(values),
        Array(torch.from_numpy(values)),
        Array(torch_tensor=torch.from_numpy(values)),
        Array.from_torch_tensor(torch.from_numpy(values)),
        Array(*parts),
        Array(dtype=parts[0], shape=parts[1], stype=parts[2], data=parts[3]),
    ):
        assert (made.dtype, made.shape, made.stype, made.data) == ("float32", (2, 3), "numpy.ndarray", npy(values))
        assert np.array_equal(made.numpy(), values) and made == expected
    assert Array(np.float32(2)).shape == () and Array(torch.tensor(3)).numpy() == 3


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("float32",),
        ("float32", (1,), "numpy.ndarray"),
        (np.zeros(1), (1,)),
        ("float32", 3, "numpy.ndarray", b""),
        ("a", (1,), 1, b""),
    ],
)
def test_other_arguments_of_an_array_are_refused(arguments: tuple[Any, ...]) -> None:
    with pytest.raises(TypeError, match=r"Array\(ndarray\).*Array\(tensor\).*dtype=\"float32\", shape=\(3, 3\)"):
        Array(*arguments)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ([1.0], r"got list; write numpy.asarray\(value\)"),
        (np.array(["a"]), "not an array of numbers: NumPy gives it the dtype <U1"),
        (np.array([{}]), "dtype object"),
        (np.array(["2026"], "M8[s]"), "datetime64"),
        (np.zeros(1, [("a", "f4")]), "is not an array of numbers"),
        (np.zeros(1, np.longdouble), "dtype float128|dtype longdouble|dtype float96"),
        (torch.eye(2).to_sparse(), r"has the layout torch.sparse_coo; .*\.to_dense\(\)"),
        (torch.zeros(1, device="meta"), "is on no device"),
    ],
)
def test_what_is_no_array_of_numbers_is_refused_with_its_key(value: Any, reason: str) -> None:
    with pytest.raises(TypeError, match=reason):
        Array(value)
    with pytest.raises(TypeError, match=r"ArrayRecord: key 'layer.w': "):
        ArrayRecord({"layer.w": value})


def test_array_does_not_change_with_its_source_nor_with_what_is_made_of_it() -> None:
    values, tensor = np.zeros(3), torch.zeros(3)
    arrays = [
        Array(values),
        Array(tensor),
        Array(values[1:]),
        Array(tensor.view(1, 3)),
        Array(np.zeros((), np.float32)),
    ]
    values += 1
    tensor += 1
    for one in arrays:
        copied = one.numpy()
        copied += 5
        assert not one.numpy().any()
        with pytest.raises(AttributeError, match="an Array does not change"):
            one.shape = (1,)
    record = ArrayRecord({"w": torch.zeros(2)})
    record.to_torch_state_dict()["w"] += 1
    assert not record.to_torch_state_dict()["w"].any()


def test_bytes_given_for_an_array_are_kept_and_checked_when_they_are_used() -> None:
    foreign = Array("float32", (1,), "my.stype", b"anything")
    assert foreign.data == b"anything"
    with pytest.raises(TypeError, match=r"stype 'my.stype' cannot be converted; only 'numpy.ndarray'"):
        foreign.numpy()
    with pytest.raises(TypeError, match=r"key 'w': .*my.stype"):
        ArrayRecord({"w": foreign}).to_torch_state_dict()
    pickled = io.BytesIO()
    np.save(pickled, np.array([{}]), allow_pickle=True)
    archive = io.BytesIO()
    np.savez(archive, w=np.zeros(2, np.float32))
    for data, dtype in (
        (b"data", "float32"),
        (b"", "float32"),
        (archive.getvalue(), "float32"),
        (npy(np.zeros(2, np.float32)).replace(b"}", b"("), "float32"),
        (npy(np.zeros(2)), "float32"),
        (npy(np.zeros(3)), "float64"),
        (pickled.getvalue(), "O"),
    ):
        with pytest.raises(ValueError, match=r"data is not the bytes of a .npy file of dtype"):
            Array(dtype, (2,), "numpy.ndarray", data).numpy()
    narrow = Array(torch.ones(2).bfloat16())
    assert Array(narrow.dtype, narrow.shape, narrow.stype, narrow.data).plain().values.tolist() == [0x3F80] * 2


def test_size_equality_and_pickle_of_an_array_are_the_same_before_and_after_it_is_read() -> None:
    values = np.arange(6.0).reshape(2, 3)
    data = npy(np.asfortranarray(values))  # other bytes than those of Array(values)
    for is_read in (False, True):
        one = Array("float64", (2, 3), "numpy.ndarray", data)
        if is_read:
            one.numpy()
        assert one == Array(values) and one != Array(-values)
        assert one.num_bytes == 48 and "48 bytes" in repr(one)
        assert pickle.loads(pickle.dumps(one)).data == one.data == data
    damaged = Array("float64", (2, 3), "numpy.ndarray", b"data")
    assert damaged == Array("float64", (2, 3), "numpy.ndarray", b"data") != Array(values)
    assert damaged.num_bytes == 4


def test_arrays_are_equal_by_their_bits() -> None:
    nan = np.array([np.nan, 0.0])
    assert Array(nan) == Array(nan.copy()) and Array(np.zeros(1)) != Array(-np.zeros(1))
    assert Array(np.zeros(1)) != Array(np.zeros(1, np.float32)) and Array(np.zeros(2)) != Array(np.zeros((2, 1)))
    assert Array(np.zeros(1)) != "array" and Array(np.zeros(1)).__eq__(0) is NotImplemented
    assert Array("f", (1,), "x", b"1") != Array("f", (1,), "x", b"2")


@pytest.mark.parametrize("dtype", [torch.bfloat16, *FLOATS8], ids=str)
def test_dtypes_that_numpy_lacks_survive(dtype: torch.dtype) -> None:
    tensor = torch.tensor([[1.0, 2.0], [4.0, 0.5]]).to(dtype).T
    record = ArrayRecord({"w": tensor, "zero": tensor[0, 0]})
    found = record.to_torch_state_dict()
    assert found["w"].dtype == dtype and found["w"].float().tolist() == tensor.float().tolist()
    assert found["zero"].shape == () and float(found["zero"]) == 1
    assert record["w"].dtype == str(dtype).removeprefix("torch.")
    with pytest.raises(
        TypeError, match=r"key 'w': NumPy has no .*: use ArrayRecord.to_torch_state_dict\(\), or .*float"
    ):
        record.to_numpy_ndarrays()


@pytest.mark.parametrize(
    "tensor",
    [
        torch.ones(2).half(),
        torch.tensor([1 + 2j]),
        torch.tensor([True]),
        torch.tensor(5),
        torch.zeros(0, 3),
        torch.arange(6).reshape(2, 3).T,
        torch.arange(3).expand(2, 3),
        torch.nn.Parameter(torch.ones(2)),
        torch.tensor([1 + 2j]).conj(),
        torch.tensor([1, 2], dtype=torch.uint16),
    ],
)
def test_tensors_survive(tensor: torch.Tensor) -> None:
    found = ArrayRecord({"w": tensor}).to_torch_state_dict()["w"]
    assert found.dtype == tensor.dtype and found.shape == tensor.shape and torch.equal(found, tensor.detach())
    assert not found.requires_grad and found.is_contiguous()
    found.zero_()


@pytest.mark.parametrize("dtype", ["f2", "f4", ">f4", "i1", "u8", ">i8", "c8", "c16", "?"])
def test_numpy_arrays_survive_in_native_byte_order(dtype: str) -> None:
    values = np.asfortranarray(np.array([[0, 1, 1], [1, 0, 0]], dtype))
    record = ArrayRecord([values, values[:, ::-1]])
    assert list(record) == ["0", "1"]
    for found, given in zip(record.to_numpy_ndarrays(), (values, values[:, ::-1]), strict=True):
        assert np.array_equal(found, given) and found.dtype == given.dtype.newbyteorder("=") and found.flags.writeable


# ---- ArrayRecord


@pytest.mark.parametrize(
    "make",
    [
        lambda state: ArrayRecord(state),
        lambda state: ArrayRecord(torch_state_dict=state),
        lambda state: ArrayRecord.from_torch_state_dict(state),
        lambda state: ArrayRecord({key: one.numpy() for key, one in state.items()}),
        lambda state: ArrayRecord({key: Array(one) for key, one in state.items()}),
        lambda state: ArrayRecord.from_array_dict({key: Array(one) for key, one in state.items()}),
        lambda state: ArrayRecord(array_dict={key: Array(one) for key, one in state.items()}),
        lambda state: ArrayRecord(ArrayRecord(state)),
    ],
)
def test_array_record_is_made_of_each_form(make: Callable[[dict[str, torch.Tensor]], ArrayRecord]) -> None:
    state = torch.nn.Linear(2, 3).state_dict()
    record = make(state)
    found = record.to_torch_state_dict()
    assert type(found) is OrderedDict and list(found) == ["weight", "bias"]
    assert all(torch.equal(found[key], state[key]) for key in state)
    assert record == ArrayRecord(state)


def test_array_record_of_a_list() -> None:
    values = [np.zeros(1), np.ones(2)]
    for record in (ArrayRecord(values), ArrayRecord(numpy_ndarrays=values), ArrayRecord.from_numpy_ndarrays(values)):
        assert list(record) == ["0", "1"] and record["1"].numpy().tolist() == [1, 1]


@pytest.mark.parametrize(
    ("arguments", "options", "reason"),
    [
        (({"w": np.zeros(1)}, False), {}, "keep_input argument is keyword-only: write ArrayRecord"),
        (({"w": np.zeros(1)},), {"array_dict": {}}, "takes one argument"),
        (((np.zeros(1),),), {}, r"got tuple; write list\(value\)"),
        ((torch.nn.Linear(1, 1),), {}, r"got Linear; write value.state_dict\(\)"),
        ((np.zeros(1),), {}, "got ndarray; write a dictionary {name: array}"),
        (([np.zeros(1), 1],), {}, "index 1: expected a NumPy array, got int"),
        (([torch.zeros(1)],), {}, "index 0: .*write {name: tensor"),
        (({"a": Array(np.zeros(1)), "b": np.zeros(1)},), {}, r"mixed, see 'a' and 'b'; write Array\(value\)"),
        (({"a": np.zeros(1), "b": 1.0},), {}, r"key 'b': expected an Array, .* got float; write numpy.asarray"),
        (({"lr": "x"},), {}, "key 'lr': .* got str; write it into a ConfigRecord"),
    ],
)
def test_array_record_says_what_it_does_not_take(arguments: Any, options: Any, reason: str) -> None:
    with pytest.raises(TypeError, match=reason):
        ArrayRecord(*arguments, **options)


def test_values_can_be_put_in_one_by_one() -> None:
    record = ArrayRecord()
    record["a"] = Array(np.zeros(1))
    record["b"] = np.ones(1)  # type: ignore[assignment]  # what is converted
    with pytest.raises(TypeError, match=r"key 'c': .* got list"):
        record["c"] = [1]  # type: ignore[assignment]
    del record["a"]
    assert list(record) == ["b"] and isinstance(record["b"], Array)


def test_keep_input_false_empties_what_was_given() -> None:
    state: dict[str, Any] = {"a": torch.zeros(2), "b": torch.ones(2)}
    record = ArrayRecord(state, keep_input=False)
    assert state == {} and list(record) == ["a", "b"]
    arrays = [np.zeros(1), np.ones(1)]
    assert ArrayRecord(arrays, keep_input=False)["1"].numpy() == 1 and arrays == []
    assert [one.tolist() for one in record.to_numpy_ndarrays(keep_input=False)] == [[0, 0], [1, 1]] and not record
    record = ArrayRecord({"a": torch.zeros(2)})
    assert list(record.to_torch_state_dict(keep_input=False)) == ["a"] and not record


def test_input_is_kept_if_it_is_refused() -> None:
    state: dict[str, Any] = {"a": torch.zeros(2), "b": "text"}
    with pytest.raises(TypeError, match="'b'"):
        ArrayRecord(state, keep_input=False)
    assert list(state) == ["a", "b"]


@pytest.mark.parametrize("keep_input", [True, False])
def test_tied_weights_stay_tied(keep_input: bool) -> None:
    model = torch.nn.ModuleDict({"a": torch.nn.Linear(2, 2), "b": torch.nn.Linear(2, 2)})
    model["b"].weight = model["a"].weight
    record = ArrayRecord(model.state_dict(), keep_input=keep_input)
    assert record["a.weight"] is record["b.weight"]
    found = record.to_torch_state_dict(keep_input=keep_input)
    assert found["a.weight"] is found["b.weight"] and found["a.bias"] is not found["b.bias"]
    overlapping = torch.arange(4.0)
    views = ArrayRecord({"x": overlapping[:2], "y": overlapping, "e": overlapping[:0], "f": overlapping[:0]})
    assert views.to_torch_state_dict()["x"].tolist() == [0, 1] and views["e"] is not views["f"]


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_array_record_maps_a_file_and_leaves_it_as_it_is(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"model{suffix}"
    tensors = {"w": torch.arange(300_000.0), "b": torch.ones(3), "scalar": torch.tensor(2)}
    ArrayRecord(tensors).to_file(path)
    before = path.read_bytes()
    record = ArrayRecord.from_file(path)
    assert maps(path) == 1  # no copy
    first, second = record.to_torch_state_dict(), record.to_torch_state_dict()
    assert maps(path) == 3
    first["w"] += 1
    assert torch.equal(second["w"], tensors["w"]) and record == ArrayRecord(tensors)
    assert not record["w"].plain().values.flags.writeable
    assert first["w"].data_ptr() % 8 == 0
    path.unlink()
    third = record.to_torch_state_dict()  # a copy, as the file is gone
    third["w"] += 1
    assert torch.equal(record.to_torch_state_dict(keep_input=False)["w"], tensors["w"])
    path.write_bytes(before)
    del first, record, third
    gc.collect()
    assert torch.equal(second["w"], tensors["w"])
    assert ArrayRecord.from_file(path) == ArrayRecord(tensors)


def maps(path: Path) -> int:
    """How often a file is mapped into this process."""
    return sum(line.split()[-1] == str(path) for line in Path("/proc/self/maps").read_text().splitlines())


def test_file_that_was_replaced_is_not_mixed_with_the_former_one(tmp_path: Path) -> None:
    path = tmp_path / "m.npz"
    ArrayRecord({"w": np.zeros(300_000)}).to_file(path)
    record = ArrayRecord.from_file(path)
    ArrayRecord({"w": np.ones(300_000)}).to_file(path)
    assert not record.to_torch_state_dict()["w"].any() and not record["w"].numpy().any()


def test_mapped_files_hold_no_descriptors(tmp_path: Path) -> None:
    path = tmp_path / "m.npz"
    ArrayRecord({"w": np.zeros(300_000)}).to_file(path)
    before = len(os.listdir("/proc/self/fd"))
    records = [ArrayRecord.from_file(path) for _ in range(50)]
    states = [one.to_torch_state_dict() for one in records]
    assert len(os.listdir("/proc/self/fd")) == before and len(states) == 50
    del records, states
    gc.collect()
    assert maps(path) == 0


def test_files_of_numpy_are_read_also_if_they_cannot_be_mapped(tmp_path: Path) -> None:
    path = tmp_path / "numpy.npz"
    arrays = {
        "a": np.ones(3, np.int8),
        "b": np.arange(200_000.0),
        "f": np.asfortranarray(np.eye(3)),
        "o": np.arange(3, dtype=">i4"),
    }
    for save in (np.savez, np.savez_compressed):
        save(path, **arrays)  # type: ignore[arg-type]
        record = ArrayRecord.from_file(path)
        assert all(np.array_equal(record[key].numpy(), one) for key, one in arrays.items())
        assert all(np.array_equal(found.numpy(), arrays[key]) for key, found in record.to_torch_state_dict().items())


def test_npz_has_no_dtype_that_numpy_lacks(tmp_path: Path) -> None:
    record = ArrayRecord({"w": torch.ones(1).bfloat16()})
    with pytest.raises(ClientError, match=r"tensor 'w': an .npz file cannot hold torch.bfloat16"):
        record.to_file(tmp_path / "m.npz")
    record.to_file(tmp_path / "m.safetensors")
    assert ArrayRecord.from_file(tmp_path / "m.safetensors") == record
    from safetensors.torch import load_file

    assert load_file(tmp_path / "m.safetensors")["w"].dtype == torch.bfloat16


def test_everything_but_tensors_works_without_torch() -> None:
    code = """
import sys
sys.modules["torch"] = None
import numpy as np
from fedpkg.apps import *
record = ArrayRecord({"w": np.zeros(2)})
message = Message(RecordDict({"a": record, "m": MetricRecord({"x": np.float32(1)})}), 1, "train")
assert record.to_numpy_ndarrays()[0].tolist() == [0, 0]
try:
    record.to_torch_state_dict()
except ImportError:
    print("no torch")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "no torch\n"
