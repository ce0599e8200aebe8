"""The updates of one round side by side, read piece by piece, for aggregators that are not plain sums."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from fedpkg.errors import AggregationError
from fedpkg.strategies.base import Reply
from fedpkg.strategies.updates.order import in_order
from fedpkg.weights.weights import Weights, dtype_name

_PIECE = 1 << 14  # elements of a client's row: 32 rows fit into a core's cache, and torch uses one thread
_LEAST = 1 << 10
_ROOM = 1 << 19  # elements of all rows together, unless rows are shorter than _LEAST
_OWN_BYTES = 64 << 20  # limit of the updates in memory, which are not mapped files


class Updates:
    """A round's updates, which stay mapped until the last one has arrived.

    Peak memory, besides the mapped files: a piece (64 KiB) of each update, and the result. Updates in memory (np.savez
    leaves most arrays unaligned, so they are copied when they are read) move to an unnamed temporary file once they
    take more than 64 MiB together.

    Parameters (floating and complex tensors that are not buffers) are the vectors of the methods. All other tensors
    follow the rule of `with_rest`.

    Raises:
        AggregationError: there are no updates, or one does not fit the global model.
    """

    def __init__(self, replies: Iterable[Reply], model: Weights) -> None:
        self.model = model
        self.clients: list[str] = []
        self.num_examples: list[float] = []
        self._held: list[Weights] = []
        self._groups: list[list[int]] | None = None
        own_bytes = 0
        for reply in replies:
            update = reply.weights
            if reason := update.mismatch(model):
                raise AggregationError(f"{reply.client_id}: {reason}", client_id=reply.client_id)
            if bytes_in_memory := sum(_num_bytes(tensor) for tensor in update.values() if _is_in_memory(tensor)):
                own_bytes += bytes_in_memory
                if own_bytes > _OWN_BYTES:
                    update = _moved_to_disk(update)
            self._held.append(update)
            self.clients.append(reply.client_id)
            self.num_examples.append(reply.num_examples)
        if not self._held:
            raise AggregationError(
                "no updates to aggregate", hint="at least one client must answer with a usable update"
            )

    def __len__(self) -> int:
        return len(self._held) if self._groups is None else len(self._groups)

    @property
    def held(self) -> Sequence[Weights]:
        """The updates, in the order of the clients. Tensors may be mapped from files of this round."""
        return self._held

    def grouped(self, groups: Sequence[Sequence[int]] | None) -> Updates:
        """The means of groups of these updates, which are computed piece by piece. None: the updates without groups.

        If these are groups already, each new group must be one of them: a mean of means would be another mean.
        """
        view = Updates.__new__(Updates)
        view.model, view._held = self.model, self._held
        view.clients, view.num_examples = self.clients, self.num_examples
        view._groups = None if groups is None else [list(group) for group in groups]
        if self._groups is not None and groups is not None:
            assert all(len(group) == 1 for group in groups)
            view._groups = [self._groups[k] for (k,) in groups]
        return view

    def pieces(
        self,
        names: Iterable[str],
        *,
        wide: bool = False,
        beside: Mapping[str, Tensor] | None = None,
        room: int = _ROOM,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Pieces of these tensors, in order: the updates' rows (n, width), and the row (width) of ``beside``.

        By default ``beside`` is the global model. Pieces are in float32, or in float64 if the tensor or ``wide`` asks
        for it; a complex element is two numbers. The next piece overwrites the rows.

        Args:
            room: the number of elements of all rows together, if there are many rows.
        """
        beside = beside or self.model
        for name, rows, start in self._pieces(names, wide, room):
            yield rows, _flat(beside[name])[start : start + rows.shape[1]].to(rows.dtype)

    def made(
        self,
        names: Iterable[str],
        make: Callable[[Tensor, Tensor], Tensor],
        *,
        wide: bool = False,
        beside: Mapping[str, Tensor] | None = None,
    ) -> dict[str, Tensor]:
        """Tensors of the model's shapes, in at least float32, whose pieces are ``make(rows, row)`` of the `pieces`."""
        names, beside = list(names), beside or self.model
        made = {name: torch.empty(self.model[name].shape, dtype=at_least_float32(self.model[name])) for name in names}
        for name, rows, start in self._pieces(names, wide):
            piece = slice(start, start + rows.shape[1])
            _flat(made[name])[piece] = make(rows, _flat(beside[name])[piece].to(rows.dtype))
        return made

    def with_rest(self, parameters: Mapping[str, Tensor], *, trusted: int | None = None) -> Weights:
        """The next global model: these parameters, and the rest of the tensors by a separate rule.

        **The rest**: buffers (running means and variances) get the coordinate-wise median, integers and booleans the
        lower median, an element that some client sent. Constant buffers, those that are not finite in the model, stay.
        An average would let a single attacker set them, whatever the parameters' rule, and the rule of the mean
        (integers come from the client with most examples) would trust what clients report. With ``trusted``, the rest
        is that of this update.

        Raises:
            AggregationError: a tensor is not finite in its dtype.
        """
        if self._groups is not None:
            return self.grouped(None).with_rest(parameters, trusted=trusted)
        if trusted is not None:
            parameters = {
                name: parameters[name] if name in parameters else tensor.clone()  # its file is deleted with the round
                for name, tensor in self._held[trusted].items()
            }
        constant = {name: self.model[name] for name in self.model.non_finite_buffers()}
        parameters = {**parameters, **constant}
        rest = [name for name in self.model if name not in parameters]
        floating = [name for name in rest if self.model[name].is_floating_point() or self.model[name].is_complex()]
        made = {**parameters, **self.made(floating, lambda rows, _: middle(rows))}
        for name in rest:
            if name not in made:
                made[name] = self._lower_median(name)
        return finite(
            Weights(
                {name: made[name].to(tensor.dtype) for name, tensor in self.model.items()}, buffers=self.model.buffers
            ),
            like=self.model,
        )

    def _lower_median(self, name: str) -> Tensor:
        arrays = [update[name].reshape(-1).numpy() for update in self._held]
        found = np.empty_like(arrays[0])
        for start in range(0, len(found), _PIECE):
            rows = np.stack([array[start : start + _PIECE] for array in arrays])
            found[start : start + _PIECE] = np.sort(rows, axis=0)[(len(arrays) - 1) // 2]
        return torch.from_numpy(found).reshape(self.model[name].shape)

    def _pieces(self, names: Iterable[str], wide: bool, room_of_all: int = _ROOM) -> Iterator[tuple[str, Tensor, int]]:
        count = len(self)
        width = max(_LEAST, min(_PIECE, room_of_all // count))
        room: dict[torch.dtype, Tensor] = {}
        for name in names:
            dtype = torch.float64 if wide else _row_dtype(self.model[name])
            if dtype not in room:
                room[dtype] = torch.empty(count, width, dtype=dtype)
            flats = [_flat(update[name]) for update in self._held]
            for start in range(0, len(flats[0]), width):
                rows = room[dtype][:, : min(width, len(flats[0]) - start)]
                if self._groups is None:
                    for row, flat in zip(rows, flats, strict=True):
                        row.copy_(flat[start : start + width])
                else:
                    for row, group in zip(rows, self._groups, strict=True):
                        row.copy_(flats[group[0]][start : start + width])
                        for i in group[1:]:
                            row.add_(flats[i][start : start + width].to(dtype))
                        row.div_(len(group))
                yield name, rows, start


def middle(rows: Tensor) -> Tensor:
    """The median of each column of (n, width); for an even n the mean of the two middle elements."""
    count = len(rows)
    low, high = (count - 1) // 2, count // 2
    found = in_order(rows, low, high + 1)
    return found[0] if low == high else found[0] * 0.5 + found[1] * 0.5  # their sum may overflow


def weighted_sum(rows: Tensor, weights: Tensor) -> Tensor:
    """sum_k a_k rows_k in the order of the rows and the dtype of ``weights``, whatever the number of threads."""
    total = rows[0].to(weights.dtype) * weights[0]
    for row, weight in zip(rows[1:], weights[1:], strict=True):
        total.add_(row.to(weights.dtype), alpha=float(weight))
    return total


def finite(model: Weights, *, like: Weights) -> Weights:
    """The model itself.

    Raises:
        AggregationError: a tensor is not finite and is not an unchanged buffer of ``like``.
    """
    if name := model.first_non_finite(like):
        raise AggregationError(
            f"tensor {name!r} of the next global model is not finite in {dtype_name(model[name])}",
            hint="the clients' weights or the server's steps diverge: smaller learning rates may help",
            tensor=name,
        )
    return model


def at_least_float32(tensor: Tensor) -> torch.dtype:
    """The dtype in which results of arithmetic with a tensor are kept."""
    if tensor.dtype in (torch.float64, torch.complex128):
        return tensor.dtype
    return torch.complex64 if tensor.is_complex() else torch.float32


def _row_dtype(tensor: Tensor) -> torch.dtype:
    return torch.float64 if tensor.dtype in (torch.float64, torch.complex128) else torch.float32


def _flat(tensor: Tensor) -> Tensor:
    """A view of its elements as a vector; a complex element is two numbers."""
    return (torch.view_as_real(tensor) if tensor.is_complex() else tensor).reshape(-1)


def _num_bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _is_in_memory(tensor: Tensor) -> bool:
    """Whether it is not a view of a mapped file, or not contiguous, so that it cannot be read piece by piece."""
    return tensor.untyped_storage().resizable() or not tensor.is_contiguous()


def _moved_to_disk(update: Weights) -> Weights:
    """The same tensors, mapped from an unnamed file that is deleted with them."""
    offsets, end = {}, 0
    for name, tensor in update.items():
        offsets[name] = end
        end += -(-_num_bytes(tensor) // 64) * 64
    try:
        with tempfile.TemporaryFile(prefix="fedpkg-") as file:
            os.posix_fallocate(file.fileno(), 0, max(end, 1))  # a full disk raises here instead of crashing later
            storage = torch.UntypedStorage.from_file(f"/proc/self/fd/{file.fileno()}", True, max(end, 1))
    except OSError as error:
        raise AggregationError(
            f"updates do not fit into {tempfile.gettempdir()}: {error.strerror}",
            hint="set TMPDIR to a folder with space for all updates of a round",
        ) from error
    moved = {}
    for name, tensor in update.items():
        place = torch.empty(0, dtype=tensor.dtype).set_(
            storage,
            offsets[name] // tensor.element_size(),
            tensor.shape,  # type: ignore[call-overload]
        )
        moved[name] = place.copy_(tensor)
    return Weights(moved, buffers=update.buffers)
