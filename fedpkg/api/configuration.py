"""What a session ran: its configuration with the origin of each value, its package, its data and its starts."""

from __future__ import annotations

from typing import Any

import msgspec

from fedpkg.api.asking import Ref, question
from fedpkg.api.opening import Opened, Struct
from fedpkg.config import RunConfig
from fedpkg.errors import PackageError
from fedpkg.reporting.provenance import read_origins, read_starts
from fedpkg.reporting.splits import split_of
from fedpkg.reporting.stored_config import without_secrets, yaml_of
from fedpkg.types import leaves


class Value(Struct, frozen=True, kw_only=True):
    """A value of the configuration.

    ``origin``: a file and line, as ``run.yaml:12``; ``command line``; ``program``, a change in Python; ``resume``;
    ``sweep`` if the sweep chose it; ``default``; or ``given``, where no more is on record.
    """

    key: str
    value: Any
    origin: str


class Configuration(Struct, frozen=True, kw_only=True):
    """A session's configuration without secrets; ``yaml`` is all of it as a run.yaml.

    Paths outside of the folder above the home are cut to their last part.
    """

    session_id: str
    values: list[Value]
    yaml: str
    notes: tuple[str, ...] = ()


class PackageFile(Struct, frozen=True, kw_only=True):
    """A file of a package; ``content`` is its SHA-256, or the target of a link."""

    name: str
    kind: str
    size_bytes: int
    content: str


class Package(Struct, frozen=True, kw_only=True):
    """The compute package of a session. ``folder`` is its copy in the home; empty: it is gone."""

    digest: str
    name: str
    source: str
    size_bytes: int
    entry_points: dict[str, str]
    signers: list[str]
    folder: str
    files: list[PackageFile]
    notes: tuple[str, ...] = ()


class Split(Struct, frozen=True, kw_only=True):
    """How the data was split: the size of each client's part, and its examples by label where they are on record."""

    source: str
    scheme: dict[str, Any]
    clients: list[str]
    sizes: list[int]
    labels: list[Any]
    counts: list[list[int]]


class Start(Struct, frozen=True, kw_only=True):
    """What a session was started or resumed with."""

    at: float | None
    versions: dict[str, Any]
    machine: dict[str, Any]
    git: dict[str, Any]


@question
def get_configuration(at: Opened, ref: Ref) -> Configuration:
    """A session's configuration, with the origin of each value."""
    row = at.session(ref)
    point = at.store.sweeps.point_of(row.session_id)
    chosen = set(point.choices) if point is not None else set()
    usual, told = _defaults(), read_origins(at.home.session_folder(row.session_id))
    shown = at.without_paths(without_secrets(row.config))
    given = {".".join(path): value for path, value in leaves(row.config)}
    values = []
    for path, value in leaves(shown):
        key = ".".join(path)
        origin = told.get(key) or ("default" if key in usual and usual[key] == given.get(key) else "given")
        if any(key == one or key.startswith(f"{one}.") for one in chosen):
            origin = "sweep"
        values.append(Value(key=key, value=value, origin=origin))
    return Configuration(session_id=row.session_id, values=values, yaml=yaml_of(shown), notes=at.without_config(row))


def _defaults() -> dict[str, Any]:
    """The values of keys that nobody sets."""
    tree: dict[str, Any] = {}
    for field in msgspec.structs.fields(RunConfig):
        if field.default is not msgspec.NODEFAULT:
            tree[field.name] = msgspec.to_builtins(field.default)
        elif field.default_factory is not msgspec.NODEFAULT:
            tree[field.name] = msgspec.to_builtins(field.default_factory())
    return {".".join(path): value for path, value in leaves(tree)}


@question
def get_package(at: Opened, ref: Ref) -> Package:
    """The package of a session: its entry points, files and signers."""
    row = at.session(ref)
    known = at.overview.package(row.package_digest)
    folder = ""
    files: list[PackageFile] = []
    notes: tuple[str, ...] = ()
    try:
        from fedpkg.compute_package.unpack import unpacked_members  # takes long, and few ask

        path, members = unpacked_members(row.package_digest, at.home.packages)
        folder = f"{at.home.root.name}/{path.relative_to(at.home.root)}"
        files = [
            PackageFile(name=one.name, kind=one.kind.value, size_bytes=one.size_bytes, content=one.content)
            for one in members
        ]
    except PackageError as error:
        notes = (at.told(error.message),)
    return Package(
        digest=row.package_digest,
        name=known.name if known else row.package_digest[:12],
        source=at.shown_path(str(row.config.get("package", ""))),
        size_bytes=known.size_bytes if known else 0,
        entry_points=known.entry_points if known else {},
        signers=[str(one.get("signer", "")) for one in row.signatures],
        folder=folder,
        files=files,
        notes=notes,
    )


@question
def get_split(at: Opened, ref: Ref) -> Split | None:
    """How fedpkg split the data of a session; null: it did not split any."""
    row = at.session(ref)
    found = split_of(at.home.root, row, at.store.list_clients(row.session_id))
    if found is None:
        return None
    return Split(
        source=at.shown_path(found.source),
        scheme=at.without_paths(dict(found.scheme)),
        clients=list(found.clients),
        sizes=list(found.sizes),
        labels=list(found.labels),
        counts=[list(one) for one in found.counts],
    )


@question
def list_starts(at: Opened, ref: Ref) -> list[Start]:
    """Versions, machine and git commit of a session's start and of each resume; old sessions have none."""
    folder = at.home.session_folder(at.session(ref).session_id)
    return [
        Start(
            at=one.get("at") if isinstance(one.get("at"), (int, float)) else None,
            versions=_tree(one.get("versions")),
            machine=_tree(one.get("machine")),
            git={key: value for key, value in _tree(one.get("git")).items() if key != "changes"},
        )
        for one in read_starts(folder)
    ]


def _tree(value: object) -> dict[str, Any]:
    return dict(value) if isinstance(value, dict) else {}
