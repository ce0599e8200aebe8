"""What all pages of one session share: their tabs, and the way back."""

from __future__ import annotations

from typing import Any

from fedpkg.api.sessions import SessionDetail, get_session
from fedpkg.dashboard.asked import Asked, address

TABS = (
    ("Overview", ()),
    ("Metrics", ("metrics",)),
    ("Values", ("values",)),
    ("Rounds", ("rounds",)),
    ("Clients", ("clients",)),
    ("Failures", ("failures",)),
    ("Models", ("models",)),
    ("Topology", ("topology",)),
    ("Package and configuration", ("configuration",)),
)


def session_of(asked: Asked) -> SessionDetail:
    """The session that the address names. Raises NotFound."""
    return get_session(asked.at, asked.names["session_id"])


def values_of(detail: SessionDetail, tab: str, **more: Any) -> dict[str, Any]:
    """Values for templates that extend session_base.html; ``tab`` is the name of the page's tab."""
    found = detail.summary
    tabs = [
        (name, address("sessions", found.session_id, *path), name)
        for name, path in TABS
        if name != "Topology" or detail.has_tree
    ]
    return {"session": found, "detail": detail, "tabs": tabs, "tab": tab, **more}


def trail_of(detail: SessionDetail, *more: tuple[str, str]) -> tuple[tuple[str, str], ...]:
    session_id = detail.summary.session_id
    return ("Sessions", "/"), (session_id, address("sessions", session_id)), *more
