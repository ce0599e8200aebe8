"""The addresses of all pages of a home, found as a reader would find them: by what the home has."""

from __future__ import annotations

from pathlib import Path

from fedpkg.api.clients import list_clients
from fedpkg.api.metrics import metric_names
from fedpkg.api.models import list_models
from fedpkg.api.opening import opened
from fedpkg.api.sessions import list_sessions
from fedpkg.api.sweeps import list_sweeps
from fedpkg.api.tasks import list_failures, list_tasks
from fedpkg.dashboard.asked import address

TABS = ("metrics", "values", "rounds", "clients", "failures", "models", "topology", "configuration")


def session_ids(home: Path) -> dict[str, str]:
    """Name → id."""
    with opened(home) as at:
        return {one.name: one.session_id for one in list_sessions(at).items}


def addresses(home: Path, *names: str) -> list[str]:
    """Every page about these sessions, and those about the whole home."""
    found = ["/", "/?search=finished&state=finished", "/sweeps", "/models", "/compare"]
    known = session_ids(home)
    with opened(home) as at:
        found += [address("sweeps", one.name) for one in list_sweeps(at).items]
        for session_id in (known[name] for name in names):
            found.append(address("sessions", session_id))
            found += [address("sessions", session_id, tab) for tab in TABS]
            found.append(address("sessions", session_id, "rounds", "1"))
            found += [
                address("sessions", session_id, "metrics", one.metric, each="1", x="bytes")
                for one in metric_names(at, session_id)[-2:]
            ]
            for client in list_clients(at, session_id).items:
                found.append(address("sessions", session_id, "clients", client.client_id))
            found.append(address("clients", client.client_id))
            found += [address("tasks", one.task_id) for one in list_failures(at, session_id).items[:2]]
            found += [address("tasks", one.task_id) for one in [*list_tasks(at, session_id)][:1]]
            found += [address("models", one.model_id) for one in list_models(at, session_id).items[:1]]
        found.append(address("compare", session=[known[name] for name in names]))
    return found
