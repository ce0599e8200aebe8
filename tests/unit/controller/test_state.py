"""A strategy's state survives as JSON and model files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from fedpkg.controller.seeds import derive_seed, step_rng, task_seed
from fedpkg.controller.state import decode, encode
from fedpkg.errors import SessionFailed
from fedpkg.weights.records import Records
from fedpkg.weights.weights import Weights


def test_state_round_trips() -> None:
    kept: dict[str, Any] = {}

    def put(weights: Weights | Records) -> tuple[str, list[str]]:
        kept[f"digest-{len(kept)}"] = weights
        return f"digest-{len(kept) - 1}", sorted(getattr(weights, "buffers", ()))

    told: list[list[str]] = []

    def get(digest: str, buffers: Sequence[str]) -> Weights:
        told.append(list(buffers))
        return kept[digest]

    model = Weights({"w": torch.ones(2)})
    normed = Weights({"w": torch.ones(2), "running_mean": torch.ones(2)}, buffers=["running_mean"])
    state = {
        "normed": normed,
        "model": model,
        "step": 3,
        "list": [model, 1.5, "text", None],
        "deep": {"x": {"y": True}},
    }
    records = Records({"s": model}, [1])
    saved = encode({**state, "records": records}, put)
    assert saved["records"] == {"$weights": "digest-3", "records": True}
    assert saved["normed"] == {"$weights": "digest-0", "buffers": ["running_mean"]}
    assert saved["model"] == {"$weights": "digest-1"}
    again = decode(saved, get, kept.__getitem__)
    assert again["records"] is records
    assert told == [["running_mean"], [], []]
    assert again["model"] is model and again["list"][1:] == [1.5, "text", None] and again["deep"] == {"x": {"y": True}}


def test_state_that_is_no_data_is_refused() -> None:
    with pytest.raises(SessionFailed, match="cannot contain a set"):
        encode({"x": {1}}, lambda weights: ("", []))


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
