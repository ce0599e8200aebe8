"""A strategy that is several at once, each with two clients of its own: one session, so PyTorch is imported once."""

from __future__ import annotations

import dataclasses

import torch

from fedpkg.strategies import make_strategy
from fedpkg.strategies.base import State, Step, StepContext
from fedpkg.weights.weights import Weights

NAMES = ("fedavg", "moon", "fedlc", "pfedme", "fedbn")
MODELS: dict[str, list[dict[str, torch.Tensor]]] = {}  # of each, round by round; the seed first


def clients_of(name: str) -> tuple[str, str]:
    first = 2 * NAMES.index(name)
    return f"client-{first}", f"client-{first + 1}"


class SideBySide:
    def init(self, seed_model: Weights) -> State:
        for name in NAMES:
            MODELS[name] = [copied(seed_model)]
        return {"model": seed_model, "states": {name: make_strategy({"name": name}).init(seed_model) for name in NAMES}}

    def step(self, state: State, ctx: StepContext) -> Step:
        states, strategies, requests = {}, {name: make_strategy({"name": name}) for name in NAMES}, []
        for name, strategy in strategies.items():
            states[name], (request,) = strategy.ask(state["states"][name], ctx.rng)
            requests.append(dataclasses.replace(request, request_id=name, clients=clients_of(name)))
        answers = yield requests
        for (name, strategy), replies in zip(strategies.items(), answers, strict=True):
            states[name] = strategy.tell(states[name], replies)
            MODELS[name].append(copied(states[name]["model"]))
        return {"model": states["fedavg"]["model"], "states": states}


def copied(model: Weights) -> dict[str, torch.Tensor]:
    return {name: model[name].clone() for name in model}
