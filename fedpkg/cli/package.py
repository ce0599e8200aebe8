"""``fedpkg package``: build a compute package, look into one, call one of its entry points by hand."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fedpkg.cli import output
from fedpkg.cli.call import call
from fedpkg.cli.completing import packages
from fedpkg.cli.options import Settings, common_options
from fedpkg.cli.signing import keygen, sign, signers_of, verify
from fedpkg.shown import shown

if TYPE_CHECKING:
    from fedpkg.compute_package.build import BuiltPackage
    from fedpkg.compute_package.data_ways import DataWays
    from fedpkg.compute_package.members import FileEntry
    from fedpkg.compute_package.unpack import UnpackedPackage
    from fedpkg.session.inspection import Preloads

_PATH = click.Path(path_type=Path)
_archive_option = click.option(
    "-o",
    "--output",
    "archive",
    metavar="FILE",
    type=_PATH,
    default="package.tar.gz",
    show_default=True,
    help="The archive to write.",
)


@click.group("package")
def command() -> None:
    """Build, inspect and try compute packages.

    A compute package is a folder with a fedn.yaml, which lists the commands of its entry points, or a message app: a
    folder whose pyproject.toml names a ServerApp and a ClientApp.

    \b
      fedpkg package build packages/digits -o package.tar.gz
    """


@command.command()
@click.argument("folder", metavar="DIR", type=_PATH, shell_complete=packages)
@_archive_option
@click.option("--exclude", metavar="PATTERN", multiple=True, help="Leave out files and folders that match PATTERN.")
@click.option("--gitignore", is_flag=True, help="Leave out what .gitignore files exclude.")
@click.option("--include", metavar="PATTERN", multiple=True, help="Pack checkpoints over 100 MB that match PATTERN.")
@common_options
@click.pass_obj
def build(
    settings: Settings,
    folder: Path,
    archive: Path,
    exclude: tuple[str, ...] = (),
    include: tuple[str, ...] = (),
    *,
    gitignore: bool = False,
) -> None:
    """Pack the folder DIR into an archive.

    \b
      fedpkg package build packages/digits -o package.tar.gz
      fedpkg package build client --exclude '*.csv' --gitignore

    DIR contains fedn.yaml, or is a message app. The same files always give the same bytes. Files listed in
    .fedpkgignore (or .fednignore), virtual environments, .git and caches are left out. On a terminal, the command asks
    about each checkpoint over 100 MB; elsewhere, it is left out unless --include names it.
    """
    from fedpkg.compute_package.build import build_package
    from fedpkg.compute_package.ignore import Selection

    built = build_package(folder, archive, Selection(exclude, include, gitignore=gitignore, ask=_ask))
    _show_built(settings, built)


def _show_built(settings: Settings, built: BuiltPackage) -> None:
    for warning in built.warnings:
        output.words(f"warning: {shown(warning)}")
    if settings.json:
        output.document(
            {
                "path": built.path,
                "digest": built.digest,
                "size_bytes": built.size_bytes,
                "files": [file._asdict() for file in built.files],
                "left_out": [one._asdict() for one in built.left_out],
                "warnings": built.warnings,
            }
        )
        return
    output.facts(
        [
            ("package", str(built.path)),
            ("sha256", built.digest),
            ("size", f"{output.size(built.size_bytes)}, {len(built.files)} files"),
            ("packed", ", ".join(_at_its_top(built.files))),
            *(("left out", f"{one.name} ({one.why})") for one in built.left_out),
        ]
    )


def _ask(name: str, size_bytes: int) -> bool:
    question = f"{shown(name)} is a checkpoint of {output.size(size_bytes)}. Pack it?"
    return sys.stdin.isatty() and click.confirm(question, default=False, err=True)


def _at_its_top(files: Sequence[FileEntry]) -> list[str]:
    """The files and folders at a package's top, with what the folders hold."""
    tops: dict[str, list[int]] = {}
    for file in files:
        top, slash, _ = file.name.partition("/")[2].partition("/")
        tops.setdefault(top + slash, []).append(file.size_bytes)
    return [
        f"{top} ({len(sizes)} files, {output.size(sum(sizes))})" if top.endswith("/") else top
        for top, sizes in tops.items()
    ]


@command.command()
@click.argument("folder", metavar="APP", type=_PATH, shell_complete=packages)
@_archive_option
@common_options
@click.pass_obj
def from_app(settings: Settings, folder: Path, archive: Path) -> None:
    """Pack a message app as a package for any strategy of a run.yaml.

    \b
      fedpkg package from-app my-app -o package.tar.gz

    APP is the folder of a message app. The package's entry points `train` and `validate` give its ClientApp the model
    as a message, and take the model or the metrics from its reply; its ServerApp is not used. Its session needs a seed
    model (`fedpkg run --package package.tar.gz --seed-model seed.npz`), unless a file at the app's top has a function
    `init_seed`, which writes one.
    """
    from fedpkg.compute_package.build import build_from_app

    _show_built(settings, build_from_app(folder, archive))


@command.command()
@click.option("-p", "--path", "folder", metavar="DIR", type=_PATH, required=True, help="The folder to pack.")
@click.option("-n", "--name", metavar="NAME", default="package.tgz", show_default=True, help="The archive's name.")
@click.option(
    "-o", "--output", "place", metavar="DIR", type=_PATH, default=".", show_default=True, help="Where to write it."
)
@common_options
@click.pass_context
def create(context: click.Context, folder: Path, name: str, place: Path) -> None:
    """Pack a folder (FEDn's spelling of `build`).

    \b
      fedpkg package create --path client --name package.tgz
    """
    context.invoke(build, folder=folder, archive=place / name)


@command.command()
@click.argument("path", metavar="PACKAGE", type=_PATH, shell_complete=packages)
@click.option("--data", metavar="PATTERN", help="Show how a run with this --data gives each client its data.")
@click.option("--isolate", is_flag=True, help="With --data: assume that the run uses --isolate.")
@common_options
@click.pass_obj
def inspect(settings: Settings, path: Path, *, data: str | None, isolate: bool) -> None:
    """Show the contents and the entry points of a package.

    \b
      fedpkg package inspect package.tar.gz

    With --data, it shows how a run gives the package its clients' data, and why.

    \b
      fedpkg package inspect client --data 'data/clients/*'

    PACKAGE is an archive or a folder. None of its code is run. The imports of warm executors are found by reading the
    scripts; imports that start threads are found only by running them.
    """
    import tempfile

    from fedpkg.compute_package.unpack import open_package
    from fedpkg.session.inspection import preloads_of_package
    from fedpkg.session.package_run import ways_of_clients

    with tempfile.TemporaryDirectory(prefix="fedpkg-") as temporary:
        home = settings.home_path  # looking at a package makes no home, but where there is one its cache is used
        cache = home.absolute() / "packages" if home.is_dir() else Path(temporary)
        package = open_package(path, cache)
        warnings, preloads = package.warnings(), preloads_of_package(package)
        ways = None
        if data is not None:
            beside = path.absolute().parent
            ways = ways_of_clients(package, data, cache=Path(temporary), beside=beside, isolated=isolate)
    for warning in warnings:
        output.words(f"warning: {shown(warning)}")
    signers = signers_of(path, package.digest)
    if settings.json:
        output.document(_package_document(package, warnings, signers, preloads, ways))
        return
    if ways is not None:
        _show_ways(ways)
    _show_package(path, package, signers, preloads)


def _package_document(
    package: UnpackedPackage,
    warnings: Sequence[str],
    signers: Sequence[Mapping[str, str]],
    preloads: Preloads,
    ways: DataWays | None,
) -> dict[str, object]:
    return {
        "digest": package.digest,
        "size_bytes": package.size_bytes,
        "entry_points": {name: entry_point.command for name, entry_point in package.spec.entry_points.items()},
        "python_env": package.spec.python_env,
        "app": None if package.spec.app is None else asdict(package.spec.app),
        "files": [file._asdict() for file in package.files],
        "warnings": warnings,
        "signers": signers,
        "preload": [preload.to_json() for preload in preloads],
        **({} if ways is None else {"data": [asdict(way) for way in ways.ways], "data_missed": ways.missed}),
    }


def _show_ways(ways: DataWays) -> None:
    """How a run gives clients their data, and why."""
    rows = [[f"{way.section}.{way.name}".lstrip("."), way.value, way.because] for way in ways.ways]
    output.table(["data", "is", "because"], rows)
    for about in ways.missed or ([] if rows else ["the package's scripts do not show how they read their data"]):
        output.words(f"warning: {shown(about)}")
    output.result()


def _show_package(
    path: Path, package: UnpackedPackage, signers: Sequence[Mapping[str, str]], preloads: Preloads
) -> None:
    output.facts(
        [
            ("package", str(path)),
            *(() if (app := package.spec.app) is None else (("message app", shown(f"{app.name} {app.version}")),)),
            ("sha256", package.digest),
            *(("signed by", f"{one['signer']}  ({one['says']})") for one in signers),
            ("size", f"{output.size(package.size_bytes)} as an archive"),
            ("python_env", package.spec.python_env or "none"),
        ]
    )
    output.result()
    output.table(
        ["entry point", "command"], [[name, entry.command] for name, entry in package.spec.entry_points.items()]
    )
    output.result()
    if app is not None:
        rows = [["ServerApp", app.server], ["ClientApp", app.client]]
        rows += [[key, json.dumps(value, ensure_ascii=False)] for key, value in app.config.items()]
        output.table(["app", "is"], rows)
        output.result()
    for preload in preloads:
        named = ", ".join(preload.scripts)
        rows = [["preloaded", ", ".join([*preload.settings, *preload.modules]) or "nothing"]]
        rows += [["imported in every task", f"{left.module}: {left.because}"] for left in preload.left_out]
        output.table(["warm executors", named], rows)
        output.result()
    output.table(["file", "bytes"], [[file.name, str(file.size_bytes)] for file in package.files])


for _verb in (call, keygen, sign, verify):
    command.add_command(_verb)
