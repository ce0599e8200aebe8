"""The tree of combiners of a session: weights, failures, bytes and metrics of each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fedpkg.api.asking import Ref, Text, question
from fedpkg.api.opening import Opened, Struct
from fedpkg.api.sessions import strategy_name
from fedpkg.errors import NotFound
from fedpkg.reporting.combiners import clients_by_cluster


class Combiner(Struct, frozen=True, kw_only=True):
    """A combiner in the rounds of a session. The root has an empty path; children have the path of their parent before
    their own name.

    ``weight`` is its share of the examples below its parent in its last round. ``calls``, ``calls_failed`` and
    ``clients`` are those directly below it. ``metrics`` are of its last round.
    """

    path: str
    name: str
    parent: str | None
    depth: int
    strategy: str | None
    rounds: int
    failed: int
    reason: str | None
    num_asked: int
    num_ok: int
    num_examples: float
    weight: float | None
    calls: int
    calls_failed: int
    bytes_down: int
    bytes_up: int
    seconds: float
    virtual_s: float | None
    clients: list[str]
    metrics: dict[str, Any]


class Topology(Struct, frozen=True, kw_only=True):
    """The combiners of a session, each before those below it; none: the session has no tree."""

    session_id: str
    rounds: int
    combiners: list[Combiner]


class CombinerRound(Struct, frozen=True, kw_only=True):
    """What a combiner did in one round of the session."""

    round_number: int
    status: str
    reason: str | None
    rounds: int
    num_asked: int
    num_ok: int
    num_examples: float
    bytes_down: int
    bytes_up: int
    virtual_s: float | None
    metrics: dict[str, Any]


@question
def get_topology(at: Opened, ref: Ref) -> Topology:
    """The tree of combiners of a session, as its rounds have recorded it."""
    from fedpkg.strategies.base import upward  # loads all strategies, and few ask

    row = at.session(ref)
    session_id = row.session_id
    sums, last = at.overview.combiner_sums(session_id), at.overview.last_combiners(session_id)
    groups = at.overview.group_sums(session_id)
    members = at.overview.group_members(session_id)
    paths = sorted({above for path in sums for above in upward(path)}, key=lambda path: path.split("/"))
    strategies = _strategies(row.config)
    examples = {path: one.num_examples for path, one in last.items()}
    below: dict[str, float] = {}
    for path in paths:
        if path:
            above = path.rpartition("/")[0]
            below[above] = below.get(above, 0.0) + examples.get(path, 0.0)
    combiners = []
    for path in paths:
        total, newest, group = sums.get(path), last.get(path), groups.get(path)
        parent = path.rpartition("/")[0] if path else None
        whole = below.get(parent, 0.0) if parent is not None else 0.0
        combiners.append(
            Combiner(
                path=path,
                name=path.rpartition("/")[2],
                parent=parent,
                depth=len(path.split("/")) if path else 0,
                strategy=strategies.get(path),
                rounds=total.rounds if total else 0,
                failed=total.failed if total else 0,
                reason=newest.reason if newest else None,
                num_asked=newest.num_asked if newest else 0,
                num_ok=newest.num_ok if newest else 0,
                num_examples=examples.get(path, 0.0),
                weight=examples.get(path, 0.0) / whole if whole else None,
                calls=group.calls if group else 0,
                calls_failed=group.failed if group else 0,
                bytes_down=(total.bytes_down if total else 0) + (group.bytes_down if group else 0),
                bytes_up=(total.bytes_up if total else 0) + (group.bytes_up if group else 0),
                seconds=group.seconds if group else 0.0,
                virtual_s=total.virtual_s if total else None,
                clients=members.get(path, []),
                metrics=newest.metrics if newest else {},
            )
        )
    rounds = at.overview.round_sums_of(session_id).rounds_done
    return Topology(session_id=session_id, rounds=rounds, combiners=combiners)


class Cluster(Struct, frozen=True, kw_only=True):
    """A cluster of clients with a model of its own: the model, and the clients that belong to it."""

    path: str
    parent: str | None
    model_id: str
    since_round: int
    num_examples: float
    clients: list[str]


@question
def list_clusters(at: Opened, ref: Ref) -> list[Cluster]:
    """The clusters of a session's clients now, by path; none: its clients share one model."""
    session_id = at.session(ref).session_id
    members = clients_by_cluster(at.store, session_id)
    return [
        Cluster(
            path=one.cluster,
            parent=one.cluster.rpartition("/")[0] or None,
            model_id=one.model_id,
            since_round=one.round_number,
            num_examples=one.num_examples,
            clients=members.get(one.cluster, []),
        )
        for one in at.store.list_clusters(session_id)
    ]


class Dendrogram(Struct, frozen=True, kw_only=True):
    """How clusters of clients were found: each merge joins two of the clients and former merges at a distance.

    Client i has the number i; merge j has the number of clients plus j. ``clusters`` has the cluster of each client.
    """

    session_id: str
    clients: list[str]
    clusters: list[str]
    merges: list[tuple[int, int, float]]
    distance: str


@question
def get_dendrogram(at: Opened, ref: Ref) -> Dendrogram | None:
    """The newest clusters that a session has found; null: it has found none."""
    from fedpkg.clusters.section import INFER

    row = at.session(ref)
    topology = row.config.get("topology")
    if not isinstance(topology, Mapping) or not topology.get("infer"):
        return None
    saved = at.store.load_strategy_state(row.session_id)
    found = None if saved is None else saved[1].get(INFER, {}).get("found")
    if found is None:
        return None
    from fedpkg.clusters.tree import Clustering

    chart = Clustering.from_data(found).chart()
    return Dendrogram(
        session_id=row.session_id,
        clients=list(chart.labels),
        clusters=list(chart.groups),
        merges=list(chart.merges),
        distance=chart.x.label,
    )


@question
def combiner_rounds(at: Opened, ref: Ref, path: Text = "") -> list[CombinerRound]:
    """What one combiner did, by round; an empty path is the root. Raises NotFound."""
    session_id = at.session(ref).session_id
    rows = at.overview.combiner_rows(session_id, path)
    if not rows:
        raise NotFound(f"session {session_id} has no combiner '{path:.200}'", hint="its topology names them")
    return [CombinerRound(**{name: getattr(row, name) for name in CombinerRound.__struct_fields__}) for row in rows]


def _strategies(config: Mapping[str, Any]) -> dict[str, str]:
    """By path, the strategies of the root and of combiners that the configuration declares by name."""
    found = {"": strategy_name(config)}
    waiting = [("", config.get("topology"), found[""])]
    while waiting:
        path, given, above = waiting.pop()
        children = given.get("children") if isinstance(given, Mapping) else None
        for child in children if isinstance(children, list) else ():
            if not isinstance(child, Mapping):
                continue
            own = child.get("strategy")
            name = own.get("name") if isinstance(own, Mapping) else own
            below = f"{path}/{child.get('name')}" if path else str(child.get("name"))
            found[below] = str(name or above)
            waiting.append((below, child, found[below]))
    return found
