"""``fedpkg init``: a commented run.yaml for a package that is there."""

from __future__ import annotations

import json
import os
import shlex
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fedpkg.cli import output
from fedpkg.cli.completing import PACKAGES_HERE, is_package, packages
from fedpkg.cli.options import Settings, common_options
from fedpkg.errors import ConfigError

if TYPE_CHECKING:
    from fedpkg.config import RunConfig

_PATH = click.Path(path_type=Path)
_SEEDS = ("seed.npz", "seed.safetensors", "seed.pt")
_SCHEMA = "run.schema.json"
_TEXT = """\
# yaml-language-server: $schema={schema}
# A federation of the package {package}. Run it with
#
#     fedpkg run {file}
#
# `fedpkg config show {file}` lists every key with its value. Each key can also be set on the command line, such as
# `rounds=20` or `strategy.name=fedadam`. Paths are relative to this file.

name: {name}
seed: 0  # the same seed gives the same global models, bit for bit

package: {package}
{seed_model}

rounds: {rounds}

clients:
{clients}
{sections}
strategy:
  name: fedavg  # `fedpkg strategy list` shows the others

validation:
  every: 1  # after each round, the clients evaluate the new global model
"""
_APP = """\
# yaml-language-server: $schema={schema}
# A federation of the message app {package}. Run it with
#
#     fedpkg run {file}
#
# `fedpkg config show {file}` lists every key with its value. Paths are relative to this file.

name: {name}
seed: 0

package: {package}
strategy:
  name: server_app  # the app's own ServerApp

rounds: null  # the session ends when the ServerApp returns
python_env: current  # `auto` makes an environment with what the app requires

clients:
{clients}

# The app's configuration: these values take the place of those in its pyproject.toml.
run_config:
{values}
"""
_BUILT = """\
# The model that the first round begins with. Without this line, the package's entry point `build` makes it.
# seed_model: seed.npz"""
_NO_DATA = """\
  count: {count}  # number of clients
  # The data of the clients: each path that a pattern matches is the data of one client.
  # folders: data/clients/*
  # Or one dataset with x_train, y_train, x_test and y_test (.npz or .pt), which fedpkg splits among the clients:
  # data:
  #   dataset: data.npz
  #   partition: {{name: dirichlet, alpha: 0.5}}  # or {{name: iid}}"""
_NO_ARGUMENTS = """
# Arguments of the package's entry points: with these lines, `train` gets --lr=0.01.
# arguments:
#   train: {lr: 0.01}
"""


@click.command("init")
@click.argument("package", metavar="[PACKAGE]", type=_PATH, required=False, shell_complete=packages)
@click.option("-o", "--output", "target", metavar="FILE", type=_PATH, default="run.yaml", show_default=True)
@click.option("--data", metavar="PATTERN", help="Pattern; each match is the data of one client.")
@click.option("--clients", metavar="N", type=click.IntRange(1), help="Number of clients.")
@click.option("--force", is_flag=True, help="Overwrite FILE if it exists.")
@common_options
@click.pass_obj
def command(
    settings: Settings, package: Path | None, *, target: Path, data: str | None, clients: int | None, force: bool
) -> None:
    """Write a run.yaml for a package.

    PACKAGE is a folder with a fedn.yaml, an archive, or the folder of a message app. Without it, the package is this
    folder, or the folder `client` in it. With --data, the run.yaml gives each client its data where the package looks
    for it. A JSON Schema is written beside FILE, by which editors complete and check it.

    \b
      fedpkg init packages/digits
      fedpkg init client --data 'data/clients/*'
    """
    package = package or _package_here()
    if target.exists() and not force:
        raise ConfigError(f"{target} exists already", hint="take another name with -o, or --force to overwrite it")
    text = _text(package, target, data=data, clients=clients)
    _write(target, text)
    if force or not target.with_name(_SCHEMA).exists():
        _write_schema(target.with_name(_SCHEMA))
    if settings.json:
        output.document({"path": target, "package": package})
        return
    output.result(f"{target}  (package {package})\n")
    output.result("Next:")
    name = shlex.quote(str(target))
    output.suggestions(
        [
            (settings.command(f"run {name}"), "run this federation"),
            (f"fedpkg config show {name}", "every key and value"),
        ]
    )


def _write_schema(path: Path) -> None:
    from fedpkg.config_keys import json_schema

    _write(path, json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n")


def _write(path: Path, text: str) -> None:
    from fedpkg.files import atomic_write

    try:
        with atomic_write(path, durable=False) as file:
            file.write(text.encode())
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written: {error.strerror}") from error


def _package_here() -> Path:
    for folder in PACKAGES_HERE:
        if is_package(folder):
            return folder
    found = sorted(folder for pattern in ("*", "*/*") for folder in Path().glob(pattern) if is_package(folder))
    near = f"found: {', '.join(map(str, found[:5]))}" if found else "a package is a folder with a fedn.yaml"
    raise ConfigError("neither this folder nor the folder client is a package", hint=f"name the package; {near}")


def _text(package: Path, target: Path, *, data: str | None, clients: int | None) -> str:
    """The run.yaml. Paths in it are relative to its folder."""
    from fedpkg.compute_package.unpack import open_package
    from fedpkg.session.app_run import is_app_folder
    from fedpkg.session.package_run import DEFAULT_ROUNDS, run_of_package

    if is_app_folder(package):
        return _text_of_app(package, target, data=data, clients=clients)

    with tempfile.TemporaryDirectory(prefix="fedpkg-") as cache:
        config, ways = run_of_package(package, (), cache=Path(cache), clients=clients, data=data)
        builds = "build" in open_package(package, Path(cache)).spec.entry_points
    for about in ways.missed:
        output.words(f"warning: {about}")
    return _TEXT.format(
        schema=_SCHEMA,
        package=_scalar(_relative(package, target)),
        file=shlex.quote(target.name),
        name=_scalar(config.name),
        seed_model=_seed_model(package, target, builds=builds),
        rounds=DEFAULT_ROUNDS,
        clients=_clients(config, target, data),
        sections=_sections(config),
    )


def _text_of_app(package: Path, target: Path, *, data: str | None, clients: int | None) -> str:
    from fedpkg.session.package_run import run_of_package

    with tempfile.TemporaryDirectory(prefix="fedpkg-") as cache:
        config, _ways = run_of_package(package, (), cache=Path(cache), clients=clients, data=data)
    values = [f"  {_scalar(key)}: {json.dumps(value, ensure_ascii=False)}" for key, value in config.run_config.items()]
    return _APP.format(
        schema=_SCHEMA,
        package=_scalar(_relative(package, target)),
        file=shlex.quote(target.name),
        name=_scalar(config.name),
        clients=f"  count: {config.clients.count}" if data is None else _clients(config, target, data),
        values="\n".join(values) or "  {}",
    )


def _seed_model(package: Path, target: Path, *, builds: bool) -> str:
    places = [folder / name for folder in (target.parent, package.parent) for name in _SEEDS]
    if (found := next((path for path in places if path.is_file()), None)) is not None:
        return f"seed_model: {_scalar(_relative(found, target))}  # the model that the first round begins with"
    if builds:
        return _BUILT
    output.words("warning: the package has no entry point build: put a model file in the place of seed_model")
    return "seed_model: seed.npz  # the model that the first round begins with; the package has no `build` to make it"


def _clients(config: RunConfig, target: Path, data: str | None) -> str:
    if data is None:
        return _NO_DATA.format(count=config.clients.count)
    pattern = _relative(Path(data), target) + "/" * data.endswith("/")
    lines = [f"  folders: {_scalar(pattern)}  # each matching path is the data of one client"]
    if config.clients.count is not None:
        lines.append(f"  count: {config.clients.count}  # only the first of them")
    if config.clients.links:
        lines.append("  links:  # where the package looks for its data: what lies there")
        lines += [f"    {_scalar(place)}: {_scalar(value)}" for place, value in config.clients.links.items()]
    return "\n".join(lines)


def _sections(config: RunConfig) -> str:
    """How the package gets its data besides, and arguments."""
    lines = []
    if config.environment:
        lines += ["", "environment:", *_lines(config.environment)]
    if config.startup == "skip":
        lines += ["", "startup: skip  # it downloads data, and the clients' data is given"]
    if not config.arguments:
        return "\n".join(lines) + _NO_ARGUMENTS
    lines += ["", "arguments:  # of the package's entry points"]
    lines += [f"  {name}: {json.dumps(values)}" for name, values in config.arguments.items()]
    return "\n".join(lines) + "\n"


def _lines(values: Mapping[str, str]) -> list[str]:
    return [f"  {name}: {_scalar(value)}" for name, value in values.items()]


def _relative(path: Path, target: Path) -> str:
    return os.path.relpath(os.path.expanduser(path), target.absolute().parent)


def _scalar(text: str) -> str:
    """A text as YAML: plain where it then means itself."""
    from fedpkg.yaml_places import read_yaml

    try:
        is_plain = read_yaml(f"key: {text}", source="text")[0] == {"key": text}
    except ConfigError:
        is_plain = False
    return text if is_plain else json.dumps(text, ensure_ascii=False)
