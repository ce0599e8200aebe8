"""Transforms of what travels, for methods that ask by themselves: their requests go out and come back through them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from fedpkg.strategies.base import Request, State, Step, StepContext, SteppingStrategy
from fedpkg.transforms.chain import chain_of, check_way
from fedpkg.types import ReplyKind

if TYPE_CHECKING:
    from fedpkg.weights.weights import Weights


@dataclass(frozen=True)
class Travelling:
    """A method whose updates, or models, are transformed on their way. What a group is asked stays with the server.

    What else the method says of itself (`fedpkg.strategies.base.SteppingStrategy`), it says through this.
    """

    method: SteppingStrategy
    transforms: tuple[Any, ...] = ()
    download_transforms: tuple[Any, ...] = ()

    def __post_init__(self) -> None:
        """Raises ValueError: transforms do not go together, or not where they are."""
        check_way("transforms", self.transforms)
        check_way("download_transforms", self.download_transforms, of_models=True)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "method":
            raise AttributeError(name)
        return getattr(self.method, name)

    def init(self, seed_model: Weights) -> State:
        return self.method.init(seed_model)

    def step(self, state: State, ctx: StepContext) -> Step:
        step = self.method.step(state, ctx)
        answers = None
        try:
            while True:
                asks = step.send(answers)
                several = [asks] if isinstance(asks, Request) else asks
                sent = [self._on_its_way(request) for request in several]
                answers = yield sent[0] if isinstance(asks, Request) else sent
        except StopIteration as end:
            found: State = end.value
            return found
        finally:
            step.close()

    def _on_its_way(self, request: Request) -> Request:
        if request.group is not None:
            return request
        is_update = request.reply_kind is ReplyKind.UPDATE
        up = chain_of(self.transforms) if is_update else None
        return replace(request, transforms=up, download=chain_of(self.download_transforms))
