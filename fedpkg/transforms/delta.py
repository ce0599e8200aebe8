"""The difference to the parameters that a client received."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from fedpkg.transforms.registry import register_transform
from fedpkg.transforms.stage import Stage

if TYPE_CHECKING:
    from fedpkg.transforms.message import Message, Way


@register_transform("delta", equation="d_k = w_k - w;  undone by w_k = w + d_k")
@dataclass(frozen=True)
class Delta:
    """Send the difference of the parameters to those that the client received.

    Transforms that work on differences alone add it to the chain. A reply that is a delta or a gradient stays as it is.
    """

    stage: ClassVar[Stage] = Stage.DELTA
    of_update: ClassVar[bool] = True

    def apply(self, message: Message, way: Way) -> Message:
        return message if way.known is None else message.replace(message.values - way.known)

    def undo(self, message: Message, way: Way) -> Message:
        values = message.numbers(way.dtype, (way.size,))
        return message if way.known is None else message.replace(values + way.known)
