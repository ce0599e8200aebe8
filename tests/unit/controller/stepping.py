"""A strategy whose step a test gives, and what tests note of the answers that it gets."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from federation import Federation

from fedpkg.strategies.base import Replies, State, Step, StepContext, StepResult


class Stepping:
    """A strategy whose step a test gives, as a generator of requests."""

    steps: ClassVar[Any]

    def init(self, seed_model: Any) -> State:
        return {"model": seed_model, "notes": []}

    def step(self, state: State, ctx: StepContext) -> Step:
        notes: list[Any] = []
        yield from type(self).steps(state, ctx, notes)
        return StepResult({**state, "notes": [*state["notes"], notes]}, metrics={"notes": float(len(notes))})


STEPPING = {"name": "stepping:Stepping"}


def noted(replies: Replies) -> list[Any]:
    """What a step may note of an answer: who, when asked, and how often the client had been called."""
    calls = [int(reply.metadata["calls"]) for reply in replies]  # type: ignore[call-overload]
    return [replies.round_number, replies.request_id, list(replies.asked), calls]


def gated(tmp_path: Path, *names: str) -> dict[str, dict[str, str]]:
    return {"train": {"gate": ",".join(names), "arrivals": str(tmp_path)}}


def notes_of(federation: Federation, session_id: str) -> list[Any]:
    saved = federation.store.load_strategy_state(session_id)
    assert saved is not None
    notes: list[Any] = saved[1]["notes"]
    return notes


def arrivals_of(federation: Federation, session_id: str) -> list[list[list[Any]]]:
    return [row.arrivals for row in federation.store.list_rounds(session_id)]
