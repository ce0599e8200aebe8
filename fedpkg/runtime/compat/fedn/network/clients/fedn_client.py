"""FEDn's client with callbacks, without a network: ``run`` calls one callback for the task and ends the program."""

from __future__ import annotations

import enum
import os
from contextlib import contextmanager

from fedn.common.log_config import logger
from fedn.network.clients.one_task import SEVERAL, OneTask, identity, plain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Any, NoReturn

    from fedn.utils.model import FednModel


class ConnectToApiResult(enum.Enum):
    """The result of a connection attempt, which is always Assigned here."""

    Assigned = 0
    ComputePackageMissing = 1
    UnAuthorized = 2
    UnMatchedConfig = 3
    IncorrectUrl = 4
    UnknownError = 5


class GrpcConnectionOptions:
    """The address of a combiner."""

    def __init__(
        self,
        host: str = "",
        port: int = 0,
        status: str = "",
        fqdn: str = "",
        package: str = "",
        ip: str = "",
        helper_type: str = "",
    ) -> None:
        self.host, self.port, self.status = host, port, status
        self.fqdn, self.package, self.ip, self.helper_type = fqdn, package, ip, helper_type

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> GrpcConnectionOptions:
        names = ("host", "port", "status", "fqdn", "package", "ip", "helper_type")
        return cls(**{name: config[name] for name in names if name in config})


class FednClient:
    """A client whose callbacks run a task. Its name and id are stored but not used."""

    def __init__(
        self,
        train_callback: Callable[..., Any] | None = None,
        validate_callback: Callable[..., Any] | None = None,
        predict_callback: Callable[..., Any] | None = None,
        **_other: Any,
    ) -> None:
        if OneTask.current is not None:
            OneTask.current.enlist()
        self.train_callback = train_callback
        self.validate_callback = validate_callback
        self.predict_callback = predict_callback
        self.name = self.client_id = identity()
        self.package_path = "."

    def __getattr__(self, name: str) -> NoReturn:
        raise AttributeError(
            "%s has no %r here: fedpkg calls the client's callbacks without FEDn's network"
            % (type(self).__name__, name)
        )

    # ---- callbacks

    def set_train_callback(self, callback: Callable[..., Any]) -> None:
        self.train_callback = callback

    def set_validate_callback(self, callback: Callable[..., Any]) -> None:
        self.validate_callback = callback

    def set_predict_callback(self, callback: Callable[..., Any]) -> None:
        self.predict_callback = callback

    def set_inference_callback(self, callback: Callable[..., Any]) -> None:
        """Ignored: fedpkg does not call it."""

    def set_stage_model_callback(self, callback: Callable[..., Any]) -> None:
        """Ignored: fedpkg does not call it."""

    def set_custom_callback(self, callback_name: str, callback: Callable[..., Any]) -> None:
        """Ignored: fedpkg does not call it."""

    def set_name(self, name: str) -> None:
        self.name = name

    def set_client_id(self, client_id: str) -> None:
        self.client_id = client_id

    # ---- connections, which are none

    def connect_to_api(
        self, url: str = "", token: str | None = None, json: Mapping[str, Any] | None = None, **_other: Any
    ) -> tuple[ConnectToApiResult, GrpcConnectionOptions]:
        return ConnectToApiResult.Assigned, GrpcConnectionOptions(host="fedpkg")

    def init_grpchandler(self, config: Any = None, client_name: str = "", token: Any = None, **_other: Any) -> bool:
        return True

    def init_local_compute_package(self) -> bool:
        return True

    def init_remote_compute_package(self, url: str = "", token: str = "", package_checksum: str | None = None) -> bool:
        return True

    def send_status(self, msg: str, *_arguments: Any, **_other: Any) -> None:
        logger.info(msg)

    def send_heartbeats(self, *_arguments: Any, **_other: Any) -> None:
        """Ignored: there is no server to send them to."""

    def default_telemetry_loop(self, *_arguments: Any, **_other: Any) -> None:
        """Ignored: fedpkg itself measures what a task uses."""

    stop_default_telemetry_loop = default_telemetry_loop

    def get_model_from_combiner(self, id: str = "", client_id: str = "", timeout: int = 20) -> FednModel:
        from fedn.utils.model import FednModel

        return FednModel.from_file(_task().in_path)

    # ---- logging

    def log_metric(
        self, metrics: Mapping[str, Any], step: int | None = None, commit: bool = True, *_arguments: Any, **_other: Any
    ) -> bool:
        """Log metrics of a step of this task."""
        _task().log_metric(metrics, step, commit)
        return True

    def log_attributes(self, attributes: Mapping[str, Any], *_arguments: Any, **_other: Any) -> bool:
        """Log attributes of this client."""
        _task().attributes.update({str(name): plain(value) for name, value in attributes.items()})
        return True

    def log_telemetry(
        self,
        key: str | Mapping[str, Any] | None = None,
        payload: Mapping[str, Any] | None = None,
        telemetry: Mapping[str, Any] | None = None,
        **_other: Any,
    ) -> bool:
        """Log measurements, given as a dictionary or as a key with a payload. The last value of each is kept."""
        found = dict(key) if isinstance(key, dict) else dict(telemetry or {})
        if isinstance(key, str):
            found[key] = (payload or {}).get("value", payload)
        _task().telemetry.update({str(name): plain(value) for name, value in found.items()})
        return True

    @contextmanager
    def logging_context(self, context: Any) -> Iterator[None]:
        yield

    def check_task_abort(self) -> None:
        """Do nothing: fedpkg itself ends a task that is aborted."""

    # ---- the task

    def run(self, *_arguments: Any, **_other: Any) -> NoReturn:
        """Run the task, and end the program."""
        task = _task()
        if not task.is_done:
            task.run(
                {"train": self.train_callback, "validate": self.validate_callback, "predict": self.predict_callback}
            )
        raise SystemExit(0)

    listen_to_task_stream = run


def _task() -> OneTask:
    if OneTask.current is None:
        if "FEDPKG_TASK" in os.environ:  # a process started by the task's program
            raise SystemExit(SEVERAL)
        raise RuntimeError(
            "this program runs no task. Name it as the client of a package, in its fedn.yaml: "
            "entry_points: {client: {command: python client.py}}"
        )
    return OneTask.current
