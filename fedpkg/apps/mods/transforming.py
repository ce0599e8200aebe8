"""fedpkg's transforms of updates as a mod."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from fedpkg.apps.message import Message
from fedpkg.apps.mods.updates import Update, with_update
from fedpkg.client.task import task

if TYPE_CHECKING:
    from collections.abc import Callable

    from fedpkg.apps.context import Context


class TransformMod:
    """Change the update of a training message as fedpkg's transforms would on its way: clip, add noise, quantise….

    The reply has the arrays that the receiver would decode; the message itself is not made smaller. Transforms of the
    run.yaml are the same for all clients and also shrink what travels, so they are the better choice where they can be
    used.

    Args:
        name: The name of a transform, such as ``quantise`` (see `fedpkg strategy list`).
        parameters: Its parameters, such as ``bits=8``.

    Raises:
        ImportError: If the client's interpreter has no fedpkg.
        fedpkg.errors.ConfigError: If the transform or a parameter does not exist.
    """

    def __init__(self, name: str, **parameters: Any) -> None:
        try:
            from fedpkg.config_shape import Places
            from fedpkg.transforms.registry import TRANSFORMS
            from fedpkg.transforms.sections import chain_of_sections
        except ImportError as error:
            raise ImportError(
                f"TransformMod needs fedpkg in the client's interpreter: {error}. Install it there, or set "
                "'transforms' in the run.yaml"
            ) from error
        section = TRANSFORMS.resolve("transform", {"name": name, **parameters}, Places("TransformMod"), ())
        chain = chain_of_sections([section])
        assert chain is not None
        self._chain = chain

    def __call__(self, message: Message, context: Context, call_next: Callable[[Message, Context], Message]) -> Message:
        return with_update("TransformMod", message, context, call_next, self._transform)

    def _transform(self, update: Update) -> None:
        from fedpkg.weights.weights import Weights

        before, after = (
            Weights(OrderedDict((key, one[key]) for key in update.pairs))
            for one in (update.given.to_torch_state_dict(), update.trained.to_torch_state_dict())
        )
        update.replace(dict(self._chain.there_and_back(after, before, seed=task().seed)))
