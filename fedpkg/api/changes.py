"""Whether the rows of a home have changed: a cheap signal for live pages.

`database_version` costs microseconds; only if it says so are the tokens of `change_token` worth reading.
"""

from __future__ import annotations

import hashlib
import json

from fedpkg.api.asking import Ref, question
from fedpkg.api.opening import Opened, Struct
from fedpkg.session.record import status_of
from fedpkg.waist.slots import changed_at


class Change(Struct, frozen=True, kw_only=True):
    """A token that differs when there is something new to read; ``status`` is the session's."""

    token: str
    status: str | None = None


def database_version(at: Opened) -> int:
    """A number that differs from the last one of the same `Opened` if any process has committed since."""
    return at.store.version()


def slots_version(at: Opened) -> int:
    """A number that differs from the last one if a slot has taken a task or ended one."""
    return changed_at(at.home.root)


@question
def change_token(at: Opened, ref: Ref | None = None) -> Change:
    """The token of a session: it changes with its rounds, its tasks and its status. None: that of the home.

    Raises:
        NotFound: there is no such session.
    """
    if ref is None:
        told = (*at.overview.home_token(), sorted(at.running()))
        return Change(token=_digest(told))
    row = at.session(ref)
    status = status_of(row, at.running())
    return Change(token=_digest((status, *at.overview.session_token(row.session_id))), status=status)


def _digest(told: object) -> str:
    return hashlib.sha256(json.dumps(told, default=str).encode()).hexdigest()[:16]
