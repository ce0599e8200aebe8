"""The values that algorithms send ⇄ bytes, to the bit, in a form that is read without running code.

The bytes are a version (one byte), the length of a header (8 bytes, little-endian), the header, and blobs, each one
padded to a multiple of 64 bytes. The header is JSON:

    {"blobs": [800, 16], "value": …}

None, booleans, text, finite floats, and integers of 64 bits are written as they are; a list is a list. All else is an
object with one key, such as ``{"tuple": […]}``, ``{"dict": [[keys], [values]]}`` or ``{"array": ["<f8", [10, 10], "C",
0]}``, where 0 is the number of the blob with the elements. Each blob belongs to one value: what is read is never much
larger than the bytes, whatever they contain. Values that share an object are written apart.

Values of pandas are in `typed_pandas`, which is imported only when there are some.
"""

from __future__ import annotations

import datetime
import importlib
import json
import math
import re
import struct
import sys
import uuid
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np

from fedpkg.analytics.places import NotWritable, Part, name_of_type
from fedpkg.client import arrays
from fedpkg.client.errors import ClientError

VERSION = 1
MAX_DEPTH = 100
_READ_DEPTH = 3 * MAX_DEPTH  # a value has up to two nodes, and those of pandas a few more
_ALIGNMENT = 64
_HEAD = struct.Struct("<BQ")
_MOST_LABELS = 1 << 24  # of ranges that are indexes, beside as many as there are bytes
_MANY = 32  # values of one type in a list, from which on they are not looked at one by one
_INLINE = 64  # bytes, up to which they are in the header
_BITS = 1 << 63
_FACTORIES = {one.__name__: one for one in (int, float, str, bool, list, dict, set, tuple)}
_DTYPE = re.compile(
    r"[|]b1|[<>|][iuf]\d{1,2}|[<>]c\d{1,2}|[|]S\d{1,9}|[<>]U\d{1,9}"
    r"|[<>][mM]8(\[\d{0,9}(Y|M|W|D|h|m|s|ms|us|ns|ps|fs|as)\])?"
)
Node = Any  # of the header's JSON


def write(value: Any) -> bytes:
    """Write a value.

    Raises:
        NotWritable: If it, or a value inside it, is of another type, or it is nested deeper than 100 levels.
    """
    writer = Writer()
    try:
        node = writer.node(value)
    except RecursionError as error:
        raise NotWritable("is nested too deep") from error
    header = {"blobs": [len(blob) for blob in writer.blobs], "value": node}
    text = json.dumps(header, allow_nan=False, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-(_HEAD.size + len(text)) % _ALIGNMENT)
    parts: list[Any] = [_HEAD.pack(VERSION, len(text)), text]
    for blob in writer.blobs:
        parts += [blob, bytes(-len(blob) % _ALIGNMENT)]
    return b"".join(parts)


def read(data: bytes | memoryview) -> Any:
    """Read what `write` wrote. Arrays are new, and can be written to.

    Raises:
        ValueError: If the bytes are damaged.
    """
    view = memoryview(data).cast("B")
    try:
        version, length = _HEAD.unpack_from(view)
        if version != VERSION:
            raise ValueError(f"it has the version {version}; a newer fedpkg may read it")
        start = _HEAD.size + length
        if start > len(view):
            raise ValueError("its header ends too early")
        header = json.loads(bytes(view[_HEAD.size : start]), parse_constant=_no_constant)
        blobs = []
        for size in header["blobs"]:
            if type(size) is not int or size < 0 or start + size > len(view):
                raise ValueError("it ends too early")
            blobs.append(view[start : start + size])
            start += size + -size % _ALIGNMENT
        reader = Reader(blobs, _MOST_LABELS + len(view))
        value = reader.value(header["value"])
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error
    except ValueError:
        raise
    except Exception as error:  # libraries can raise anything for what is no value of theirs
        raise ValueError(f"{type(error).__name__}: {error}") from error
    return value


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no number of its header")


class Writer:
    """Makes the nodes of a header, and collects the blobs."""

    def __init__(self) -> None:
        self.blobs: list[Any] = []
        self._depth = 0

    def node(self, value: Any) -> Node:
        kind = type(value)
        if value is None or kind is bool:
            return value
        if kind is str:
            return value if _is_unicode(value) else {"text": value.encode("utf-8", "surrogatepass").hex()}
        if kind is int:
            return value if -_BITS <= value < _BITS else {"int": format(value, "x")}
        if kind is float:
            return value if math.isfinite(value) else {"float": struct.pack("<d", value).hex()}
        if kind is list:
            return self.nodes(value)
        write = _WRITERS.get(kind)
        if write is None:
            write = self._of_library(value)
        return write(self, value)

    def inner(self, key: Any, value: Any) -> Node:
        """The node of a value inside another one; ``key`` is its part of a place."""
        try:
            return self.node(value)
        except NotWritable as error:
            error.path.insert(0, key)
            raise

    def nodes(self, values: Any) -> list[Node] | dict[str, Node]:
        """The nodes of a list: numbers of one type are a blob."""
        kinds = set(map(type, values)) if len(values) > _MANY else ()
        if kinds == {float}:
            return {"floats": self.blob(np.array(values, "<f8"))}
        if kinds == {int}:
            try:
                return {"ints": self.blob(np.array(values, "<i8"))}
            except OverflowError:
                pass
        if kinds == {str} and _is_unicode("".join(values)):
            return list(values)
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise NotWritable(f"is nested deeper than {MAX_DEPTH} levels, or contains itself")
        found: list[Node] = []
        try:
            for value in values:
                found.append(self.node(value))
        except NotWritable as error:
            error.path.insert(0, len(found))
            raise
        self._depth -= 1
        return found

    def dict(self, value: dict[Any, Any]) -> list[Node]:
        """The nodes of the keys, and of the values, of a dictionary."""
        keys, values = list(value), list(value.values())
        try:
            nodes = self.nodes(keys)
        except NotWritable as error:
            error.path[:1] = [Part(f" key {keys[error.path[0]]!r:.60}")] if error.path else []
            raise
        try:
            return [nodes, self.nodes(values)]
        except NotWritable as error:
            error.path[:1] = [keys[error.path[0]]] if error.path else []
            raise

    def bytes(self, value: Any) -> Node:
        return value.hex() if len(value) <= _INLINE else self.blob(np.frombuffer(value, np.uint8))

    def blob(self, values: Any) -> int:
        """The number of a new blob with the elements of an array, in its order."""
        flat = values.T.reshape(-1) if _is_fortran(values) else values.reshape(-1)
        self.blobs.append(np.ascontiguousarray(flat).view(np.uint8).data if flat.size else b"")
        return len(self.blobs) - 1

    def array(self, value: Any) -> list[Node]:
        """What is written of an array: dtype, shape, order and the number of its blob."""
        text = value.dtype.str
        if value.dtype.kind == "O":
            return ["O", list(value.shape), "C", self.nodes(value.reshape(-1).tolist())]
        if not _DTYPE.fullmatch(text) or not value.dtype.itemsize:
            hint = "send its fields as separate arrays" if value.dtype.names else "convert it with .astype(…)"
            raise NotWritable(f"is an array of the dtype {value.dtype!s:.60}, which cannot be sent", hint)
        return [text, list(value.shape), "F" if _is_fortran(value) else "C", self.blob(value)]

    def _of_library(self, value: Any) -> Callable[[Writer, Any], Node]:
        kind = type(value)
        if isinstance(value, np.generic) and kind is value.dtype.type:
            return _write_scalar
        if arrays.is_tensor(value):
            return _write_tensor
        if kind.__module__.partition(".")[0] == "pandas":
            found: Callable[[Writer, Any], Node] | None = _of_pandas().writer(value)
            if found is not None:
                return found
        base = next((one for one in kind.__mro__ if one in (int, float, str, list) or one in _WRITERS), None)
        name = "numpy.asarray" if base is np.ndarray else getattr(base, "__name__", "")
        hint = f"send {name}(…) of it" if base else ""
        raise NotWritable(f"is of the type {name_of_type(value)}, which cannot be sent without a pickle", hint)


class Reader:
    """Makes values from the nodes of a header."""

    def __init__(self, blobs: list[memoryview], most_labels: int) -> None:
        self._blobs: list[memoryview | None] = list(blobs)
        self._most_labels = most_labels
        self._depth = 0

    def value(self, node: Node) -> Any:
        if type(node) is list:
            return self.values(node)
        if type(node) is not dict:
            return node
        [(tag, content)] = node.items()
        read = _READERS.get(tag)
        if read is None:
            read = self._of_pandas(tag)
        self._depth += 1
        if self._depth > _READ_DEPTH:
            raise ValueError("it is nested too deep")
        value = read(self, content)
        self._depth -= 1
        return value

    def values(self, node: Node) -> list[Any]:
        if type(node) is not list:
            found = self.value(node)
            if type(found) is not list:
                raise ValueError("there is something else instead of a list")
            return found
        if not {dict, list} & set(map(type, node)):
            return node
        self._depth += 1
        if self._depth > _READ_DEPTH:
            raise ValueError("it is nested too deep")
        found = [self.value(one) for one in node]
        self._depth -= 1
        return found

    def pairs(self, node: Node) -> list[tuple[Any, Any]]:
        keys, values = (self.values(one) for one in node)
        if len(keys) != len(values):
            raise ValueError("a dictionary has more keys than values, or fewer")
        return list(zip(keys, values, strict=True))

    def bytes(self, node: Node) -> bytes:
        return bytes.fromhex(node) if type(node) is str else bytes(self.blob(node))

    def blob(self, number: Any) -> memoryview:
        if type(number) is not int or not 0 <= number < len(self._blobs):
            raise ValueError("a value has no blob")
        blob, self._blobs[number] = self._blobs[number], None
        if blob is None:
            raise ValueError("two values have the same blob")
        return blob

    def count_labels(self, number: int) -> None:
        """Note that a value has ``number`` labels that are not in the bytes.

        Raises:
            ValueError: They would need much more memory than the bytes.
        """
        self._most_labels -= number
        if self._most_labels < 0:
            raise ValueError("its indexes have many more labels than it has values")

    def array(self, node: Node) -> Any:
        """A new array."""
        text, shape, order, number = node
        if type(shape) is not list or not all(type(size) is int and size >= 0 for size in shape):
            raise ValueError("an array has no shape")
        if text == "O":
            objects = self.values(number)
            if math.prod(shape) != len(objects):
                raise ValueError(f"the shape {shape} does not fit {len(objects)} values")
            flat = np.empty(len(objects), object)
            for index, value in enumerate(objects):
                flat[index] = value
            return flat.reshape(shape)
        dtype = dtype_of(text)
        blob = self.blob(number)
        if math.prod(shape) * dtype.itemsize != len(blob) or order not in ("C", "F"):
            raise ValueError(f"the shape {shape} does not fit {len(blob)} bytes of {text}")
        if not len(blob):
            return np.empty(shape, dtype, order)
        values = np.frombuffer(blob, dtype)
        _check_elements(values)
        return values.reshape(shape, order=order).copy("K")

    def _of_pandas(self, tag: str) -> Callable[[Reader, Node], Any]:
        found: Callable[[Reader, Node], Any] | None = None
        if tag.startswith("pandas."):
            found = _of_pandas().READERS.get(tag)
        if found is None:
            raise ValueError(f"there is no type {tag!r:.40}")
        return found


def _of_pandas() -> Any:
    """The module for values of pandas, which imports this one."""
    return importlib.import_module("fedpkg.analytics.typed_pandas")


def dtype_of(text: Any) -> Any:
    """The dtype of an array without objects or fields.

    Raises:
        ValueError: If it is another one.
    """
    if type(text) is not str or not _DTYPE.fullmatch(text):
        raise ValueError(f"an array has the dtype {text!r:.60}")
    dtype = np.dtype(text)
    if not dtype.itemsize:
        raise ValueError("an array has elements without bytes")
    return dtype


def _check_elements(values: Any) -> None:
    kind = values.dtype.kind
    if kind == "b" and values.view(np.uint8).max() > 1:
        raise ValueError("an array of booleans has bytes other than 0 and 1")
    if kind == "U" and values.view(values.dtype.str[0] + "u4").max() > sys.maxunicode:
        raise ValueError("an array of text has what is no character")


def _is_unicode(text: str) -> bool:
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair
        return False
    return True


def _is_fortran(values: Any) -> bool:
    return bool(values.flags.f_contiguous and not values.flags.c_contiguous)


# ---- values of Python


def _write_set(writer: Writer, value: Any) -> Node:
    # In an order that does not depend on hashes, so that equal sets have equal bytes.
    ordered = sorted(value, key=lambda one: (type(one).__name__, repr(one)))
    try:
        return {type(value).__name__: writer.nodes(ordered)}
    except NotWritable as error:
        error.path[:1] = [Part(f" element {ordered[error.path[0]]!r:.60}")] if error.path else []
        raise


def _write_defaultdict(writer: Writer, value: Any) -> Node:
    name = getattr(value.default_factory, "__name__", None)
    if value.default_factory is not None and _FACTORIES.get(str(name)) is not value.default_factory:
        raise NotWritable("is a defaultdict with a function, which cannot be sent without a pickle", "write dict(…)")
    return {"defaultdict": [name, *writer.dict(value)]}


def _read_defaultdict(reader: Reader, node: Node) -> Any:
    name, *pairs = node
    return defaultdict(None if name is None else _FACTORIES[name], reader.pairs(pairs))


def _write_time(writer: Writer, value: Any) -> Node:
    numbers = [value.hour, value.minute, value.second, value.microsecond, value.fold]
    zone = write_timezone(value.tzinfo)
    if type(value) is datetime.time:
        return {"time": [*numbers, zone]}
    if zone and zone[0] == "pytz":  # its zones are objects, one for each offset
        offset = value.utcoffset()
        return {"pytz": [_write_time(writer, value.replace(tzinfo=None) - offset), zone]}
    return {"datetime": [value.year, value.month, value.day, *numbers, zone]}


def _read_datetime(_: Reader, node: Node) -> Any:
    *numbers, fold, zone = node
    year, month, day, hour, minute, second, microsecond = numbers
    zone = read_timezone(zone)
    return datetime.datetime(year, month, day, hour, minute, second, microsecond, zone, fold=fold)


def _read_pytz(reader: Reader, node: Node) -> Any:
    moment, zone = reader.value(node[0]), read_timezone(node[1])
    return zone.fromutc(moment.replace(tzinfo=zone))


def _read_time(_: Reader, node: Node) -> Any:
    hour, minute, second, microsecond, fold, zone = node
    return datetime.time(hour, minute, second, microsecond, read_timezone(zone), fold=fold)


def write_timezone(zone: Any) -> Node:
    """A time zone: None, its offset, or the library and the name of it.

    Raises:
        NotWritable: If it is a class of another library.
    """
    if zone is None:
        return None
    if type(zone) is datetime.timezone:
        offset = zone.utcoffset(None)
        own = zone.tzname(None)
        is_named = own != datetime.timezone(offset).tzname(None)
        return ["offset", offset.days, offset.seconds, offset.microseconds, own if is_named else None]
    module = type(zone).__module__.partition(".")[0]
    name = getattr(zone, "key", None) if module in ("zoneinfo", "backports") else getattr(zone, "zone", None)
    if module in ("zoneinfo", "backports", "pytz") and type(name) is str:
        return ["pytz" if module == "pytz" else "zoneinfo", name]
    if module == "pytz" and hasattr(zone, "_minutes"):
        return ["pytz", zone._minutes]
    raise NotWritable(f"has the time zone {zone!r:.60}, which cannot be sent", "convert it to UTC")


def read_timezone(node: Node) -> Any:
    if node is None:
        return None
    library, *content = node
    if library == "offset":
        *numbers, name = content
        offset = datetime.timedelta(*numbers)
        return datetime.timezone(offset) if name is None else datetime.timezone(offset, name)
    [name] = content
    if library == "zoneinfo":
        import zoneinfo

        try:
            return zoneinfo.ZoneInfo(name)
        except (OSError, zoneinfo.ZoneInfoNotFoundError) as error:
            raise ValueError(f"there is no time zone {name!r:.60}") from error
    if library != "pytz":
        raise ValueError(f"there is no library {library!r:.40} of time zones")
    import pytz

    if type(name) is int:
        return pytz.FixedOffset(name)
    try:
        return pytz.timezone(name)
    except pytz.UnknownTimeZoneError as error:
        raise ValueError(f"there is no time zone {name!r:.60}") from error


def _read_fraction(reader: Reader, node: Node) -> Any:
    parts = reader.values(node)
    if [type(one) for one in parts] != [int, int]:  # a text may have an exponent, which takes hours
        raise ValueError("a fraction is no two integers")
    return Fraction(*parts)


# ---- values of NumPy and PyTorch


def _write_scalar(writer: Writer, value: Any) -> Node:
    if isinstance(value, (str, bytes)):
        inner = writer.node(str(value)) if isinstance(value, str) else {"bytes": writer.bytes(bytes(value))}
        return {"scalar": ["U" if isinstance(value, str) else "S", inner]}
    if not _DTYPE.fullmatch(value.dtype.str):
        raise NotWritable(f"is a value of the dtype {value.dtype!s:.60}, which cannot be sent")
    return {"scalar": [value.dtype.str, value.tobytes().hex()]}


def _read_scalar(reader: Reader, node: Node) -> Any:
    text, content = node
    if text in ("U", "S"):
        value = reader.value(content)
        kind: Any = np.str_ if text == "U" else np.bytes_
        if type(value) is not (str if text == "U" else bytes):
            raise ValueError("a text of NumPy is something else")
        return kind(value)
    dtype, data = dtype_of(text), bytes.fromhex(content)
    if len(data) != dtype.itemsize:
        raise ValueError(f"{len(data)} bytes are no {text}")
    values = np.frombuffer(data, dtype)
    _check_elements(values)
    return values[0]


def _write_array(writer: Writer, value: Any) -> Node:
    return {"array": writer.array(value)}


def _write_tensor(writer: Writer, value: Any) -> Node:
    import torch

    if type(value) not in (torch.Tensor, torch.nn.Parameter):
        raise NotWritable(
            f"is of the type {name_of_type(value)}, which cannot be sent", "send .as_subclass(torch.Tensor)"
        )
    try:
        one = arrays.plain("", value)
    except ClientError as error:
        raise NotWritable(error.message.replace("tensor '' ", ""), error.hint) from error
    kind = "parameter" if type(value) is torch.nn.Parameter else "tensor"
    return {kind: [one.dtype, list(value.shape), value.requires_grad, writer.blob(one.values)]}


def _tensor(reader: Reader, node: Node) -> tuple[Any, bool]:
    name, shape, has_grad, number = node
    if (name not in arrays.NUMPY and name not in arrays.BITS) or type(has_grad) is not bool:
        raise ValueError(f"a tensor has the dtype {name!r:.40}")
    bits = np.dtype(arrays.BITS.get(name, name)).str
    return arrays.Plain(name, reader.array([bits, shape, "C", number])).tensor(), has_grad


def _read_tensor(reader: Reader, node: Node) -> Any:
    value, has_grad = _tensor(reader, node)
    return value.requires_grad_() if has_grad else value


def _read_parameter(reader: Reader, node: Node) -> Any:
    import torch

    value, has_grad = _tensor(reader, node)
    return torch.nn.Parameter(value, requires_grad=has_grad)


_WRITERS: dict[type, Callable[[Writer, Any], Node]] = {
    tuple: lambda writer, value: {"tuple": writer.nodes(value)},
    dict: lambda writer, value: {"dict": writer.dict(value)},
    OrderedDict: lambda writer, value: {"OrderedDict": writer.dict(value)},
    Counter: lambda writer, value: {"Counter": writer.dict(value)},
    defaultdict: _write_defaultdict,
    set: _write_set,
    frozenset: _write_set,
    bytes: lambda writer, value: {"bytes": writer.bytes(value)},
    bytearray: lambda writer, value: {"bytearray": writer.bytes(value)},
    complex: lambda writer, value: {"complex": struct.pack("<dd", value.real, value.imag).hex()},
    range: lambda writer, value: {"range": writer.nodes([value.start, value.stop, value.step])},
    datetime.datetime: _write_time,
    datetime.time: _write_time,
    datetime.date: lambda writer, value: {"date": [value.year, value.month, value.day]},
    datetime.timedelta: lambda writer, value: {"timedelta": [value.days, value.seconds, value.microseconds]},
    Decimal: lambda writer, value: {"decimal": str(value)},
    Fraction: lambda writer, value: {"fraction": writer.nodes([value.numerator, value.denominator])},
    uuid.UUID: lambda writer, value: {"uuid": value.hex},
    np.ndarray: _write_array,
}

_READERS: dict[str, Callable[[Reader, Node], Any]] = {
    "text": lambda reader, node: bytes.fromhex(node).decode("utf-8", "surrogatepass"),
    "int": lambda reader, node: int(node, 16),
    "float": lambda reader, node: struct.unpack("<d", bytes.fromhex(node))[0],
    "floats": lambda reader, node: np.frombuffer(reader.blob(node), "<f8").tolist(),
    "ints": lambda reader, node: np.frombuffer(reader.blob(node), "<i8").tolist(),
    "tuple": lambda reader, node: tuple(reader.values(node)),
    "dict": lambda reader, node: dict(reader.pairs(node)),
    "OrderedDict": lambda reader, node: OrderedDict(reader.pairs(node)),
    "Counter": lambda reader, node: Counter(dict(reader.pairs(node))),
    "defaultdict": _read_defaultdict,
    "set": lambda reader, node: set(reader.values(node)),
    "frozenset": lambda reader, node: frozenset(reader.values(node)),
    "bytes": lambda reader, node: reader.bytes(node),
    "bytearray": lambda reader, node: bytearray(reader.bytes(node)),
    "complex": lambda reader, node: complex(*struct.unpack("<dd", bytes.fromhex(node))),
    "range": lambda reader, node: range(*reader.values(node)),
    "datetime": _read_datetime,
    "pytz": _read_pytz,
    "time": _read_time,
    "date": lambda reader, node: datetime.date(*node),
    "timedelta": lambda reader, node: datetime.timedelta(*node),
    "decimal": lambda reader, node: Decimal(node),
    "fraction": _read_fraction,
    "uuid": lambda reader, node: uuid.UUID(hex=node),
    "scalar": _read_scalar,
    "array": lambda reader, node: reader.array(node),
    "tensor": _read_tensor,
    "parameter": _read_parameter,
}
