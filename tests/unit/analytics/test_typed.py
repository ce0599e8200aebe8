"""Values of algorithms as bytes: the same to the bit, read without running code, whatever the bytes are."""

from __future__ import annotations

import collections
import datetime
import decimal
import fractions
import json
import math
import struct
import uuid
import zoneinfo
from typing import Any

import numpy as np
import pandas as pd
import pytest
import pytz
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sameness import assert_same

from fedpkg.analytics import typed
from fedpkg.analytics.places import NotWritable, place

AMSTERDAM = zoneinfo.ZoneInfo("Europe/Amsterdam")


def nan_of(bits: int) -> float:
    """A NaN with these bits of its payload."""
    return struct.unpack("<d", struct.pack("<Q", 0x7FF8000000000000 | bits))[0]


TEXTS = st.text(st.characters(codec=None) | st.characters(categories=["Cs"]), max_size=5)
FLOATS = st.floats() | st.builds(nan_of, st.integers(0, 2**51 - 1)) | st.just(-0.0)
INTEGERS = st.integers() | st.integers(-(2**200), 2**200)
DTYPES = (
    hnp.scalar_dtypes()
    | hnp.byte_string_dtypes(min_len=1, max_len=5)
    | hnp.unicode_string_dtypes(min_len=1, max_len=5)
    | hnp.complex_number_dtypes()
)
SCALARS = (
    st.none() | st.booleans() | INTEGERS | FLOATS | TEXTS | st.binary(max_size=100) | st.complex_numbers()
    | st.datetimes(timezones=st.none() | st.just(datetime.timezone.utc) | st.just(AMSTERDAM))
    | st.dates() | st.times() | st.timedeltas() | st.decimals() | st.fractions() | st.uuids()
    | DTYPES.flatmap(lambda dtype: hnp.arrays(dtype, (1,))).map(lambda array: array[0])
)  # fmt: skip
KEYS = st.none() | st.booleans() | INTEGERS | TEXTS | st.binary(max_size=5) | st.tuples(TEXTS, INTEGERS) | st.dates()
ARRAYS = DTYPES.flatmap(
    lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
)
TENSORS = st.sampled_from(
    [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool, torch.complex64]
).flatmap(lambda dtype: st.lists(st.integers(0, 3), max_size=3).map(lambda shape: torch.ones(shape).mul(2.7).to(dtype)))
VALUES = st.recursive(
    SCALARS | ARRAYS | ARRAYS.map(np.asfortranarray) | TENSORS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(KEYS, inner, max_size=4)
        | st.dictionaries(TEXTS, inner, max_size=4).map(collections.OrderedDict)
        | st.sets(KEYS, max_size=4)
        | st.frozensets(KEYS, max_size=4)
        | st.lists(st.none() | TEXTS | FLOATS, max_size=4).map(lambda one: np.array([*one, None], object)[:-1])
    ),
    max_leaves=8,
)


@given(VALUES)
def test_values_are_the_same_to_the_bit(value: Any) -> None:
    assert_same(typed.read(typed.write(value)), value)


@given(st.lists(FLOATS, min_size=33) | st.lists(INTEGERS, min_size=33) | st.lists(TEXTS, min_size=33))
def test_long_lists_of_one_type_are_the_same_to_the_bit(value: list[Any]) -> None:
    assert_same(typed.read(typed.write(value)), value)


FRAME = pd.DataFrame(
    {
        "whole": [1, 2, 3],
        "number": [1.5, nan_of(7), -0.0],
        "text": ["a", None, "ß"],
        "mixed": [{1: (2,)}, [pd.Timestamp("2020-01-01")], 2**80],
        "category": pd.Categorical(["u", None, "v"], categories=["v", "u", "w"], ordered=True),
        "moment": pd.to_datetime(["2020-01-01 00:00", None, "2021-07-01 12:00"]),
        "zoned": pd.to_datetime(["2020-01-01 00:00", None, "2021-07-01 12:00"], utc=True).tz_convert(
            "Europe/Amsterdam"
        ),
        "seconds": pd.to_datetime(["2020-01-01", None, "2021-07-01"]).as_unit("s"),
        "span": pd.to_timedelta([1, None, 3], unit="s"),
        "nullable": pd.array([2**62 + 1, None, 3], "Int64"),
        "small": pd.array([1, None, 3], "UInt8"),
        "truth": pd.array([True, None, False], "boolean"),
        "real": pd.array([1.5, None, -0.0], "Float64"),
        "string": pd.array(["a", None, "ß"], "string[python]"),
        "period": pd.period_range("2020-01", periods=3, freq="M"),
        "interval": pd.interval_range(0, 3),
    },
    index=pd.MultiIndex.from_tuples([("a", 1), ("b", 2), ("a", 3)], names=["place", None]),
)


@pytest.mark.parametrize(
    "value",
    [
        FRAME,
        FRAME.reset_index(),
        FRAME[["whole", "number"]],
        FRAME.describe(include="all"),
        FRAME.groupby("place").number.agg(["mean", "count"]),
        pd.crosstab(FRAME.text, FRAME.category, margins=True),
        pd.DataFrame(),
        pd.DataFrame(index=[3, 1]),
        pd.DataFrame(columns=["a", 1]),
        pd.DataFrame([[1, 2.5], [3, 4.5]], columns=["same", "same"], index=[0, 0]),
        pd.DataFrame(np.arange(6.0).reshape(2, 3)),
        pd.DataFrame(np.arange(6.0).reshape(2, 3, order="F")),
        pd.DataFrame({"a": ["2020-01-01", None]}, dtype=object),
        pd.date_range("2020-01-01", periods=3, freq="B", tz="UTC", name=("a", 1)),
        pd.RangeIndex(5, 0, -2, name="r"),
        pd.Index([(1, 2), (3, 4)], tupleize_cols=False),
        pd.Index(["2020-01-01", 5], dtype=object),
        pd.CategoricalIndex(["a", "b"]),
        pd.Index([1, None], dtype="Int64"),
        pd.to_timedelta([1, 2], unit="D"),
        FRAME.category.value_counts(),
        FRAME.category.array,
        FRAME.string.array,
        FRAME.zoned.dt.tz_convert(datetime.timezone(datetime.timedelta(hours=2))),
        FRAME.zoned.dt.tz_convert(AMSTERDAM).array,
        pd.Series([], dtype="float32", name=0),
        pd.Series(["2020-01-01"], dtype=object).rename(("a", None)),
        [pd.Timestamp("2020-10-25 01:30", tz="UTC").tz_convert(AMSTERDAM), pd.Timestamp("1600-01-01").as_unit("s")],
        [pd.NaT, pd.NA],
        [pd.Timedelta("-3s"), pd.Period("2020Q1"), pd.Interval(pd.Timestamp("2020"), pd.Timestamp("2021"), "both")],
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_values_of_pandas_are_the_same(value: Any) -> None:
    assert_same(typed.read(typed.write(value)), value)


@given(
    st.lists(st.sampled_from(["f8", "i8", "b1", "O", "M8[ns]", "u2"]), max_size=4).flatmap(
        lambda dtypes: st.tuples(
            *(
                st.lists(st.none() | TEXTS | FLOATS, min_size=3, max_size=3).map(
                    lambda one: np.array([*one, ()], object)[:-1]
                )
                if dtype == "O"
                else hnp.arrays(dtype, 3)
                for dtype in dtypes
            )
        )
    )
)
@settings(max_examples=30)
def test_frames_of_any_columns_are_the_same(columns: tuple[Any, ...]) -> None:
    frame = pd.DataFrame({name: pd.Series(one, dtype=one.dtype) for name, one in enumerate(columns)})
    assert_same(typed.read(typed.write(frame)), frame)


def test_long_frames_keep_the_ranges_that_are_their_indexes() -> None:
    long = pd.DataFrame({"a": np.zeros(1 << 22, bool)})
    found = typed.read(typed.write([long] * 9))
    assert all(type(one.index) is pd.RangeIndex and len(one) == 1 << 22 for one in found)


def test_attributes_of_frames_are_kept() -> None:
    frame = pd.DataFrame({"a": [1]})
    frame.attrs = {"unit": ("mm", 1)}
    assert_same(typed.read(typed.write(frame)), frame)


def test_a_frequency_without_a_name_is_left_out() -> None:
    index = pd.date_range("2020-01-01", periods=3, freq=pd.DateOffset(months=1))
    back = typed.read(typed.write(index))
    assert back.freq is None and list(back) == list(index)


def test_sums_do_not_change_in_the_last_digit() -> None:
    """They depend on the order in memory."""
    values = np.random.default_rng(0).normal(size=(1001, 7))
    for frame in (pd.DataFrame(values), pd.DataFrame(np.asfortranarray(values))):
        back = typed.read(typed.write(frame))
        assert_same(back.sum(), frame.sum())
        assert_same(back.to_numpy().sum(), frame.to_numpy().sum())


@pytest.mark.parametrize(
    "value",
    [
        pytz.timezone("Europe/Amsterdam").localize(datetime.datetime(2020, 7, 1)),
        pytz.FixedOffset(90).localize(datetime.datetime(2020, 7, 1)),
        datetime.datetime(2020, 10, 25, 2, 30, tzinfo=AMSTERDAM, fold=1),
        datetime.time(1, 2, tzinfo=datetime.timezone(datetime.timedelta(hours=2), "here")),
        collections.Counter("abca"),
        collections.defaultdict(list, {"a": [1]}),
        collections.defaultdict(None, {1: 2}),
        range(10, 0, -3),
        bytearray(b"x" * 100),
        decimal.Decimal("-sNaN12"),
        fractions.Fraction(2**70, 3),
        uuid.UUID(int=5),
        torch.nn.Parameter(torch.ones(2), requires_grad=False),
        torch.ones(2, 3).T,
        torch.tensor(1.5, requires_grad=True),
        dict(torch.nn.Linear(2, 3).state_dict()),
        10**5000,
        [np.str_("a"), np.bytes_(b""), np.datetime64("NaT"), np.longdouble("0.1")],
        np.array("2020-01-01", "M8[D]"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_less_usual_values_are_the_same(value: Any) -> None:
    back = typed.read(typed.write(value))
    assert_same(back, value)
    if isinstance(value, (datetime.datetime, datetime.time)):
        assert (back.tzname(), back.utcoffset(), back.fold) == (value.tzname(), value.utcoffset(), value.fold)


def test_equal_values_have_equal_bytes() -> None:
    words = [f"word {number}" for number in range(50)]
    other = set(range(50, 100)) | set(words)
    assert typed.write(set(words)) == typed.write(other - set(range(50, 100)))


def test_arrays_that_were_read_can_be_written_to() -> None:
    array, tensor, frame = typed.read(typed.write([np.zeros(3), torch.zeros(3), pd.DataFrame({"a": [1.0], "b": [2]})]))
    array[0] = tensor[0] = frame.loc[0, "a"] = 5
    assert array[0] == tensor[0] == frame.a[0] == 5


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = {"a": (value,)} if depth < 60 else {"a": value}
    return value


def test_values_of_the_greatest_depth_are_read() -> None:
    for depth in (49, 99):
        assert_same(typed.read(typed.write(nested(depth))), nested(depth))
    assert_same(typed.read(typed.write({"a": nested(98) | {"b": {2**70, 1j}}}))["a"]["b"], {2**70, 1j})


class Model:
    pass


Point = collections.namedtuple("Point", "x y")
inside: list[Any] = []
inside.append(inside)


@pytest.mark.parametrize(
    ("value", "where", "reason"),
    [
        ({"model": [1, Model()]}, "['model'][1]", "the type test_typed.Model"),
        (Point(1, 2), "it", "the type test_typed.Point"),
        (len, "it", "builtin_function_or_method"),
        ({"a": {Model: 1}}, "['a'] key <class 'test_typed.Model'>", "the type type"),
        ({1: {("a", len)}}, "[1] element ('a', <built-in function len>)[1]", "builtin_function"),
        (collections.defaultdict(lambda: 1), "it", "a defaultdict with a function"),
        (pd.DataFrame({"age": [1], "x": [len]}), "column 'x'[0]", "builtin_function"),
        (pd.DataFrame({"age": [1], "x": pd.arrays.SparseArray([0])}), "column 'x'", "Sparse"),
        (pd.Series([1], index=[len]), "index[0]", "builtin_function"),
        ([np.zeros(2, [("a", "f4")])], "[0]", "the dtype [('a', '<f4')]"),
        ([np.ma.masked_array([1.0], [True])], "[0]", "MaskedArray"),
        (torch.ones(2).to_sparse(), "it", "torch.sparse_coo"),
        (nested(101), "['a']['a']['a']['a']…['a']['a']['a']['a']", "deeper than 100 levels"),
        (inside, "[0][0][0][0]…[0][0][0][0]", "contains itself"),
        (datetime.datetime(2020, 1, 1, tzinfo=type("Mine", (datetime.tzinfo,), {})()), "it", "time zone"),
    ],
)
def test_other_values_are_named_with_their_place(value: Any, where: str, reason: str) -> None:
    with pytest.raises(NotWritable) as raised:
        typed.write(value)
    assert place(raised.value.path) == where
    assert reason in raised.value.reason


# ---- damaged and hostile bytes


def bytes_of(value: Any, *blobs: bytes) -> bytes:
    text = json.dumps({"blobs": [len(blob) for blob in blobs], "value": value}).encode()
    text += b" " * (-(9 + len(text)) % 64)
    padded = [blob + bytes(-len(blob) % 64) for blob in blobs]
    return struct.pack("<BQ", 1, len(text)) + text + b"".join(padded)


NO_ATTRS = {"dict": [[], []]}
MANY = {"pandas.RangeIndex": [0, 10**9, 1, None]}
NINE = {"pandas.RangeIndex": [0, 9, 1, None]}


@pytest.mark.parametrize(
    ("value", "blobs"),
    [
        ({"array": ["|O", [1], "C", 0]}, [bytes(8)]),
        ({"array": ["O8", [1], "C", 0]}, [bytes(8)]),
        ({"array": ["|V8", [1], "C", 0]}, [bytes(8)]),
        ({"array": ["<U0", [10**12], "C", 0]}, [b""]),
        ({"array": ["|S0", [10**12], "C", 0]}, [b""]),
        ({"array": ["<f8,<f8", [1], "C", 0]}, [bytes(16)]),
        ({"array": [[["a", "<f8"]], [1], "C", 0]}, [bytes(8)]),
        ({"array": ["<f8", [2], "C", 0]}, [bytes(8)]),
        ({"array": ["<f8", [-1], "C", 0]}, [bytes(8)]),
        ({"array": ["<f8", [2**40, 2**40], "C", 0]}, [bytes(8)]),
        ({"array": ["<f8", [0, 2**70], "C", 0]}, [b""]),
        ({"array": ["<f8", [1.0], "C", 0]}, [bytes(8)]),
        ({"array": ["<f8", [1], "K", 0]}, [bytes(8)]),
        ({"array": ["<f8", [1], "C", 1]}, [bytes(8)]),
        ({"array": ["<f8", [1], "C", -1]}, [bytes(8)]),
        ({"array": ["<f8", [1], "C", True]}, [bytes(8)]),
        ({"array": ["<f8", [1] * 100, "C", 0]}, [bytes(8)]),
        ({"array": ["|b1", [1], "C", 0]}, [b"\2"]),
        ({"array": ["<U1", [1], "C", 0]}, [b"\xff\xff\xff\x7f"]),
        ({"array": ["O", [10**9], "C", []]}, []),
        ([{"array": ["<f8", [1], "C", 0]}, {"array": ["<f8", [1], "C", 0]}], [bytes(8)]),
        ({"floats": 0}, [bytes(7)]),
        ({"scalar": ["<f8", "00"]}, []),
        ({"scalar": ["|O", "00" * 8]}, []),
        ({"tensor": ["object", [1], False, 0]}, [bytes(8)]),
        ({"tensor": ["bfloat16", [1], False, 0]}, [bytes(8)]),
        ({"tensor": ["int64", [1], True, 0]}, [bytes(8)]),
        ({"dict": [[1], []]}, []),
        ({"dict": [[[]], [1]]}, []),
        ({"set": [[1]]}, []),
        ({"list": [1]}, []),
        ({"a": 1, "b": 2}, []),
        ({}, []),
        ({"eval": "1"}, []),
        ({"range": [0, 1, 0]}, []),
        ({"defaultdict": ["eval", [], []]}, []),
        ({"datetime": [2020, 13, 1, 0, 0, 0, 0, 0, None]}, []),
        ({"datetime": [2020, 1, 1, 0, 0, 0, 0, 0, ["zoneinfo", "../../etc/passwd"]]}, []),
        ({"datetime": [2020, 1, 1, 0, 0, 0, 0, 0, ["zoneinfo", "Europe"]]}, []),
        ({"datetime": [2020, 1, 1, 0, 0, 0, 0, 0, ["zoneinfo", "Nowhere/At_all"]]}, []),
        ({"datetime": [2020, 1, 1, 0, 0, 0, 0, 0, ["pytz", "Nowhere/At_all"]]}, []),
        ({"datetime": [2020, 1, 1, 0, 0, 0, 0, 0, ["os", "system"]]}, []),
        ({"text": "zz"}, []),
        ({"decimal": "x"}, []),
        ({"fraction": [1, 0]}, []),
        ({"fraction": ["1e9"]}, []),
        ({"fraction": [1]}, []),
        ({"pandas.eval": "1"}, []),
        ({"pandas.missing": "read_pickle"}, []),
        ({"pandas.Index": [{"array": ["<f8", [1], "C", 0]}, None, "D"]}, [bytes(8)]),
        ({"pandas.Index": [5, None, None]}, []),
        ({"pandas.nullable": [["<i8", [1], "C", 0], ["<i8", [1], "C", 1]]}, [bytes(8), bytes(8)]),
        ({"pandas.strings": ["python", False, [1]]}, []),
        ({"pandas.strings": ["eval", False, ["a"]]}, []),
        ({"pandas.Categorical": [["|i1", [1], "C", 0], {"pandas.RangeIndex": [0, 1, 1, None]}, False]}, [b"\5"]),
        ({"pandas.DataFrame": [NINE, NINE, {"block": ["<f8", [1, 9], "C", 0]}, NO_ATTRS]}, [bytes(72)]),
        ({"pandas.DataFrame": [{"tuple": []}, {"tuple": []}, {"columns": []}, NO_ATTRS]}, []),
        ({"pandas.Series": [{"array": ["<f8", [1], "C", 0]}, NINE, None, NO_ATTRS]}, [bytes(8)]),
        ({"pandas.RangeIndex": [0, 10**9, 1, None]}, []),
        ({"pandas.intervals": [MANY, MANY, "right"]}, []),
        ({"pandas.Series": [MANY, MANY, None, NO_ATTRS]}, []),
        ({"pandas.MultiIndex": [[MANY], [["|i1", [1], "C", 0]], [None]]}, [bytes(1)]),
        ([{"pandas.RangeIndex": [0, 10**7, 1, None]}] * 2, []),
        ({"pandas.Timestamp": ["now", None]}, []),
        ({"pandas.Period": [1, "nothing"]}, []),
    ],
)  # fmt: skip
def test_damaged_values_are_refused(value: Any, blobs: list[bytes]) -> None:
    with pytest.raises(ValueError):
        typed.read(bytes_of(value, *blobs))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\1",
        struct.pack("<BQ", 2, 2) + b"{}",
        struct.pack("<BQ", 1, 2**63) + b"{}",
        struct.pack("<BQ", 1, 2) + b"{}",
        struct.pack("<BQ", 1, 200_000) + b"[" * 200_000,
        struct.pack("<BQ", 1, 27) + b'{"blobs":[9],"value":null} ',
        struct.pack("<BQ", 1, 26) + b'{"blobs":[-9],"value":1}  ',
        struct.pack("<BQ", 1, 26) + b'{"blobs":[],"value": NaN} ',
        struct.pack("<BQ", 1, 10_023) + b'{"blobs":[],"value":' + b"9" * 10_000 + b"}  ",
    ],
    ids=range(10),
)
def test_damaged_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError):
        typed.read(data)


def test_deep_values_are_refused() -> None:
    deep: Any = 1
    for _ in range(typed.MAX_DEPTH * 2):
        deep = {"tuple": [deep]}
    with pytest.raises(ValueError, match="nested too deep"):
        typed.read(bytes_of(deep))


@given(VALUES, st.data())
@settings(max_examples=200)
def test_changed_bytes_are_read_or_refused(value: Any, data: st.DataObject) -> None:
    content = bytearray(typed.write([value, pd.Series([1.5], name="a"), pd.Timestamp("2020", tz="UTC")]))
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    del content[data.draw(st.integers(0, len(content))) :][: 0 if data.draw(st.booleans()) else None]
    try:
        typed.read(bytes(content))
    except ValueError:
        pass


def test_reading_takes_no_more_memory_than_the_bytes_suggest() -> None:
    """A blob belongs to one value, so that a few bytes cannot name it a thousand times."""
    content = typed.write([np.zeros(1000), np.zeros(1000)])
    assert len(content) < 2 * 8000 + 300
    assert math.isclose(sum(one.nbytes for one in typed.read(content)), 16000)
