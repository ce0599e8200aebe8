"""The virtual clock: who answers when follows from profiles of clients, not from this machine."""

from __future__ import annotations

import fnmatch
import functools
import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class VirtualClock:
    """How long each client takes, in virtual seconds: ``clock`` of the run.yaml.

    A task takes ``seconds`` (of the first pattern that matches the client's id, else 1) * exp(``spread`` z_i +
    ``jitter`` z), with z_i ~ N(0, 1) fixed for each client and z ~ N(0, 1) drawn for each task, and the model's bytes
    take their time down and up at ``bytes_per_s``.
    """

    seconds: Mapping[str, float] = field(default_factory=dict)
    spread: float = 0.5
    jitter: float = 0.1
    bytes_per_s: float | None = None

    def duration(self, client_id: str, *, num_bytes: int = 0, draw: float = 0.0) -> float:
        """Of a task with a model of so many bytes; without a ``draw``, in the middle."""
        base = next((s for pattern, s in self.seconds.items() if fnmatch.fnmatchcase(client_id, pattern)), 1.0)
        travel = 0.0 if self.bytes_per_s is None else 2 * num_bytes / self.bytes_per_s
        return base * math.exp(self.spread * _own(client_id) + self.jitter * draw) + travel


@functools.lru_cache(maxsize=1 << 17)
def _own(client_id: str) -> float:
    """z_i, by the client's name."""
    import numpy as np

    return float(np.random.default_rng(list(hashlib.sha256(client_id.encode()).digest())).standard_normal())
