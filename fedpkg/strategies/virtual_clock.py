"""The virtual clock: the duration of tasks follows from profiles of the clients, not from this machine."""

from __future__ import annotations

import fnmatch
import functools
import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class VirtualClock:
    """The duration of each client's tasks in virtual seconds: ``clock`` of the run.yaml.

    A task takes ``seconds`` (of the first pattern that matches the client's id, else 1) * exp(``spread`` z_i +
    ``jitter`` z), with z_i ~ N(0, 1) fixed for each client and z ~ N(0, 1) drawn for each task. The download and upload
    of the model add its bytes at ``bytes_per_s``. ``links``: bytes per second between combiners of a tree and those
    above them, by pattern of their paths.
    """

    seconds: Mapping[str, float] = field(default_factory=dict)
    spread: float = 0.5
    jitter: float = 0.1
    bytes_per_s: float | None = None
    links: Mapping[str, float] = field(default_factory=dict)

    def link(self, path: str, num_bytes: int) -> float:
        """The time of a model of ``num_bytes`` on its way down to a combiner, and up again."""
        speed = next((s for pattern, s in self.links.items() if fnmatch.fnmatchcase(path, pattern)), math.inf)
        return 2 * num_bytes / speed

    def duration(self, client_id: str, *, num_bytes: int = 0, draw: float = 0.0) -> float:
        """The duration of a task with a model of ``num_bytes``; ``draw`` is z."""
        base = next((s for pattern, s in self.seconds.items() if fnmatch.fnmatchcase(client_id, pattern)), 1.0)
        travel = 0.0 if self.bytes_per_s is None else 2 * num_bytes / self.bytes_per_s
        return base * math.exp(self.spread * _own(client_id) + self.jitter * draw) + travel


@functools.lru_cache(maxsize=1 << 17)
def _own(client_id: str) -> float:
    """z_i, from the client's id."""
    import numpy as np

    return float(np.random.default_rng(list(hashlib.sha256(client_id.encode()).digest())).standard_normal())
