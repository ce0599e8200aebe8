"""Records of plain values: MetricRecord and ConfigRecord."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from typing import Any, cast

from fedpkg.records.typed import Checked, bytes_of

SMALLEST, BIGGEST = -(2**63), 2**64 - 1


class _Values(Checked[Any]):
    _types: tuple[type, ...]

    def __init__(self, content: Mapping[str, Any] | None = None, keep_input: bool = True) -> None:
        super().__init__()
        if content is None:
            return
        if not isinstance(content, Mapping):
            raise TypeError(f"{self._name}: expected a dictionary, got {type(content).__name__}; write {{name: value}}")
        for key, value in content.items():
            self[key] = value
        if not keep_input:
            cast("MutableMapping[str, Any]", content).clear()

    def _checked(self, key: str, value: Any) -> Any:
        where = f"{self._name}: key {key!r}"
        value = _plain(value)
        if isinstance(value, list):
            return _list(where, value, self._types)
        if type(value) not in self._types:
            names = ", ".join(one.__name__ for one in self._types)
            raise TypeError(
                f"{where}: expected {names}, or a list of one of these, got {_shown(value)}; {_instead(value)}"
            )
        _check_range(where, value)
        return value

    def count_bytes(self) -> int:
        """The bytes of all values (8 for a number, 1 for a boolean, texts in UTF-8) and of the names in UTF-8."""
        total = 0
        for key, value in self._items.items():
            total += bytes_of(key) + sum(map(_size, value if isinstance(value, list) else [value]))
        return total


class MetricRecord(_Values):
    """Numbers by name: int, float, or lists with one of these types.

    NumPy scalars and tensors without dimensions become plain numbers, arrays and tensors with one dimension become
    lists. bool is refused, as are integers that do not fit into 64 bits.
    """

    _types = (int, float)

    def __init__(self, metric_dict: Mapping[str, Any] | None = None, keep_input: bool = True) -> None:
        super().__init__(metric_dict, keep_input)


class ConfigRecord(_Values):
    """Settings by name: int, float, bool, str, bytes, or lists with one of these types.

    NumPy scalars and tensors without dimensions become plain values, arrays and tensors with one dimension become
    lists. None and dictionaries are refused, as are integers that do not fit into 64 bits.
    """

    _types = (int, float, bool, str, bytes)

    def __init__(self, config_dict: Mapping[str, Any] | None = None, keep_input: bool = True) -> None:
        super().__init__(config_dict, keep_input)


MetricRecord._kind, ConfigRecord._kind = MetricRecord, ConfigRecord


def _plain(value: Any) -> Any:
    """The plain value of a subclass (an IntEnum), a NumPy scalar, or an array or tensor of at most 1 dimension."""
    if type(value) in (int, float, bool, str, bytes, list):
        return value
    dtype = getattr(getattr(value, "dtype", None), "kind", "")
    dimensions = getattr(value, "ndim", None)
    if dimensions in (0, 1) and dtype not in ("M", "m", "O", "V"):  # dates would become numbers
        value = value.item() if dimensions == 0 else value.tolist()
    if isinstance(value, float):
        return float(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return int(value)
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, bytes):
        return bytes(value)
    if dtype == "f" and dimensions == 0:  # numpy.longdouble, whose item() is one again
        return float(value)
    return value


def _list(where: str, values: list[Any], types: tuple[type, ...]) -> list[Any]:
    kinds = set(map(type, values))
    if len(kinds) > 1 or not kinds <= set(types):
        values = [_plain(one) for one in values]
    first = type(values[0]) if values else None
    for index, one in enumerate(values) if len(set(map(type, values))) > 1 or first not in types else ():
        if type(one) not in types:
            names = ", ".join(each.__name__ for each in types)
            raise TypeError(f"{where}, index {index}: expected {names}, got {_shown(one)}; {_instead(one)}")
        if type(one) is not first:
            both = {first, type(one)}
            write = "write floats only: [float(x) for x in values]" if both == {int, float} else "use one key for each"
            raise TypeError(
                f"{where}, index {index}: a list has values of one type; the first is {values[0].__class__.__name__}, "
                f"this one is {type(one).__name__} ({one!r:.60}); {write}"
            )
    if first is int:
        for index, one in enumerate(values) if not SMALLEST <= min(values) <= max(values) <= BIGGEST else ():
            _check_range(f"{where}, index {index}", one)
    return list(values)


def _check_range(where: str, value: Any) -> None:
    if type(value) is int and not SMALLEST <= value <= BIGGEST:
        raise ValueError(
            f"{where}: an integer of {value.bit_length()} bits does not fit into 64; write float(value), or a text"
        )


def _shown(value: object) -> str:
    if value is None:
        return "None"
    shape = getattr(value, "shape", None)
    return f"{type(value).__name__} " + (f"({value!r:.60})" if not shape else f"of shape {tuple(shape)}")


def _instead(value: object) -> str:
    if isinstance(value, bool):
        return "write int(value), or put it into a ConfigRecord"
    if isinstance(value, (tuple, set, frozenset)):
        return "write list(value)"
    if value is None:
        return "leave the key out"
    if isinstance(value, dict):
        return "give each of its values a key, such as 'optimizer.lr'"
    if isinstance(value, (bytearray, memoryview)):
        return "write bytes(value)"
    if isinstance(value, (str, bytes)):
        return "put it into a ConfigRecord"
    if hasattr(value, "ndim") or isinstance(value, list):
        return "put arrays into an ArrayRecord"
    return "write float(value), or put text into a ConfigRecord"


def _size(value: Any) -> int:
    if isinstance(value, str):
        return bytes_of(value)
    return len(value) if isinstance(value, bytes) else 1 if isinstance(value, bool) else 8
