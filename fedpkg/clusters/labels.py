"""Label histograms that clients are asked for, checked as what untrusted programs write."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from fedpkg.clusters.vectors import histograms
from fedpkg.config_topology import InferConfig
from fedpkg.log import event
from fedpkg.strategies.base import Reply, Request
from fedpkg.strategies.updates.held import Updates
from fedpkg.types import ReplyKind
from fedpkg.weights.records import Records

logger = logging.getLogger("fedpkg.clusters")
_KEY = "label_histogram"
_MOST_LABELS, _MOST_EXAMPLES = 100_000, 1e12


def request_for(clients: Sequence[str], entry_point: str, infer: InferConfig) -> Request:
    """Asks clients for the counts of their labels, to which they apply the minimum and the noise themselves."""
    return Request(
        request_id="label_histogram",
        payload=Records(),
        clients=tuple(clients),
        entry_point=entry_point,
        reply_kind=ReplyKind.METRICS,
        parameters={"minimum": infer.minimum, "noise": infer.noise},
        required=0,
    )


def counts_in(replies: Iterator[Reply], length: int | None = None) -> dict[str, list[float]]:
    """The counts of labels by client. Replies without usable ones are left out, with a warning in the log.

    ``length``: the number of labels. None: that of most clients.
    """
    told = {reply.client_id: _counts(reply.metrics) for reply in replies}
    if length is None:
        lengths = Counter(len(counts) for counts in told.values() if isinstance(counts, list))
        length = next((length for length, _ in lengths.most_common(1)), 0)
    found = {}
    for client_id, counts in told.items():
        if isinstance(counts, list) and len(counts) != length:
            counts = f"it has {len(counts)} labels, and not {length}"
        if isinstance(counts, str):
            event(logger, logging.WARNING, "label_histogram.left_out", client=client_id, reason=counts)
            continue
        found[client_id] = counts
    return found


def _counts(metrics: object) -> list[float] | str:
    """The counts that a client sends, or what is wrong with them."""
    counts = metrics.get(_KEY) if isinstance(metrics, Mapping) else None
    if not isinstance(counts, list):
        return f"its metrics have no list {_KEY!r}"
    if not 1 <= len(counts) <= _MOST_LABELS:
        return f"it has {len(counts)} labels; from 1 to {_MOST_LABELS} are possible"
    for count in counts:
        if isinstance(count, bool) or not isinstance(count, (int, float)):
            return "a count is not a number"
        if not (math.isfinite(count) and 0 <= count <= _MOST_EXAMPLES):
            return f"a count is {count!r:.40}; from 0 to {_MOST_EXAMPLES:g} are possible"
    return [float(count) for count in counts]


def vectors_of(counts: Mapping[str, Sequence[float]], minimum: float) -> tuple[Updates | None, list[str]]:
    """The histograms as vectors, and the clients of which no count reaches the minimum. None: no client has one."""
    some = {name: row for name, row in counts.items() if any(count > 0 and count >= minimum for count in row)}
    return histograms(some, minimum=minimum) if some else None, [name for name in counts if name not in some]
