"""A strategy whose step asks a random number of times: one group or another, several requests at once, all kinds."""

from __future__ import annotations

from fedpkg.strategies import Traits
from fedpkg.strategies.base import Replies, Request, State, Step, StepContext
from fedpkg.types import ReplyKind
from fedpkg.weights.fold import MeanFold
from fedpkg.weights.weights import Weights


def mean(replies: Replies, template: Weights) -> Weights:
    fold = MeanFold(template)
    for reply in replies:
        fold.add(reply.position, reply.weights, reply.num_examples)
    return fold.result()


class Wandering:
    """All that a step may do, and nothing that makes sense."""

    traits = Traits(entry_points=("train", "gradient", "validate"), groups=("odd", "even"))

    def init(self, seed_model: Weights) -> State:
        return {"model": seed_model, "missing": [], "losses": []}

    def step(self, state: State, ctx: StepContext) -> Step:
        x: Weights = state["model"]
        parameters = x.filter(frozenset(x.parameters).__contains__)
        missing, losses = [], []
        replies: Replies = yield Request(payload=x, entry_point="gradient", reply="gradient")
        gradient = mean(replies, parameters)
        for _ in range(ctx.rng.geometric(0.4)):
            group = "odd" if ctx.rng.random() < 0.5 else "even"
            replies = yield Request(
                payload={"x": x, "w": state["model"]},
                group=group,
                entry_point="gradient",
                reply_kind=ReplyKind.SETS,
                sets={"x": None, "w": None},
                required=0,
            )
            for reply in replies:
                gradient = gradient + 0.1 * (reply.sets["x"] - reply.sets["w"])
            missing += replies.missing
            x = x - 0.1 * gradient
        first, deltas, values = yield [
            Request(payload=x, required=0),
            Request("steps", payload=x, reply="delta", required=0, parameters={"say": group}),
            Request(payload=x, clients=ctx.group("even"), entry_point="validate", reply_kind=ReplyKind.METRICS),
        ]
        losses = [reply.metrics["loss"] for reply in values]
        next(first, None)  # of the others it only matters that they were asked
        x = x + mean(deltas, parameters)
        missing += first.missing
        return {"model": x, "missing": state["missing"] + missing, "losses": losses}
