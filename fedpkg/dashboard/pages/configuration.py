"""What a session ran: its package, its configuration with the origin of each value, its starts."""

from __future__ import annotations

import json
from typing import Any

from fedpkg.api.configuration import get_configuration, get_package, list_starts
from fedpkg.dashboard.asked import Asked
from fedpkg.dashboard.page import Page
from fedpkg.dashboard.pages.of_session import session_of, trail_of, values_of
from fedpkg.dashboard.tables import Column, row_of, table_of


def page(asked: Asked) -> Page:
    detail = session_of(asked)
    session_id = detail.summary.session_id
    package = get_package(asked.at, session_id)
    config = get_configuration(asked.at, session_id)
    values = [row_of(one, value=text_of(one.value)) for one in config.values]
    columns = [Column("key", "key"), Column("value", "value"), Column("origin", "origin")]
    files = [row_of(one) for one in package.files]
    in_package = [
        Column("name", "file"),
        Column("kind", "kind"),
        Column("size_bytes", "size", "bytes"),
        Column("content", "sha256", "digest"),
    ]
    calls = [{"name": name, "command": command} for name, command in package.entry_points.items()]
    in_calls = [Column("name", "entry point"), Column("command", "command")]
    gone = "The package is no longer in the cache of the home."
    parts = {
        "entry-points": table_of(asked, "entry-points", in_calls, calls, caption="Entry points"),
        "files": table_of(asked, "files", in_package, files, caption="Files of the package", sort="name", empty=gone),
        "values": table_of(asked, "values", columns, values, caption="Values of the configuration", per_page=500),
    }
    more: dict[str, Any] = {"package": package, "config": config, "starts": list_starts(asked.at, session_id)}
    shown = values_of(detail, "Package and configuration", **more)
    return Page("What exactly did this session run?", shown, parts, (*config.notes, *package.notes), trail_of(detail))


def text_of(value: Any) -> str:
    """A value of a configuration, as in a run.yaml of one line."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
