"""The package of a run: whether it may run, its files, and the interpreter that runs it."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections.abc import Callable
from pathlib import Path

import msgspec

from fedpkg.compute_package.algorithm import read_algorithm, spec_text
from fedpkg.compute_package.review import script_of
from fedpkg.compute_package.signing import Signature
from fedpkg.compute_package.spec import PackageSpec, spec_path
from fedpkg.compute_package.trust import admit_again, gate, resolve_allowed
from fedpkg.compute_package.unpack import UnpackedPackage, find_package, open_package
from fedpkg.config import PythonEnv, RunConfig
from fedpkg.dispatch.site import PackageOnDisk
from fedpkg.errors import PackageError
from fedpkg.fedn.containers import OF_CONTAINER, absent_interpreters, with_own_python
from fedpkg.log import event
from fedpkg.session.configuration import ALGORITHM, SERVER_APP
from fedpkg.stores.base import SessionRow
from fedpkg.stores.home import Home
from fedpkg.stores.sql import StateStore

logger = logging.getLogger("fedpkg.session")


def admit_package(
    config: RunConfig, home: Home, store: StateStore
) -> tuple[RunConfig, UnpackedPackage, tuple[Signature, ...]]:
    """The run's package, if ``trust`` allows it, and the configuration with signers in place of their key files.

    The digest is checked before any part of the package is parsed.
    """
    trust = config.trust
    signatures: list[Signature] = []
    if trust.allow is not None:
        trust = msgspec.structs.replace(trust, allow=resolve_allowed(trust.allow))
        config = msgspec.structs.replace(config, trust=trust)
    check = gate(Path(config.package), trust.allow, signature=trust.signature)
    package = open_package(
        Path(config.package),
        home.packages,
        config.limits,
        admit=lambda digest: signatures.extend(check(digest)),
        on_record={row.package_digest: row.package_contents for row in store.list_sessions() if row.package_contents},
        made=_made(config),
    )
    return config, package, tuple(signatures)


def package_to_check(config: RunConfig, cache: Path) -> UnpackedPackage | None:
    """The run's package, for checks before a run; None: there is none at its path.

    Raises:
        PackageError: it cannot be used, or is not allowed.
    """
    path = Path(config.package)
    if not path.exists():
        return None
    admit = gate(path, config.trust.allow, signature=config.trust.signature)
    return open_package(path, cache, config.limits, admit=admit, made=_made(config))


def package_again(config: RunConfig, home: Home, session: SessionRow) -> UnpackedPackage:
    """The package that a session started with; if the archive is unchanged, it repairs the cache."""
    admit_again(session.package_digest, config.trust.allow, session.signatures)
    digests: list[str] = []  # of the package that is now at the configured path

    def is_same(digest: str) -> None:
        digests.append(digest)
        if digest != session.package_digest:
            raise PackageError("another package")

    with contextlib.suppress(PackageError):  # the package was moved, changed, or is being edited
        return open_package(
            Path(config.package),
            home.packages,
            config.limits,
            admit=is_same,
            on_record={session.package_digest: session.package_contents},
            made=_made(config),
        )
    if digests and digests != [session.package_digest]:
        is_app = config.strategy.get("name") == SERVER_APP
        but = ", except for its ServerApp, which is read again" if is_app else ""
        event(
            logger,
            logging.WARNING,
            "package.changed",
            about=f"{config.package} has changed; the session continues with the original package{but}. To use the "
            "changed one, start over: fedpkg session resume --fresh",
        )
    return find_package(session.package_digest, home.packages, contents=session.package_contents)


def _made(config: RunConfig) -> str | None:
    """The fedn.yaml of an algorithm's folder, which has none."""
    is_algorithm = config.strategy.get("name") == ALGORITHM
    return made_for(Path(config.package), str(config.strategy["module"])) if is_algorithm else None


def made_for(folder: Path, module: str | None = None) -> str | None:
    """The fedn.yaml of an algorithm's folder, if that has none. ``module``: of the algorithm; None: it is looked for.

    Raises:
        PackageError: the module is not found.
    """
    if not folder.is_dir() or spec_path(folder).exists():
        return None
    return spec_text(read_algorithm(folder).module if module is None else module)


def put_on_disk(
    package: UnpackedPackage, python_env: PythonEnv, *, only_wheels: bool, check: Callable[[], None] = lambda: None
) -> PackageOnDisk:
    """The unpacked package with its interpreter. Making an environment may take minutes; see `choose_python` for
    ``check``.
    """
    from fedpkg.environments.choose import choose_python

    spec = _with_own_python(package)
    scripts = [script_of(entry_point.command) for entry_point in spec.entry_points.values()]
    python = choose_python(
        package.folder,
        python_env,
        package=package.top or package.digest[:12],
        python_env=spec.python_env,
        scripts=[script for script in scripts if script is not None],
        served=spec.served,
        only_wheels=only_wheels,
        check=check,
    )
    return PackageOnDisk(package.digest, package.root, package.folder, spec, python)


def _with_own_python(package: UnpackedPackage) -> PackageSpec:
    """The entry points; a Python that does not exist on this machine is replaced by the package's own."""
    entry_points, folder = {}, package.folder
    for name, one in package.spec.entry_points.items():
        entry_points[name] = dataclasses.replace(one, command=with_own_python(one.command, folder))
    commands = [one.command for one in package.spec.entry_points.values()]
    absent = dict.fromkeys(place for command in commands for place in absent_interpreters(command, folder))
    for place in absent:
        if place != OF_CONTAINER:
            about = (
                f"the package calls Python in {place}, which does not exist; the package's own Python is used instead"
            )
            event(logger, logging.WARNING, "package.interpreter", about=about)
    return dataclasses.replace(package.spec, entry_points=entry_points)
