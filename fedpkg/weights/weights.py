"""Named tensors: a model's parameters and buffers, in a fixed order."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import Tensor

from fedpkg.errors import ModelMismatch, nearest


class Weights(Mapping[str, Tensor]):
    """An ordered mapping from names to tensors; it shares the tensors it is given, without their autograd history.

    Args:
        tensors: names and dense tensors, in the model's order.
        buffers: which of the names are buffers (running means, counters) rather than parameters.

    Two ``Weights`` are the same (``==``, ``hash``) only if they are one object; ``equal`` compares their bits.

    Raises:
        ModelMismatch: a name in ``buffers`` is not a tensor's.
    """

    __slots__ = ("_tensors", "buffers")

    def __init__(self, tensors: Mapping[str, Tensor], *, buffers: Iterable[str] = ()) -> None:
        self._tensors = {name: tensor.detach() for name, tensor in tensors.items()}
        self.buffers = frozenset(buffers)
        for name in sorted(self.buffers - self._tensors.keys()):
            raise ModelMismatch(
                f"buffer {name!r} is not a tensor of the model{nearest(name, self._tensors)}", tensor=name
            )

    def __getitem__(self, name: str) -> Tensor:
        return self._tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return id(self)

    def __repr__(self) -> str:
        return f"Weights({len(self)} tensors, {self.num_parameters} parameters, {self.num_bytes} bytes)"

    @property
    def num_bytes(self) -> int:
        """Bytes of all tensors; one that stands under two names counts twice, as it does in a file."""
        return sum(tensor.numel() * tensor.element_size() for tensor in self._tensors.values())

    @property
    def num_parameters(self) -> int:
        """Elements of all tensors that are not buffers."""
        return sum(tensor.numel() for name, tensor in self._tensors.items() if name not in self.buffers)

    def clone(self) -> Weights:
        """A copy with memory of its own, every tensor contiguous."""
        return Weights(
            {name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in self._tensors.items()},
            buffers=self.buffers,
        )

    def reordered_like(self, template: Weights) -> Weights:
        """The same tensors in the order of ``template``, with its buffers.

        Raises:
            ModelMismatch: the names differ.
        """
        if self._tensors.keys() != template.keys():
            raise ModelMismatch(f"weights do not fit the global model: {self.mismatch(template)}")
        return Weights({name: self._tensors[name] for name in template}, buffers=template.buffers)

    def equal(self, other: Weights) -> bool:
        """Whether names, dtypes, shapes and all bits agree; a NaN equals a NaN of the same bits, 0 differs from -0.

        The order of the names does not matter.
        """
        return self.mismatch(other) is None and all(
            torch.equal(raw_bytes(tensor), raw_bytes(other[name])) for name, tensor in self._tensors.items()
        )

    def mismatch(self, template: Weights) -> str | None:
        """The first reason why these weights do not fit ``template``, in words for a message, or None if they fit.

        Shapes must be the same: (1, 32) does not fit (10, 32), although it would broadcast. Order does not matter.
        """
        for name, expected in template.items():
            tensor = self._tensors.get(name)
            if tensor is None:
                return f"missing tensor {name!r}"
            if tensor.shape != expected.shape:
                return f"tensor {name!r} has shape {tuple(tensor.shape)}, the global model has {tuple(expected.shape)}"
            if tensor.dtype != expected.dtype:
                return f"tensor {name!r} has dtype {dtype_name(tensor)}, the global model has {dtype_name(expected)}"
        if len(self._tensors) != len(template):
            extra = next(name for name in self._tensors if name not in template)
            return f"extra tensor {extra!r}"
        return None

    def first_non_finite(self) -> str | None:
        """Name of the first tensor that holds a NaN or an infinity, or None. One pass, no temporaries of its size."""
        # The extremes show both exactly (NaN spreads), at the speed of memory; isfinite() and max-abs norms are many
        # times slower on a CPU, and a sum of squares overflows on big finite values.
        for name, tensor in self._tensors.items():
            if not _can_be_non_finite(tensor):
                continue
            low, high = torch.aminmax(_as_real(tensor))
            if not (math.isfinite(low.item()) and math.isfinite(high.item())):
                return name
        return None


def raw_bytes(tensor: Tensor) -> Tensor:
    """The bytes of a tensor in C order, as a flat uint8 tensor; a view of it where it is contiguous and on the CPU."""
    return tensor.resolve_conj().resolve_neg().cpu().contiguous().reshape(-1).view(torch.uint8)


def dtype_name(tensor: Tensor) -> str:
    """``float32`` rather than ``torch.float32``."""
    return str(tensor.dtype).removeprefix("torch.")


def _can_be_non_finite(tensor: Tensor) -> bool:
    return (tensor.is_floating_point() or tensor.is_complex()) and tensor.numel() > 0


def _as_real(tensor: Tensor) -> Tensor:
    if tensor.is_complex():
        return torch.view_as_real(tensor.resolve_conj())
    # The 8-bit floats have no reductions of their own.
    return tensor.float() if tensor.element_size() == 1 else tensor
