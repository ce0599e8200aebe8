"""RecordDict ⇄ records file, to the bit.

Each ArrayRecord is a set of the file (docs/reference/records.md), so that it can be mapped and combined without this
module. The JSON document has the rest:

    {"message_app": 1,
     "records": [{"name": "arrays", "kind": "arrays"}, {"name": "config", "kind": "config", "values": {"lr": 0.1}}],
     "message": {…}}

What JSON or the format lacks is marked there:

- A value is an object instead: ``{"%bytes": base64}``, ``{"%text": base64}`` for a text that is no valid Unicode,
  ``{"%float": hex}`` for NaN and the infinities, by their bits. Large values are arrays of a set that is called as
  their record: ``{"%array": "bytes" | "text" | "list"}``.
- An arrays record has ``names``, all its names in order, if there are tied ones, and in ``tied`` for each name the one
  whose array it shares; ``forms`` has dtype, shape and stype of arrays whose bits are stored as another dtype.
"""

from __future__ import annotations

import base64
import math
import os
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np

from fedpkg.client.arrays import BITS, Plain, can_hold
from fedpkg.client.errors import ClientError
from fedpkg.client.records import Records, open_records, write_records
from fedpkg.records.array import STYPE, Array, frozen
from fedpkg.records.array_record import ArrayRecord
from fedpkg.records.record_dict import RecordDict
from fedpkg.records.value_records import BIGGEST, SMALLEST, ConfigRecord, MetricRecord

VERSION = 1
_KINDS = {"arrays": ArrayRecord, "metrics": MetricRecord, "config": ConfigRecord}
_LARGE_BYTES, _LARGE_LIST = 1024, 256  # what is larger is stored as an array


def write_content(
    path: str | os.PathLike[str], content: RecordDict, *, message: Mapping[str, Any] | None = None
) -> None:
    """Write a RecordDict atomically: as .safetensors if the path ends so, else as .npz. Equal content, equal bytes.

    Args:
        message: JSON about it, which `read_content` returns.

    Raises:
        ClientError: If there are more than 65535 arrays, or a name is no valid Unicode.
    """
    path = os.fspath(path)
    write_records(path, to_records(content, suffix=os.path.splitext(path)[1], message=message))


def read_content(
    path: str | os.PathLike[str], part: tuple[int, int] | None = None
) -> tuple[RecordDict, Mapping[str, Any]]:
    """The RecordDict of a file, and the JSON about it. Arrays of a large file are mapped: it must not be written to.

    ``part`` is the offset and length of a part of the file that has them.

    Raises:
        ClientError: If the file cannot be read, or contains something else.
    """
    path = os.fspath(path)
    try:
        return from_records(open_records(path, part))
    except ClientError as error:
        message = error.message if error.message.startswith(path) else f"{path}: {error.message}"
        raise ClientError(message, error.hint) from error


def to_records(content: RecordDict, *, suffix: str = ".npz", message: Mapping[str, Any] | None = None) -> Records:
    """The sets and the JSON for a file with this suffix; arrays are not copied."""
    sets: dict[str, dict[str, Plain]] = {}
    records = []
    for name, record in content.items():
        kind = next(kind for kind, one in _KINDS.items() if isinstance(record, one))
        entry: dict[str, Any] = {"name": name, "kind": kind}
        if isinstance(record, ArrayRecord):
            sets[name] = _stored_arrays(record, suffix, entry)
        else:
            large: dict[str, Plain] = {}
            entry["values"] = {
                key: _stored(key, record._checked(key, value), large)  # lists may have been changed
                for key, value in record.items()
            }
            if large:
                sets[name] = large
        records.append(entry)
    data: dict[str, Any] = {"message_app": VERSION, "records": records}
    return Records(sets, data if message is None else {**data, "message": dict(message)})


def from_records(records: Records) -> tuple[RecordDict, Mapping[str, Any]]:
    """The inverse of `to_records`, for `fedpkg.client.records.open_records`.

    Raises:
        ClientError: If these records are not those of a message app, or are damaged.
    """
    data = records.data
    if not isinstance(data, dict) or "message_app" not in data:
        raise ClientError("these records are not the content of a message", "an app's client must have written them")
    if data["message_app"] != VERSION:
        found = str(data["message_app"])[:20]
        raise ClientError(f"the content of the message has version {found}", "a newer version of fedpkg may read it")
    content = RecordDict()
    name = ""
    try:
        message = data.get("message", {})
        if not isinstance(message, dict):
            raise TypeError("what is said about the message is no object")
        for entry in data["records"]:
            name = entry["name"]
            if name in content:
                raise ValueError("it is there twice")
            stored = records.sets.get(name, {})
            if entry["kind"] == "arrays":
                content[name] = _arrays(stored, entry)
            else:
                values = {key: _loaded(key, value, stored) for key, value in entry["values"].items()}
                content[name] = _KINDS[entry["kind"]](values)
    except (KeyError, TypeError, ValueError, AttributeError, struct.error) as error:
        where = f"record {name!r:.80}" if name else "its records"
        raise ClientError(f"the content of the message is damaged: {where}: {type(error).__name__}: {error}") from error
    return content, message


# ---- arrays


def _stored_arrays(record: ArrayRecord, suffix: str, entry: dict[str, Any]) -> dict[str, Plain]:
    stored: dict[str, Plain] = {}
    tied: dict[str, str] = {}
    forms: dict[str, list[Any]] = {}
    firsts: dict[int, str] = {}
    for key, array in record.items():
        if (first := firsts.setdefault(id(array), key)) != key:
            tied[key] = first
            continue
        one, form = _stored_array(array, suffix)
        stored[key] = one
        if form:
            forms[key] = form
    if tied:
        entry.update(names=list(record), tied=tied)
    if forms:
        entry["forms"] = forms
    return stored


def _stored_array(array: Array, suffix: str) -> tuple[Plain, list[Any]]:
    """What is stored for an array, and what must be known to restore it."""
    if array.stype != STYPE:
        return Plain("uint8", np.frombuffer(array.data, np.uint8)), [array.dtype, list(array.shape), array.stype]
    one = array.plain()
    if can_hold(suffix, one.dtype):
        return one, []
    bits = BITS.get(one.dtype, "uint8")  # such as complex128 in a .safetensors file
    values = one.values if one.dtype in BITS else one.values.reshape(-1).view(np.uint8)
    return Plain(bits, values), [one.dtype, list(array.shape)]


def _arrays(stored: Mapping[str, Plain], entry: Mapping[str, Any]) -> ArrayRecord:
    forms, tied = entry.get("forms", {}), entry.get("tied", {})
    found = {key: _array(one, forms.get(key)) for key, one in stored.items()}
    return ArrayRecord({key: found[tied.get(key, key)] for key in entry.get("names", found)})


def _array(one: Plain, form: list[Any] | None) -> Array:
    if form is None:
        return Array.from_plain(one)
    dtype, shape, *stype = form
    if stype:
        return Array(dtype, shape, stype[0], one.values.tobytes())
    bits = BITS.get(dtype, dtype)
    if one.dtype not in (bits, "uint8"):
        raise ValueError(f"{dtype!r:.40} is stored as {one.dtype}")
    values = one.values.reshape(-1).view(np.dtype(bits)).reshape(shape)
    if not values.flags.aligned:
        return Array.from_plain(Plain(dtype, frozen(values.copy())))
    return Array.from_plain(one._replace(dtype=dtype, values=values))


# ---- values


def _stored(key: str, value: Any, large: dict[str, Plain]) -> Any:
    if isinstance(value, list):
        if len(value) > _LARGE_LIST and (dtype := _dtype_of(value)):
            large[key] = Plain(dtype, np.array(value, dtype))
            return {"%array": "list"}
        return [_stored("", one, {}) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        return {"%float": struct.pack(">d", value).hex()}
    if not isinstance(value, (str, bytes)):
        return value
    mark, content = ("bytes", value) if isinstance(value, bytes) else ("text", value.encode("utf-8", "surrogatepass"))
    if key and len(content) > _LARGE_BYTES:
        large[key] = Plain("uint8", np.frombuffer(content, np.uint8))
        return {"%array": mark}
    if isinstance(value, str) and _is_unicode(value):
        return value
    return {f"%{mark}": base64.b64encode(content).decode()}


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair
        return False
    return True


def _dtype_of(values: list[Any]) -> str:
    """The dtype of an array that has all values of a list; none if it must be stored as JSON."""
    if type(values[0]) is float:
        return "float64"
    if type(values[0]) is bool:
        return "bool"
    if type(values[0]) is not int:
        return ""
    if max(values) < 2**63:
        return "int64" if min(values) >= SMALLEST else ""
    return "uint64" if min(values) >= 0 and max(values) <= BIGGEST else ""


def _loaded(key: str, value: Any, stored: Mapping[str, Plain]) -> Any:
    if isinstance(value, list):
        return [_loaded(key, one, {}) for one in value]
    if not isinstance(value, dict):
        return value
    [(mark, what)] = value.items()
    if mark == "%float":
        return struct.unpack(">d", bytes.fromhex(what))[0]
    if mark == "%array":
        values = stored[key].values
        if what == "list":
            return values.tolist()
        mark, content = f"%{what}", values.tobytes()
    else:
        content = base64.b64decode(what, validate=True)
    if mark not in ("%bytes", "%text"):
        raise ValueError(f"{key!r:.80} has the unknown mark {mark!r:.40}")
    return content if mark == "%bytes" else content.decode("utf-8", "surrogatepass")
