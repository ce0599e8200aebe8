"""Strategies with a model for each cluster: one whose clusters split and merge, one whose clusters a test gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from wandering_strategy import mean

from fedpkg.strategies.base import ClusterModel, Request, State, Step, StepContext, StepResult
from fedpkg.weights.weights import Weights

SPLITTING, GROUPING = {"name": "clustering:Splitting"}, {"name": "clustering:Grouping"}
# By round: each cluster with the positions of its clients, and those of the round before from which it comes.
PLAN: dict[int, dict[str, tuple[str, tuple[str, ...]]]] = {
    1: {"a": ("012", ()), "b": ("34", ())},
    2: {"a/x": ("0", ("a",)), "a/y": ("12", ("a",)), "b": ("34", ())},
    3: {"a/y": ("1", ()), "c": ("0234", ("a/x", "b"))},
    4: {"a/y": ("1", ()), "c": ("0234", ())},
}
RESTS = {(2, "b"), (3, "a/y"), (4, "a/y")}  # clusters that do not train in this round


class Splitting:
    """Each cluster is an average of its own; client-5 belongs to none."""

    def init(self, seed_model: Weights) -> State:
        return {"model": seed_model, "clusters": {}}

    def step(self, state: State, ctx: StepContext) -> Step:
        plan = PLAN[ctx.round_number]
        former: Mapping[str, Weights] = state["clusters"]
        started = {}
        for path, (_, parents) in plan.items():
            of = [former[name] for name in parents or (path,) if name in former]
            started[path] = of[0] if len(of) == 1 else Weights.mean(of) if of else state["model"]
        at_work = [path for path in plan if (ctx.round_number, path) not in RESTS]
        clients = {path: tuple(f"client-{number}" for number in plan[path][0]) for path in plan}
        answers = yield [
            Request(payload=started[path], clients=clients[path], required=0, use="averaged") for path in at_work
        ]
        made = {
            **started,
            **{path: mean(replies, started[path]) for path, replies in zip(at_work, answers, strict=True)},
        }
        of_path = {
            path: ClusterModel(made[path], clients[path], plan[path][1], 1.0 if path in at_work else 0.0)
            for path in plan
        }
        return StepResult({"model": Weights.mean(list(made.values())), "clusters": made}, clusters=of_path)


class Grouping:
    """One model, and clusters that a test makes of it and of the number of the round."""

    clusters: ClassVar[Callable[[int, Weights], Mapping[str, Any]]]

    def init(self, seed_model: Weights) -> State:
        return {"model": seed_model}

    def step(self, state: State, ctx: StepContext) -> Step:
        model = mean((yield Request(payload=state["model"], use="averaged")), state["model"])
        return StepResult({"model": model}, clusters=type(self).clusters(ctx.round_number, model))
