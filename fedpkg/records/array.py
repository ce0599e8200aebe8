"""One array: its dtype and shape, and its elements as they are in memory or in a mapped file."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from fedpkg.client import arrays
from fedpkg.client.arrays import BITS, Plain
from fedpkg.client.errors import ClientError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

STYPE = "numpy.ndarray"


class Array:
    """An array that does not change.

    ``Array(ndarray)`` and ``Array(tensor)`` copy their argument. ``Array(dtype, shape, stype, data)`` has the bytes of
    a .npy file if ``stype`` is ``"numpy.ndarray"``; the bytes of any other ``stype`` are carried along as they are.

    Arrays are equal if dtype, shape, stype and all bits are: NaN equals NaN, and 0.0 does not equal -0.0. They have no
    hash, as it would have to read all elements.

    Attributes:
        dtype: NumPy's name ("float32"), or PyTorch's if NumPy lacks the dtype ("bfloat16").
        shape: The sizes of the dimensions.
        stype: The form of ``data``.
    """

    __hash__ = None  # type: ignore[assignment]
    __slots__ = ("_data", "_plain", "dtype", "shape", "stype")

    dtype: str
    shape: tuple[int, ...]
    stype: str
    _data: bytes | None
    _plain: Plain | None

    def __init__(
        self,
        dtype: str | NDArray[Any] | Tensor | None = None,
        shape: Sequence[int] | None = None,
        stype: str | None = None,
        data: bytes | None = None,
        *,
        ndarray: NDArray[Any] | None = None,
        torch_tensor: Tensor | None = None,
    ) -> None:
        given = [one for one in (dtype, ndarray, torch_tensor) if one is not None]
        parts = (shape, stype, data)
        if len(given) != 1:
            raise TypeError(_FORMS)
        if isinstance(dtype, str):
            if not (isinstance(shape, Sequence) and isinstance(stype, str) and isinstance(data, bytes)):
                raise TypeError(_FORMS)
            if not all(isinstance(size, (int, np.integer)) and size >= 0 for size in shape):
                raise TypeError(f"shape must consist of integers from 0 on, not {shape!r}")
            self._fill(dtype, tuple(int(size) for size in shape), stype, None, data)
        elif any(one is not None for one in parts):
            raise TypeError(_FORMS)
        else:
            one = converted("Array", given[0])
            self._fill(one.dtype, one.values.shape, STYPE, one, None)

    def _fill(self, dtype: str, shape: tuple[int, ...], stype: str, plain: Plain | None, data: bytes | None) -> None:
        for name, value in zip(self.__slots__, (data, plain, dtype, shape, stype), strict=True):
            object.__setattr__(self, name, value)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"an Array does not change; to have another {name}, make a new one: Array(ndarray)")

    @classmethod
    def from_plain(cls, plain: Plain) -> Array:
        """An array that has these values, which are not copied and must not change any more."""
        self = cls.__new__(cls)
        self._fill(plain.dtype, plain.values.shape, STYPE, plain, None)
        return self

    @classmethod
    def from_numpy_ndarray(cls, ndarray: NDArray[Any]) -> Array:
        """A copy of an array of numbers or booleans."""
        return cls(ndarray=ndarray)

    @classmethod
    def from_torch_tensor(cls, tensor: Tensor) -> Array:
        """A copy of a tensor, of any dense dtype, on any device."""
        return cls(torch_tensor=tensor)

    @property
    def data(self) -> bytes:
        """The bytes of a .npy file; if NumPy lacks the dtype, it has the bits as unsigned integers."""
        if self._data is not None:
            return self._data
        file = io.BytesIO()
        np.lib.format.write_array(file, self.plain().values, allow_pickle=False)
        return file.getvalue()

    def plain(self) -> Plain:
        """The values, not copied and read-only.

        Raises:
            TypeError: If the array has another ``stype`` than NumPy's.
            ValueError: If ``data``, given as bytes, is no .npy file of this dtype and shape.
        """
        if self._plain is None:
            object.__setattr__(self, "_plain", self._decoded(self._data or b""))
        return cast("Plain", self._plain)

    def _readable(self) -> Plain | None:
        """The values; None if ``data`` has another form or is damaged."""
        try:
            return self.plain()
        except (TypeError, ValueError):
            return None

    def _decoded(self, data: bytes) -> Plain:
        if self.stype != STYPE:
            raise TypeError(f"an Array of stype {self.stype!r} cannot be converted; only {STYPE!r} can")
        try:
            values = np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)
            if (values.dtype, values.shape) != (np.dtype(BITS.get(self.dtype, self.dtype)), self.shape):
                raise ValueError(f"it has {values.dtype} of shape {values.shape}")
        except Exception as error:  # damaged text can raise any error of Python's tokenizer and compiler
            about = f"dtype {self.dtype!r} and shape {self.shape}"
            raise ValueError(f"data is not the bytes of a .npy file of {about}: {error}") from error
        return Plain(self.dtype, frozen(np.asarray(values, order="C")))

    def numpy(self) -> NDArray[Any]:
        """A copy, which may be changed.

        Raises:
            TypeError: If NumPy lacks the dtype, or the array has another ``stype`` than NumPy's.
        """
        dtype, values = self.plain()[:2]
        copy: NDArray[Any] = values.copy()
        if dtype not in BITS:
            return copy
        try:
            return copy.view(np.dtype(dtype))  # which NumPy knows once ml_dtypes is imported
        except TypeError:
            raise TypeError(
                f"NumPy has no {dtype}: use ArrayRecord.to_torch_state_dict(), or convert the tensor before it becomes "
                "an Array: tensor.float()"
            ) from None

    @property
    def num_bytes(self) -> int:
        """The size of the elements in bytes; that of ``data`` if it cannot be read."""
        one = self._readable()
        return len(self.data) if one is None else int(one.values.nbytes)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Array):
            return NotImplemented
        if (self.dtype, self.shape, self.stype) != (other.dtype, other.shape, other.stype):
            return False
        mine, others = self._readable(), other._readable()
        if mine is None or others is None:
            return self.data == other.data
        bits, other_bits = (one.values.reshape(-1).view(np.uint8) for one in (mine, others))
        return self is other or bool(np.array_equal(bits, other_bits))

    def __repr__(self) -> str:
        return f"Array(dtype={self.dtype!r}, shape={self.shape}, stype={self.stype!r}, {self.num_bytes} bytes)"

    def __copy__(self) -> Array:
        return self

    def __deepcopy__(self, memo: object) -> Array:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        if self._data is not None:
            return Array, (self.dtype, self.shape, self.stype, self._data)
        return _restored, (self.dtype, self.plain().values)


_FORMS = (
    "an Array is made of one NumPy array, Array(ndarray); of one PyTorch tensor, Array(tensor); "
    'or of all four of Array(dtype="float32", shape=(3, 3), stype="numpy.ndarray", data=b"…")'
)


def _restored(dtype: str, values: NDArray[Any]) -> Array:
    return Array.from_plain(Plain(dtype, frozen(values)))


def frozen(values: NDArray[Any]) -> NDArray[Any]:
    """The same array, read-only."""
    values.flags.writeable = False
    return values


def is_array(value: object) -> bool:
    """Whether an Array can be made of the value: a NumPy array or scalar, or a PyTorch tensor."""
    return isinstance(value, (np.ndarray, np.generic)) or arrays.is_tensor(value)


def converted(where: str, value: object) -> Plain:
    """A copy of a NumPy array or a tensor.

    Raises:
        TypeError: If it is something else, or does not consist of numbers.
    """
    if not is_array(value):
        kind = type(value).__name__
        raise TypeError(f"{where}: expected a NumPy array or a PyTorch tensor, got {kind}; write numpy.asarray(value)")
    try:
        one = arrays.plain("value", value)
    except ClientError as error:
        message = error.message.replace("tensor 'value'", "the tensor").replace("'value'", "the value")
        raise TypeError(f"{where}: {message}" + (f"; {error.hint}" if error.hint else "")) from error
    address = value.ctypes.data if isinstance(value, np.ndarray) else getattr(value, "data_ptr", int)()
    is_copy = one.values.ctypes.data != address  # made when it was converted, such as from a GPU
    return Plain(one.dtype, frozen(one.values if is_copy else one.values.copy()))
