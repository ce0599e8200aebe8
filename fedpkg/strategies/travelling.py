"""Transforms of the requests and replies of stepping strategies."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from fedpkg.strategies.base import (
    ParticularStrategy,
    Request,
    State,
    Step,
    StepContext,
    SteppingStrategy,
    changed,
)
from fedpkg.strategies.folds import Fold, fold_of
from fedpkg.strategies.traits import Traits, change_numbers, traits_of
from fedpkg.transforms.chain import chain_of, check_way
from fedpkg.types import ReplyKind, Sampling

if TYPE_CHECKING:
    from fedpkg.weights.weights import Weights


@dataclass(frozen=True)
class Travelling:
    """A method whose updates or models are transformed on their way. Requests to a group are not transformed.

    Its traits, `fold` and `check` are those of the method.
    """

    method: SteppingStrategy
    transforms: tuple[Any, ...] = ()
    download_transforms: tuple[Any, ...] = ()

    def __post_init__(self) -> None:
        """Raises ValueError: transforms do not fit together, or to their place."""
        check_way("transforms", self.transforms)
        check_way("download_transforms", self.download_transforms, of_models=True)

    @property
    def traits(self) -> Traits:
        changes = change_numbers(self.transforms, self.download_transforms)
        return replace(traits_of(self.method), changes_numbers=changes)

    @property
    def fold(self) -> Callable[..., Fold[Any]] | None:
        return fold_of(self.method)

    def check(self, sampling: Sampling, num_clients: int) -> None:
        if isinstance(self.method, ParticularStrategy):
            self.method.check(sampling, num_clients)

    def init(self, seed_model: Weights) -> State:
        return self.method.init(seed_model)

    def step(self, state: State, ctx: StepContext) -> Step:
        return (yield from changed(self.method.step(state, ctx), self._on_its_way))

    def _on_its_way(self, request: Request) -> Request:
        if request.group is not None:
            return request
        is_update = request.reply_kind is ReplyKind.UPDATE
        up = chain_of(self.transforms) if is_update else None
        return replace(request, transforms=up, download=chain_of(self.download_transforms))
