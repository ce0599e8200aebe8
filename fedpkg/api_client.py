"""FEDn's ``APIClient`` in this process: scripts and notebooks written for its server run on a home of this machine."""

from __future__ import annotations

import contextlib
import functools
import inspect
import json
import os
import shutil
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias, TypeVar, cast

from fedpkg.api_answers import (
    Answer,
    Answers,
    active_model,
    as_name,
    combiner,
    found,
    having,
    listed,
    missing,
    noted,
    predicted,
)
from fedpkg.config import ClientsConfig
from fedpkg.errors import ConfigError, FedpkgError, NotFound, ServerOnly
from fedpkg.fedn.aggregators import strategy_of
from fedpkg.fedn.helpers import HELPERS
from fedpkg.session.background import OTHERS, sessions_in, tell_of_failure
from fedpkg.session.package_run import DEFAULT_CLIENTS, run_of_package, session_name
from fedpkg.session.record import open_home, running_sessions
from fedpkg.session.session import Session, prepare
from fedpkg.stores.home import Home
from fedpkg.stores.opening import open_store
from fedpkg.stores.uploads import Upload

if TYPE_CHECKING:
    from fedpkg.data.base import ClientData
    from fedpkg.types import Json

_Class = TypeVar("_Class")
Text: TypeAlias = "str | None"

# What FEDn's server has at hand for the source of a class.
_HOOKS = "from fedn.network.combiner.hooks.allowed_import import *\n\n\n"


def answering(cls: type[_Class]) -> type[_Class]:
    """A failure of a public method is an answer: ``{"message": …}``, as from FEDn's server."""

    def made_so(method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            try:
                return method(*args, **kwargs)
            except ServerOnly:
                raise
            except FedpkgError as error:
                return {"message": str(error)}

        return wrapped

    for name, method in list(vars(cls).items()):
        if inspect.isfunction(method) and not name.startswith("_"):
            setattr(cls, name, made_so(method))
    return cls


@answering
class APIClient:
    """FEDn's ``APIClient`` without a server: the same methods, arguments and shapes of answers, on a home.

    A failure is an answer ``{"message": …}`` and no exception; what only a server has raises ``ServerOnly``.
    docs/from-fedn.md says what differs.

    Args:
        host, port, secure, verify, token, auth_scheme: as FEDn's; nothing is connected to.
        home: the folder that keeps everything; None: ``$FEDPKG_HOME``, else ``.fedpkg``.
        clients: number of clients of a session.
        data: a pattern; each match is the data of one client.
        changes: keys of a run.yaml for all sessions, as ``executor={"workers": 2}``.
    """

    usual: ClassVar[Mapping[str, Any]] = {}  # what `serve_fedn_imports` gives to scripts that say nothing of it

    def __init__(
        self,
        host: Text = None,
        port: int | None = None,
        secure: bool = False,
        verify: bool = False,
        token: Text = None,
        auth_scheme: Text = None,
        *,
        home: Home | Path | Text = None,
        clients: int | None = None,
        data: Text = None,
        **changes: Any,
    ) -> None:
        self.host, self.port, self.secure, self.verify = host, port, secure, verify
        given = {"home": home, "clients": clients, "data": data, **changes}
        settings = {**self.usual, **{name: value for name, value in given.items() if value is not None}}
        self.home = open_home(settings.pop("home", None), create=True)
        self._num_clients: int | None = settings.pop("clients", None)
        self._data: str | None = settings.pop("data", None)
        self._changes: dict[str, Any] = settings
        open_store(self.home).close()
        started = sessions_in(self.home.root)
        self._answers = Answers(self.home, lambda: {one.id for one in started if one.is_running})
        self._uploads = self._answers.uploads

    # ---- clients and combiners

    def get_clients(self, n_max: int | None = None) -> Answer:
        return listed(self._answers.clients(self._coming()), n_max)

    def get_client(self, id: str) -> Answer:
        return found(self._answers.clients(self._coming()), id, "client_id")

    def get_clients_count(self) -> int:
        return len(self._answers.clients(self._coming()))

    def get_active_clients(self, combiner_id: Text = None, n_max: int | None = None) -> Answer:
        return listed(having(self._answers.clients(self._coming()), status="online", combiner=combiner_id), n_max)

    def get_client_config(self, checksum: bool = True) -> Answer:
        """Raises ServerOnly: with it, a client connects to a server."""
        hint = "start_session runs them; APIClient(data='clients/*') says what data they have"
        raise ServerOnly("there is no server here: a session starts its clients itself", hint=hint)

    def _next_clients(self) -> list[ClientData]:
        """The clients of the next session."""
        from fedpkg.data.clients import prepare_clients

        count = self._num_clients or (None if self._data else DEFAULT_CLIENTS)
        folders = None if self._data is None else str(Path(self._data).expanduser().absolute())
        return prepare_clients(ClientsConfig(count=count, folders=folders), cache=self.home.data, seed=0)

    def _coming(self) -> list[str]:
        return [client.client_id for client in self._next_clients()]

    def get_combiners(self, n_max: int | None = None) -> Answer:
        return listed([combiner()], n_max)

    def get_combiner(self, id: str) -> Answer:
        return found([combiner()], id, "combiner_id", "name")

    def get_combiners_count(self) -> int:
        return 1

    def get_controller_status(self) -> Answer:
        if running_sessions(self.home):
            return {"state": "monitoring"}
        return {"state": "idle" if self._uploads.active_package() else "setup"}

    # ---- models

    def get_models(self, session_id: Text = None, n_max: int | None = None) -> Answer:
        return listed(self._answers.models(self._session_id(session_id)), n_max)

    def get_model(self, id: str) -> Answer:
        return found(self._answers.models(), id, "id")

    def get_models_count(self) -> int:
        return len(self._answers.models())

    def get_active_model(self) -> Answer:
        """The newest model: what was set active, or what a session made since."""
        return active_model(self._answers)

    def get_model_trail(
        self, id: Text = None, include_self: bool = True, reverse: bool = True, n_max: int | None = None
    ) -> list[Answer] | Answer:
        """A model and its ancestors as a list, with ``reverse`` the oldest first; None is the active model."""
        start = id or active_model(self._answers)["id"]
        return self._answers.trail(start, include_self=include_self, reverse=reverse, n_max=n_max)

    def download_model(self, id: str, path: str) -> Answer:
        return self._download("model", path, lambda: self._answers.model_file(id))

    def set_active_model(self, path: str) -> Answer:
        digest, copy = self._uploads.keep(Path(path))
        model = {"model_id": digest, "name": Path(path).name, "suffix": copy.name.removeprefix(digest)}
        self._uploads.add("models", {**model, "created_at": time.time()}, key="model_id")
        return {"message": "Model added successfully"}

    # ---- packages

    def get_packages(self, n_max: int | None = None) -> Answer:
        return listed(self._answers.packages(), n_max)

    def get_package(self, id: Text = None) -> Answer:
        """The package with this id; without one, as in FEDn 0.6 to 0.8, the active one."""
        return self.get_active_package() if id is None else found(self._answers.packages(), id, "id", "name")

    def get_packages_count(self) -> int:
        return len(self._answers.packages())

    def get_active_package(self) -> Answer:
        return next(iter(self._answers.packages()), {"message": "Entity not found"})

    def get_package_checksum(self) -> Answer:
        return {"message": "Checksum generated", "checksum": self._active_package()["package_id"]}

    def download_package(self, path: str) -> Answer:
        return self._download("package", path, lambda: Path(self._active_package()["path"]))

    def set_active_package(self, path: str, helper: str = "", name: str = "", description: str = "") -> Answer:
        """``path`` is an archive, or a folder, which is packed first."""
        from fedpkg.compute_package.build import build_package

        source = Path(path)
        with tempfile.TemporaryDirectory(prefix="fedpkg-api-") as folder:
            file_name = source.name
            if source.is_dir():
                file_name = f"{source.resolve().name}.tar.gz"
                source = build_package(source, Path(folder) / file_name).path
            digest, copy = self._uploads.keep(source)
        package = {"package_id": digest, "name": name or file_name, "description": description, "file_name": file_name}
        stored = {"storage_file_name": copy.name, "path": str(copy), "helper": helper, "created_at": time.time()}
        self._uploads.add("packages", {**package, **stored}, key="package_id")
        return {"message": "Package uploaded"}

    def _active_package(self) -> Upload:
        """Raises NotFound: none was set active."""
        if (package := self._uploads.active_package()) is None:
            raise NotFound("No active package", hint="set_active_package(path, helper, name) uploads one")
        return package

    def _download(self, what: str, path: str, find: Callable[[], Path]) -> Answer:
        try:
            shutil.copyfile(find(), path)
        except (FedpkgError, OSError):
            return {"success": False, "message": f"Failed to download {what}."}
        return {"success": True, "message": f"{what.capitalize()} downloaded successfully."}

    def get_rounds(self, n_max: int | None = None) -> Answer:
        return listed(self._answers.rounds(), n_max)

    def get_round(self, id: str) -> Answer:
        return found(self._answers.rounds(), id, "round_id")

    def get_rounds_count(self) -> int:
        return len(self._answers.rounds())

    def get_statuses(
        self, session_id: Text = None, event_type: Text = None, *, n_max: int | None = None, **of: Text
    ) -> Answer:
        """Each task of a client is one status. ``of``: ``sender_name``, ``sender_role``."""
        return listed(having(self._answers.statuses(self._session_id(session_id)), type=event_type, **of), n_max)

    def get_status(self, id: str) -> Answer:
        return found(self._answers.statuses(), id, "status_id")

    def get_statuses_count(self) -> int:
        return len(self._answers.statuses())

    def get_validations(
        self, session_id: Text = None, model_id: Text = None, *, n_max: int | None = None, **of: Text
    ) -> Answer:
        """What clients measured: ``data`` of each is a string of JSON.

        ``of``: ``correlation_id``, ``sender_name``, ``sender_role``, ``receiver_name``, ``receiver_role``.
        """
        return listed(having(self._answers.validations(self._session_id(session_id)), model_id=model_id, **of), n_max)

    def get_validation(self, id: str) -> Answer:
        return found(self._answers.validations(), id, "validation_id")

    def get_validations_count(self) -> int:
        return len(self._answers.validations())

    # ---- sessions

    def get_sessions(self, n_max: int | None = None, name: Text = None) -> Answer:
        return listed(self._answers.sessions(name), n_max)

    def get_session(self, id: Text = None, name: Text = None) -> Answer:
        """A session by its id or its name; of several with one name, the newest."""
        if not (ref := id or name):
            raise ConfigError("Either id or name must be provided")
        try:
            return self._answers.session(self._answers.session_row(ref))
        except NotFound:
            return missing(ref)

    def get_sessions_count(self) -> int:
        return len(self._answers.sessions())

    def get_session_status(self, id: str) -> str:
        """``Created``, ``Started``, ``Finished``, or ``Terminated`` when it ended in another way."""
        return str(self.get_session(id).get("status", "Could not retrieve session status."))

    def session_is_finished(self, id: str) -> bool:
        """Whether it has ended, in whatever way: who waits for it does not wait for ever."""
        return self.get_session_status(id) in ("Finished", "Terminated")

    def start_session(
        self,
        name: Text = None,
        aggregator: str = "fedavg",
        aggregator_kwargs: Mapping[str, Any] | Text = None,
        model_id: Text = None,
        round_timeout: float | None = 180,
        rounds: int = 5,
        round_buffer_size: int = -1,
        delete_models: bool = True,
        validate: bool = True,
        helper: Text = None,
        min_clients: int = 1,
        requested_clients: int = 8,
        server_functions: type | None = None,
        session_id: Text = None,
        id: Text = None,
    ) -> Answer:
        """Start a session of the active package from a model (None: the active one, else what `build` makes).

        It returns when the session is on record; rounds run in a thread. ``aggregator`` may be any strategy of
        `fedpkg strategy list`. ``session_id`` and ``id`` (older FEDn) name the session.
        """
        changes: dict[str, Json] = {
            "strategy": self._strategy(aggregator, aggregator_kwargs, server_functions),
            "round.timeout_s": round_timeout,
            "round.required": min_clients,
            "keep.updates": not delete_models,
            "validation.every": int(validate),
            **self._buffer(round_buffer_size),
        }
        package = self._active_package()
        changes["name"] = as_name(name or session_id or id or session_name(Path(package["name"])))
        if (form := helper or package["helper"]) in HELPERS and "split" not in aggregator:
            changes["helper"] = form
        return self._start(changes, rounds, model_id)

    def start_splitlearning_session(
        self, name: Text = None, model_id: Text = None, *, validate: bool = False, **settings: Any
    ) -> Answer:
        """`start_session` with the strategy ``split``, which has no global model; its labels: ``FEDN_LABELS_PATH``."""
        labels = {} if (path := os.environ.get("FEDN_LABELS_PATH")) is None else {"labels": path}
        kwargs = {"validate": validate, **labels}
        return self.start_session(name, "split", kwargs, validate=False, **settings)

    def continue_session(self, session_id: str, rounds: int = 5, round_timeout: float = 180) -> Answer:
        """Give a session that has ended so many more rounds. It keeps its configuration, also its time limit."""
        row = self._answers.session_row(session_id)
        if self._answers.session(row)["status"] in ("Created", "Started"):
            return {"message": "Session is already running."}
        started = sessions_in(self.home.root)
        session = next((one for one in started if one.id == row.session_id), None)
        if session is None:
            session = Session(self.home, session_id=row.session_id, workshop=started[-1].workshop if started else None)
            session.watch(tell_of_failure)
            started.append(session)
        done = self._answers.read(lambda store: store.count_rounds(row.session_id, status="finished"))
        session.resume(done + rounds)
        return {"message": "Session started", "session_id": row.session_id}

    def _start(self, changes: Mapping[str, Json], rounds: int, model_id: str | None) -> Answer:
        package, seed = self._active_package(), None
        has_model = "split" not in cast("dict[str, Json]", changes["strategy"]).values()
        with contextlib.suppress(NotFound):  # then the package builds one
            if has_model:
                model_id = model_id or active_model(self._answers, package["package_id"])["id"]
        if model_id is not None:
            seed = self._answers.model_file(model_id)
        words = [f"{key}={json.dumps(value, default=str)}" for key, value in {**changes, **self._changes}.items()]
        cache, clients = self.home.packages, self._num_clients
        config, _ways = run_of_package(
            Path(package["path"]), words, cache=cache, clients=clients, rounds=rounds, data=self._data, seed_model=seed
        )
        started = sessions_in(self.home.root)
        session = prepare(config, self.home, beside=started[-1] if started else None)
        session.watch(tell_of_failure)
        started.append(session.start())
        while not session.id:
            with contextlib.suppress(TimeoutError):
                session.join(timeout_s=0.02)
        if model_id is not None:
            self._uploads.note_seed(session.id, model_id)
        answer = {"message": "Session started", "session_id": session.id}
        return {**answer, "config": self._answers.session_config(session.row) | answer}

    def _strategy(
        self, aggregator: str, kwargs: Mapping[str, Any] | str | None, server_functions: type | None
    ) -> dict[str, Json]:
        if server_functions is None:
            try:
                return strategy_of(aggregator, dict(json.loads(kwargs) if isinstance(kwargs, str) else kwargs or {}))
            except (ValueError, TypeError) as error:
                raise ConfigError(f"aggregator_kwargs is no mapping, and no JSON of one: {kwargs!r}") from error
        try:
            source = inspect.getsource(server_functions)
        except (OSError, TypeError) as error:
            raise ConfigError(f"the source of {server_functions!r} cannot be read", hint="put it in a file") from error
        return {"server_functions": str(self._uploads.keep_text(_HOOKS + source, "server_functions.py"))}

    def _buffer(self, size: int) -> dict[str, Json]:
        """All clients are asked, and the first ``size`` replies count."""
        if size < 1:
            return {}
        asked = len(self._coming())
        return {"sampler": {"name": "uniform", "count": size, "over_selection": max(0.0, asked / size - 1)}}

    def _session_id(self, ref: str | None) -> str | None:
        with contextlib.suppress(NotFound):
            return None if ref is None else self._answers.session_row(ref).session_id
        return ref  # of which there is nothing

    def get_predictions(self, model_id: Text = None, *, n_max: int | None = None, **of: Text) -> Answer:
        return listed(having(self._uploads.list("predictions")[::-1], model_id=model_id, **of), n_max)

    def start_predictions(self, prediction_id: Text = None, model_id: Text = None) -> Answer:
        """Have each client's `predict` called with a model (None: the active one), in a thread."""
        model_id = model_id or str(active_model(self._answers)["id"])
        package, model = Path(self._active_package()["path"]), self._answers.model_file(model_id)
        job = (prediction_id or str(uuid.uuid4()), model_id, package, model)
        OTHERS.append(threading.Thread(target=self._predict, args=job, name="fedpkg-predictions"))
        OTHERS[-1].start()
        return {"message": "Prediction started"}

    def _predict(self, prediction_id: str, model_id: str, package: Path, model: Path) -> None:
        from fedpkg.session.predictions import predictions

        for client_id, data in predictions(package, model, self._next_clients()):
            self._uploads.add("predictions", predicted(prediction_id, model_id, client_id, data), key="id")

    def add_attributes(self, attribute: Mapping[str, Any]) -> Answer:
        """Note ``{"key": …, "value": …, "sender": {"name": …, "client_id": …}}`` of a client."""
        row = noted(attribute)
        self._uploads.add("attributes", row)
        return row

    def get_current_attributes(self, client_list: list[str]) -> Answer:
        current: Answer = {client_id: {} for client_id in client_list}
        for row in self._uploads.list("attributes"):
            if (client_id := row.get("sender", {}).get("client_id")) in current:
                current[client_id][row.get("key")] = row.get("value")
        return current

    # ---- names of FEDn 0.6 to 0.8

    set_package = set_active_package
    set_initial_model = set_active_model
    list_clients = get_clients
    list_combiners = get_combiners
    list_rounds = get_rounds

    def list_models(self, session_id: Text = None, limit: int | None = None, skip: int = 0) -> Answer:
        return _page(self.get_models(session_id), limit, skip)

    def list_sessions(self, limit: int | None = None, skip: int = 0) -> Answer:
        return _page(self.get_sessions(), limit, skip)

    def list_compute_packages(self, limit: int | None = None, skip: int = 0) -> Answer:
        return _page(self.get_packages(), limit, skip)

    def list_validations(self, **wanted: str) -> Answer:
        """By id, and not as a list; ``modelId``, ``sessionId`` … or the names of today."""
        names = {"modelId": "model_id", "sessionId": "session_id", "correlationId": "correlation_id"}
        asked = {names.get(key, key.replace(".", "_")): value for key, value in wanted.items()}
        rows = having(self._answers.validations(self._session_id(asked.pop("session_id", None))), **asked)
        return {row["id"]: {**row, **{old: row[new] for old, new in names.items()}} for row in rows}

    def get_events(self, **wanted: str) -> Answer:
        return listed(having(self._answers.statuses(), **wanted))

    def get_initial_model(self) -> Answer:
        """The model that was set active last."""
        return {"model_id": next((one["model_id"] for one in self._uploads.list("models")[::-1]), None)}

    def get_latest_model(self) -> Answer:
        return {"model_id": active_model(self._answers)["model_id"]}


def _page(answer: Answer, limit: int | None, skip: int) -> Answer:
    if "result" not in answer:
        return answer
    return {**answer, "result": answer["result"][skip : None if limit is None else skip + limit]}
