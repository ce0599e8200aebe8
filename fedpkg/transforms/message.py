"""A message on its way through transforms: the floating parameters as one vector, and the other tensors unchanged."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor

from fedpkg.errors import ModelFileError
from fedpkg.formats.mapped import MappedFile
from fedpkg.formats.safetensors import dump_safetensors, load_safetensors
from fedpkg.transforms.stage import Stage
from fedpkg.types import Json
from fedpkg.weights.weights import Weights, dtype_name

_VALUES, _PART, _REST, _FACTS = "values", "part/", "rest/", "facts"


@dataclass(frozen=True)
class Message:
    """An update, or a model, on its way.

    Args:
        values: (n,) floating: at first all parameters, one after another, then the output of the transforms.
        parts: named tensors that are needed to undo the transforms.
        rest: buffers and integers, which are sent unchanged.
        facts: numbers for the method, such as whether the update was clipped.
    """

    values: Tensor
    parts: Mapping[str, Tensor] = field(default_factory=dict)
    rest: Mapping[str, Tensor] = field(default_factory=dict)
    facts: Mapping[str, Json] = field(default_factory=dict)

    def replace(self, values: Tensor, **parts: Tensor) -> Message:
        """The same message with other values and additional parts."""
        return dataclasses.replace(self, values=values, parts={**self.parts, **parts})

    def saying(self, **facts: Json) -> Message:
        return dataclasses.replace(self, facts={**self.facts, **facts})

    def part(self, name: str, dtype: torch.dtype, shape: tuple[int, ...]) -> Tensor:
        """A part, checked.

        Raises:
            ModelFileError: it is missing, or has another dtype or shape.
        """
        return fitting(self.parts.get(name), dtype, shape, f"the part '{name}'")

    def numbers(self, dtype: torch.dtype, shape: tuple[int, ...]) -> Tensor:
        """The values, checked. Raises ModelFileError: they have another dtype or shape."""
        return fitting(self.values, dtype, shape, "the values")


def fitting(tensor: Tensor | None, dtype: torch.dtype, shape: tuple[int, ...], what: str) -> Tensor:
    """The tensor, if it has this dtype and shape. Raises ModelFileError otherwise."""
    if tensor is None or tensor.dtype != dtype or tuple(tensor.shape) != shape:
        found = "nothing" if tensor is None else f"{dtype_name(tensor)} {tuple(tensor.shape)}"
        wanted = f"{str(dtype).removeprefix('torch.')} {shape}"
        raise ModelFileError(f"what was sent does not fit the transforms: {what} should be {wanted}, found {found}")
    return tensor


@dataclass(frozen=True)
class Way:
    """The context of one message: what both ends know, and the seed of the sender's draws.

    Args:
        known: (n,) the parameters that were sent to the client; None if the update is a difference already.
        size: n, the number of values before any transform.
        count: the number of values that are sent.
        dtype: the dtype of the values, float32 or float64.
        seed: the seed of the sender's draws.
        place: the index of the transform in its chain.
    """

    known: Tensor | None
    size: int
    count: int
    dtype: torch.dtype
    seed: int = 0
    place: int = 0

    def rng(self, stage: Stage) -> np.random.Generator:
        """The generator of one transform. Two transforms of a kind draw different numbers."""
        return np.random.default_rng([self.seed, 0x7472616E73, int(stage), self.place])


class Transform(Protocol):
    """One step of a chain, and its inverse. It keeps no state: what the inverse needs is in the message.

    If a transform has ``error_feedback``, what it and the steps after it lose is added to the next update.
    """

    stage: ClassVar[Stage]
    of_update: ClassVar[bool]  # it works on differences to a known model only

    def apply(self, message: Message, way: Way) -> Message:
        """Transform a message, at the sender."""
        ...

    def undo(self, message: Message, way: Way) -> Message:
        """Undo the transform, at the receiver.

        Raises:
            ModelFileError: the message is not one that the transform makes.
        """
        ...


def parameters_vector(weights: Weights, dtype: torch.dtype) -> Tensor:
    """(n,) all parameters, one after another; a complex element is two numbers."""
    pieces = [_real(weights[name]).reshape(-1).to(dtype) for name in weights.parameters]
    return torch.cat(pieces) if pieces else torch.zeros(0, dtype=dtype)


def vector_dtype(template: Weights) -> torch.dtype:
    """Float32, or float64 if a parameter has it."""
    wide = (torch.float64, torch.complex128)
    return torch.float64 if any(template[name].dtype in wide for name in template.parameters) else torch.float32


def from_vector(vector: Tensor, rest: Mapping[str, Tensor], template: Weights) -> Weights:
    """The inverse of `parameters_vector`, in the template's dtypes and order."""
    made, start = dict(rest), 0
    for name in template.parameters:
        like = template[name]
        size = _real(like).numel()
        piece = vector[start : start + size].reshape(_real(like).shape)
        # A complex element cannot begin at an odd place of a vector, so the piece is copied.
        made[name] = (torch.view_as_complex(piece.clone()) if like.is_complex() else piece).to(like.dtype)
        start += size
    return Weights({name: made[name] for name in template}, buffers=template.buffers)


def _real(tensor: Tensor) -> Tensor:
    return torch.view_as_real(tensor) if tensor.is_complex() else tensor


def write_message(file: BinaryIO, message: Message) -> None:
    """Write a message as a .safetensors file, before it is compressed."""
    tensors = [(_VALUES, message.values)]
    tensors += [(_PART + name, tensor) for name, tensor in message.parts.items()]
    tensors += [(_REST + name, tensor) for name, tensor in message.rest.items()]
    if message.facts:
        tensors.append((_FACTS, torch.frombuffer(bytearray(json.dumps(message.facts).encode()), dtype=torch.uint8)))
    dump_safetensors(file, tensors)


def read_message(path: Path, template: Weights) -> Message:
    """The inverse of `write_message`. The rest must fit the template.

    Raises:
        ModelFileError: the file is damaged, or its rest does not fit.
    """
    tensors = load_safetensors(MappedFile(path, max_bytes=None))
    rest = {}
    for name, tensor in template.items():
        if name not in template.parameters:
            rest[name] = fitting(tensors.pop(_REST + name, None), tensor.dtype, tuple(tensor.shape), f"tensor '{name}'")
    if _VALUES not in tensors or tensors[_VALUES].ndim != 1:
        raise ModelFileError(f"{path}: is not a message: it has no values")
    values, facts = tensors.pop(_VALUES), {}
    if _FACTS in tensors:
        try:
            facts = json.loads(tensors.pop(_FACTS).contiguous().numpy().tobytes())
        except (ValueError, RecursionError, RuntimeError) as error:
            raise ModelFileError(f"{path}: its facts are damaged: {error}") from error
        if not isinstance(facts, dict):
            raise ModelFileError(f"{path}: its facts are damaged")
    if strange := next((name for name in tensors if not name.startswith(_PART)), None):
        raise ModelFileError(f"{path}: contains {strange!r}, which is not part of a message")
    return Message(values, {name.removeprefix(_PART): tensor for name, tensor in tensors.items()}, rest, facts)
