"""Asynchronous methods: who answers when follows from the profiles, and from that how stale an answer is."""

from __future__ import annotations

import numpy as np
import pytest
from quadratics import Federation, Quadratic, vector, weights

from fedpkg.errors import ConfigError
from fedpkg.strategies.arrivals import staleness_factor
from fedpkg.strategies.base import Request, State
from fedpkg.strategies.registry import make_strategy
from fedpkg.strategies.virtual_clock import VirtualClock

SIZE = 3
CLOCK = VirtualClock({"client-1": 2.5}, spread=0.0, jitter=0.0)


def federation(number: int = 3) -> Federation:
    """Clients that add 1 to what they get; who was asked with what is in ``asked``."""
    asked: list[tuple[str, float]] = []

    def train(name: str, request: Request) -> dict[str, np.ndarray]:
        point = vector(request.payload)  # type: ignore[arg-type]
        asked.append((name, float(point[0])))
        return {"": point + 1}

    loss = Quadratic(np.eye(SIZE), np.zeros(SIZE))
    made = Federation({f"client-{k}": {"": loss} for k in range(number)}, train=train, clock=CLOCK)
    made.asked = asked  # type: ignore[attr-defined]
    return made


def states(made: Federation, section: dict[str, object], number: int) -> list[State]:
    strategy = make_strategy(section)  # type: ignore[arg-type]
    found = [strategy.init(weights(np.zeros(SIZE)))]
    for k in range(number):
        found.append(made.step(strategy, found[-1], k))  # type: ignore[arg-type]
    return found[1:]


def test_staleness_is_what_the_papers_say() -> None:
    assert [staleness_factor("constant", tau, a=0.5, b=4) for tau in (0, 9)] == [1, 1]
    assert [staleness_factor("polynomial", tau, a=0.5, b=4) for tau in (0, 3, 8)] == [1, 1 / 2, 1 / 3]
    assert [staleness_factor("hinge", tau, a=10, b=4) for tau in (0, 4, 5)] == [1, 1, 1 / 11]


def test_fast_client_answers_more_often_and_the_slow_ones_answer_is_stale() -> None:
    made = federation(2)
    found = states(made, {"name": "fedasync", "alpha": 1.0, "staleness": "constant"}, 4)
    assert [state["time"] for state in found] == [1.0, 2.0, 2.5, 3.0]
    assert made.asked == [("client-0", 0), ("client-0", 1), ("client-1", 0), ("client-0", 2)]  # type: ignore[attr-defined]
    assert [float(vector(state["model"])[0]) for state in found] == [1, 2, 1, 3]


def test_fedasync_mixes_by_staleness() -> None:
    section = {"name": "fedasync", "alpha": 0.5, "a": 1.0}
    values = [float(vector(state["model"])[0]) for state in states(federation(2), section, 3)]
    first, second = 0.5, 0.5 + 0.5 * 1
    assert values == pytest.approx([first, second, second + 0.5 / 3 * (1 - second)]), "two steps stale: 1 / (1 + 2)"


def test_fedbuff_steps_when_its_buffer_is_full() -> None:
    made = federation(2)
    section = {"name": "fedbuff", "buffer": 2, "concurrency": 2, "a": 1.0}
    first, second = states(made, section, 2)
    assert (first["time"], second["time"]) == (2.0, 3.0)
    assert made.asked == [("client-0", 0), ("client-0", 0), ("client-1", 0), ("client-0", 1)]  # type: ignore[attr-defined]
    assert float(vector(first["model"])[0]) == 1.0
    assert float(vector(second["model"])[0]) == pytest.approx(1 + (0.5 + 1) / 2)
    assert first["models"].keys() == {"0"} and second["models"].keys() == {"1"}, "what somebody began from is kept"


def test_staleness_that_leaves_nothing_of_an_answer_ends_no_round() -> None:
    made = federation(3)
    found = states(made, {"name": "fedbuff", "buffer": 1, "concurrency": 3, "a": 1000.0}, 6)
    assert all(np.isfinite(vector(state["model"])).all() for state in found)
    assert len({version for _, version in made.asked}) < len(made.asked)  # type: ignore[attr-defined]


def test_profiles_are_the_clients_own() -> None:
    clock = VirtualClock({"slow-*": 10.0}, bytes_per_s=24.0)
    assert clock.duration("client-0", num_bytes=24, draw=0.3) == clock.duration("client-0", num_bytes=24, draw=0.3)
    assert clock.duration("client-0", draw=0.3) != clock.duration("client-1", draw=0.3)
    plain = VirtualClock({"slow-*": 10.0}, spread=0.0, jitter=0.0, bytes_per_s=24.0)
    assert [plain.duration(name, num_bytes=24, draw=1.0) for name in ("slow-3", "client-0")] == [12.0, 3.0]
    with pytest.raises(ConfigError, match="staleness"):
        make_strategy({"name": "fedasync", "staleness": "linear"})
