"""Runs sweeps of a small package."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fedpkg.controller.events import Event
from fedpkg.experiments.planning import Settings, source_of
from fedpkg.experiments.starting import Prepared, prepare_resumed, prepare_sweep
from fedpkg.stores.base import SessionRow, SweepPointRow
from fedpkg.stores.home import Home
from fedpkg.stores.opening import open_store

REPO = Path(__file__).resolve().parents[3]
DRIFTING = REPO / "tests" / "packages" / "drifting"
MISBEHAVE = REPO / "tests" / "packages" / "misbehave"


def write_run_yaml(folder: Path, **values: Any) -> Path:
    config = {
        "name": "try",
        "package": str(DRIFTING),
        "rounds": 1,
        "clients": {"count": 2},
        "executor": {"workers": 2},
        "validation": {"every": 0},
        **values,
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "run.yaml"
    path.write_text(json.dumps(config))
    return path


def nothing(point: SweepPointRow, event: Event | None) -> None: ...


def sweep(
    home: Home,
    path: Path,
    *overrides: str,
    name: str | None = None,
    watch: Callable[[SweepPointRow, Event | None], None] = nothing,
    **settings: Any,
) -> Prepared:
    prepared = prepare_sweep(home, source_of(path), overrides, Settings(**settings), watch=watch, name=name)
    prepared.run()
    return prepared


def resume(home: Home, name: str | None = None) -> None:
    prepare_resumed(home, name, watch=nothing).run()


def points_of(home: Home, name: str = "try") -> list[SweepPointRow]:
    with open_store(home, read_only=True) as store:
        return store.sweeps.points(name)


def sessions_of(home: Home) -> list[SessionRow]:
    with open_store(home, read_only=True) as store:
        return store.list_sessions()


def digests(home: Home, session_id: str | None) -> list[str]:
    with open_store(home, read_only=True) as store:
        return [model.digest for model in store.list_models(session_id)]


def statuses(points: Sequence[SweepPointRow]) -> list[str]:
    return [point.status for point in points]
