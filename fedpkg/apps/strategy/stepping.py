"""The state of one of fedpkg's strategies in a message app, and its steps."""

from __future__ import annotations

import operator
import random
from collections.abc import Callable, Generator, Sequence
from typing import TYPE_CHECKING, Any

from fedpkg.apps.strategy.answers import Answered, to_record, to_weights
from fedpkg.records.array_record import ArrayRecord

if TYPE_CHECKING:
    from fedpkg.records.array import Array
    from fedpkg.strategies.base import Client, Reply, StepContext, SteppingStrategy, StepResult, Strategy
    from fedpkg.types import Sampling
    from fedpkg.weights.weights import Weights

    Method = Strategy | SteppingStrategy


_BITS = 128  # of a draw, which seeds the generator of a step


class Stepping:
    """Keeps the state of a strategy from round to round, and the arrays that were made of it.

    Attributes:
        state: The strategy's state: ``"model"``, and what the strategy keeps, such as ``"server_optimiser"``.
    """

    def __init__(self) -> None:
        self.state: dict[str, Any] = {}
        self._known: tuple[list[Array], Weights] | None = None  # the last arrays, which need not be converted again

    def weights_of(self, arrays: ArrayRecord) -> Weights:
        """The arrays as tensors."""
        if self._known is not None:
            known, weights = self._known
            if list(arrays) == list(weights) and all(map(operator.is_, arrays.values(), known)):
                return weights
        weights = to_weights(arrays)
        self._known = (list(arrays.values()), weights)
        return weights

    def known_record(self, weights: Weights) -> ArrayRecord | None:
        """The last arrays, if these are their tensors."""
        if self._known is None or self._known[1] is not weights:
            return None
        return ArrayRecord(dict(zip(weights, self._known[0], strict=True)))

    def begin(self, method: Method, model: Weights) -> dict[str, Any]:
        """The state before a step from this model, which is the one of the last step unless an app has changed it."""
        if self.state.get("model") is model:
            return self.state
        fresh = method.init(model)
        if not self.state:
            return fresh
        return {**self.state, **{name: fresh[name] for name in ("model", "master") if name in fresh}}

    def step(self, method: Method, model: Weights, server_round: int, replies: Sequence[Reply]) -> Weights:
        """The step of a strategy that makes one request in a round, after its replies.

        Raises:
            AggregationError (of fedpkg.errors): the replies cannot be aggregated; the state stays as it is.
        """
        step = self.steps(method, self.begin(method, model), context(server_round))
        requests = next(step)
        asked = [reply.client_id for reply in replies]
        try:
            step.send((Answered(requests[0], server_round, asked, replies),))
        except StopIteration as end:
            result: StepResult = end.value
        return self.keep(result)

    def pass_over(self) -> None:
        """Take the draw of a step that is not taken: its result is known."""
        random.getrandbits(_BITS)

    def reply_of(self, arrays: ArrayRecord) -> Reply:
        """Arrays as the only reply."""
        from fedpkg.strategies.base import Reply

        return Reply("", 0, "", {"": to_weights(arrays)}, 1.0)

    def steps(self, method: Method, state: dict[str, Any], ctx: StepContext) -> Generator[Any, Any, StepResult]:
        """The requests of a step, and its result."""
        from fedpkg.strategies.base import take_step

        return take_step(method, state, ctx)

    def keep(self, result: StepResult) -> Weights:
        """Keep the state after a step; returns its model."""
        self.state = dict(result.state)
        model: Weights = self.state["model"]
        return model

    def record_of(self, model: Weights) -> ArrayRecord:
        """The arrays of a model, which share its memory."""
        record = to_record(model)
        self._known = (list(record.values()), model)
        return record


def context(
    server_round: int,
    clients: tuple[Client, ...] = (),
    sample: Callable[[], tuple[str, ...]] = tuple,
    sampling: Sampling | None = None,
) -> StepContext:
    """The context of a step; its draws come from the generator of ``random``, which a session seeds."""
    import numpy as np

    from fedpkg.strategies.base import StepContext
    from fedpkg.types import Sampling

    rng = np.random.default_rng(random.getrandbits(_BITS))
    return StepContext(server_round, rng, clients, sample, sampling or Sampling())
