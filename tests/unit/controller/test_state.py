"""A strategy's state survives as JSON and model files."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fedpkg.controller.seeds import derive_seed, step_rng, task_seed
from fedpkg.controller.state import decode, encode
from fedpkg.weights.weights import Weights


def test_state_round_trips() -> None:
    kept: dict[str, Weights] = {}

    def put(weights: Weights) -> str:
        kept[f"digest-{len(kept)}"] = weights
        return f"digest-{len(kept) - 1}"

    model = Weights({"w": torch.ones(2)})
    state = {"model": model, "step": 3, "list": [model, 1.5, "text", None], "deep": {"x": {"y": True}}}
    saved = encode(state, put)
    assert saved["model"] == {"$weights": "digest-0"}
    again = decode(saved, kept.__getitem__)
    assert again["model"] is model and again["list"][1:] == [1.5, "text", None] and again["deep"] == {"x": {"y": True}}


def test_state_that_is_no_data_is_refused() -> None:
    with pytest.raises(TypeError, match="cannot hold a set"):
        encode({"x": {1}}, lambda weights: "")


def test_seeds_depend_on_each_word_and_fit_every_generator() -> None:
    seeds = {
        task_seed(0, 1, "client-1"),
        task_seed(0, 1, "client-2"),
        task_seed(0, 2, "client-1"),
        task_seed(1, 1, "client-1"),
    }
    assert len(seeds) == 4
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert derive_seed("a", "bc") != derive_seed("ab", "c")
    assert np.array_equal(step_rng(0, 1, "ask").random(3), step_rng(0, 1, "ask").random(3))
