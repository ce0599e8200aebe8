"""Types of the older form of message apps, whose parameters are lists of NumPy arrays."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

Scalar = bool | bytes | float | int | str
Metrics = dict[str, Scalar]
MetricsAggregationFn = Callable[[list[tuple[int, Metrics]]], Metrics]
Config = dict[str, Scalar]
Properties = dict[str, Scalar]
NDArray = Any  # numpy.ndarray; this module works without NumPy
NDArrayFloat = NDArrayInt = NDArray
NDArrays = list[NDArray]
UserConfigValue = bool | float | int | str
UserConfig = dict[str, UserConfigValue]
MetricScalar = int | float
MetricScalarList = list[int] | list[float]
MetricRecordValues = MetricScalar | MetricScalarList
ConfigScalar = MetricScalar | str | bytes | bool
ConfigScalarList = MetricScalarList | list[str] | list[bytes] | list[bool]
ConfigRecordValues = ConfigScalar | ConfigScalarList
ClientAppCallable = Callable[[Any, Any], Any]  # (Message, Context) -> Message
Mod = Callable[[Any, Any, ClientAppCallable], Any]


class Code(Enum):
    """The outcome of a call in the older form."""

    OK = 0
    GET_PROPERTIES_NOT_IMPLEMENTED = 1
    GET_PARAMETERS_NOT_IMPLEMENTED = 2
    FIT_NOT_IMPLEMENTED = 3
    EVALUATE_NOT_IMPLEMENTED = 4


@dataclass
class Status:
    code: Code
    message: str


@dataclass
class Parameters:
    """Arrays, each in the bytes of a ``.npy`` file."""

    tensors: list[bytes]
    tensor_type: str = "numpy.ndarray"


@dataclass
class FitIns:
    parameters: Parameters
    config: dict[str, Scalar] = field(default_factory=dict)


@dataclass
class FitRes:
    status: Status
    parameters: Parameters
    num_examples: int
    metrics: dict[str, Scalar] = field(default_factory=dict)


@dataclass
class EvaluateIns:
    parameters: Parameters
    config: dict[str, Scalar] = field(default_factory=dict)


@dataclass
class EvaluateRes:
    status: Status
    loss: float
    num_examples: int
    metrics: dict[str, Scalar] = field(default_factory=dict)


def ndarrays_to_parameters(ndarrays: Sequence[NDArray]) -> Parameters:
    """The arrays as `Parameters`. Raises ValueError: an array holds objects."""
    return Parameters([ndarray_to_bytes(array) for array in ndarrays])


def parameters_to_ndarrays(parameters: Parameters) -> NDArrays:
    """The arrays of `Parameters`."""
    return [bytes_to_ndarray(tensor) for tensor in parameters.tensors]


def ndarray_to_bytes(ndarray: NDArray) -> bytes:
    """An array as the bytes of a ``.npy`` file. Raises ValueError: it holds objects."""
    import numpy as np

    file = io.BytesIO()
    np.save(file, ndarray, allow_pickle=False)
    return file.getvalue()


def bytes_to_ndarray(tensor: bytes) -> NDArray:
    """The array in the bytes of a ``.npy`` file."""
    import numpy as np

    return np.load(io.BytesIO(tensor), allow_pickle=False)
