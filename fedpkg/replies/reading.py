"""Reads a reply's file and checks it against the request; all code that opens a reply uses this."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from fedpkg.errors import ModelFileError, nearest
from fedpkg.formats.metadata import examples_said, metadata_path, num_examples, read_metadata, read_metrics
from fedpkg.replies.numbers import check_numbers
from fedpkg.types import Json, ReplyKind
from fedpkg.waist.answer import Refused

if TYPE_CHECKING:
    from fedpkg.transforms.chain import Chain
    from fedpkg.waist.order import ReplySpec, TensorSpec
    from fedpkg.weights.records import Records
    from fedpkg.weights.weights import Weights

    # The weights that the client was sent under the name of a set, ``""`` for the model; None if unknown.
    Sent: TypeAlias = Callable[[str], Weights | None]

DEFAULT_REPLY_BYTES = 16 << 20
RECORDS_BYTES = 64 << 20
JSON_BYTES = 16 << 20


@dataclass(frozen=True)
class Checked:
    """The contents of an accepted reply, except its tensors."""

    metadata: Mapping[str, Json]
    num_examples: float | None = None
    metrics: Json = None
    converted: str | None = None  # the dtypes that differ from the global model's


@dataclass(frozen=True)
class Opened:
    """The sets of a reply, mapped, each with the order, dtypes and buffers of its template.

    An update is one set without a name.
    """

    sets: Mapping[str, Weights] = field(default_factory=dict)
    converted: str | None = None
    records: Records | None = None


class Reading:
    """Reads the replies to one request: its specification, and cached values that follow from it."""

    def __init__(self, spec: ReplySpec) -> None:
        self.spec = spec

    @functools.cached_property
    def templates(self) -> dict[str, Weights | None]:
        """The template that each set of the reply must fit, without values; an update is the set ``""``."""
        if self.spec.kind is ReplyKind.SETS:
            return {name: template_of(tensors) for name, tensors in self.spec.sets.items()}
        return {"": template_of(self.spec.tensors)}

    @functools.cached_property
    def chain(self) -> Chain | None:
        """The transforms of an update on its way."""
        from fedpkg.transforms.sections import chain_of_sections

        return chain_of_sections(self.spec.transforms)

    @functools.cached_property
    def max_bytes(self) -> int | None:
        """The maximum size of a reply in bytes: as configured, or else twice the expected size plus a margin.

        Tensors that are expected in half precision may be sent in float64. Records may have 64 MiB more than the model.
        """
        if self.spec.kind is ReplyKind.METRICS:
            return JSON_BYTES
        if self.spec.max_bytes is not None:
            return self.spec.max_bytes
        factor = 4 if self.spec.suffix == ".txt" else 2  # as text, 8 bytes become 25
        asked = list(self.templates.values())
        sizes = [_most_bytes(template, factor) for template in asked if template is not None]
        if self.spec.kind is ReplyKind.RECORDS:
            return sum(sizes) + RECORDS_BYTES
        return sum(sizes) + DEFAULT_REPLY_BYTES if len(sizes) == len(asked) else None

    def check(self, path: Path, sent: Sent) -> Checked:
        """Read and check a reply, which must be where its client cannot write.

        Raises:
            Refused: If the reply is not as requested.
        """
        kind, metadata = self.spec.kind, read_metadata_of(path)
        if kind is ReplyKind.METRICS:
            return Checked(metadata, metrics=self._metrics(path, metadata))
        if kind is ReplyKind.RECORDS:
            data = self.records(path).data
            return Checked(metadata, _weight_said(data, metadata) if self.spec.weighted else 1.0)
        if kind not in (ReplyKind.UPDATE, ReplyKind.SETS):
            return Checked(metadata)
        return self.check_opened(self.open(path, sent), metadata, sent)

    def check_opened(self, opened: Opened, metadata: Mapping[str, Json], sent: Sent) -> Checked:
        """Check the values of an update, or of sets, and their weight.

        Raises:
            Refused: If values are not finite, or too large for their use; or if the weight is unusable.
        """
        examples = examples_of(metadata) if self.spec.weighted else 1.0
        check_numbers(opened.sets, examples, self.spec.use, lambda name: self.known(name, sent), opened.converted)
        return Checked(metadata, examples, converted=opened.converted)

    def open(self, path: Path, sent: Sent) -> Opened:
        """Map an update, records, or the requested sets, in the order of the request. Values are not read.

        Raises:
            Refused: If the file is damaged, or does not fit.
        """
        if self.spec.kind is ReplyKind.RECORDS:
            return Opened(records=self.records(path))
        from fedpkg.formats.model_file import read_model, read_sets

        templates, limit = self.templates, self.max_bytes
        is_update = self.spec.kind is ReplyKind.UPDATE
        try:
            found = {"": read_model(path, max_bytes=limit)} if is_update else read_sets(path, max_bytes=limit)
        except ModelFileError as error:
            raise Refused("bad_file", error.message) from error
        for name in templates:
            if name not in found:
                raise Refused("mismatch", f"missing set '{name}'{nearest(name, found)}")
        if extra := next((name for name in found if name not in templates), None):
            raise Refused("mismatch", f"extra set '{extra}'")
        came = {name: _renamed(found[name], template) for name, template in templates.items()}
        if is_update and self.spec.reply == "delta":
            came[""] = self._with_rest(came[""], sent)
        fitted = {name: _fitted(came[name], template, name) for name, template in templates.items()}
        conversions = (converted for _, converted in fitted.values())
        return Opened({name: weights for name, (weights, _) in fitted.items()}, next(filter(None, conversions), None))

    def records(self, path: Path) -> Records:
        """Map records. Raises Refused if the file is damaged, or has other contents."""
        from fedpkg.formats.records_file import read_records

        try:
            return read_records(path, max_bytes=self.max_bytes)
        except ModelFileError as error:
            raise Refused("bad_file", error.message) from error

    def known(self, name: str, sent: Sent) -> Weights | None:
        """The weights that a client was sent for a set of its reply, with their buffers identified."""
        from fedpkg.weights.weights import Weights

        template, weights = self.templates.get(name), sent(name)
        if template is None or weights is None or not template.keys() <= weights.keys():
            return None
        known = Weights({key: weights[key] for key in template}, buffers=template.buffers)
        return known.in_dtypes_of(template)

    def _metrics(self, path: Path, metadata: Mapping[str, Json]) -> Json:
        try:
            metrics = read_metrics(path)
        except ModelFileError as error:
            raise Refused("bad_json", error.message) from error
        if self.spec.weighted:
            _weight_said(metrics, metadata)
        return metrics

    def _with_rest(self, delta: Weights, sent: Sent) -> Weights:
        """A delta with the tensors that are not parameters: if the client sends none, those that it was sent."""
        from fedpkg.weights.weights import Weights

        template = self.templates[""]
        if template is None or len(template.parameters) == len(template):
            return delta
        parameters = template.filter(frozenset(template.parameters).__contains__)
        delta = _renamed(delta, parameters)
        if not delta or delta.keys() != parameters.keys() or (known := self.known("", sent)) is None:
            return delta
        return Weights({name: delta.get(name, tensor) for name, tensor in known.items()})


@functools.lru_cache(maxsize=32)  # the specifications of a session's rounds have the same tensors
def template_of(tensors: tuple[TensorSpec, ...] | None) -> Weights | None:
    """Weights of these names, dtypes and shapes, without values (on PyTorch's device ``meta``)."""
    import torch

    from fedpkg.weights.weights import Weights

    if tensors is None:
        return None
    buffers = [one.name for one in tensors if one.is_buffer]
    made = {one.name: torch.empty(one.shape, dtype=getattr(torch, one.dtype), device="meta") for one in tensors}
    return Weights(made, buffers=buffers)


def tensors_of(weights: Weights) -> tuple[TensorSpec, ...]:
    """The specification of weights that a reply must fit."""
    from fedpkg.waist.order import TensorSpec
    from fedpkg.weights.weights import dtype_name

    buffers = weights.buffers
    return tuple(
        TensorSpec(name, dtype_name(tensor), tuple(tensor.shape), name in buffers) for name, tensor in weights.items()
    )


def read_metadata_of(path: Path) -> dict[str, Json]:
    """The metadata of a reply; empty if it has none.

    Raises:
        Refused: If it cannot be read.
    """
    if not metadata_path(path).exists():
        return {}
    try:
        return read_metadata(path, max_bytes=JSON_BYTES)
    except ModelFileError as error:
        raise Refused("bad_metadata", error.message) from error


def examples_of(metadata: Mapping[str, Json]) -> float:
    """The weight of a reply.

    Raises:
        Refused: If it has no usable one.
    """
    try:
        return num_examples(metadata)
    except ModelFileError as error:
        advice = ""
        if "num_examples" not in metadata:
            advice = " (packages for FEDn before 0.5 never write it; with round.weighting=equal it is not needed)"
        raise Refused("num_examples", error.message + advice) from error


def _weight_said(content: Json, metadata: Mapping[str, Json]) -> float:
    """The weight that metrics or records state themselves, or else 1. It must be usable, so that one client cannot
    dominate the average.
    """
    try:
        weight = examples_said(content, metadata)
    except ModelFileError as error:
        raise Refused("num_examples", error.message) from error
    return 1.0 if weight is None else weight


def _fitted(came: Weights, template: Weights | None, name: str) -> tuple[Weights, str | None]:
    """The weights in the order of their template, and with its buffers; and the converted dtypes, as text."""
    if template is None:
        return came, None
    if came.mismatch(template) is None:  # the usual case
        return came.reordered_like(template), None
    weights = came.in_dtypes_of(template)
    if reason := weights.mismatch(template):
        raise Refused("mismatch", (f"set '{name}': " if name else "") + reason + _under_other_keys(came, template))
    return weights.reordered_like(template), _conversion(came, weights)


def _under_other_keys(came: Weights, template: Weights) -> str:
    """Text about weights that have positions while the global model has names, or the other way round."""
    from fedpkg.formats.base import keys_of

    theirs, ours = keys_of(came), keys_of(template)
    if theirs == ours:
        return ""
    wrote = {"positions": "numpyhelper or kerashelper", "names": "pytorchhelper"}
    return f"; its keys are {theirs} ({wrote[theirs]}), but the global model's are {ours} ({wrote[ours]})"


def _renamed(weights: Weights, template: Weights | None) -> Weights:
    """Some of a model's tensors under its names: with positions as names, their own keys are 0, 1, 2 …"""
    from fedpkg.formats.base import keys_of
    from fedpkg.weights.weights import Weights

    if template is None:
        return weights
    if len(weights) == len(template) and keys_of(weights) == "positions" and all(map(str.isdecimal, template)):
        return Weights(dict(zip(template, weights.values(), strict=True)))
    return weights


def _conversion(came: Weights, fitted: Weights) -> str | None:
    """The first tensor of a reply whose dtype was converted, as text for a message."""
    from fedpkg.weights.weights import dtype_name

    for name, tensor in came.items():
        if tensor.dtype != fitted[name].dtype:
            return f"tensor '{name}' is {dtype_name(tensor)}, but {dtype_name(fitted[name])} in the global model"
    return None


def _most_bytes(template: Weights, factor: int) -> int:
    return sum(
        tensor.numel() * max(factor * tensor.element_size(), 8 if tensor.is_floating_point() else 0)
        for tensor in template.values()
    )
