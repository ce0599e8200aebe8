"""A reply's file, read and checked against what was asked: the one way in, wherever it is opened."""

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

    # What the client was sent under the name of a set, ``""`` for the model; None where that is not known.
    Sent: TypeAlias = Callable[[str], Weights | None]

DEFAULT_REPLY_BYTES = 16 << 20
RECORDS_BYTES = 64 << 20
JSON_BYTES = 16 << 20


@dataclass(frozen=True)
class Checked:
    """What a reply says that is as it was asked, besides its tensors."""

    metadata: Mapping[str, Json]
    num_examples: float | None = None
    metrics: Json = None
    converted: str | None = None  # which dtypes of it are not the global model's


@dataclass(frozen=True)
class Opened:
    """The sets of a reply, mapped, each with the order, the dtypes and the buffers of what it must fit.

    An update is one set without a name.
    """

    sets: Mapping[str, Weights] = field(default_factory=dict)
    converted: str | None = None
    records: Records | None = None


class Reading:
    """How the replies to one request are read: its specification, with what follows from it worked out once."""

    def __init__(self, spec: ReplySpec) -> None:
        self.spec = spec

    @functools.cached_property
    def templates(self) -> dict[str, Weights | None]:
        """What each set of the reply must fit, without its numbers; an update is the set ``""``."""
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
        """Bytes that a reply may have: as configured, else twice what is asked for and some room.

        What is asked for in a half-precision dtype may come in float64. Records have 64 MiB besides what the model has.
        """
        if self.spec.kind is ReplyKind.METRICS:
            return JSON_BYTES
        if self.spec.max_bytes is not None:
            return self.spec.max_bytes
        factor = 4 if self.spec.suffix == ".txt" else 2  # as text, 8 bytes take 25
        asked = list(self.templates.values())
        sizes = [_most_bytes(template, factor) for template in asked if template is not None]
        if self.spec.kind is ReplyKind.RECORDS:
            return sum(sizes) + RECORDS_BYTES
        return sum(sizes) + DEFAULT_REPLY_BYTES if len(sizes) == len(asked) else None

    def check(self, path: Path, sent: Sent) -> Checked:
        """Read and check a reply that lies out of its client's reach.

        Raises:
            Refused: the reply is not as asked.
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
        """Check the numbers of an update, or of sets, and their weight.

        Raises:
            Refused: numbers are not finite, or too large for what becomes of them; or the weight is unusable.
        """
        examples = examples_of(metadata) if self.spec.weighted else 1.0
        check_numbers(opened.sets, examples, self.spec.use, lambda name: self.known(name, sent), opened.converted)
        return Checked(metadata, examples, converted=opened.converted)

    def open(self, path: Path, sent: Sent) -> Opened:
        """Map an update, records, or the sets that are asked for, in that order. Numbers are not looked at.

        Raises:
            Refused: the file is damaged, or does not fit.
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
        """Map records. Raises Refused: the file is damaged, or holds something else."""
        from fedpkg.formats.records_file import read_records

        try:
            return read_records(path, max_bytes=self.max_bytes)
        except ModelFileError as error:
            raise Refused("bad_file", error.message) from error

    def known(self, name: str, sent: Sent) -> Weights | None:
        """What a client was sent in place of a set of its reply, with its buffers told apart."""
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
        """A delta with the tensors that are no parameters: of a client that sends none, those that it was sent."""
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
    """Weights of these names, dtypes and shapes that have no numbers (PyTorch's device ``meta``)."""
    import torch

    from fedpkg.weights.weights import Weights

    if tensors is None:
        return None
    buffers = [one.name for one in tensors if one.is_buffer]
    made = {one.name: torch.empty(one.shape, dtype=getattr(torch, one.dtype), device="meta") for one in tensors}
    return Weights(made, buffers=buffers)


def tensors_of(weights: Weights) -> tuple[TensorSpec, ...]:
    """What a specification says of weights that a reply must fit."""
    from fedpkg.waist.order import TensorSpec
    from fedpkg.weights.weights import dtype_name

    buffers = weights.buffers
    return tuple(
        TensorSpec(name, dtype_name(tensor), tuple(tensor.shape), name in buffers) for name, tensor in weights.items()
    )


def read_metadata_of(path: Path) -> dict[str, Json]:
    """What came beside a reply; nothing, if nothing did.

    Raises:
        Refused: it cannot be read.
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
        Refused: it says none that is usable.
    """
    try:
        return num_examples(metadata)
    except ModelFileError as error:
        advice = ""
        if "num_examples" not in metadata:
            advice = " (packages for FEDn before 0.5 never say it; with round.weighting=equal all weigh the same)"
        raise Refused("num_examples", error.message + advice) from error


def _weight_said(content: Json, metadata: Mapping[str, Json]) -> float:
    """What metrics or records weigh as they say themselves, which must be usable: one client must not be the whole
    average. 1 where they do not say it.
    """
    try:
        weight = examples_said(content, metadata)
    except ModelFileError as error:
        raise Refused("num_examples", error.message) from error
    return 1.0 if weight is None else weight


def _fitted(came: Weights, template: Weights | None, name: str) -> tuple[Weights, str | None]:
    """The weights in the order of what they must fit, and with its buffers; what was converted, in words."""
    if template is None:
        return came, None
    if came.mismatch(template) is None:  # as nearly always
        return came.reordered_like(template), None
    weights = came.in_dtypes_of(template)
    if reason := weights.mismatch(template):
        raise Refused("mismatch", (f"set '{name}': " if name else "") + reason + _under_other_keys(came, template))
    return weights.reordered_like(template), _conversion(came, weights)


def _under_other_keys(came: Weights, template: Weights) -> str:
    """Words for weights that have positions where the global model has names, or the other way round."""
    from fedpkg.formats.base import keys_of

    theirs, ours = keys_of(came), keys_of(template)
    if theirs == ours:
        return ""
    wrote = {"positions": "numpyhelper or kerashelper", "names": "pytorchhelper"}
    return f"; its keys are {theirs}, as of {wrote[theirs]}, and the global model's are {ours}, as of {wrote[ours]}"


def _renamed(weights: Weights, template: Weights | None) -> Weights:
    """Where a model has positions for names, a set of some of its tensors counts 0, 1, 2 … on its own."""
    from fedpkg.formats.base import keys_of
    from fedpkg.weights.weights import Weights

    if template is None:
        return weights
    if len(weights) == len(template) and keys_of(weights) == "positions" and all(map(str.isdecimal, template)):
        return Weights(dict(zip(template, weights.values(), strict=True)))
    return weights


def _conversion(came: Weights, fitted: Weights) -> str | None:
    """The first tensor of a reply whose dtype was converted, in words for a message."""
    from fedpkg.weights.weights import dtype_name

    for name, tensor in came.items():
        if tensor.dtype != fitted[name].dtype:
            return f"tensor '{name}' is {dtype_name(tensor)}, in the global model it is {dtype_name(fitted[name])}"
    return None


def _most_bytes(template: Weights, factor: int) -> int:
    return sum(
        tensor.numel() * max(factor * tensor.element_size(), 8 if tensor.is_floating_point() else 0)
        for tensor in template.values()
    )
