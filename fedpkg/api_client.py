"""FEDn's ``APIClient`` in this process: scripts and notebooks for FEDn's server run on a home on this machine."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import tempfile
import threading
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from fedpkg.api_answers import Answer, active_model, as_name, done, failed, noted, predicted
from fedpkg.api_reading import ReadingClient, Text, answering
from fedpkg.api_settings import buffer_section, server_functions_section, strategy_section
from fedpkg.errors import ModelFileError, NotFound
from fedpkg.fedn.helpers import BARE_SUFFIXES, HELPERS
from fedpkg.session.background import OTHERS, sessions_in, tell_of_failure
from fedpkg.session.package_run import run_of_package, session_name
from fedpkg.session.session import Session, prepare

if TYPE_CHECKING:
    from fedpkg.api_remote import RemoteClient
    from fedpkg.types import Json


@answering
class APIClient(ReadingClient):
    """FEDn's ``APIClient`` without a server: the same methods, arguments and forms of answers, on a local home.

    A failed call returns ``{"success": False, "message": …}``. Two kinds of failure raise: OSError if a file of the
    script cannot be read or written, ``ServerOnly`` for what needs a server. See docs/reference/fedn-api.md.

    Args:
        host: the address of a server (``http://127.0.0.1:…``, as `fedpkg dashboard` prints it): then the methods that
            read ask it, with the ``token``. Any other host is accepted as in FEDn, and ignored.
        port, secure, verify, token, auth_scheme: accepted as in FEDn, and ignored: there is no connection.
        token_endpoint, access_token_provider: accepted as in Scaleout, and ignored.
        home: the folder that keeps everything; None: ``$FEDPKG_HOME``, else ``.fedpkg``.
        clients: number of clients in each session.
        data: a glob pattern; each match is the data of one client.
        changes: keys of a run.yaml for all sessions, such as ``executor={"workers": 2}``.
    """

    if not TYPE_CHECKING:

        def __new__(cls, host: Text = None, *args: Any, token: Text = None, **kwargs: Any) -> APIClient | RemoteClient:
            if cls is APIClient and host is not None and host.startswith(("http://", "https://")):
                from fedpkg.api_remote import RemoteClient

                return RemoteClient(host, token, others=dir(cls))
            return super().__new__(cls)

    def set_active_model(self, path: str) -> Answer:
        from fedpkg.formats.model_file import read_seed_model

        digest, copy = self._uploads.keep(Path(path))
        package = self._uploads.active_package() or {"helper": ""}
        if copy.suffix == ".npz" and package["helper"] not in BARE_SUFFIXES:
            try:
                read_seed_model(Path(path))
            except ModelFileError as error:
                return failed(f"Failed to add model. {error}")
        model = {"model_id": digest, "name": Path(path).name, "suffix": copy.name.removeprefix(digest)}
        self._uploads.add("models", {**model, "source": str(path), "created_at": time.time()}, key="model_id")
        return done("Model added successfully")

    def set_active_package(
        self, path: str, helper: str = "", name: Text = "", description: Text = "", restart_clients: bool = False
    ) -> Answer:
        """Upload a package: an archive, or a folder, which is packed first."""
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
        self._uploads.add("packages", {**package, **stored, "source": str(path)}, key="package_id")
        return done("Package uploaded")

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
        """Start a session of the active package from a model (None: the active one, else the one that `build` makes).

        It returns once the session is in the store; its rounds run in a thread. ``aggregator`` may be any strategy of
        `fedpkg strategy list`. ``session_id`` and ``id`` (older FEDn) name the session.
        """
        strategy = strategy_section(aggregator, aggregator_kwargs)
        if server_functions is not None:
            strategy = server_functions_section(server_functions, self._uploads)
        changes: dict[str, Json] = {
            "strategy": strategy,
            "round.timeout_s": round_timeout,
            "round.required": min_clients,
            "keep.updates": not delete_models,
            "validation.every": int(validate),
            **buffer_section(round_buffer_size, len(self._coming()) if round_buffer_size > 0 else 0),
        }
        package = self._active_package()
        changes["name"] = as_name(name or session_id or id or session_name(Path(package["name"])))
        if (form := helper or package["helper"]) in HELPERS and "split" not in aggregator:
            changes["helper"] = form
        return self._start(changes, rounds, model_id)

    def start_splitlearning_session(
        self,
        name: Text = None,
        model_id: Text = None,
        round_timeout: float | None = 180,
        rounds: int = 5,
        round_buffer_size: int = -1,
        delete_models: bool = True,
        validate: bool = False,
        min_clients: int = 1,
        requested_clients: int = 8,
    ) -> Answer:
        """`start_session` with the strategy ``split``, which has no global model; its labels: ``FEDN_LABELS_PATH``."""
        labels = {} if (path := os.environ.get("FEDN_LABELS_PATH")) is None else {"labels": path}
        kwargs, settings = {"validate": validate, **labels}, (round_timeout, rounds, round_buffer_size, delete_models)
        return self.start_session(name, "split", kwargs, None, *settings, validate=False, min_clients=min_clients)

    def continue_session(self, session_id: str, rounds: int = 5, round_timeout: float = 180) -> Answer:
        """Run ``rounds`` more rounds of a session that has ended, with its own configuration and time limit."""
        for what, value in (("number of rounds", rounds), ("round timeout", round_timeout)):
            if not value or value < 0:
                return failed(f"Invalid {what} provided. Must be greater than 0.")
        row = self._answers.session_row(session_id)
        if self._answers.session(row)["status"] in ("Created", "Started"):
            return failed("Session is already running.")
        started = sessions_in(self.home.root)
        session = next((one for one in started if one.id == row.session_id), None)
        if session is None:
            session = Session(self.home, session_id=row.session_id, workshop=started[-1].workshop if started else None)
            self._watch(session)
            started.append(session)
        finished = self._answers.read(lambda store: store.count_rounds(row.session_id, status="finished"))
        session.resume(finished + rounds)
        return done("Session started", session_id=row.session_id)

    def stop_current_session(self) -> Answer:
        """Stop the sessions that this program has started; their committed rounds are kept."""
        running = [one for one in sessions_in(self.home.root) if one.is_running]
        for one in running:
            one.stop()
        return done("Session stopped") if running else failed("No session is running.")

    def _start(self, changes: Mapping[str, Json], rounds: int, model_id: str | None) -> Answer:
        package, seed = self._active_package(), None
        has_model = "split" not in cast("dict[str, Json]", changes["strategy"]).values()
        with contextlib.suppress(NotFound):  # without a model, the package builds one
            if has_model:
                model_id = model_id or active_model(self._answers, package["package_id"])["id"]
        if model_id is not None:
            seed = self._answers.model_file(model_id)
        words = [f"{key}={json.dumps(value, default=str)}" for key, value in {**changes, **self._changes}.items()]
        cache, clients = self.home.packages, self._num_clients
        config, _ways = run_of_package(
            Path(package["path"]),
            words,
            cache=cache,
            clients=clients,
            rounds=rounds,
            data=self._data,
            seed_model=seed,
            beside=Path(package.get("source") or package["path"]).absolute().parent,
        )
        started = sessions_in(self.home.root)
        session = prepare(config, self.home, beside=started[-1] if started else None)
        self._watch(session)
        started.append(session.start())
        while not session.id:
            with contextlib.suppress(TimeoutError):
                session.join(timeout_s=0.02)
        if model_id is not None:
            self._uploads.note_seed(session.id, model_id)
        answer = done("Session started", session_id=session.id)
        return {**answer, "config": self._answers.session_config(session.row) | answer}

    def _watch(self, session: Session) -> None:
        session.watch(functools.partial(tell_of_failure, told=self._uploads.told))

    def start_predictions(self, prediction_id: Text = None, model_id: Text = None) -> Answer:
        """Call each client's `predict` with a model (None: the active one), in a thread."""
        if not (models := [str(model["id"]) for model in self._answers.models()]):
            return failed("No models available")
        model_id = model_id or models[0]
        if model_id not in models:
            return failed(f"Model {model_id} not found")
        package, model = Path(self._active_package()["path"]), self._answers.model_file(model_id)
        job = (prediction_id or str(uuid.uuid4()), model_id, package, model)
        OTHERS.append(threading.Thread(target=self._predict, args=job, name="fedpkg-predictions"))
        OTHERS[-1].start()
        return done("Prediction session started")

    def _predict(self, prediction_id: str, model_id: str, package: Path, model: Path) -> None:
        from fedpkg.session.predictions import predictions

        for client_id, data in predictions(package, model, self._next_clients()):
            self._uploads.add("predictions", predicted(prediction_id, model_id, client_id, data), key="id")

    def add_attributes(self, attribute: Mapping[str, Any]) -> Answer:
        """Store a client's attribute: ``{"key": …, "value": …, "sender": {"client_id": …}}``, or ``"entity_id": …``."""
        row = noted(attribute)
        self._uploads.add("attributes", row)
        return row

    # ---- names of FEDn 0.6 to 0.8, and of Scaleout

    stop_current_command = stop_current_session
    set_package = set_active_package
    set_initial_model = set_active_model
