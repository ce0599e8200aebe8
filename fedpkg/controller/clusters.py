"""The clusters of a session that have models of their own: checks of what a step returns, and what a round changes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from fedpkg.controller.context import SessionContext
from fedpkg.controller.metrics import finite_number
from fedpkg.controller.trail import buffer_keys, store_model
from fedpkg.errors import AggregationError, ModelFileError, NotFound, SessionFailed
from fedpkg.formats.model_file import keys_in_file, read_model
from fedpkg.stores.base import ClusterChanges, ModelRow
from fedpkg.strategies.base import ABOUT_NAMES, LONGEST_PATH, ClusterModel, StepResult, is_name
from fedpkg.strategies.updates.held import finite
from fedpkg.weights.weights import Weights


class Clusters:
    """The clusters after the last committed round.

    Attributes:
        current: the row of each cluster's model, by its path.
        paths: the deepest cluster of each client that belongs to one.
    """

    def __init__(self, ctx: SessionContext) -> None:
        self._ctx = ctx
        session_id = ctx.session.session_id
        self.current: dict[str, ModelRow] = {row.cluster: row for row in ctx.store.list_clusters(session_id)}
        self.paths: dict[str, str] = ctx.store.list_cluster_clients(session_id) if self.current else {}

    def model_of(self, client_id: str) -> ModelRow | None:
        """The model of a client's cluster; None: it belongs to no cluster."""
        path = self.paths.get(client_id)
        return None if path is None else self.current[path]

    def check(self, result: StepResult, round_number: int) -> None:
        """Check what a step returns.

        Raises:
            SessionFailed: a path, a client or a parent is wrong, or a model does not fit the global model.
            AggregationError: a model is not finite.
        """
        if not result.clusters:
            return
        where, known = f"round {round_number}, clusters of the step", frozenset(self._ctx.client_ids)
        taken: dict[str, str] = {}
        if not self._ctx.traits.has_model:
            raise SessionFailed(f"{where}: a strategy without a global model cannot have models of clusters")
        for path, one in result.clusters.items():
            if not isinstance(path, str) or not all(map(is_name, path.split("/"))):
                raise SessionFailed(
                    f"{where}: {path!r:.120} is no path of a cluster",
                    hint=f"a path is names with '/' between them; {ABOUT_NAMES}",
                )
            if len(path.encode()) > LONGEST_PATH:
                raise SessionFailed(f"{where}: a path has {len(path.encode())} bytes, the most are {LONGEST_PATH}")
            where_it = f"{where}, {path}"
            if not isinstance(one, ClusterModel) or not isinstance(one.model, Weights):
                raise SessionFailed(f"{where_it}: it is not a ClusterModel with Weights, but a {type(one).__name__}")
            if misfit := one.model.mismatch(result.model):
                raise SessionFailed(f"{where_it}: its model does not fit the global model: {misfit}")
            try:
                finite(one.model, like=result.model)
            except AggregationError as error:
                raise AggregationError(f"cluster {path}: {error.message}", hint=error.hint) from error
            if (number := finite_number(one.num_examples)) is None or number < 0:
                raise SessionFailed(f"{where_it}: num_examples is {one.num_examples!r:.60}, not a number from 0")
            for client_id in one.clients:
                if client_id not in known:
                    raise SessionFailed(f"{where_it}: the session has no client {client_id!r:.120}")
                other = taken.get(client_id, path)
                short, long = sorted((other, path), key=len)
                if not (long == short or long.startswith(f"{short}/")):
                    raise SessionFailed(
                        f"{where}: {client_id} belongs to two clusters, {other} and {path}",
                        hint="a client may belong to several clusters only if each is below the other",
                    )
                taken[client_id] = long
            for parent in one.parents:
                if parent and parent not in self.current:
                    some = ", ".join(sorted(self.current)[:10]) or "none"
                    raise SessionFailed(
                        f"{where_it}: its parent {parent!r:.120} was no cluster of the round before (which had: {some})"
                    )

    def changes(
        self,
        result: StepResult,
        model: ModelRow,
        parent: ModelRow | None,
        examples: Mapping[str, float],
        stored: dict[int, ModelRow],
    ) -> ClusterChanges:
        """Store the models that have changed; what changes in the rows. `check` must have passed.

        Args:
            model: the round's global model; ``parent``: that of the round before.
            examples: of each client that has contributed to the round.
            stored: rows of weights that are stored already, by their ids; those of clusters are added.
        """
        new, ended = [], [row.model_id for path, row in self.current.items() if path not in result.clusters]
        paths = _deepest(result.clusters)
        for path, one in result.clusters.items():
            former = self.current.get(path)
            row = self._row(path, one, former, model, stored)
            stored.setdefault(id(one.model), row)
            if former is not None:
                if row.digest == former.digest and set(one.parents) <= {path}:
                    continue
                ended.append(former.model_id)
            of = one.parents or (path if path in self.current else "",)
            rows = [self.current[name] if name else parent for name in of]
            parents = [one.model_id for one in rows if one is not None]
            new.append(
                dataclasses.replace(
                    row,
                    model_id="",
                    cluster=path,
                    round_number=model.round_number,
                    created_at=model.created_at,
                    parents=parents,
                    parent_id=parents[0] if parents else None,
                    until_round=None,
                    num_examples=float(one.num_examples),
                    contributors=[
                        {"client_id": name, "num_examples": number}
                        for name, number in examples.items()
                        if name in paths and is_at_or_below(paths[name], path)
                    ],
                )
            )
        moved = {name: paths.get(name, "") for name in self._ctx.client_ids if paths.get(name) != self.paths.get(name)}
        return ClusterChanges(models=new, ended=ended, clients=moved)

    def take(self, changes: ClusterChanges) -> None:
        """The changes are committed."""
        ended = set(changes.ended)
        self.current = {path: row for path, row in self.current.items() if row.model_id not in ended}
        self.current |= {row.cluster: row for row in changes.models}
        moved = {**self.paths, **changes.clients}
        self.paths = {name: path for name, path in moved.items() if path}

    def _row(
        self, path: str, one: ClusterModel, former: ModelRow | None, model: ModelRow, stored: Mapping[int, ModelRow]
    ) -> ModelRow:
        """A row with the file of a cluster's model, which is written unless it exists."""
        ctx = self._ctx
        if (found := stored.get(id(one.model))) is not None:
            return found
        if former is not None and self._is_same(one.model, former):
            return former
        return store_model(
            ctx.models,
            ctx.form,
            one.model,
            session_id=model.session_id,
            round_number=model.round_number,
            created_at=model.created_at,
        )

    def _is_same(self, model: Weights, row: ModelRow) -> bool:
        """Whether a row's file has these weights."""
        form = self._ctx.form
        try:
            kept = read_model(self._ctx.models.path(row.digest, row.suffix))
        except (ModelFileError, NotFound, OSError):
            return False
        keyed = Weights(dict(zip(keys_in_file(model, form), model.values(), strict=True)))
        return row.buffers == buffer_keys(model, form) and keyed.equal(kept)


def is_at_or_below(path: str, above: str) -> bool:
    """Whether a path is that of a cluster or of one below it."""
    return path == above or path.startswith(f"{above}/")


def _deepest(clusters: Mapping[str, ClusterModel]) -> dict[str, str]:
    """The deepest cluster of each client."""
    found: dict[str, str] = {}
    for path in sorted(clusters, key=lambda path: path.count("/")):
        found.update(dict.fromkeys(clusters[path].clients, path))
    return found
