"""The side that runs orders on this machine: its packages, models, data and states, and their paths."""

from __future__ import annotations

import dataclasses
import errno
import functools
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from fedpkg.errors import DispatchError
from fedpkg.replies.reading import Reading
from fedpkg.types import ReplyKind
from fedpkg.waist.order import ALL, Order, ReplySpec
from fedpkg.waist.place import Place, package_in, place_of, session_folder, states_folder

if TYPE_CHECKING:
    from fedpkg.compute_package.spec import EntryPoint, PackageSpec
    from fedpkg.waist.order import TensorSpec
    from fedpkg.weights.weights import Weights


@dataclass(frozen=True)
class PackageOnDisk:
    """An unpacked compute package: ``root`` is copied for each client, ``folder`` inside it holds fedn.yaml.

    ``python`` is the interpreter that its commands call ``python``: the one that runs fedpkg (default), or the one of
    the package's own environment; None: the first one on PATH. ``left`` is the version folder in which a ``startup``
    for all clients has left the package; it is copied as a whole. None: the package is as it was unpacked.
    """

    digest: str
    root: Path
    folder: Path
    spec: PackageSpec
    python: Path | None = Path(sys.executable)
    left: Path | None = None

    def started(self, version: Path) -> PackageOnDisk:
        """The package as the single ``startup`` of a session has left it in that folder."""
        root = package_in(version)
        folder = root / self.folder.relative_to(self.root)
        return dataclasses.replace(self, root=root, folder=folder, left=version)


@dataclass(frozen=True)
class Job:
    """An order with its package and with the paths of its files on this machine.

    Args:
        reading: how its reply is read.
        model: the file to stage as its input.
        state: the client's current version folder; None: the client starts from the package.
    """

    order: Order
    reading: Reading
    package: PackageOnDisk
    place: Place
    home: Path
    model: Path | None = None
    state: Path | None = None
    data_path: Path | None = None
    links: Mapping[str, Path] = field(default_factory=dict)

    @property
    def task_id(self) -> str:
        return self.order.task_id

    @property
    def spec(self) -> ReplySpec:
        return self.reading.spec

    @functools.cached_property
    def command(self) -> str:
        return self.entry_point.command

    @functools.cached_property
    def entry_point(self) -> EntryPoint:
        return self.package.spec.entry_point(self.order.entry_point)

    @functools.cached_property
    def folder_name(self) -> str:
        """The folder of its logs, relative to the site's home."""
        folder = self.place.folder
        return str(folder.relative_to(self.home) if folder.is_relative_to(self.home) else folder)

    @functools.cached_property
    def working_folder(self) -> Path:
        """The folder of fedn.yaml in the task's working copy: the task's working directory."""
        return self.place.package / self.package.folder.relative_to(self.package.root)

    @property
    def leads_elsewhere(self) -> bool:
        """Whether the task has replaced its working folder, or one of its parents, with a link."""
        inside = os.path.relpath(self.working_folder, self.place.version)
        return os.path.realpath(self.working_folder) != os.path.join(os.path.realpath(self.place.version), inside)

    @property
    def linked(self) -> dict[str, Path]:
        """The links to make; links with absolute paths exist only in the file system of an isolated task."""
        return {name: target for name, target in self.links.items() if not name.startswith("/")}

    def sent(self, name: str) -> Weights | None:
        """The set that the client was sent under this name, ``""`` for the model: see `Reading`."""
        sets = self._input
        given = self.order.input
        model = given.model if given is not None else ""
        return sets.get(name, sets.get(model)) if name else sets.get(model)

    @functools.cached_property
    def _input(self) -> Mapping[str, Weights]:
        from fedpkg.formats.model_file import read_model, read_sets

        if self.model is None or self.order.input is None or self.order.input.records:
            return {}
        return read_sets(self.model) if self.order.input.sets else {"": read_model(self.model)}


class Site:
    """Finds what orders name. Sessions are below ``home``; inputs and data have paths relative to it."""

    def __init__(self, home: Path, *packages: PackageOnDisk) -> None:
        self.home = home
        self._packages = {package.digest: package for package in packages}
        self._readings: dict[str, Reading] = {}
        self._tensors: dict[tuple[TensorSpec, ...], tuple[TensorSpec, ...]] = {}

    def add(self, package: PackageOnDisk) -> None:
        self._packages[package.digest] = package

    def package(self, digest: str) -> PackageOnDisk | None:
        return self._packages.get(digest)

    def know(self, spec: ReplySpec, digest: str) -> None:
        if digest not in self._readings:  # a new clipping norm in each round makes many of the same tensors
            tensors = spec.tensors and self._tensors.setdefault(spec.tensors, spec.tensors)
            self._readings[digest] = Reading(msgspec.structs.replace(spec, tensors=tensors))

    def session_folder(self, session_id: str) -> Path:
        return session_folder(self.home, session_id)

    def place(self, order: Order, spec: ReplySpec) -> Place:
        """The paths of the first attempt of an order."""
        out_name = "out.json" if spec.kind is ReplyKind.METRICS else f"out{spec.suffix}"
        return place_of(self.session_folder(order.session_id), order, suffix=spec.suffix, out_name=out_name)

    def version(self, session_id: str, client_id: str, token: str) -> Path:
        """The folder of a version of a client's state.

        Raises:
            FileNotFoundError: the token is invalid, and would lead to other files.
        """
        if token in ("", ".", "..") or "/" in token or "\0" in token:
            raise FileNotFoundError(errno.ENOENT, "there is no such state", token)
        return states_folder(self.session_folder(session_id), client_id) / token

    def job(self, order: Order) -> Job:
        """The order as a job on this machine.

        Raises:
            DispatchError: it names a package or a specification of replies that this site does not have.
        """
        package, reading = self._packages.get(order.package), self._readings.get(order.reply_spec)
        if package is None or reading is None:
            what = "compute package" if package is None else "specification of replies"
            raise DispatchError(f"task {order.task_id} names a {what} that this executor was not given")
        if order.started is not None:
            package = package.started(self.version(order.session_id, ALL, order.started))
        data_path = None if order.data is None else self.home / order.data
        token = order.state
        return Job(
            order,
            reading,
            package,
            self.place(order, reading.spec),
            self.home,
            model=None if order.input is None else self.home / order.input.reference,
            state=None if token is None else self.version(order.session_id, order.client_id, token),
            data_path=data_path,
            links={
                name: (data_path or self.home) / to
                for name, to in order.links.items()
                if data_path is not None or to.startswith("/")
            },
        )
