"""Arrays by name: the parameters of a model, and whatever else consists of arrays."""

from __future__ import annotations

import os
from collections import Counter, OrderedDict
from collections.abc import Mapping, MutableMapping
from typing import TYPE_CHECKING, Any, cast

from fedpkg.client import arrays
from fedpkg.client.arrays import Plain
from fedpkg.records.array import Array, converted, is_array
from fedpkg.records.typed import Checked, bytes_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from fedpkg.client.mapped import File


class ArrayRecord(Checked[Array]):
    """Arrays by name, in their order.

    ``ArrayRecord(x)`` takes a dictionary of Arrays, of NumPy arrays or of PyTorch tensors (such as a ``state_dict``),
    or a list of NumPy arrays, whose names are "0", "1" and so on. What it takes is copied. Names of one tensor (tied
    weights) stay names of one tensor.

    Args:
        keep_input: False: entries are removed from the argument as they are copied, so that only one of them is in
            memory twice. The argument is empty afterwards.
    """

    def __init__(
        self,
        content: Mapping[str, Any] | list[Any] | None = None,
        /,
        *more: object,
        array_dict: Mapping[str, Array] | None = None,
        numpy_ndarrays: list[NDArray[Any]] | None = None,
        torch_state_dict: Mapping[str, Tensor] | None = None,
        keep_input: bool = True,
    ) -> None:
        super().__init__()
        if more:
            raise TypeError("the keep_input argument is keyword-only: write ArrayRecord(content, keep_input=False)")
        given = [one for one in (content, array_dict, numpy_ndarrays, torch_state_dict) if one is not None]
        if len(given) > 1:
            raise TypeError("ArrayRecord takes one argument: a dictionary of arrays or tensors, or a list of arrays")
        for one in given:
            if isinstance(one, list):
                self._take_list(one, keep_input)
            elif isinstance(one, Mapping):
                self._take_dict(one, keep_input)
            else:
                raise TypeError(
                    f"ArrayRecord: expected a dictionary of arrays or tensors, or a list of NumPy arrays, got "
                    f"{type(one).__name__}; write {_instead(one)}"
                )

    def _take_list(self, given: list[Any], keep_input: bool) -> None:
        for index, one in enumerate(given):
            if not is_array(one) or arrays.is_tensor(one):
                what = "NumPy array: write {name: tensor, …}" if is_array(one) else "NumPy array"
                raise TypeError(f"ArrayRecord: index {index}: expected a {what}, got {type(one).__name__}")
        if not keep_input:
            given.reverse()  # taking from the end moves nothing
        for index in range(len(given)):
            self[str(index)] = Array(ndarray=given[index] if keep_input else given.pop())

    def _take_dict(self, given: Mapping[str, Any], keep_input: bool) -> None:
        if not keep_input and not isinstance(given, MutableMapping):
            raise TypeError(f"keep_input=False needs a dictionary that can be emptied, not {type(given).__name__}")
        firsts: dict[object, str] = {}
        tied: dict[str, str] = {}
        kinds: dict[bool, str] = {}
        for key, value in given.items():
            self._key(key)
            if not isinstance(value, Array) and not is_array(value):
                raise TypeError(_wrong(key, value))
            kinds.setdefault(isinstance(value, Array), key)
            if len(kinds) > 1:
                other = next(iter(kinds.values()))
                raise TypeError(
                    f"ArrayRecord: Arrays and other arrays are mixed, see {other!r} and {key!r}; write Array(value)"
                )
            if arrays.is_tensor(value) and (same := _memory(value)):
                tied[key] = firsts.setdefault(same, key)
        for key in list(given):
            value = given[key] if keep_input else cast("MutableMapping[str, Any]", given).pop(key)
            first = tied.get(key, key)
            self._items[key] = self._items[first] if first != key else self._checked(key, value)

    def _checked(self, key: str, value: Any) -> Array:
        if isinstance(value, Array):
            return value
        if not is_array(value):
            raise TypeError(_wrong(key, value))
        return Array.from_plain(converted(f"ArrayRecord: key {key!r}", value))

    @classmethod
    def from_array_dict(cls, array_dict: Mapping[str, Array], *, keep_input: bool = True) -> ArrayRecord:
        """As ``ArrayRecord(array_dict)``."""
        return cls(array_dict, keep_input=keep_input)

    @classmethod
    def from_numpy_ndarrays(cls, ndarrays: list[NDArray[Any]], *, keep_input: bool = True) -> ArrayRecord:
        """As ``ArrayRecord(ndarrays)``."""
        return cls(ndarrays, keep_input=keep_input)

    @classmethod
    def from_torch_state_dict(cls, state_dict: Mapping[str, Tensor], *, keep_input: bool = True) -> ArrayRecord:
        """As ``ArrayRecord(state_dict)``."""
        return cls(state_dict, keep_input=keep_input)

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> ArrayRecord:
        """The arrays of an .npz or .safetensors file. A large file is mapped, so it must not be written to meanwhile.

        Raises:
            ClientError: If it is neither, or is damaged.
        """
        return cls({key: Array.from_plain(one) for key, one in arrays.open_file(os.fspath(path)).items()})

    def to_file(self, path: str | os.PathLike[str]) -> None:
        """Write the arrays as .safetensors if the path ends so, else as .npz. Tied arrays are written for each name.

        Raises:
            ClientError: If the format lacks a dtype: bfloat16 and float8 need .safetensors.
        """
        arrays.write(os.fspath(path), {key: one.plain() for key, one in self.items()})

    def to_numpy_ndarrays(self, *, keep_input: bool = True) -> list[np.ndarray[Any, Any]]:
        """Copies of the arrays in their order; with ``keep_input=False``, the record is empty afterwards.

        Raises:
            TypeError: If NumPy lacks a dtype (names the key).
        """
        found = []
        for key in list(self._items):
            try:
                found.append(self._items[key].numpy())
            except (TypeError, ValueError) as error:
                raise type(error)(f"ArrayRecord: key {key!r}: {error}") from error
            if not keep_input:
                del self._items[key]
        return found

    def to_torch_state_dict(self, *, keep_input: bool = True) -> OrderedDict[str, Tensor]:
        """Tensors by name, on the CPU, which may be changed without changing the record.

        Tensors of a large file are not copied: they are mapped once more, and a page is copied when it is written to.
        With ``keep_input=False``, the record is empty afterwards.
        """
        import torch  # noqa: F401  (so that an error says at once that there is none)

        found: OrderedDict[str, Tensor] = OrderedDict()
        views: dict[File, memoryview | None] = {}
        names = Counter(map(id, self._items.values()))  # tied names have one Array
        tied: dict[int, tuple[Array, Tensor]] = {}
        for key in list(self._items):
            array = self._items[key] if keep_input else self._items.pop(key)
            try:
                found[key] = tied[id(array)][1] if id(array) in tied else _own(array.plain(), views).tensor()
            except (TypeError, ValueError) as error:
                raise type(error)(f"ArrayRecord: key {key!r}: {error}") from error
            if names[id(array)] > 1:
                tied[id(array)] = array, found[key]
        return found

    def count_bytes(self) -> int:
        """The bytes of all elements and of the names in UTF-8."""
        return sum(bytes_of(key) + one.num_bytes for key, one in self._items.items())


ArrayRecord._kind = ArrayRecord


def _wrong(key: str, value: object) -> str:
    kind = type(value).__name__
    return (
        f"ArrayRecord: key {key!r}: expected an Array, a NumPy array or a tensor, got {kind}; write {_instead(value)}"
    )


def _instead(value: object) -> str:
    if isinstance(value, (tuple, set, frozenset)):
        return "list(value)"
    if hasattr(value, "state_dict"):
        return "value.state_dict()"
    if isinstance(value, (str, bytes, dict)):
        return "it into a ConfigRecord"
    return "numpy.asarray(value)" if isinstance(value, (int, float, list)) else "a dictionary {name: array}"


def _memory(tensor: Any) -> object:
    """What tensors of the same memory have in common; nothing for an empty one."""
    try:
        where = tensor.data_ptr()
    except RuntimeError:  # a sparse tensor has none
        return None
    return where and (where, tensor.device, tensor.dtype, tuple(tensor.shape), tensor.stride())


def _own(plain: Plain, views: dict[File, memoryview | None]) -> Plain:
    """The same values in memory that may be written to: mapped anew if they are part of a mapped file, else copied."""
    import numpy as np

    file = plain.file
    if file is None or not file.is_mapped:
        return plain.copy()
    if file not in views:
        views[file] = file.again()
    view = views[file]
    if view is None:
        return plain.copy()
    values = np.frombuffer(view, plain.values.dtype, plain.values.size, plain.start).reshape(plain.values.shape)
    return Plain(plain.dtype, values)
