"""The table of a session's clusters with models of their own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from fedpkg.cli import output


def clusters_table(clusters: Sequence[dict[str, Any]]) -> None:
    """A row for each cluster."""
    told = Counter(name for one in clusters for name in one["metrics"])
    names = [name for name, _ in told.most_common(4)]
    columns = [output.measures([one["metrics"].get(name) for one in clusters]) for name in names]
    rows = [
        [one["cluster"], str(len(one["clients"])), one["model_id"], output.number(one["num_examples"])]
        + [column[i] for column in columns]
        for i, one in enumerate(clusters)
    ]
    output.table(["cluster", "clients", "model", "examples", *names], rows)
