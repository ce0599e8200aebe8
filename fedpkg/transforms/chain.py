"""Chains of transforms, which a sender applies in order and a receiver undoes in reverse."""

from __future__ import annotations

import dataclasses
import io
import itertools
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedpkg.transforms.stage import Stage
from fedpkg.types import Json

if TYPE_CHECKING:
    from torch import Tensor

    from fedpkg.transforms.message import Message, Way
    from fedpkg.weights.weights import Weights

_ORDER = {
    Stage.DELTA: "delta",
    Stage.BOUND: "clip or local_dp",
    Stage.NOISE: "gaussian_noise",
    Stage.CHOOSE: "top_k or random_k",
    Stage.NARROW: "quantise, sign or bfloat16",
    Stage.PACK: "zstd",
}
_ROOM_BYTES = 16 << 20


@dataclass(frozen=True)
class Sent:
    """What is sent. ``lost`` (n,) is what error feedback adds to the client's next update, or None."""

    content: bytes
    lost: Tensor | None = None


@dataclass(frozen=True)
class Chain:
    """Transforms in the order in which a sender applies them.

    Steps are in the order of their stages, with at most one of each, except those that clip or add noise. If a step
    works on differences alone, ``delta`` is put before the first step.
    """

    steps: tuple[Any, ...]

    def __post_init__(self) -> None:
        stages = [step.stage for step in self.steps]
        for before, after in itertools.pairwise(stages):
            if after < before or (after == before and after not in (Stage.BOUND, Stage.NOISE)):
                raise ValueError(
                    f"{_ORDER[after]} cannot come after {_ORDER[before]}; the order is: {'; '.join(_ORDER.values())}"
                )
        if any(step.of_update for step in self.steps) and Stage.DELTA not in stages:
            from fedpkg.transforms.delta import Delta

            object.__setattr__(self, "steps", (Delta(), *self.steps))

    @property
    def feeds_back(self) -> bool:
        """Whether a client keeps what the transforms lose."""
        return self._remembering is not None

    def encode(
        self, update: Weights, sent: Weights, *, seed: int, is_difference: bool = False, lost: Tensor | None = None
    ) -> Sent:
        """The bytes to send for an update.

        Args:
            sent: the model that the client received, for its parameters and their shapes.
            seed: the seed of the draws.
            is_difference: the update is a delta or gradient already.
            lost: `Sent.lost` of the client's last update.
        """
        from fedpkg.transforms.message import write_message

        message, way = self._message(update, sent, seed=seed, is_difference=is_difference)
        first = self._remembering
        message = self._applied(message, way, stop=first)
        if first is not None:
            if lost is not None and lost.shape == message.values.shape:
                message = message.replace(message.values + lost.to(message.values.dtype))
            whole = message.values
            message = self._applied(message, way, start=first)
            lost = whole - self._undone(message, way, start=first).values
        else:
            lost = None
        file = io.BytesIO()
        write_message(file, message)
        content = file.getvalue()
        return Sent(self._packs[0].packed(content) if self._packs else content, lost)

    def decode(self, path: Path, sent: Weights, *, is_difference: bool = False) -> tuple[Weights, dict[str, Json]]:
        """An update (a new model in memory) and the facts that were sent with it.

        Raises:
            ModelFileError: the file is not one that the chain makes.
        """
        from fedpkg.transforms.message import from_vector, read_message

        if self._packs:
            limit = 2 * sent.num_bytes + 9 * sent.num_parameters + _ROOM_BYTES
            with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".unpacked-") as file:
                self._packs[0].unpack(path, file, max_bytes=limit)
                file.flush()
                message = read_message(Path(file.name), sent)
        else:
            message = read_message(path, sent)
        way = self._way(sent, seed=0, is_difference=is_difference)
        message = self._undone(message, way)
        values = message.numbers(way.dtype, (way.size,))
        rest = {name: tensor.clone() for name, tensor in message.rest.items()}
        return from_vector(values, rest, sent), dict(message.facts)

    def there_and_back(self, update: Weights, sent: Weights, *, seed: int) -> Weights:
        """An update as the receiver would see it, without sending it."""
        from fedpkg.transforms.message import from_vector

        message, way = self._message(update, sent, seed=seed, is_difference=False)
        message = self._undone(self._applied(message, way), way)
        return from_vector(message.values, message.rest, update)

    # ---- inside

    @property
    def _tensor_steps(self) -> Sequence[Any]:
        return [step for step in self.steps if step.stage != Stage.PACK]

    @property
    def _packs(self) -> Sequence[Any]:
        return [step for step in self.steps if step.stage == Stage.PACK]

    @property
    def _remembering(self) -> int | None:
        """The first step with error feedback, from which on losses are kept."""
        for number, step in enumerate(self._tensor_steps):
            if getattr(step, "error_feedback", False):
                return number
        return None

    def _applied(self, message: Message, way: Way, *, start: int = 0, stop: int | None = None) -> Message:
        """The message after the steps from ``start`` up to ``stop``."""
        for place, step in list(enumerate(self._tensor_steps))[start:stop]:
            message = step.apply(message, dataclasses.replace(way, place=place))
        return message

    def _undone(self, message: Message, way: Way, *, start: int = 0) -> Message:
        """The message before the step ``start``, without what was lost."""
        for step in reversed(self._tensor_steps[start:]):
            message = step.undo(message, way)
        return message

    def _message(self, update: Weights, sent: Weights, *, seed: int, is_difference: bool) -> tuple[Message, Way]:
        from fedpkg.transforms.message import Message, parameters_vector

        way = self._way(sent, seed=seed, is_difference=is_difference)
        rest = {name: tensor for name, tensor in update.items() if name not in update.parameters}
        return Message(parameters_vector(update, way.dtype), rest=rest), way

    def _way(self, sent: Weights, *, seed: int, is_difference: bool) -> Way:
        from fedpkg.transforms.message import Way, parameters_vector, vector_dtype

        dtype = vector_dtype(sent)
        known = parameters_vector(sent, dtype)
        size = count = known.numel()
        for step in self.steps:
            if step.stage == Stage.CHOOSE:
                count = step.count(size)
        return Way(None if is_difference else known, size, count, dtype, seed)


def check_way(where: str, steps: Sequence[Any], *, of_models: bool = False) -> None:
    """Raises ValueError: the transforms do not fit together, or not to whole models (``of_models``)."""
    try:
        chain_of(steps)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
    for step in steps if of_models else ():
        if step.of_update or getattr(step, "error_feedback", False):
            raise ValueError(f"{where}: {type(step).__name__} is for updates, not for whole models")


def chain_of(steps: Sequence[Any]) -> Chain | None:
    """The chain of these transforms; None if there are none.

    Raises:
        ValueError: they do not fit together.
    """
    return Chain(tuple(steps)) if steps else None
