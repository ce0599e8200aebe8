"""What a step comes to: as a typed result, or as a state whose keys say the rest."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import torch

from fedpkg.strategies import StepResult
from fedpkg.strategies.base import Request, State, StepContext, take_step
from fedpkg.strategies.master import with_master
from fedpkg.strategies.traits import Traits
from fedpkg.weights.weights import Weights

MODEL = Weights({"w": torch.ones(3)})
CONTEXT = StepContext(1, np.random.default_rng(0), (), lambda: ())


class Telling:
    """Returns what it is made with."""

    traits = Traits(treatment="step")

    def __init__(self, found: Any) -> None:
        self.found = found

    def init(self, seed_model: Weights) -> State:
        return {"model": seed_model}

    def step(self, state: State, ctx: StepContext) -> Any:
        yield Request(payload=state["model"])
        return self.found


def result_of(strategy: Any, state: State) -> StepResult:
    step = take_step(strategy, state, CONTEXT)
    next(step)
    try:
        step.send(None)
    except StopIteration as stop:
        found: StepResult = stop.value
        return found
    raise AssertionError


def test_plain_state_is_a_result_with_nothing_to_tell() -> None:
    state = {"model": MODEL, "z": 3}
    assert result_of(Telling(state), state) == StepResult(state)


def test_keys_of_a_plain_state_say_what_a_result_says() -> None:
    state = {"model": MODEL, "metrics": {"epsilon": 1.5}, "finished": "enough", "time": 2.5}
    assert StepResult.of(state) == StepResult(state, {"epsilon": 1.5}, "enough", 2.5)
    result = StepResult({"model": MODEL, "time": "of its own"}, {"epsilon": 1.5})
    assert StepResult.of(result) is result, "a typed result says all itself"


def test_why_a_session_ends_is_kept_with_the_state() -> None:
    state = {"model": MODEL, "z": 3}
    assert StepResult(state, {"epsilon": 1.5}).kept == state, "metrics are the round's"
    result = StepResult(state, finished="enough")
    assert StepResult.of(result.kept).finished == "enough"


def test_float32_master_hands_on_what_a_step_tells() -> None:
    model = Weights({"w": torch.ones(3, dtype=torch.float16)})
    told = StepResult({"model": MODEL}, {"epsilon": 1.5}, "enough", 2.5)

    def answers(strategy: Any) -> StepResult:
        step = take_step(strategy, strategy.init(model), CONTEXT)
        request = next(step)
        assert request.payload["w"].dtype == torch.float16
        replies: Any = iter(())
        try:
            step.send(replies)
        except StopIteration as stop:
            found: StepResult = stop.value
            return found
        raise AssertionError

    result = answers(with_master(Telling(told)))
    assert dataclasses.replace(result, state={}) == dataclasses.replace(told, state={})
    assert result.model["w"].dtype == torch.float16 and result.state["master"] is MODEL
