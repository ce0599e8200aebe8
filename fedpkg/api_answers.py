"""Answers in the form of FEDn's REST API about sessions, models, rounds and validations, read from a home."""

from __future__ import annotations

import json
import re
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from email.utils import formatdate
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from fedpkg.errors import NotFound
from fedpkg.session.record import running_sessions, status_of
from fedpkg.stores.base import ModelRow, RoundRow, SessionRow, TaskRow, ValidationRow
from fedpkg.stores.home import Home
from fedpkg.stores.models import ModelStore
from fedpkg.stores.opening import open_store
from fedpkg.stores.sql import StateStore
from fedpkg.stores.uploads import Uploads

Answer: TypeAlias = "dict[str, Any]"
_Read = TypeVar("_Read")

COMBINER = "combiner"  # the name of the only combiner in answers
STATUSES = {"created": "Created", "running": "Started", "finished": "Finished"}  # any other status: Terminated
ROUND_STATUSES = {"training": "Pending", "aggregated": "Success", "finished": "Finished", "failed": "Failed"}
TASK_TYPES = {"train": "MODEL_UPDATE", "validate": "MODEL_VALIDATION", "predict": "MODEL_PREDICTION"}

# Filters on the contents of ``sender`` or ``receiver``, by the names of the methods' arguments.
_AGENTS = {f"{who}_{what}": f"{who}.{what}" for who in ("sender", "receiver") for what in ("name", "role", "client_id")}


def done(message: str, **more: Any) -> Answer:
    """The answer of a successful call; scripts for FEDn 0.6 to 0.8 read ``success``."""
    return {"success": True, "message": message, **more}


def failed(message: str) -> Answer:
    return {"success": False, "message": message}


def listed(rows: Sequence[Answer], n_max: int | None = None) -> Answer:
    """A list in FEDn's form: the total count, and the first ``n_max`` entries."""
    return {"count": len(rows), "result": list(rows[:n_max] if n_max else rows)}


def found(rows: Iterable[Answer], id: str, *keys: str) -> Answer:
    """The row in which one of the keys has this value; without one, the error has FEDn's wording."""
    return next((row for row in rows if id in [row.get(key) for key in keys]), missing(id))


def missing(id: str) -> Answer:
    return failed(f"Entity with id: {id} not found")


def having(rows: Sequence[Answer], /, **wanted: object) -> list[Answer]:
    """The rows with these values; ``sender_name`` or ``sender.name`` is the name in ``sender``; None matches all."""
    wishes = {_AGENTS.get(key, key): value for key, value in wanted.items() if value is not None}
    known = rows[0] if rows else {}
    if rows and (unknown := [key for key in wishes if key.partition(".")[0] not in known]):
        raise TypeError(f"there is no filter {', '.join(unknown)}; there are {', '.join(known)}")
    return [row for row in rows if all(str(_inside(row, key)) == str(value) for key, value in wishes.items())]


def _inside(row: Answer, key: str) -> object:
    value: Any = row
    for name in key.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value


def as_name(text: str) -> str:
    """A session's name: FEDn accepts any text."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", text).strip("-.")[:100] or "session"


def when(seconds: float | None) -> str | None:
    """A time in the format of FEDn's JSON: ``Mon, 02 Sep 2024 12:00:00 GMT``."""
    return None if seconds is None else formatdate(seconds, usegmt=True)


def agent(client_id: str) -> Answer:
    return {"name": client_id, "role": "WORKER", "client_id": client_id}


def combiner() -> Answer:
    known = {"id": COMBINER, "combiner_id": COMBINER, "name": COMBINER, "address": "127.0.0.1", "fqdn": None}
    return {**known, "ip": "127.0.0.1", "parent": {"name": None, "role": None}, "port": None, "updated_at": None}


def predicted(prediction_id: str, model_id: str, client_id: str, data: str) -> Answer:
    """A new prediction of a client."""
    return {
        "id": f"{prediction_id}.{client_id}",
        "prediction_id": prediction_id,
        "model_id": model_id,
        "data": data,
        "correlation_id": prediction_id,
        "timestamp": when(time.time()),
        "meta": "",
        "sender": agent(client_id),
        "receiver": {"name": COMBINER, "role": "COMBINER"},
    }


def noted(attribute: Mapping[str, Any]) -> Answer:
    """A new attribute of a client."""
    return {"attribute_id": str(uuid.uuid4()), "timestamp": when(time.time()), **attribute}


class Answers:
    """The reading half of the API. Lists start with the newest entry, as FEDn's do.

    Args:
        running: ids of sessions that are running, even if the status in their rows differs.
    """

    def __init__(self, home: Home, running: Callable[[], Set[str]] = frozenset) -> None:
        self.home = home
        self._running = running
        self.uploads = Uploads(home)

    def read(self, question: Callable[[StateStore], _Read]) -> _Read:
        with open_store(self.home, read_only=True) as store:
            return question(store)

    # ---- sessions

    def session_row(self, ref: str) -> SessionRow:
        """A session by its id or a prefix of it; else the newest with this name.

        Raises:
            NotFound: there is none.
        """

        def look(store: StateStore) -> SessionRow:
            rows, name = store.list_sessions(newest_first=True), as_name(ref)
            named = [row for row in rows if ref == row.session_id or name == row.name]
            return named[0] if named else store.get_session(ref)

        return self.read(look)

    def sessions(self, name: str | None = None) -> list[Answer]:
        rows = self.read(lambda store: store.list_sessions(newest_first=True))
        return [self.session(row) for row in rows if name is None or row.name == name]

    def session(self, row: SessionRow) -> Answer:
        status = "running"
        if row.session_id not in self._running():
            status = status_of(row, running_sessions(self.home))
        return {
            "id": row.session_id,
            "session_id": row.session_id,
            "name": row.name,
            "status": STATUSES.get(status, "Terminated"),
            "session_config": self.session_config(row),
            "seed_model_id": self.seed_of(row.session_id),
            "committed_at": when(row.created_at),
            "updated_at": when(row.updated_at),
        }

    def session_config(self, row: SessionRow) -> Answer:
        config = row.config
        name, kwargs = config["strategy"].get("name", "pipeline"), dict(config["strategy"])
        kwargs.pop("name", None)
        return {
            "aggregator": name,
            "aggregator_kwargs": json.dumps(kwargs) if kwargs else None,
            "round_timeout": config["round"]["timeout_s"],
            "buffer_size": config["sampler"].get("count") or -1,
            "rounds": row.num_rounds,
            "delete_models_storage": not config["keep"]["updates"],
            "clients_required": config["round"]["required"],
            "requested_clients": config["clients"]["count"],
            "validate": config["validation"]["every"] > 0,
            "helper_type": config["helper"] or "numpyhelper",
            "model_id": self.seed_of(row.session_id),
            "server_functions": None,
        }

    def seed_of(self, session_id: str) -> str:
        """The id of the model that a session started from: the one given to it, else its own round 0."""
        return self.uploads.seeds().get(session_id, f"{session_id}.0")

    # ---- models

    def models(self, session_id: str | None = None) -> list[Answer]:
        """Models, newest first. A session owns only the models of its rounds, no uploaded or seed models."""
        seeds, names = self.uploads.seeds(), self._names()
        rows = [row for row in self.read(StateStore.list_models) if row.round_number or row.session_id not in seeds]
        made = [(row.created_at, self.model(row, seeds, names)) for row in rows]
        made += [(one["created_at"], _uploaded(one)) for one in self.uploads.list("models")]
        newest = sorted(made, key=lambda pair: pair[0], reverse=True)  # stable if times are equal
        return [model for _, model in newest if session_id is None or model["session_id"] == session_id]

    def _names(self) -> Mapping[str, str]:
        return {row.session_id: row.name for row in self.read(StateStore.list_sessions)}

    def model(self, row: ModelRow, seeds: Mapping[str, str], names: Mapping[str, str]) -> Answer:
        parent = row.parent_id
        if row.round_number == 1:
            parent = seeds.get(row.session_id, parent)
        return {
            "id": row.model_id,
            "key": "models",
            "model": row.model_id,
            "model_id": row.model_id,
            "name": f"{names[row.session_id]}_{row.round_number}",
            "parent_model": parent,
            "session_id": row.session_id if row.round_number else None,
            "committed_at": when(row.created_at),
        }

    def trail(self, id: str, *, include_self: bool, reverse: bool, n_max: int | None) -> list[Answer] | Answer:
        """A model's ancestors; with ``reverse``, the oldest first, as in FEDn."""
        by_id = {model["id"]: model for model in self.models()}
        if id not in by_id:
            return missing(id)
        trail, current = ([by_id[id]] if include_self else []), by_id[id]["parent_model"]
        while current in by_id and len(trail) < (n_max or len(by_id)) + include_self:
            trail.append(by_id[current])
            current = by_id[current]["parent_model"]
        return trail[::-1] if reverse else trail

    def model_file(self, id: str) -> Path:
        """The file of an uploaded model or of a model in the store.

        Raises:
            NotFound: there is no such model, or it was pruned.
            StoreError: the file is damaged.
        """
        for one in self.uploads.list("models"):
            if one["model_id"] == id:
                return self.uploads.path(id, one["suffix"])
        return ModelStore(self.home.models).verify_model(self.read(lambda store: store.get_model(id)))

    # ---- packages

    def packages(self) -> list[Answer]:
        uploads = self.uploads.list("packages")[::-1]
        return [_package(one, active=not number) for number, one in enumerate(uploads)]

    # ---- rounds and the clients' work in them

    def rounds(self) -> list[Answer]:
        sessions = {row.session_id: row for row in self.read(StateStore.list_sessions)}
        rows = sorted(self.read(StateStore.list_rounds), key=lambda row: row.started_at, reverse=True)
        return [self.round(row, sessions[row.session_id]) for row in rows]

    def round(self, row: RoundRow, session: SessionRow) -> Answer:
        round_id = f"{row.session_id}.{row.round_number}"
        config = {
            **self.session_config(session),
            "model_id": self.seed_of(row.session_id)
            if row.round_number == 1
            else f"{row.session_id}.{row.round_number - 1}",
            "session_id": row.session_id,
            "task": "training",
            "round_id": round_id,
            "client_settings": {},
            "is_sl_inference": False,
            "selected_clients": row.cohort,
        }
        seconds = row.phases
        times = {"time_aggregate_model": seconds.get("fold"), "time_fetch_model": 0.0, "time_load_model": 0.0}
        combined = {
            "aggregation_time": {
                "nr_aggregated_models": row.num_ok,
                "time_model_aggregation": seconds.get("fold"),
                "time_model_load": 0.0,
            },
            "nr_expected_updates": len(row.cohort),
            "nr_required_updates": row.target,
            "time_combination": row.wall_s,
            "timeout": config["round_timeout"],
        }
        combiner = {"model_id": row.model_id, "name": COMBINER, "round_id": round_id, "status": "Success"}
        return {
            "id": round_id,
            "round_id": round_id,
            "status": ROUND_STATUSES[row.status],
            "round_config": config,
            "round_data": {"time_commit": seconds.get("commit"), "reduce": times},
            "combiners": [{**combiner, "time_exec_training": row.wall_s, "config": config, "data": combined}],
            "committed_at": when(row.started_at),
            "updated_at": when(row.finished_at),
        }

    def _per_session(self, read: Callable[[StateStore, str], list[_Read]], session_id: str | None) -> list[_Read]:
        def look(store: StateStore) -> list[_Read]:
            sessions = [row.session_id for row in store.list_sessions()]
            return [one for each in sessions if session_id in (None, each) for one in read(store, each)]

        return self.read(look)

    def tasks(self, session_id: str | None) -> list[TaskRow]:
        rows = self._per_session(lambda store, each: store.list_tasks(each), session_id)
        return sorted(rows, key=lambda row: row.started_at + row.wall_s, reverse=True)

    def statuses(self, session_id: str | None = None) -> list[Answer]:
        return [_status(row) for row in self.tasks(session_id) if row.round_number]

    def validations(self, session_id: str | None = None) -> list[Answer]:
        ended = {task.task_id: task.started_at + task.wall_s for task in self.tasks(session_id)}
        rows = self._per_session(lambda store, each: store.list_validations(each), session_id)
        rows.sort(key=lambda row: ended.get(row.task_id, 0.0), reverse=True)
        return [_validation(row, when(ended.get(row.task_id))) for row in rows]

    def clients(self, coming: Sequence[str]) -> list[Answer]:
        """The clients of all sessions, and the clients of the next one."""
        seen: dict[str, float] = {}
        for row in self.read(StateStore.list_sessions):
            clients = self.read(lambda store, id=row.session_id: store.list_clients(id))  # type: ignore[misc]
            seen |= {client.client_id: row.updated_at for client in clients}
        online = dict.fromkeys(coming, True)
        return [
            {
                "id": client_id,
                "client_id": client_id,
                "name": client_id,
                "combiner": COMBINER,
                "combiner_preferred": "",
                "ip": "127.0.0.1",
                "status": "online" if client_id in online else "offline",
                "last_seen": when(seen.get(client_id)),
                "package": "local",
            }
            for client_id in {**online, **seen}
        ]


def _uploaded(one: Mapping[str, Any]) -> Answer:
    id = one["model_id"]
    known = {"id": id, "key": "models", "model": id, "model_id": id, "name": one["name"]}
    return {**known, "parent_model": None, "session_id": None, "committed_at": when(one["created_at"])}


def _package(one: Mapping[str, Any], *, active: bool) -> Answer:
    names = ("package_id", "name", "description", "file_name", "storage_file_name", "helper")
    facts = {name: one[name] for name in names}
    return {"id": one["package_id"], **facts, "active": active, "committed_at": when(one["created_at"])}


def _status(row: TaskRow) -> Answer:
    ok = row.status == "ok"
    data = {"entry_point": row.entry_point, "round": row.round_number, "seconds": row.wall_s, "failure": row.failure}
    return {
        "id": row.task_id,
        "status_id": row.task_id,
        "status": f"{row.entry_point} completed" if ok else row.message,
        "timestamp": when(row.started_at + row.wall_s),
        "log_level": "INFO" if ok else "ERROR",
        "data": json.dumps(data),
        "correlation_id": row.task_id,
        "type": TASK_TYPES.get(row.entry_point, "NETWORK"),
        "extra": "",
        "session_id": row.session_id,
        "sender": agent(row.client_id),
    }


def _validation(row: ValidationRow, timestamp: str | None) -> Answer:
    return {
        "id": row.task_id,
        "validation_id": row.task_id,
        "model_id": row.model_id,
        "data": json.dumps(row.metrics),
        "correlation_id": row.task_id,
        "timestamp": timestamp,
        "session_id": row.session_id,
        "meta": json.dumps({"weight": row.weight, "round": row.round_number}),
        "sender": agent(row.client_id),
        "receiver": {"name": COMBINER, "role": "COMBINER"},
    }


def active_model(answers: Answers, package_id: str | None = None) -> Answer:
    """The newest model; with ``package_id``, the newest that was uploaded or made by this package.

    Raises:
        NotFound: there is none.
    """
    models = answers.models()
    if package_id is not None:
        sessions = answers.read(StateStore.list_sessions)
        mine = {row.session_id for row in sessions if row.package_digest == package_id}
        uploads = {one["model_id"] for one in answers.uploads.list("models")}
        models = [one for one in models if one["id"] in uploads or one["id"].rpartition(".")[0] in mine]
    if not models:
        raise NotFound("there is no model yet", hint="set_active_model(path) uploads one")
    return models[0]
