"""Values of pandas in the form of `typed`: frames, series, indexes, their arrays, and times.

A frame whose columns have one dtype of NumPy is one array, in its own order in memory, since sums depend on it in their
last digits; another one is written by columns.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from fedpkg.analytics.places import NotWritable, Part
from fedpkg.analytics.typed import Node, Reader, Writer, read_timezone, write_timezone

_DENSE = "call .sparse.to_dense() first"
_ARROW = 'call .convert_dtypes(dtype_backend="numpy_nullable") first'


def writer(value: Any) -> Callable[[Writer, Any], Node] | None:
    """The function that writes a value of pandas; None if its type is unknown."""
    if value is pd.NaT or value is pd.NA:
        return _write_missing
    return _WRITERS.get(type(value))


# ---- frames, series, indexes


def _write_frame(writer: Writer, frame: Any) -> Node:
    dtypes = set(frame.dtypes)
    index = _index(writer, frame.index, " index")
    columns = _index(writer, frame.columns, " columns")
    if len(dtypes) == 1 and isinstance(next(iter(dtypes)), np.dtype):
        content: Node = {"block": _at(Part(" values"), writer.array, frame.to_numpy())}
    else:
        content = {
            "columns": [
                _at(Part(f" column {name!r:.60}"), _write_values, writer, frame.iloc[:, number].array)
                for number, name in enumerate(frame.columns)
            ]
        }
    return {"pandas.DataFrame": [index, columns, content, writer.inner(Part(".attrs"), frame.attrs)]}


def _read_frame(reader: Reader, node: Node) -> Any:
    index, columns, content, attrs = node
    index, columns = _read_index(reader, index), _read_index(reader, columns)
    [(form, values)] = content.items()
    if form == "block":
        array = reader.array(values)
        frame = pd.DataFrame(array, index=index, dtype=array.dtype, copy=False)
    elif form == "columns":
        read = [reader.value(one) for one in values]
        series = {number: pd.Series(one, index=index, dtype=one.dtype) for number, one in enumerate(read)}
        frame = pd.DataFrame(series, index=index)
    else:
        raise ValueError("a frame has no columns")
    frame.columns = columns
    frame.attrs = dict(reader.value(attrs))
    return frame


def _write_series(writer: Writer, series: Any) -> Node:
    values = _at(Part(" values"), _write_values, writer, series.array)
    name = writer.inner(Part(".name"), series.name)
    index = _index(writer, series.index, " index")
    return {"pandas.Series": [values, index, name, writer.inner(Part(".attrs"), series.attrs)]}


def _read_series(reader: Reader, node: Node) -> Any:
    values, index, name, attrs = node
    values, index = reader.value(values), _read_index(reader, index)
    series = pd.Series(values, index=index, dtype=values.dtype, name=reader.value(name), copy=False)
    series.attrs = dict(reader.value(attrs))
    return series


def _index(writer: Writer, index: Any, part: str) -> Node:
    return _at(Part(part), _write_index, writer, index)


def _write_index(writer: Writer, index: Any) -> Node:
    if isinstance(index, pd.MultiIndex):
        levels = [writer.node(one) for one in index.levels]
        codes = [writer.array(np.asarray(one)) for one in index.codes]
        return {"pandas.MultiIndex": [levels, codes, writer.nodes(list(index.names))]}
    name = writer.inner(Part(".name"), index.name)
    if type(index) is pd.RangeIndex:
        return {"pandas.RangeIndex": [index.start, index.stop, index.step, name]}
    freq = _freq(index) if isinstance(index, (pd.DatetimeIndex, pd.TimedeltaIndex)) else None
    return {"pandas.Index": [_write_values(writer, index.array), name, freq]}


def _freq(index: Any) -> str | None:
    """The frequency of an index as text, if pandas can read this text."""
    if index.freq is None:
        return None
    try:
        text: str = index.freqstr
        return text if pd.tseries.frequencies.to_offset(text) == index.freq else None
    except ValueError:
        return None


def _read_index(reader: Reader, node: Node) -> Any:
    found = reader.value(node)
    if not isinstance(found, pd.Index):
        raise ValueError("there is something else instead of an index")
    return found


def _read_plain_index(reader: Reader, node: Node) -> Any:
    values, name, freq = node
    values = reader.value(values)
    index: Any = pd.Index(values, dtype=values.dtype, name=reader.value(name), copy=False)
    if freq is not None:
        if not isinstance(index, (pd.DatetimeIndex, pd.TimedeltaIndex)):
            raise ValueError("an index that has no times has a frequency")
        index.freq = pd.tseries.frequencies.to_offset(freq)
    return index


def _read_range(reader: Reader, node: Node) -> Any:
    start, stop, step, name = node
    reader.count_labels(len(range(start, stop, step)))
    return pd.RangeIndex(start, stop, step, name=reader.value(name))


def _read_multi_index(reader: Reader, node: Node) -> Any:
    levels, codes, names = node
    levels = [_read_index(reader, one) for one in levels]
    return pd.MultiIndex(levels, [reader.array(one) for one in codes], names=reader.values(names))


# ---- their arrays


def _write_values(writer: Writer, values: Any) -> Node:
    """The node of an array of NumPy or pandas."""
    if isinstance(values, np.ndarray):
        return writer.node(values)
    dtype = values.dtype
    if type(values) is pd.arrays.NumpyExtensionArray or isinstance(dtype, np.dtype):  # the latter: times
        return writer.node(values.to_numpy())
    write = _ARRAYS.get(type(dtype))
    if write is None:
        hint = _DENSE if isinstance(dtype, pd.SparseDtype) else _ARROW if isinstance(dtype, pd.ArrowDtype) else ""
        raise NotWritable(f"has the dtype {dtype!s:.60}, which cannot be sent without a pickle", hint)
    return write(writer, values)


def _write_categories(writer: Writer, values: Any) -> Node:
    categories = _index(writer, values.categories, " categories")
    return {"pandas.Categorical": [writer.array(np.asarray(values.codes)), categories, bool(values.ordered)]}


def _read_categories(reader: Reader, node: Node) -> Any:
    codes, categories, is_ordered = node
    codes = reader.array(codes)
    return pd.Categorical.from_codes(codes, categories=_read_index(reader, categories), ordered=is_ordered)


def _write_datetimes(writer: Writer, values: Any) -> Node:
    return {"pandas.datetimes": [writer.array(values.tz_convert(None).to_numpy()), write_timezone(values.tz)]}


def _read_datetimes(reader: Reader, node: Node) -> Any:
    moments, zone = reader.array(node[0]), read_timezone(node[1])
    return pd.DatetimeIndex(moments).tz_localize("UTC").tz_convert(zone).array


def _write_nullable(writer: Writer, values: Any) -> Node:
    missing = np.asarray(values.isna())
    plain = values.to_numpy(values.dtype.numpy_dtype, na_value=0) if missing.any() else values.to_numpy()
    return {"pandas.nullable": [writer.array(np.asarray(plain, values.dtype.numpy_dtype)), writer.array(missing)]}


def _read_nullable(reader: Reader, node: Node) -> Any:
    values, missing = (reader.array(one) for one in node)
    kinds = {"b": pd.arrays.BooleanArray, "f": pd.arrays.FloatingArray}
    return kinds.get(values.dtype.kind, pd.arrays.IntegerArray)(values, missing)


def _write_strings(writer: Writer, values: Any) -> Node:
    is_nan = getattr(values.dtype, "na_value", pd.NA) is not pd.NA
    texts = [None if one is pd.NA or one != one else one for one in values]
    return {"pandas.strings": [values.dtype.storage, is_nan, writer.nodes(texts)]}


def _read_strings(reader: Reader, node: Node) -> Any:
    storage, is_nan, texts = node
    dtype = pd.StringDtype(storage, na_value=np.nan) if is_nan else pd.StringDtype(storage)
    found = reader.values(texts)
    if not set(map(type, found)) <= {str, type(None)}:
        raise ValueError("an array of text has something else")
    return pd.array(found, dtype=dtype)


def _write_periods(writer: Writer, values: Any) -> Node:
    return {"pandas.periods": [writer.array(values.asi8), values.freqstr]}


def _read_periods(reader: Reader, node: Node) -> Any:
    return pd.arrays.PeriodArray(reader.array(node[0]), dtype=pd.PeriodDtype(node[1]))


def _write_intervals(writer: Writer, values: Any) -> Node:
    return {"pandas.intervals": [writer.node(values.left), writer.node(values.right), values.closed]}


def _read_intervals(reader: Reader, node: Node) -> Any:
    left, right, closed = node
    return pd.arrays.IntervalArray.from_arrays(_read_index(reader, left), _read_index(reader, right), closed)


_ARRAYS: dict[type, Callable[[Writer, Any], Node]] = {
    pd.CategoricalDtype: _write_categories,
    pd.DatetimeTZDtype: _write_datetimes,
    pd.StringDtype: _write_strings,
    pd.PeriodDtype: _write_periods,
    pd.IntervalDtype: _write_intervals,
    **dict.fromkeys((pd.Int8Dtype, pd.Int16Dtype, pd.Int32Dtype, pd.Int64Dtype, pd.BooleanDtype), _write_nullable),
    **dict.fromkeys((pd.UInt8Dtype, pd.UInt16Dtype, pd.UInt32Dtype, pd.UInt64Dtype), _write_nullable),
    **dict.fromkeys((pd.Float32Dtype, pd.Float64Dtype), _write_nullable),
}


# ---- times, and what is missing


def _write_missing(_: Writer, value: Any) -> Node:
    return {"pandas.missing": "NaT" if value is pd.NaT else "NA"}


def _write_timestamp(writer: Writer, value: Any) -> Node:
    return {"pandas.Timestamp": [writer.node(value.asm8), write_timezone(value.tzinfo)]}


def _read_timestamp(reader: Reader, node: Node) -> Any:
    moment, zone = pd.Timestamp(_time(reader, node[0], np.datetime64)), read_timezone(node[1])
    return moment if zone is None else moment.tz_localize("UTC").tz_convert(zone)


def _time(reader: Reader, node: Node, kind: type) -> Any:
    found = reader.value(node)
    if not isinstance(found, kind):  # pandas would interpret text
        raise ValueError("a time is something else")
    return found


def _write_interval(writer: Writer, value: Any) -> Node:
    return {"pandas.Interval": [writer.node(value.left), writer.node(value.right), value.closed]}


def _read_interval(reader: Reader, node: Node) -> Any:
    return pd.Interval(reader.value(node[0]), reader.value(node[1]), node[2])


def _at(part: Part, write: Callable[..., Node], *arguments: Any) -> Node:
    try:
        return write(*arguments)
    except NotWritable as error:
        error.path.insert(0, part)
        raise


_INDEXES = (
    *(pd.Index, pd.RangeIndex, pd.MultiIndex, pd.DatetimeIndex, pd.TimedeltaIndex, pd.CategoricalIndex),
    *(pd.PeriodIndex, pd.IntervalIndex),
)
_EXTENSION_ARRAYS = (
    *(pd.Categorical, pd.arrays.DatetimeArray, pd.arrays.IntegerArray, pd.arrays.FloatingArray),
    *(pd.arrays.BooleanArray, pd.arrays.StringArray, pd.arrays.PeriodArray, pd.arrays.IntervalArray),
)
_WRITERS: dict[type, Callable[[Writer, Any], Node]] = {
    pd.DataFrame: _write_frame,
    pd.Series: _write_series,
    **dict.fromkeys(_INDEXES, _write_index),
    **dict.fromkeys(_EXTENSION_ARRAYS, _write_values),
    pd.Timestamp: _write_timestamp,
    pd.Timedelta: lambda writer, value: {"pandas.Timedelta": writer.node(value.asm8)},
    pd.Period: lambda writer, value: {"pandas.Period": [value.ordinal, value.freqstr]},
    pd.Interval: _write_interval,
}
READERS: dict[str, Callable[[Reader, Node], Any]] = {
    "pandas.DataFrame": _read_frame,
    "pandas.Series": _read_series,
    "pandas.Index": _read_plain_index,
    "pandas.RangeIndex": _read_range,
    "pandas.MultiIndex": _read_multi_index,
    "pandas.Categorical": _read_categories,
    "pandas.datetimes": _read_datetimes,
    "pandas.nullable": _read_nullable,
    "pandas.strings": _read_strings,
    "pandas.periods": _read_periods,
    "pandas.intervals": _read_intervals,
    "pandas.missing": lambda reader, node: {"NaT": pd.NaT, "NA": pd.NA}[node],
    "pandas.Timestamp": _read_timestamp,
    "pandas.Timedelta": lambda reader, node: pd.Timedelta(_time(reader, node, np.timedelta64)),
    "pandas.Period": lambda reader, node: pd.Period(ordinal=node[0], freq=node[1]),
    "pandas.Interval": _read_interval,
}
