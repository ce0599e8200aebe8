"""Mods change or refuse training messages and leave all others alone."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fedpkg.apps import ClientApp, Context, Message
from fedpkg.apps.message import ErrorCode
from fedpkg.apps.mods import (
    LocalDpMod,
    TransformMod,
    adaptiveclipping_mod,
    arrays_size_mod,
    fixedclipping_mod,
    message_size_mod,
    secagg_mod,
    secaggplus_mod,
)
from fedpkg.errors import ConfigError
from fedpkg.records import ArrayRecord, ConfigRecord, MetricRecord, RecordDict


def run(mod: Any, step: float | None = 2.0, *, norm: float | None = 1.0, message_type: str = "train") -> Message:
    """The reply of a client that adds ``step`` to each parameter (None: nothing is sent back), through a mod."""
    app = ClientApp(mods=[mod])

    def answer(message: Message, _context: Context) -> Message:
        arrays = message.content["arrays"]
        weights = arrays.pop("w").numpy()
        content = RecordDict({"metrics": MetricRecord({"num-examples": 1})})
        if step is not None:
            content["arrays"] = ArrayRecord({"w": weights + np.float32(step), "n": arrays["n"].numpy() + 1})
        return Message(content, reply_to=message)

    app.train()(answer)
    app.evaluate()(answer)
    arrays = ArrayRecord({"w": np.zeros(4, np.float32), "n": np.array(5)})
    config = ConfigRecord({} if norm is None else {"clipping-norm": norm})
    message = Message(RecordDict({"arrays": arrays, "config": config}), 1, message_type)
    return app(message, Context(1, 1, {}, RecordDict(), {}))


def test_fixed_clipping_scales_the_update_to_the_norm() -> None:
    arrays = run(fixedclipping_mod).content["arrays"]
    np.testing.assert_allclose(arrays["w"].numpy(), np.full(4, 0.5), rtol=1e-6)
    assert arrays["w"].numpy().dtype == np.float32
    assert arrays["n"].numpy() == 6, "counters are not part of the update"


def test_a_small_or_zero_update_is_left_alone() -> None:
    np.testing.assert_array_equal(run(fixedclipping_mod, 0.25).content["arrays"]["w"].numpy(), np.full(4, 0.25))
    np.testing.assert_array_equal(run(fixedclipping_mod, 0.0).content["arrays"]["w"].numpy(), np.zeros(4))


@pytest.mark.parametrize(("step", "bit"), [(2.0, 0), (0.1, 1)])
def test_adaptive_clipping_says_whether_the_update_was_within_the_norm(step: float, bit: int) -> None:
    assert run(adaptiveclipping_mod, step).content["metrics"]["norm-bit"] == bit


@pytest.mark.parametrize("mod", [fixedclipping_mod, adaptiveclipping_mod])
def test_clipping_without_a_norm_is_an_error_reply(mod: Any) -> None:
    reply = run(mod, norm=None)
    assert reply.error.code == ErrorCode.MOD_FAILED_PRECONDITION
    assert "'clipping-norm', a number above 0" in str(reply.error.reason)


def test_a_reply_without_arrays_is_an_error_reply() -> None:
    assert "exactly one ArrayRecord" in str(run(fixedclipping_mod, None).error.reason)


@pytest.mark.parametrize("mod", [fixedclipping_mod, adaptiveclipping_mod, LocalDpMod(1, 1, 1, 0.1)])
def test_other_messages_pass_unchanged(mod: Any) -> None:
    arrays = run(mod, message_type="evaluate").content["arrays"]
    np.testing.assert_array_equal(arrays["w"].numpy(), np.full(4, 2.0))


def test_local_dp_adds_the_noise_of_its_parameters() -> None:
    np.random.seed(0)
    mod = LocalDpMod(clipping_norm=1.0, sensitivity=0.5, epsilon=1.0, delta=1e-2)
    noise = np.concatenate([run(mod).content["arrays"]["w"].numpy() - 0.5 for _ in range(500)])
    expected = 0.5 * np.sqrt(2 * np.log(1.25 / 1e-2))
    assert abs(noise.std() - expected) < 0.05 * expected
    assert abs(noise.mean()) < 4 * expected / np.sqrt(len(noise))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"epsilon": 0}, "epsilon is 0"),
        ({"delta": 1}, "delta is 1"),
        ({"clipping_norm": float("nan")}, "clipping_norm is nan"),
    ],
)
def test_local_dp_refuses_impossible_parameters(change: dict[str, float], said: str) -> None:
    given = {"clipping_norm": 1.0, "sensitivity": 1.0, "epsilon": 1.0, "delta": 0.1}
    with pytest.raises(ValueError, match=said):
        LocalDpMod(**{**given, **change})


@pytest.mark.parametrize(
    ("mod", "said"),
    [(message_size_mod, "the reply has"), (arrays_size_mod, "'arrays' of the reply has 5 elements")],
)
def test_sizes_are_logged(mod: Any, said: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "fedpkg.apps"):
        run(mod)
    assert said in caplog.text


def test_transforms_change_the_update() -> None:
    arrays = run(TransformMod("top_k", share=0.5), 2.0).content["arrays"]
    assert sorted(arrays["w"].numpy()) == [0, 0, 2, 2]
    assert arrays["n"].numpy() == 6


def test_a_transform_that_does_not_exist_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"quantize.*quantise"):
        TransformMod("quantize")


@pytest.mark.parametrize("mod", [secagg_mod, secaggplus_mod])
def test_secure_aggregation_says_why_it_is_not_there(mod: Callable[..., Any]) -> None:
    with pytest.raises(NotImplementedError, match="secure aggregation is not available"):
        run(mod)
