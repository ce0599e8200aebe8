"""Seeds of tasks and of a session's own draws: derived from names, so independent of order and workers."""

from __future__ import annotations

import hashlib

import numpy as np


def derive_seed(*words: object) -> int:
    """A 63-bit number that depends only on these words."""
    digest = hashlib.sha256("\x1f".join(str(word) for word in words).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def task_seed(session_seed: int, round_number: int, client_id: str, request_number: int = 1) -> int:
    """The seed of a client's task for one of a round's requests; validation uses the seed of the first."""
    words = ("task", session_seed, round_number, client_id)
    return derive_seed(*words) if request_number == 1 else derive_seed(*words, request_number)


def step_rng(session_seed: int, step: int, purpose: str) -> np.random.Generator:
    """The generator for one purpose (ask, sample, validate) of one step."""
    return np.random.default_rng(derive_seed("step", session_seed, step, purpose))


def held_out_rng(session_seed: int) -> np.random.Generator:
    """The generator that draws the held-out clients, once per session."""
    return step_rng(session_seed, 0, "held-out")
