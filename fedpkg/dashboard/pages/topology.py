"""The tree of combiners of a session."""

from __future__ import annotations

from collections.abc import Sequence

from fedpkg.api.topology import Combiner, get_dendrogram, get_topology
from fedpkg.dashboard.asked import Asked
from fedpkg.dashboard.curves import combiner_charts, dendrogram_chart, tree_chart
from fedpkg.dashboard.page import Page, Part
from fedpkg.dashboard.pages.of_session import session_of, trail_of, values_of
from fedpkg.dashboard.tables import Column, row_of, table_of
from fedpkg.strategies.base import ROOT, upward

COLUMNS = (
    Column("path", "combiner"),
    Column("strategy", "strategy"),
    Column("rounds", "rounds", "whole"),
    Column("failed", "failed", "whole", about="rounds of the session in which it failed"),
    Column("reason", "why it failed last", "prose"),
    Column("num_ok", "replies ok", "whole"),
    Column("num_asked", "of asked", "whole"),
    Column("weight", "weight", "number"),
    Column("num_examples", "examples", "number"),
    Column("clients", "clients below it", "whole"),
    Column("bytes_down", "down", "bytes"),
    Column("bytes_up", "up", "bytes"),
    Column("seconds", "time", "seconds"),
)


def _clients_below(combiners: Sequence[Combiner]) -> dict[str, int]:
    """By path: the number of clients below a combiner, also of those below its children."""
    found: dict[str, set[str]] = {}
    for one in combiners:
        for path in upward(one.path):
            found.setdefault(path, set()).update(one.clients)
    return {path: len(clients) for path, clients in found.items()}


def page(asked: Asked) -> Page:
    detail = session_of(asked)
    found = get_topology(asked.at, detail.summary.session_id)
    below = _clients_below(found.combiners)
    rows = [row_of(one, path=one.path or ROOT, clients=below[one.path]) for one in found.combiners]
    table = table_of(asked, "combiners", COLUMNS, rows, caption="Combiners", empty="This session has no tree.")
    title = "How are updates combined on their way up?"
    parts: dict[str, Part] = {"combiners": table}
    if found.combiners:
        parts["tree"] = tree_chart(found.combiners)
    merges = get_dendrogram(asked.at, detail.summary.session_id)
    if merges is not None:
        parts["clusters"] = dendrogram_chart(merges)
    plots = dict(combiner_charts(asked, detail.summary.session_id, found.combiners))
    parts |= plots
    values = values_of(
        detail, "Topology", has_tree=bool(found.combiners), has_clusters=merges is not None, plots=list(plots)
    )
    return Page(title, values, parts, (), trail_of(detail))
