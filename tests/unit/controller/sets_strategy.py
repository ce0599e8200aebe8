"""A strategy whose requests and replies are several named weight sets: a model and a control variate."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from fedpkg.strategies.base import Reply, Request, State
from fedpkg.types import ReplyKind
from fedpkg.weights.fold import MeanFold
from fedpkg.weights.weights import Weights


class WithControl:
    """Both sets are averaged, each by the fold that FedAvg uses."""

    def init(self, seed_model: Weights) -> State:
        control = seed_model.filter(frozenset(seed_model.parameters).__contains__).zeros_like()
        return {"model": seed_model, "control": control, "step": 0}

    def ask(self, state: State, rng: np.random.Generator) -> tuple[State, list[Request]]:
        step = state["step"] + 1
        request = Request(
            f"train-{step}",
            payload={"x": state["model"], "control": state["control"]},
            reply_kind=ReplyKind.SETS,
            sets={"x": state["model"], "control": None},
        )
        return {**state, "step": step}, [request]

    def tell(self, state: State, replies: Iterator[Reply]) -> State:
        folds = {"x": MeanFold(state["model"]), "control": MeanFold(state["control"])}
        for reply in replies:
            folds["x"].add(reply.position, reply.sets["x"], reply.num_examples)
            folds["control"].add(reply.position, reply.sets["control"], 1.0)
        return {**state, "model": folds["x"].result(), "control": folds["control"].result()}
