"""Predictions of each client of a configuration with a model: its entry point ``predict``, called by hand."""

from __future__ import annotations

import dataclasses
import logging
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from fedpkg.data.base import ClientData
from fedpkg.errors import FedpkgError
from fedpkg.log import event
from fedpkg.session.by_hand import Call, call_entry_point
from fedpkg.session.package_run import call_ways

logger = logging.getLogger("fedpkg.session")


def predictions(package: Path, model: Path, clients: Iterable[ClientData]) -> Iterator[tuple[str, str]]:
    """Each client's id and the contents of its predictions file; a client that fails causes a warning."""
    for client in clients:
        with tempfile.TemporaryDirectory(prefix="fedpkg-predict-") as temporary:
            folder = Path(temporary)
            call = Call(package, "predict", folder, model=model, client_id=client.client_id)
            try:
                called = call_entry_point(_with_data(call, client.path))
            except FedpkgError as error:
                event(logger, logging.WARNING, "prediction.failed", client=client.client_id, about=str(error))
                continue
            if called.answer.failure is not None or called.reply is None:
                event(
                    logger, logging.WARNING, "prediction.failed", client=client.client_id, about=called.answer.failure
                )
                continue
            yield client.client_id, called.reply.read_bytes().decode(errors="replace")


def _with_data(call: Call, path: Path | None) -> Call:
    if path is None:
        return call
    ways = call_ways(call.package, path, cache=call.folder / "packages")
    return dataclasses.replace(
        call,
        data_path=path,
        arguments=ways.arguments().get(call.entry_point, {}),
        environment=ways.section("environment"),
        links={name: path / within for name, within in ways.section("links").items()},
    )
