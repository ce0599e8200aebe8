"""Named tensors, and the algebra of a model's parameters: the tensor operations from which methods are built."""

from __future__ import annotations

import fnmatch
import functools
import itertools
import math
import numbers
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree

from fedpkg.client.wrapped import bare
from fedpkg.errors import ModelMismatch, nearest
from fedpkg.weights.vector_math import warm_vector_math

warm_vector_math()  # here, because all code that computes with models imports this module

# Sums are in float64: in float32 a sum of 10^7 equal numbers is wrong by a percent. A converted piece fits into a
# core's cache, so this costs no memory and little time (10^7 elements: 8 ms, against 2 ms in float32).
_PIECE = 1 << 14


class Weights(Mapping[str, Tensor]):
    """An ordered mapping from names to tensors, and a vector of all its parameters.

    Args:
        tensors: Names and dense tensors, in the model's order; they are shared, not copied.
        buffers: The names that are buffers (running means, counters) rather than parameters.

    Attributes:
        parameters: Names of the tensors that take part in the algebra.

    **Algebra.** ``x + y``, ``x - y``, ``a * x``, ``x / a``, ``-x``, ``x.dot(y)`` (also ``x @ y``) and ``x.norm(p)``
    are those of the vector of parameters: floating-point (or complex) tensors that are not buffers. Operands are
    matched by name, in any order. All are differentiable if an input is, so a loss can be written in Weights::

        x = Weights.from_model(model)                       # the model's own parameters
        loss = Weights.dot(alpha * grad_x, x) + (x - x_t).norm(p=2)
        loss.backward()                                     # fills the model's .grad

    **Buffers** and integers are not part of the vector: scalars do not change them. The result of an operation on two
    ``Weights`` has the buffers of both: one that only one operand has is unchanged; floating-point ones of both are
    averaged (equally for ``+`` and ``-``, by the coefficients for `mean` and `axpby`); of others it has the larger
    elements. So ``x + y`` equals ``y + x``, and a running variance never leaves the range of the operands'.

    Methods ending in ``_`` work in place, on the parameters' data only, and return the object.

    ``Weights`` are a pytree whose leaves are the parameters: ``torch.func.grad`` and ``torch.vmap`` accept and return
    them.

    Lists of tensors are processed by one call of PyTorch's ``_foreach`` operations where that is faster, as measured by
    ``tests/benchmarks/weights.py``; ``tests/unit/weights/plain_algebra.py`` is the plain version of the same algebra.

    ``==`` and ``hash`` compare identity; ``equal`` compares bits.

    Raises:
        ModelMismatch: If a name in ``buffers`` is not that of a tensor; or operands differ in names or shapes.
    """

    __slots__ = ("_tensors", "buffers", "parameters")
    __array_ufunc__ = None  # so that a * x with NumPy's scalar a calls __rmul__

    def __init__(self, tensors: Mapping[str, Tensor], *, buffers: Iterable[str] = ()) -> None:
        self._tensors = dict(tensors)
        self.buffers = frozenset(buffers)
        self.parameters = tuple(
            name for name, tensor in self._tensors.items() if name not in self.buffers and _is_real_valued(tensor)
        )
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
        if not all(isinstance(leaf, torch.Tensor) for leaf in self._tensors.values()):  # torch.func.jacrev nests them
            return f"Weights({self._tensors})"
        return f"Weights({len(self)} tensors, {self.num_parameters} parameters, {self.num_bytes} bytes)"

    @property
    def num_bytes(self) -> int:
        """The size of all tensors in bytes; one with two names counts twice, as in a file."""
        return sum(tensor.numel() * tensor.element_size() for tensor in self._tensors.values())

    @property
    def num_parameters(self) -> int:
        """The number of elements of all tensors that are not buffers."""
        return sum(tensor.numel() for name, tensor in self._tensors.items() if name not in self.buffers)

    # ---- from and to a model

    @classmethod
    def from_model(cls, model: nn.Module, *, trainable: bool = False) -> Weights:
        """The model's own parameters and buffers, not copies: gradients flow back into the model.

        A parameter with several names (tied) is included once, under the first of them. The names in a wrapped model
        (torch.compile, DataParallel, DistributedDataParallel, Opacus) are those without the wrapper.

        Args:
            trainable: Include only the parameters that require a gradient, and no buffers.

        Raises:
            ModelMismatch: If a lazy layer's parameter has no shape yet.
        """
        model = bare(model)
        buffers = {} if trainable else dict(model.named_buffers())
        parameters = {name: p for name, p in model.named_parameters() if p.requires_grad or not trainable}
        for name, tensor in (parameters | buffers).items():
            if nn.parameter.is_lazy(tensor):
                raise ModelMismatch(
                    f"tensor {name!r} of a lazy layer has no shape yet",
                    hint="first call the model on an input of the right shape",
                    tensor=name,
                )
        kept = model.state_dict(keep_vars=True)
        named = {**parameters, **{name: buffers[name] for name in buffers if name in kept}}
        return cls({name: named[name] for name in kept if name in named}, buffers=set(buffers) & kept.keys())

    @classmethod
    def from_grads(cls, model: nn.Module) -> Weights:
        """A copy of the model's gradients, with zeros for missing ones."""

        def copy(parameter: nn.Parameter) -> Tensor:
            if parameter.grad is None:
                return torch.zeros_like(parameter)
            return parameter.grad.detach().clone().to_dense()  # gradients of embeddings may be sparse

        return cls({name: copy(parameter) for name, parameter in bare(model).named_parameters()})

    @torch.no_grad()
    def to_model(self, model: nn.Module, *, strict: bool = True) -> None:
        """Copy the data, without autograd history, into the model's parameters and buffers; buffers may be missing.

        For a tensor with several names (tied), the first name counts.

        Args:
            strict: If False, tensors that only one of the two has are ignored, unless there are no others.

        Raises:
            ModelMismatch: If a parameter is missing or extra, has another shape, or is on the device ``meta``, which
                holds no data; the model is then unchanged.
        """
        model = bare(model)
        target = Weights.from_model(model)
        pairs = []
        for name in target:
            if name not in self and (name in target.buffers or not strict):
                continue
            if name not in self:
                raise ModelMismatch(f"missing tensor {name!r}", tensor=name)
            if self[name].shape != target[name].shape:
                raise ModelMismatch(
                    f"tensor {name!r} has shape {tuple(self[name].shape)}, the model's has {tuple(target[name].shape)}",
                    tensor=name,
                )
            if target[name].is_meta or self[name].is_meta:
                whose = "the model's tensor" if target[name].is_meta else "tensor"
                raise ModelMismatch(
                    f"{whose} {name!r} is on the device 'meta', which holds no data",
                    hint="first call model.to_empty(device='cpu')" if target[name].is_meta else None,
                    tensor=name,
                )
            pairs.append((target[name], self[name]))
        known = model.state_dict().keys()  # also the other names of tied tensors
        extra = next((name for name in self if name not in target and name not in known), None)
        if extra is not None and (strict or not pairs):
            alone = "" if strict else ", and no tensor is in both"
            raise ModelMismatch(f"extra tensor {extra!r}{nearest(extra, target)}{alone}", tensor=extra)
        for tensor, value in pairs:
            tensor.copy_(value)

    # ---- copies and views

    def clone(self) -> Weights:
        """A copy without autograd history, with contiguous tensors."""
        return self._map(lambda tensor: tensor.detach().clone(memory_format=torch.contiguous_format))

    def detach(self) -> Weights:
        """The same memory, without autograd history: if it is a model's, it changes with the model."""
        return self._map(Tensor.detach)

    def freeze(self) -> Weights:
        """Detach from autograd and from the model, in place; returns itself.

        The tensors are copied, because they may be a model's own. `detach` shares the memory instead.
        """
        self._tensors = self.clone()._tensors
        return self

    def zeros_like(self) -> Weights:
        """Zeros for the parameters, copies of the other tensors."""
        return self._with([torch.zeros_like(tensor) for tensor in self._vector()]).clone()

    def to(self, device: torch.device | str | torch.dtype | None = None, dtype: torch.dtype | None = None) -> Weights:
        """A copy on another device, or with parameters in another dtype (buffers keep theirs); either may be first."""
        if isinstance(device, torch.dtype):
            device, dtype = None, device
        if dtype is not None and not (dtype.is_floating_point or dtype.is_complex):
            raise ValueError(f"parameters cannot be {dtype}: the algebra needs a floating dtype")
        taking_part = set(self.parameters)
        return Weights(
            {
                name: tensor.to(device=device, dtype=dtype if name in taking_part else None)
                for name, tensor in self._tensors.items()
            },
            buffers=self.buffers,
        )

    def filter(self, names: str | Callable[[str], bool]) -> Weights:
        """The tensors whose name matches a pattern (``"fc1.*"``), or for whose name a function returns True."""
        matches = names if callable(names) else lambda name: fnmatch.fnmatchcase(name, names)
        chosen = {name: tensor for name, tensor in self._tensors.items() if matches(name)}
        return Weights(chosen, buffers=self.buffers & chosen.keys())

    def to_flat(self) -> Tensor:
        """All parameters concatenated to one new vector (differentiable)."""
        vector = self._vector()
        return torch.cat([tensor.reshape(-1) for tensor in vector]) if vector else torch.zeros(0)

    def from_flat(self, vector: Tensor) -> Weights:
        """Weights of this shape whose parameters are views of ``vector``; the other tensors are these.

        Raises:
            ModelMismatch: If ``vector`` does not have as many elements as the parameters.
        """
        sizes = [tensor.numel() for tensor in self._vector()]
        if vector.shape != (sum(sizes),):
            raise ModelMismatch(f"a flat vector has shape {tuple(vector.shape)}, these weights need ({sum(sizes)},)")
        pieces = torch.split(vector, sizes) if sizes else ()
        return self._with([piece.view(like.shape) for piece, like in zip(pieces, self._vector(), strict=True)])

    # ---- algebra

    def __add__(self, other: Weights) -> Weights:
        if not isinstance(other, Weights):
            return NotImplemented
        return self._joined(_foreach(torch._foreach_add, self._vector(), self._paired(other)), other)

    def __radd__(self, other: object) -> Weights:
        return self if isinstance(other, int) and other == 0 else NotImplemented  # sum() begins with 0

    def __sub__(self, other: Weights) -> Weights:
        if not isinstance(other, Weights):
            return NotImplemented
        return self._joined(_foreach(torch._foreach_sub, self._vector(), self._paired(other)), other)

    def __mul__(self, scalar: float | Tensor) -> Weights:
        if not _is_scalar(scalar):
            return NotImplemented
        return self._with(_scaled(self._vector(), scalar))

    __rmul__ = __mul__

    def __truediv__(self, scalar: float | Tensor) -> Weights:
        if not _is_scalar(scalar):
            return NotImplemented
        if isinstance(scalar, Tensor):  # a graph may go through it
            return self._with([_keeping_dtype(torch.div, tensor, scalar) for tensor in self._vector()])
        return self._with(_foreach(torch._foreach_div, self._vector(), float(scalar)))

    def __neg__(self) -> Weights:
        return self._with(_foreach(torch._foreach_neg, self._vector()))

    def map(self, function: Callable[..., Tensor], *others: Weights) -> Weights:
        """Apply a function to each parameter, and those of the same name in others: ``x.map(torch.maximum, y)``.

        Raises:
            ModelMismatch: If a result has another shape.
            TypeError: If a result is not a tensor.
        """
        pairs = zip(self._vector(), *(self._paired(other) for other in others), strict=True)
        vector = [function(*tensors) for tensors in pairs]
        for name, tensor, made in zip(self.parameters, self._vector(), vector, strict=True):
            if not isinstance(made, torch.Tensor):
                raise TypeError(
                    f"map: the function returned {type(made).__name__} for parameter {name!r}, not a tensor"
                )
            if made.shape != tensor.shape:
                raise ModelMismatch(
                    f"map: the function returned shape {tuple(made.shape)} for {name!r} of shape {tuple(tensor.shape)}",
                    tensor=name,
                )
        return self._joined(vector, *others)

    def dot(self, other: Weights) -> Tensor:
        """<x, y> = sum_i conj(x_i) y_i over all parameters, summed in float64; a 0-d tensor of at least float32."""
        vector, others = self._vector(), self._paired(other)
        terms = []
        for x, y in zip(vector, others, strict=True):
            dtype = _exact_dtype(x, y)
            terms += [torch.vdot(a.to(dtype), b.to(dtype)) for a, b in zip(_pieces(x), _pieces(y), strict=True)]
        return torch.stack(terms).sum().to(_sum_dtype(*vector, *others)) if terms else torch.zeros(())

    def __matmul__(self, other: Weights) -> Tensor:
        return self.dot(other) if isinstance(other, Weights) else NotImplemented

    def norm(self, p: float = 2) -> Tensor:
        """|x|_p over all parameters, a 0-d tensor; p >= 1, also ``math.inf``. Its gradient at 0 is 0.

        It is computed in float64, as the norm of the norms of pieces: the square root of a sum of squares would have
        the gradient NaN at 0. If it needs a gradient, it is the norm of one vector: the second derivative of a norm of
        norms is NaN where one of them is 0.
        """
        if not (isinstance(p, numbers.Real) and p >= 1):
            raise ValueError(
                f"a norm needs a number p >= 1, not {p!r}: 2 is the Euclidean (Frobenius) norm, math.inf the largest "
                "magnitude"
            )
        vector = [tensor for tensor in self._vector() if tensor.numel()]
        if not vector:
            return torch.zeros(())
        if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in vector):
            norms = torch.cat([tensor.reshape(-1).to(_exact_dtype(tensor)) for tensor in vector])
        else:
            pieces = (piece.to(_exact_dtype(piece)) for tensor in vector for piece in _pieces(tensor))
            norms = torch.stack([torch.linalg.vector_norm(piece, p) for piece in pieces])
        length: Tensor = torch.linalg.vector_norm(norms, p)
        dtype = _sum_dtype(*vector)
        return length.to(dtype.to_real() if dtype.is_complex else dtype)

    @staticmethod
    def mean(updates: Sequence[Weights], weights: Sequence[float | Tensor] | None = None) -> Weights:
        """sum_k a_k x_k / sum_k a_k (a_k = 1 by default); buffers likewise, with |a_k|.

        For the fold over clients' files, with its rules for dtypes and order, see ``fedpkg.weights.fold.MeanFold``.

        Raises:
            ValueError: If there are none, or another number of weights, or the weights' sum is 0 or not finite.
        """
        scales = [1.0] * len(updates) if weights is None else list(weights)
        if not updates or len(updates) != len(scales):
            raise ValueError(f"a mean of {len(updates)} weights with {len(scales)} scales")
        divisor = sum(scales[1:], start=scales[0])
        if not _in_transform():
            value = float(divisor.detach() if isinstance(divisor, Tensor) else divisor)
            if not value or not math.isfinite(value):
                raise ValueError(f"a mean needs weights whose sum is finite and not 0, found {value}")
        first, *others = updates
        total = _scaled(first._vector(), scales[0])
        for scale, update in zip(scales[1:], others, strict=True):
            total = _foreach(torch._foreach_add, total, _scaled(first._paired(update), scale))
        return first._joined(
            (first._with(total) / divisor)._vector(),
            *others,
            shares=[scale.abs() if isinstance(scale, Tensor) else abs(scale) for scale in scales],
        )

    # ---- in place

    @torch.no_grad()
    def add_(self, other: Weights, alpha: float = 1.0) -> Weights:
        """x <- x + alpha y."""
        vector, others = self._places(other)
        _foreach(torch._foreach_add_, vector, others, alpha=alpha)
        return self

    @torch.no_grad()
    def lerp_(self, other: Weights, weight: float) -> Weights:
        """x <- x + weight (y - x)."""
        vector, others = self._places(other)
        others = [y if y.dtype == x.dtype else y.to(x.dtype) for x, y in zip(vector, others, strict=True)]
        _foreach(torch._foreach_lerp_, vector, others, weight)
        return self

    @torch.no_grad()
    def axpby_(self, alpha: float, other: Weights, beta: float) -> Weights:
        """x <- alpha y + beta x."""
        for x, y in zip(*self._places(other), strict=True):
            if x.data_ptr() == y.data_ptr():
                y = y.clone()  # or scaling x would scale y
            x.mul_(beta).add_(y, alpha=alpha)  # tensor by tensor: the second step finds it in the cache
        return self

    @staticmethod
    def axpby(alpha: float, x: Weights, beta: float, y: Weights) -> Weights:
        """alpha x + beta y, without a temporary; buffers are averaged by |alpha| and |beta|."""
        scaled, paired, shares = _scaled(x._vector(), alpha), x._paired(y), (abs(alpha), abs(beta))
        if _in_transform() or any(a.dtype != b.dtype for a, b in zip(scaled, paired, strict=True)):
            return x._joined(_foreach(torch._foreach_add, scaled, paired, alpha=beta), y, shares=shares)
        _foreach(torch._foreach_add_, scaled, paired, alpha=beta)
        return x._joined(scaled, y, shares=shares)

    # ---- inside

    def _vector(self) -> list[Tensor]:
        return [self._tensors[name] for name in self.parameters]

    def _with(self, vector: Sequence[Tensor]) -> Weights:
        """These weights with other parameters; the other tensors are shared."""
        made = Weights.__new__(
            Weights
        )  # names and buffers have been checked, which would take noticeable time for small lists
        made._tensors = {**self._tensors, **dict(zip(self.parameters, vector, strict=True))}
        made.buffers, made.parameters = self.buffers, self.parameters
        return made

    def _joined(
        self, vector: Sequence[Tensor], *others: Weights, shares: Sequence[float | Tensor] | None = None
    ) -> Weights:
        """These weights with other parameters; the other tensors are all operands', averaged with these shares."""
        made = self._with(vector)
        if all(len(other._tensors) == len(other.parameters) for other in others):
            return made
        found: dict[str, list[tuple[Tensor, float | Tensor]]] = {}
        for operand, share in zip((self, *others), shares or [1.0] * (1 + len(others)), strict=True):
            taking_part = set(operand.parameters)
            for name, tensor in operand._tensors.items():
                if name not in taking_part:
                    found.setdefault(name, []).append((tensor, share))
        made._tensors |= {name: _blended(name, terms) for name, terms in found.items()}
        made.buffers = self.buffers.union(*(other.buffers for other in others))
        return made

    def _map(self, function: Callable[[Tensor], Tensor]) -> Weights:
        return Weights({name: function(tensor) for name, tensor in self._tensors.items()}, buffers=self.buffers)

    def _paired(self, other: Weights) -> list[Tensor]:
        """The other operand's parameters, in this one's order."""
        if not isinstance(other, Weights):
            raise TypeError(f"the other operand must be Weights, not {type(other).__name__}")
        names, others = self.parameters, other.parameters
        if names != others and set(names) != set(others):
            alone = sorted(set(names) ^ set(others))[0]
            raise ModelMismatch(f"operands do not fit: only one of them has the parameter {alone!r}", tensor=alone)
        paired = [other._tensors[name] for name in names]
        for name, a, b in zip(names, self._vector(), paired, strict=True):
            if a.shape != b.shape:
                raise ModelMismatch(
                    f"operands do not fit: parameter {name!r} has shapes {tuple(a.shape)} and {tuple(b.shape)}",
                    tensor=name,
                )
        return paired

    def _places(self, other: Weights) -> tuple[list[Tensor], list[Tensor]]:
        """The parameters to change in place, and the other operand's; of tied ones, which share memory, only the first.

        Tensors of the other operand that share memory with different ones of ours are copied: they would change before
        they are read.
        """
        vector, paired = self._vector(), self._paired(other)
        starts, others = [x.data_ptr() for x in vector], [y.data_ptr() for y in paired]
        ours = set(starts)
        are_whole = not any(x.storage_offset() for x in vector) and not any(y.storage_offset() for y in paired)
        if are_whole and len(ours) == len(starts) and (ours.isdisjoint(others) or starts == others):
            return vector, paired  # the usual case: no two share memory
        pairs = {_place(x): (x, y) for x, y in reversed(list(zip(vector, paired, strict=True)))}
        written = {x.untyped_storage().data_ptr() for x, _ in pairs.values()}
        read = [
            y.clone() if y.untyped_storage().data_ptr() in written and _place(y) != place else y
            for place, (_, y) in pairs.items()
        ]
        return [x for x, _ in pairs.values()], read

    # ---- comparing

    def reordered_like(self, template: Weights) -> Weights:
        """The same tensors in the order of ``template``, with its buffers.

        Raises:
            ModelMismatch: If the names differ.
        """
        if self._tensors.keys() != template.keys():
            raise ModelMismatch(f"weights do not fit the global model: {self.mismatch(template)}")
        return Weights({name: self._tensors[name] for name in template}, buffers=template.buffers)

    def equal(self, other: Weights) -> bool:
        """Whether names, dtypes, shapes and all bits are equal; NaN equals NaN of the same bits, and 0 differs from -0.

        The order of the names does not matter.
        """
        return self.mismatch(other) is None and all(
            torch.equal(raw_bytes(tensor), raw_bytes(other[name])) for name, tensor in self._tensors.items()
        )

    def allclose(self, other: Weights, *, rtol: float = 1e-5, atol: float = 1e-8) -> bool:
        """Whether the parameters agree within |x_i - y_i| <= atol + rtol |y_i|; buffers are not compared.

        Raises:
            ModelMismatch: If they do not have the same names and shapes.
        """
        return all(
            torch.allclose(x.to(dtype), y.to(dtype), rtol=rtol, atol=atol)
            for x, y in zip(self._vector(), self._paired(other), strict=True)
            for dtype in (torch.promote_types(x.dtype, y.dtype),)
        )

    def mismatch(self, template: Weights) -> str | None:
        """The first reason why these weights do not fit ``template``, as text for a message, or None if they fit.

        Shapes must be equal: (1, 32) does not fit (10, 32), although it would broadcast. Order does not matter.
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

    def magnitudes(self) -> Iterator[tuple[str, float]]:
        """Every floating-point tensor's name and largest absolute value (not finite if an element is not)."""
        # The extremes show NaN and infinities exactly (NaN spreads), at the speed of memory and without temporaries;
        # isfinite() and max-abs norms are many times slower on a CPU, and a sum of squares overflows on finite values.
        for name, tensor in self._tensors.items():
            if _can_be_non_finite(tensor):
                low, high = torch.aminmax(_as_real(tensor))
                yield name, max(abs(low.item()), abs(high.item()))  # if one is NaN, so is the other

    def first_non_finite(self, like: Weights | None = None) -> str | None:
        """The name of the first tensor with a NaN or an infinity, or None. One pass.

        Buffers with the same bits in ``like`` (a causal mask contains -inf) are ignored.
        """
        for name, magnitude in self.magnitudes():
            if not math.isfinite(magnitude) and not self.is_unchanged_buffer(name, like):
                return name
        return None

    def is_unchanged_buffer(self, name: str, like: Weights | None) -> bool:
        """Whether a tensor is a buffer of ``like`` and has the same bits there."""
        if like is None or name not in like.buffers or self[name].dtype != like[name].dtype:
            return False
        return torch.equal(raw_bytes(self[name]), raw_bytes(like[name]))

    def non_finite_buffers(self) -> frozenset[str]:
        """Names of the buffers with a NaN or an infinity: constants, which arithmetic must not change."""
        magnitudes = Weights({name: self[name] for name in self.buffers}).magnitudes()
        return frozenset(name for name, magnitude in magnitudes if not math.isfinite(magnitude))

    def in_dtypes_of(self, template: Weights) -> Weights:
        """These weights with floating-point (or complex) tensors in the template's dtypes; itself if none differ.

        Tensors whose name or shape does not fit are unchanged, and so are integers.
        """
        converted = {
            name: tensor.to(template[name].dtype)
            for name, tensor in self._tensors.items()
            if name in template
            and tensor.dtype != template[name].dtype
            and tensor.shape == template[name].shape
            and tensor.is_floating_point() == template[name].is_floating_point()
            and tensor.is_complex() == template[name].is_complex()
            and _is_real_valued(tensor)
        }
        return Weights({**self._tensors, **converted}, buffers=self.buffers) if converted else self


def _place(tensor: Tensor) -> tuple[object, ...]:
    """A key that is equal for two tensors with the same memory and layout."""
    return tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.device


def raw_bytes(tensor: Tensor) -> Tensor:
    """The bytes of a tensor in C order, as a flat uint8 tensor; a view if it is contiguous and on the CPU."""
    dense = tensor.detach().resolve_conj().resolve_neg().cpu().contiguous()
    # A tensor with less than two elements counts as contiguous whatever its strides, but cannot be viewed as bytes.
    return dense.as_strided((dense.numel(),), (1,)).view(torch.uint8)


def dtype_name(tensor: Tensor) -> str:
    """``float32`` rather than ``torch.float32``."""
    return str(tensor.dtype).removeprefix("torch.")


def _blended(name: str, terms: Sequence[tuple[Tensor, float | Tensor]]) -> Tensor:
    """A non-parameter tensor of several operands: the average if it is floating-point, else the larger elements."""
    first, *others = (tensor for tensor, _ in terms)
    if all(tensor is first for tensor in others):
        return first
    for tensor in others:
        if tensor.shape != first.shape:
            raise ModelMismatch(
                f"operands do not fit: tensor {name!r} has shapes {tuple(first.shape)} and {tuple(tensor.shape)}",
                tensor=name,
            )
    dtype = functools.reduce(torch.promote_types, (tensor.dtype for tensor in others), first.dtype)
    if not (dtype.is_floating_point or dtype.is_complex):
        return functools.reduce(torch.maximum, (tensor.to(dtype) for tensor in others), first.to(dtype))
    total = sum(share for _, share in terms)
    if not _in_transform() and not total:
        terms, total = [(tensor, 1.0) for tensor, _ in terms], len(terms)
    parts = [_wide(tensor.detach().to(dtype)) * (share / total) for tensor, share in terms]
    return functools.reduce(torch.add, parts).to(dtype)


def _in_transform() -> bool:
    """Whether a transform of torch.func (vmap, grad …) is active: `_foreach` operations have no rules for vmap."""
    return torch._C._functorch.peek_interpreter_stack() is not None


def _foreach(
    operation: Callable[..., Sequence[Tensor] | None], vector: Sequence[Tensor], *args: Any, **more: Any
) -> Sequence[Tensor]:
    """One call for a list of tensors, which may be empty (an error in torch)."""
    if not vector:
        return ()
    if _in_transform():
        plain = getattr(torch.Tensor, operation.__name__.removeprefix("_foreach_"))
        rows = zip(vector, *(arg if isinstance(arg, list) else itertools.repeat(arg) for arg in args), strict=False)
        return [plain(*row, **more) for row in rows]
    return operation(vector, *args, **more) or ()


def _scaled(vector: Sequence[Tensor], scalar: float | Tensor) -> Sequence[Tensor]:
    if isinstance(scalar, Tensor):  # a graph may go through it
        return [_keeping_dtype(torch.mul, tensor, scalar) for tensor in vector]
    return _foreach(torch._foreach_mul, vector, float(scalar))


def _keeping_dtype(operation: Callable[[Tensor, Tensor], Tensor], tensor: Tensor, scalar: Tensor) -> Tensor:
    """The operation in the first operand's dtype: PyTorch gives two 0-d tensors a result of the wider dtype."""
    return operation(tensor, scalar) if tensor.dim() else operation(tensor.unsqueeze(0), scalar).squeeze(0)


def _is_scalar(value: object) -> bool:
    return isinstance(value, numbers.Real) or (isinstance(value, Tensor) and value.dim() == 0)


def _is_real_valued(tensor: Tensor) -> bool:
    return tensor.is_floating_point() or tensor.is_complex()


def _wide(tensor: Tensor) -> Tensor:
    """At least float32, so that long sums neither overflow nor stop growing."""
    return tensor.float() if tensor.is_floating_point() and tensor.element_size() < 4 else tensor


def _pieces(tensor: Tensor) -> Sequence[Tensor]:
    return torch.split(tensor.reshape(-1), _PIECE)


def _exact_dtype(*tensors: Tensor) -> torch.dtype:
    """The dtype of their sums."""
    if tensors[0].device.type == "mps":  # such a device has no float64
        return _sum_dtype(*tensors)
    return torch.complex128 if any(tensor.is_complex() for tensor in tensors) else torch.float64


def _sum_dtype(*tensors: Tensor) -> torch.dtype:
    """The dtype of their product or norm: the widest of theirs, and at least float32."""
    return functools.reduce(torch.promote_types, (_wide(tensor.new_empty(0)).dtype for tensor in tensors))


def _can_be_non_finite(tensor: Tensor) -> bool:
    return _is_real_valued(tensor) and tensor.numel() > 0


def _as_real(tensor: Tensor) -> Tensor:
    if tensor.is_complex():
        return torch.view_as_real(tensor.resolve_conj())
    # The 8-bit floats have no reductions of their own.
    return tensor.float() if tensor.element_size() == 1 else tensor


class _Rest:
    """The context of a tree of `Weights`: trees are compatible if the names are equal, whatever the buffers."""

    def __init__(self, weights: Weights) -> None:
        self.parameters, self.buffers = weights.parameters, weights.buffers
        taking_part = set(weights.parameters)
        self.tensors: dict[str, Any] = {
            name: None if name in taking_part else tensor for name, tensor in weights.items()
        }

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Rest) and self.parameters == other.parameters

    def __hash__(self) -> int:
        return hash(self.parameters)


def _unflattened(leaves: Iterable[Any], rest: _Rest) -> Weights:
    made = Weights.__new__(Weights)  # leaves may be any objects: trees are also mapped to sizes, or to None
    made._tensors = {**rest.tensors, **dict(zip(rest.parameters, leaves, strict=True))}
    made.buffers, made.parameters = rest.buffers, rest.parameters
    return made


_pytree.register_pytree_node(Weights, lambda weights: (weights._vector(), _Rest(weights)), _unflattened)
