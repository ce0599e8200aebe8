"""The part of the state store that has the sweeps and their points."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from fedpkg.errors import NotFound, SessionError, nearest
from fedpkg.stores.base import SweepPointRow, SweepRow
from fedpkg.stores.database import Transaction
from fedpkg.stores.tables import SWEEP_POINTS, SWEEPS
from fedpkg.stores.write_behind import WriteBehind


class SweepStore:
    """Sweeps and their points. Every method is one transaction, as in `fedpkg.stores.sql.StateStore`."""

    def __init__(self, database: WriteBehind, clock: Callable[[], float]) -> None:
        self._database = database
        self._clock = clock

    def create(self, sweep: SweepRow, points: Iterable[SweepPointRow] = ()) -> None:
        """Record a new sweep with its points.

        Raises:
            SessionError: there is a sweep of this name.
        """
        rows = [SWEEP_POINTS.encode(point) for point in points]
        with self._database.transaction(durable=True) as transaction:
            if transaction.rows("select 1 from sweeps where name = :name", {"name": sweep.name}):
                raise SessionError(
                    f"there is a sweep '{sweep.name}' in {self._database.where} already",
                    hint=f"continue it with `fedpkg experiment resume {sweep.name}`, or give this one another --name",
                    sweep=sweep.name,
                )
            transaction.run(SWEEPS.insert, SWEEPS.encode(sweep))
            transaction.run_many(SWEEP_POINTS.insert, rows)

    def get(self, name: str) -> SweepRow:
        """The sweep of this name. Raises NotFound."""
        rows = self._database.rows(f"{SWEEPS.select} where name = :name", {"name": name})
        if not rows:
            known = self.names()
            raise NotFound(
                f"there is no sweep {name!r} in {self._database.where}{nearest(name, known)}",
                hint="`fedpkg experiment list` lists what exists; --home selects another home",
                ref=name,
            )
        return SWEEPS.decode(rows[0])

    def names(self) -> list[str]:
        return [str(row[0]) for row in self._database.rows("select name from sweeps order by created_at, name")]

    def all(self) -> list[SweepRow]:
        """All sweeps, oldest first."""
        return [SWEEPS.decode(row) for row in self._database.rows(f"{SWEEPS.select} order by created_at, name")]

    def points(self, name: str) -> list[SweepPointRow]:
        """The points of a sweep by number."""
        sql = f"{SWEEP_POINTS.select} where sweep = :name order by number"
        return [SWEEP_POINTS.decode(row) for row in self._database.rows(sql, {"name": name})]

    def point_of(self, session_id: str) -> SweepPointRow | None:
        """The point that a session runs; None: it is in no sweep, or the sweep has not noted it yet."""
        rows = self._database.rows(f"{SWEEP_POINTS.select} where session_id = :id", {"id": session_id})
        return SWEEP_POINTS.decode(rows[0]) if rows else None

    def counts(self, name: str) -> dict[str, int]:
        """The number of points by status."""
        sql = "select status, count(*) from sweep_points where sweep = :name group by status order by status"
        return {str(status): int(number) for status, number in self._database.rows(sql, {"name": name})}

    def record_point(self, point: SweepPointRow) -> None:
        """Record a point; it replaces the one with its number."""
        with self._database.transaction() as transaction:
            transaction.run(SWEEP_POINTS.upsert, SWEEP_POINTS.encode(point))
            self._change(transaction, point.sweep, {})

    def change(self, name: str, **changes: Any) -> None:
        """Set columns of a sweep, such as ``status`` and ``error``. Raises NotFound."""
        with self._database.transaction(durable=True) as transaction:
            changed = self._change(transaction, name, changes)
        if not changed:
            self.get(name)  # raises

    def stop_requested(self, name: str) -> bool:
        rows = self._database.rows("select stop_requested from sweeps where name = :name", {"name": name})
        return bool(rows and rows[0][0])

    def _change(self, transaction: Transaction, name: str, changes: dict[str, Any]) -> int:
        values = {"updated_at": self._clock(), **{key: SWEEPS.value(key, value) for key, value in changes.items()}}
        assignments = ", ".join(f"{key} = :{key}" for key in values)
        return transaction.run(f"update sweeps set {assignments} where name = :name", {**values, "name": name})
