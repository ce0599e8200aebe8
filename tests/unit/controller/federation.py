"""A federation of misbehaving clients: how one is configured, run in this process, and looked at afterwards."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from fedpkg.compute_package.unpack import package_problems
from fedpkg.config import RunConfig
from fedpkg.config_reading import config_from_json
from fedpkg.controller.events import Event, Preparing, RequestAsked, TaskEnded, TaskStarted
from fedpkg.formats.model_file import read_model
from fedpkg.session import beginning, resuming
from fedpkg.stores.base import SessionRow, TaskRow
from fedpkg.stores.check import Finding, check_home
from fedpkg.stores.home import Home
from fedpkg.stores.models import ModelStore
from fedpkg.stores.opening import open_store
from fedpkg.stores.sqlite import SqliteStore
from fedpkg.weights.weights import Weights

PACKAGES = Path(__file__).resolve().parents[2] / "packages"
MISBEHAVE, DRIFTING = PACKAGES / "misbehave", PACKAGES / "drifting"


QUIET = (Preparing, RequestAsked, TaskStarted)


class Arrivals:
    """Tells clients of tests/packages/drifting whose task is on record, so that each can wait for its turn.

    With ``arguments(order)`` a round's training tasks end in that order, whatever runs them; `feasible` orders only.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(exist_ok=True)

    def arguments(self, order: dict[int, list[str]]) -> dict[str, str]:
        return {"arrivals": str(self.folder), "order": json.dumps(order)}

    def __call__(self, event: Event) -> None:
        if isinstance(event, TaskEnded) and event.order.entry_point == "train":
            self._tell(event.order.round_number, event.order.client_id)

    def catch_up(self, home: Home, session_id: str) -> None:
        """Tell what was recorded by a controller that did not come to tell it."""
        with open_store(home, read_only=True) as store:
            for task in store.list_tasks(session_id, entry_point="train"):
                self._tell(task.round_number, task.client_id)

    def _tell(self, round_number: int, client_id: str) -> None:
        (self.folder / f"{round_number}-{client_id}").touch()


def feasible(clients: list[str], workers: int, rng: random.Random) -> list[str]:
    """A random order in which clients can end, where they start in their own order, ``workers`` at a time."""
    left, order = list(clients), []
    while left:
        order.append(left.pop(rng.randrange(min(workers, len(left)))))
    return order


class Look(SqliteStore):
    """Closes when it goes out of sight: sqlite3 warns of connections that nobody closes (since Python 3.13)."""

    def __del__(self) -> None:
        self.close()


def of_session(watch: Callable[[Event], None]) -> Callable[[Event], None]:
    """Shows a watcher what happens once there is a session, and what is on record then."""
    return lambda event: None if isinstance(event, QUIET) else watch(event)


@dataclass
class Federation:
    """Runs sessions in one home, and reads what they left."""

    home: Home
    events: list[Event] = field(default_factory=list)

    def config(
        self, *, clients: int | dict[str, Any] = 3, rounds: int = 1, plan: dict[str, str] | None = None, **changes: Any
    ) -> RunConfig:
        """A configuration; ``plan`` says which client does what (see the package), ``changes`` are its sections."""
        arguments = {"all": {"plan": json.dumps(plan)}} if plan else {}
        data = {
            "package": str(MISBEHAVE),
            "rounds": rounds,
            "clients": {"count": clients} if isinstance(clients, int) else clients,
            "arguments": arguments,
            "validation": {"every": 0},
            "executor": {"workers": 2},
            **changes,
        }
        return config_from_json(msgspec.to_builtins(msgspec.convert(data, RunConfig)))

    def run(
        self, config: RunConfig | None = None, *, watch: Callable[[Event], None] | None = None, **changes: Any
    ) -> SessionRow:
        return beginning.run(config or self.config(**changes), self.home, watch=of_session(watch or self.events.append))

    def resume(
        self, ref: str, *, rounds: int | None = None, watch: Callable[[Event], None] | None = None
    ) -> SessionRow:
        return resuming.resume(ref, self.home, watch=of_session(watch or self.events.append), rounds=rounds)

    def findings(self) -> list[Finding]:
        """What `fedpkg home check` would tell."""
        return check_home(self.home, package_problems=package_problems).findings

    @property
    def store(self) -> SqliteStore:
        return Look(self.home.state_db, read_only=True)

    def model(self, ref: str) -> Weights:
        row = self.store.get_model(ref)
        return read_model(ModelStore(self.home.models).path(row.digest, row.suffix))

    def digests(self, session_id: str) -> list[str]:
        return [model.digest for model in self.store.list_models(session_id)]

    def task(self, session: SessionRow, client_id: str, entry_point: str = "train") -> TaskRow:
        """The last attempt of a client."""
        return self.store.list_tasks(session.session_id, client_id=client_id, entry_point=entry_point)[-1]

    def folder(self, task: TaskRow) -> Path:
        """Where a task's logs are."""
        assert task.folder is not None and not Path(task.folder).is_absolute()
        return self.home.root / task.folder

    def steps_taken(self, session: SessionRow, round_number: int) -> float:
        """How much was added to the seed's first tensor: an honest client adds 1.0 a round."""
        grown = self.model(f"{session.session_id}.{round_number}")["w"] - self.model(f"{session.session_id}.0")["w"]
        assert float(grown.max() - grown.min()) < 1e-5
        return float(grown.double().mean())
