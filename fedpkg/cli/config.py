"""``fedpkg config``: what a run.yaml comes to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fedpkg.cli import output
from fedpkg.cli.completing import keys_of_run, overrides, run_file
from fedpkg.cli.options import Settings, common_options, search_path_option

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fedpkg.config_keys import Key
    from fedpkg.config_reading import LoadedConfig


@click.group("config")
def command() -> None:
    """Look at a run configuration, and at what its keys mean.

    \b
      fedpkg config show examples/digits/run.yaml
      fedpkg config explain round
    """


@command.command()
@click.argument("run_yaml", metavar="RUN.yaml", type=click.Path(path_type=Path), shell_complete=run_file)
@click.argument("overrides", metavar="[KEY=VALUE]...", nargs=-1, shell_complete=overrides)
@search_path_option
@common_options
@click.pass_obj
def show(settings: Settings, run_yaml: Path, overrides: tuple[str, ...], search_path: tuple[Path, ...]) -> None:
    """Show every key, its value, and its origin.

    RUN.yaml may also be the folder of an experiment, which is composed; its parameters come first. Or it is a message
    app's folder, and KEY=VALUE is as in `fedpkg run`.

    \b
      fedpkg config show examples/digits/run.yaml rounds=3
    """
    from fedpkg.config_reading import EXPERIMENT, render
    from fedpkg.session.app_run import is_app_folder
    from fedpkg.session.configuration import load

    if is_app_folder(run_yaml):
        leaves = render(_of_app(run_yaml, overrides))
    elif run_yaml.is_dir() or run_yaml.name == EXPERIMENT:
        from fedpkg.experiments.composing import compose, render_composed

        leaves = render_composed(compose(run_yaml, overrides, search_path=search_path))
    else:
        leaves = render(load(run_yaml, overrides))
    if settings.json:
        output.document([{"key": key, "value": value, "origin": origin} for key, value, origin in leaves])
        return
    rows = [[key, _json(value), origin] for key, value, origin in leaves]
    output.table(["key", "value", "from"], rows)


@command.command()
@click.argument("key", metavar="[KEY | APP]", required=False, shell_complete=keys_of_run)
@common_options
@click.pass_obj
def explain(settings: Settings, key: str | None) -> None:
    """Explain a key or a section of a run.yaml.

    Without KEY, it lists all keys; with the folder of a message app, the keys of the app's own configuration.

    \b
      fedpkg config explain round.timeout_s
    """
    from fedpkg.config_keys import find_key, run_keys
    from fedpkg.session.app_run import is_app_folder

    if key is not None and is_app_folder(Path(key)):
        _explain_app(settings, Path(key))
        return
    keys = run_keys() if key is None else (find_key(key),)
    if settings.json:
        output.document([_facts(leaf) for one in keys for leaf in one.leaves])
        return
    if key is not None:
        output.result(keys[0].about)
        output.result()
    if key is None or keys[0].keys:
        for leaf in (leaf for one in keys for leaf in one.leaves):
            output.explained(leaf.name, leaf.allowed, None if leaf.is_required else _json(leaf.default), leaf.about)
        return
    (one,) = keys
    default = "required" if one.is_required else _json(one.default)
    facts = [("key", one.name), ("value", one.allowed), ("default", default)]
    output.facts([*facts, *(("example", f"{one.name}: {_json(example)}") for example in one.examples)])


def _explain_app(settings: Settings, folder: Path) -> None:
    from fedpkg.compute_package.app import APP_FILE, read_app
    from fedpkg.session.app_run import explained

    keys = explained(read_app(folder / APP_FILE))
    if settings.json:
        output.document(keys)
        return
    rows = [[one["key"], one["value"], _json(one["default"]), str(one["line"] or "")] for one in keys]
    output.table(["key", "value", "default", f"line of {APP_FILE}"], rows)


def _of_app(folder: Path, words: Sequence[str]) -> LoadedConfig:
    import tempfile

    from fedpkg.session.app_run import AppOptions
    from fedpkg.session.package_run import load_app

    with tempfile.TemporaryDirectory(prefix="fedpkg-") as cache:
        return load_app(folder, words, AppOptions(), cache=Path(cache))


@command.command()
@common_options
def schema() -> None:
    """Print a JSON Schema of run.yaml files, for editors.

    An editor with a YAML language server completes and checks a run.yaml whose first line is
    `# yaml-language-server: $schema=run.schema.json`.

    \b
      fedpkg config schema > run.schema.json
    """
    from fedpkg.config_keys import json_schema

    output.document(json_schema())


def _facts(key: Key) -> dict[str, Any]:
    return {
        "key": key.name,
        "about": key.about,
        "value": key.allowed,
        "required": key.is_required,
        "default": key.default,
        "examples": list(key.examples),
    }


def _json(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
