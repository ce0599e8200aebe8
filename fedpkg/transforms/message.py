"""What travels, while transforms work on it: the floating parameters as one vector, and all else as it is."""

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
        values: (n,) floating; at first the parameters, one after the other, then what transforms made of them.
        parts: what it takes to undo that, by name.
        rest: buffers and integers, which travel as they are.
        facts: numbers that tell of it, for the method: whether it was clipped.
    """

    values: Tensor
    parts: Mapping[str, Tensor] = field(default_factory=dict)
    rest: Mapping[str, Tensor] = field(default_factory=dict)
    facts: Mapping[str, Json] = field(default_factory=dict)

    def replace(self, values: Tensor, **parts: Tensor) -> Message:
        """The same message with other values, and more parts."""
        return dataclasses.replace(self, values=values, parts={**self.parts, **parts})

    def saying(self, **facts: Json) -> Message:
        return dataclasses.replace(self, facts={**self.facts, **facts})

    def part(self, name: str, dtype: torch.dtype, shape: tuple[int, ...]) -> Tensor:
        """A part as the sender should have made it.

        Raises:
            ModelFileError: it is not there, or is something else.
        """
        return fitting(self.parts.get(name), dtype, shape, f"the part '{name}'")

    def numbers(self, dtype: torch.dtype, shape: tuple[int, ...]) -> Tensor:
        """The values as the sender should have made them. Raises ModelFileError."""
        return fitting(self.values, dtype, shape, "the values")


def fitting(tensor: Tensor | None, dtype: torch.dtype, shape: tuple[int, ...], what: str) -> Tensor:
    """The tensor, if it has this dtype and shape. Raises ModelFileError."""
    if tensor is None or tensor.dtype != dtype or tuple(tensor.shape) != shape:
        found = "nothing" if tensor is None else f"{dtype_name(tensor)} {tuple(tensor.shape)}"
        wanted = f"{str(dtype).removeprefix('torch.')} {shape}"
        raise ModelFileError(f"what was sent does not fit the transforms: {what} should be {wanted}, found {found}")
    return tensor


@dataclass(frozen=True)
class Way:
    """Of one message: the vector that both ends know, and draws that only the sender makes.

    Args:
        known: (n,) the parameters that were sent to the client, where the update is no difference yet; else None.
        size: n, how many numbers there are before anything was done to them.
        count: how many of them travel.
        dtype: theirs, float32 or float64.
        seed: of the sender's draws.
        place: of the transform in its chain.
    """

    known: Tensor | None
    size: int
    count: int
    dtype: torch.dtype
    seed: int = 0
    place: int = 0

    def rng(self, stage: Stage) -> np.random.Generator:
        """For the draws of one transform: two of a kind do not draw the same."""
        return np.random.default_rng([self.seed, 0x7472616E73, int(stage), self.place])


class Transform(Protocol):
    """One step on the way, and back. It keeps nothing: what it must remember is in the message.

    ``error_feedback``, if a transform has it, says that what it (and those after it) lose is added next time.
    """

    stage: ClassVar[Stage]
    of_update: ClassVar[bool]  # it makes sense for differences to a known model only

    def apply(self, message: Message, way: Way) -> Message:
        """At the sender."""
        ...

    def undo(self, message: Message, way: Way) -> Message:
        """At the receiver, in reverse.

        Raises:
            ModelFileError: the sender cannot have made this.
        """
        ...


def parameters_vector(weights: Weights, dtype: torch.dtype) -> Tensor:
    """(n,) all parameters, one after the other; a complex one is two numbers."""
    pieces = [_real(weights[name]).reshape(-1).to(dtype) for name in weights.parameters]
    return torch.cat(pieces) if pieces else torch.zeros(0, dtype=dtype)


def vector_dtype(template: Weights) -> torch.dtype:
    """Float32, or float64 where a parameter has it."""
    wide = (torch.float64, torch.complex128)
    return torch.float64 if any(template[name].dtype in wide for name in template.parameters) else torch.float32


def from_vector(vector: Tensor, rest: Mapping[str, Tensor], template: Weights) -> Weights:
    """The inverse of `parameters_vector`, in the template's dtypes and order."""
    made, start = dict(rest), 0
    for name in template.parameters:
        like = template[name]
        size = _real(like).numel()
        piece = vector[start : start + size].reshape(_real(like).shape)
        # A complex element cannot begin at an odd place of a vector, so it gets memory of its own.
        made[name] = (torch.view_as_complex(piece.clone()) if like.is_complex() else piece).to(like.dtype)
        start += size
    return Weights({name: made[name] for name in template}, buffers=template.buffers)


def _real(tensor: Tensor) -> Tensor:
    return torch.view_as_real(tensor) if tensor.is_complex() else tensor


def write_message(file: BinaryIO, message: Message) -> None:
    """Write what travels, before its bytes are packed: a .safetensors file."""
    tensors = [(_VALUES, message.values)]
    tensors += [(_PART + name, tensor) for name, tensor in message.parts.items()]
    tensors += [(_REST + name, tensor) for name, tensor in message.rest.items()]
    if message.facts:
        tensors.append((_FACTS, torch.frombuffer(bytearray(json.dumps(message.facts).encode()), dtype=torch.uint8)))
    dump_safetensors(file, tensors)


def read_message(path: Path, template: Weights) -> Message:
    """The inverse of `write_message`; the rest is as the template has it.

    Raises:
        ModelFileError: the file is damaged, or its rest does not fit.
    """
    tensors = load_safetensors(MappedFile(path, max_bytes=None))
    rest = {}
    for name, tensor in template.items():
        if name not in template.parameters:
            rest[name] = fitting(tensors.pop(_REST + name, None), tensor.dtype, tuple(tensor.shape), f"tensor '{name}'")
    if _VALUES not in tensors or tensors[_VALUES].ndim != 1:
        raise ModelFileError(f"{path}: is no message: there are no values in it")
    values, facts = tensors.pop(_VALUES), {}
    if _FACTS in tensors:
        try:
            facts = json.loads(tensors.pop(_FACTS).contiguous().numpy().tobytes())
        except (ValueError, RecursionError, RuntimeError) as error:
            raise ModelFileError(f"{path}: its facts are damaged: {error}") from error
        if not isinstance(facts, dict):
            raise ModelFileError(f"{path}: its facts are damaged")
    if strange := next((name for name in tensors if not name.startswith(_PART)), None):
        raise ModelFileError(f"{path}: holds {strange!r}, which is no part of a message")
    return Message(values, {name.removeprefix(_PART): tensor for name, tensor in tensors.items()}, rest, facts)
