"""Statements for the saved states of strategies: the latest two steps of each session."""

from __future__ import annotations

import json
import re

from fedpkg.errors import StoreError
from fedpkg.stores.base import WEIGHTS_MARK, StrategyState
from fedpkg.stores.database import RESTORE, Transaction
from fedpkg.stores.tables import to_json
from fedpkg.stores.write_behind import WriteBehind

_STATE_WEIGHTS = re.compile(rf'"{re.escape(WEIGHTS_MARK)}":"([0-9a-f]{{64}})"')  # in the format of `to_json`


def save_state(transaction: Transaction, session_id: str, saved: StrategyState) -> None:
    """Write the state after a step, and delete all but the latest two."""
    step, state = saved
    transaction.run(
        "insert into strategy_states (session_id, step, state) values (:session_id, :step, :state)"
        " on conflict (session_id, step) do update set state = excluded.state",
        {"session_id": session_id, "step": step, "state": to_json(state)},
    )
    transaction.run(
        "delete from strategy_states where session_id = :session_id and step not in ("
        "select step from strategy_states where session_id = :session_id order by step desc limit 2)",
        {"session_id": session_id},
    )


def load_state(database: WriteBehind, session_id: str) -> StrategyState | None:
    """The state after the latest committed step, or None before the first.

    Raises:
        StoreError: it cannot be read.
    """
    rows = database.rows(
        "select step, state from strategy_states where session_id = :session_id order by step desc limit 1",
        {"session_id": session_id},
    )
    if not rows:
        return None
    step, state = rows[0]
    try:
        decoded = json.loads(state)
    except (ValueError, TypeError, RecursionError):
        decoded = None
    if not isinstance(step, int) or not isinstance(decoded, dict):
        raise StoreError(
            f"the database is damaged: the strategy's state of session {session_id} cannot be read", hint=RESTORE
        )
    return step, decoded


def state_digests(database: WriteBehind, session_id: str | None) -> set[str]:
    """Digests of the model files that are named in saved states, of one session or of all."""
    where, parameters = ("", {}) if session_id is None else (" where session_id = :id", {"id": session_id})
    states = database.rows(f"select state from strategy_states{where}", parameters)
    return {digest for (state,) in states for digest in _STATE_WEIGHTS.findall(str(state))}
