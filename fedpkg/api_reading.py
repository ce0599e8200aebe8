"""The reading methods of FEDn's ``APIClient``: clients, models, packages, sessions, rounds, and validations."""

from __future__ import annotations

import contextlib
import functools
import inspect
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, TypeAlias, TypeVar

from fedpkg.api_answers import Answer, Answers, active_model, combiner, done, failed, found, having, listed, missing
from fedpkg.api_settings import in_order_of_today
from fedpkg.config import ClientsConfig
from fedpkg.errors import FedpkgError, NotFound, ServerOnly
from fedpkg.session.record import open_home, running_sessions
from fedpkg.stores.home import Home
from fedpkg.stores.opening import open_store
from fedpkg.stores.uploads import Upload

if TYPE_CHECKING:
    from fedpkg.data.base import ClientData

_Class = TypeVar("_Class")
Text: TypeAlias = "str | None"

_ORDERS = {"start_session": in_order_of_today}  # methods whose arguments had another order before
_IDS = {"session_id", "round_id", "combiner_id"}  # names of the argument ``id`` in FEDn 0.6 to 0.8


def answering(cls: type[_Class]) -> type[_Class]:
    """Make failures of public methods answers, as from FEDn's server, and accept the former names of ``id``."""

    def made_so(method: Callable[..., Any]) -> Callable[..., Any]:
        parameters = inspect.signature(method).parameters
        former = dict.fromkeys(_IDS - parameters.keys(), "id") if "id" in parameters else {}

        @functools.wraps(method)
        def wrapped(client: Any, *args: Any, **kwargs: Any) -> Any:
            try:
                args = _ORDERS[method.__name__](args) if method.__name__ in _ORDERS else args
                return method(client, *args, **{former.get(name, name): value for name, value in kwargs.items()})
            except ServerOnly:
                raise
            except FedpkgError as error:
                told = client._uploads.told(str(error))
                return failed(told.removeprefix("on the command line: "))  # as for other keys of a run.yaml

        return wrapped

    for name, method in list(vars(cls).items()):
        if inspect.isfunction(method) and not name.startswith("_"):
            setattr(cls, name, made_so(method))
    return cls


@answering
class ReadingClient:
    """The methods of `APIClient` that only read."""

    usual: ClassVar[Mapping[str, Any]] = {}  # defaults that `serve_fedn_imports` sets for scripts

    def __init__(
        self,
        host: Text = None,
        port: int | None = None,
        secure: bool = False,
        verify: bool = False,
        token: Text = None,
        auth_scheme: Text = None,
        *,
        token_endpoint: Text = None,
        access_token_provider: object = None,
        home: Home | Path | Text = None,
        clients: int | None = None,
        data: Text = None,
        **changes: Any,
    ) -> None:
        from fedpkg.session.background import sessions_in  # the dashboard reads without loading what runs sessions

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

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> NoReturn:
            raise AttributeError(f"{type(self).__name__} has no {name!r}: docs/reference/fedn-api.md lists its methods")

    # ---- clients and combiners

    def get_clients(self, n_max: int | None = None) -> Answer:
        return listed(self._answers.clients(self._coming()), n_max)

    def get_client(self, id: str) -> Answer:
        return found(self._answers.clients(self._coming()), id, "client_id")

    def get_clients_count(self, only_active: bool = False) -> int:
        return len(having(self._answers.clients(self._coming()), status="online" if only_active else None))

    def get_active_clients(self, combiner_id: Text = None, n_max: int | None = None) -> Answer:
        return listed(having(self._answers.clients(self._coming()), status="online", combiner=combiner_id), n_max)

    def get_client_config(self, checksum: bool = True) -> Answer:
        """Raises ServerOnly: the answer would hold what a client needs to connect to a server."""
        hint = "start_session runs them; APIClient(data='clients/*') selects their data"
        raise ServerOnly("there is no server here: a session starts its clients itself", hint=hint)

    def get_current_attributes(self, client_list: list[str] | str) -> Answer:
        current: Answer = {client: {} for client in ([client_list] if isinstance(client_list, str) else client_list)}
        for row in self._uploads.list("attributes"):
            if (client_id := row.get("entity_id") or row.get("sender", {}).get("client_id")) in current:
                current[client_id][row.get("key")] = row.get("value")
        return current

    def _next_clients(self) -> list[ClientData]:
        """The clients of the next session."""
        from fedpkg.data.clients import prepare_clients
        from fedpkg.session.package_run import DEFAULT_CLIENTS

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
        """The newest model: the one that was set active, or a later one of a session."""
        return active_model(self._answers)

    def get_model_trail(
        self, id: Text = None, include_self: bool = True, reverse: bool = True, n_max: int | None = None
    ) -> list[Answer] | Answer:
        """A model and its ancestors as a list; with ``reverse``, the oldest first. None is the active model."""
        start = id or active_model(self._answers)["id"]
        return self._answers.trail(start, include_self=include_self, reverse=reverse, n_max=n_max)

    def download_model(self, id: str, path: str) -> Answer:
        return self._download("model", path, lambda: self._answers.model_file(id))

    # ---- packages

    def get_packages(self, n_max: int | None = None) -> Answer:
        return listed(self._answers.packages(), n_max)

    def get_package(self, id: Text = None) -> Answer:
        """The package with this id; without one, as in FEDn 0.6 to 0.8, the active one."""
        return self.get_active_package() if id is None else found(self._answers.packages(), id, "id", "name")

    def get_packages_count(self) -> int:
        return len(self._answers.packages())

    def get_active_package(self) -> Answer:
        return next(iter(self._answers.packages()), failed("Entity not found"))

    def get_package_checksum(self) -> Answer:
        return done("Checksum generated", checksum=self._active_package()["package_id"])

    def download_package(self, path: str) -> Answer:
        return self._download("package", path, lambda: Path(self._active_package()["path"]))

    def _active_package(self) -> Upload:
        """The active package. Raises NotFound: no package was set active."""
        if (package := self._uploads.active_package()) is None:
            raise NotFound("No active package", hint="set_active_package(path, helper, name) uploads one")
        return package

    def _download(self, what: str, path: str, find: Callable[[], Path]) -> Answer:
        try:
            source = find()
        except FedpkgError:
            return failed(f"Failed to download {what}.")
        shutil.copyfile(source, path)
        return done(f"{what.capitalize()} downloaded successfully.")

    # ---- rounds, and the clients' work in them

    def get_rounds(self, n_max: int | None = None, filter: Mapping[str, Any] | None = None) -> Answer:
        """Rounds; ``filter`` is, for example, ``{"round_config.session_id": …}``."""
        return listed(having(self._answers.rounds(), **(filter or {})), n_max)

    def get_round(self, id: str) -> Answer:
        return found(self._answers.rounds(), id, "round_id")

    def get_rounds_count(self) -> int:
        return len(self._answers.rounds())

    def get_statuses(
        self,
        session_id: Text = None,
        event_type: Text = None,
        sender_name: Text = None,
        sender_role: Text = None,
        n_max: int | None = None,
    ) -> Answer:
        """One status for each task of a client."""
        rows = self._answers.statuses(self._session_id(session_id))
        return listed(having(rows, type=event_type, sender_name=sender_name, sender_role=sender_role), n_max)

    def get_status(self, id: str) -> Answer:
        return found(self._answers.statuses(), id, "status_id")

    def get_statuses_count(self) -> int:
        return len(self._answers.statuses())

    def get_validations(
        self,
        session_id: Text = None,
        model_id: Text = None,
        correlation_id: Text = None,
        sender_name: Text = None,
        sender_role: Text = None,
        receiver_name: Text = None,
        receiver_role: Text = None,
        n_max: int | None = None,
        sender_client_id: Text = None,
    ) -> Answer:
        """The clients' metrics; ``data`` of each validation is a string of JSON."""
        sender = {"sender_name": sender_name, "sender_role": sender_role, "sender_client_id": sender_client_id}
        receiver = {"receiver_name": receiver_name, "receiver_role": receiver_role}
        rows = self._answers.validations(self._session_id(session_id))
        return listed(having(rows, model_id=model_id, correlation_id=correlation_id, **sender, **receiver), n_max)

    def get_validation(self, id: str) -> Answer:
        return found(self._answers.validations(), id, "validation_id")

    def get_validations_count(self, session_id: Text = None) -> int:
        return len(self._answers.validations(self._session_id(session_id)))

    def get_predictions(
        self,
        model_id: Text = None,
        correlation_id: Text = None,
        sender_name: Text = None,
        sender_role: Text = None,
        receiver_name: Text = None,
        receiver_role: Text = None,
        n_max: int | None = None,
        client_id: Text = None,
    ) -> Answer:
        """The clients' predictions; ``correlation_id`` is the id that `start_predictions` returned."""
        sender = {"sender_name": sender_name, "sender_role": sender_role, "sender_client_id": client_id}
        receiver = {"receiver_name": receiver_name, "receiver_role": receiver_role}
        rows = self._uploads.list("predictions")[::-1]
        return listed(having(rows, model_id=model_id, correlation_id=correlation_id, **sender, **receiver), n_max)

    # ---- sessions

    def get_sessions(self, n_max: int | None = None, name: Text = None) -> Answer:
        return listed(self._answers.sessions(name), n_max)

    def get_session(self, id: Text = None, name: Text = None) -> Answer:
        """A session by its id or its name; the newest, if several have the name."""
        if not (ref := id or name):
            return failed("No id or name provided.")
        try:
            return self._answers.session(self._answers.session_row(ref))
        except NotFound:
            return missing(ref) if id else failed("Session not found.")

    def get_sessions_count(self) -> int:
        return len(self._answers.sessions())

    def get_session_status(self, id: str) -> str:
        """``Created``, ``Started``, ``Finished``, or ``Terminated`` if it ended in another way."""
        return str(self.get_session(id).get("status", "Could not retrieve session status."))

    def session_is_finished(self, id: str) -> bool:
        """Whether the session has ended, successfully or not, so that a loop which waits for it always ends."""
        return self.get_session_status(id) in ("Finished", "Terminated")

    def _session_id(self, ref: str | None) -> str | None:
        with contextlib.suppress(NotFound):
            return None if ref is None else self._answers.session_row(ref).session_id
        return ref  # unknown: nothing will match it

    # ---- names of FEDn 0.6 to 0.8

    list_clients = get_clients
    list_combiners = get_combiners

    def list_models(self, session_id: Text = None, limit: int | None = None, skip: int = 0) -> Answer:
        return _page(self.get_models(session_id), limit, skip)

    def list_sessions(self, limit: int | None = None, skip: int = 0) -> Answer:
        return _page(self.get_sessions(), limit, skip)

    def list_compute_packages(self, limit: int | None = None, skip: int = 0) -> Answer:
        return _page(self.get_packages(), limit, skip)

    def list_validations(self, **wanted: str) -> Answer:
        """A dict of validations by id; arguments are ``modelId``, ``sessionId`` …, or the current names."""
        names = {"modelId": "model_id", "sessionId": "session_id", "correlationId": "correlation_id"}
        asked = {names.get(key, key): value for key, value in wanted.items()}
        rows = having(self._answers.validations(self._session_id(asked.pop("session_id", None))), **asked)
        return {row["id"]: {**row, **{old: row[new] for old, new in names.items()}} for row in rows}

    def list_rounds(self) -> Answer:
        """A dict of rounds by id."""
        return {row["round_id"]: {**row, "reducer": row["round_data"]["reduce"]} for row in self._answers.rounds()}

    def get_events(self, **wanted: str) -> Answer:
        return listed(having(self._answers.statuses(), **wanted))

    def get_initial_model(self) -> Answer:
        """The model that was last set active."""
        return {"model_id": next((one["model_id"] for one in self._uploads.list("models")[::-1]), None)}

    def get_latest_model(self) -> Answer:
        return {"model_id": active_model(self._answers)["model_id"]}


def _page(answer: Answer, limit: int | None, skip: int) -> Answer:
    if "result" not in answer:
        return answer
    return {**answer, "result": answer["result"][skip : None if limit is None else skip + limit]}
