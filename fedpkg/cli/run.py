"""``fedpkg run``: a whole federation with one command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fedpkg.cli import output
from fedpkg.cli.completing import ARCHIVE_SUFFIXES, packages, run_words
from fedpkg.cli.options import Settings, baseline_option, common_options, env_option
from fedpkg.shown import shown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fedpkg.config import RunConfig
    from fedpkg.config_reading import LoadedConfig
    from fedpkg.stores.home import Home


@click.command("run")
@click.argument("words", metavar="[RUN.yaml | APP] [KEY=VALUE]...", nargs=-1, shell_complete=run_words)
@click.option(
    "--package",
    metavar="PATH",
    type=click.Path(path_type=Path),
    shell_complete=packages,
    help="Run this package; no RUN.yaml is needed.",
)
@click.option(
    "--clients",
    "--nodes",
    metavar="N",
    type=click.IntRange(1),
    help="With APP or --package: number of clients.  [default: one per match of --data; without data 2, or the app's]",
)
@click.option("--data", metavar="PATTERN", help="With APP or --package: a pattern; each match is a client's data.")
@click.option(
    "--federation", metavar="NAME", help="With APP: take the number of nodes from this federation in its file."
)
@click.option(
    "-c",
    "--run-config",
    metavar="'KEY=VALUE …'",
    multiple=True,
    help="With APP: values of its configuration, or a .toml file with them.",
)
@click.option(
    "--rounds", metavar="N", type=click.IntRange(1), help="Number of rounds.  [default: that of RUN.yaml, else 5]"
)
@click.option(
    "--seed-model",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Seed model.  [default: that of RUN.yaml, else made by `build`]",
)
@env_option
@click.option(
    "--isolate", is_flag=True, help="Isolate clients: they see only their package and data, and no network (Linux)."
)
@baseline_option
@common_options
@click.pass_obj
def command(
    settings: Settings,
    /,
    words: tuple[str, ...],
    *,
    package: Path | None,
    env: str | None,
    isolate: bool,
    baselines: tuple[str, ...],
    federation: str | None,
    run_config: tuple[str, ...],
    **given: Any,
) -> None:
    """Run a federation on this machine.

    \b
      fedpkg run examples/digits/run.yaml
      fedpkg run examples/digits/run.yaml rounds=3 arguments.train.lr=0.02
      fedpkg run my-app num-server-rounds=3 run.seed=1 --nodes 4
      fedpkg run --package client --data 'data/clients/*/mnist.pt'

    --package runs a compute package (a folder or an archive, also one written for FEDn) without a RUN.yaml. Its data is
    linked where its programs expect it. KEY=VALUE sets a key of the configuration, such as `rounds=3` or
    `strategy.name=fedadam`; `strategy={name: fedadam, beta_1: 0.9}` replaces a whole section. With --json, each event
    is one line of JSON. Ctrl-C stops the run, and `fedpkg session resume` continues it.

    APP is a message app: a folder whose pyproject.toml names a ServerApp and a ClientApp, or an archive of it. Then
    KEY=VALUE sets a key of the app's own configuration, and run.KEY=VALUE one of a run.yaml (run.executor.workers=2).
    """
    from fedpkg.config_reading import LoadedConfig
    from fedpkg.session.app_run import OF_THE_RUN, of_the_run

    app, words = _app(package, words)
    more = (() if env is None else (f"python_env={env}",)) + (("isolate.enabled=true",) if isolate else ())
    words += more if app is None else tuple(f"{OF_THE_RUN}{word}" for word in more)
    if app is None and (federation is not None or run_config):
        raise click.UsageError("--federation and --run-config need a message app")
    if app is not None:
        home = settings.open_home(create=True)
        loaded = _of_app(app, words, home, federation=federation, run_config=run_config, **given)
    elif package is None:
        loaded = _of_run_yaml(words, **given)
        home = settings.open_home(create=True)
    else:
        home = settings.open_home(create=True)
        loaded = LoadedConfig(_of_package(package, words, home, **given), {})
    said = None if package is None else words
    _tell_of_variables(loaded.config, said if app is None else of_the_run(words))
    run_configuration(settings, loaded, home, baselines, source=app or package or Path(words[0]))


def run_configuration(
    settings: Settings, loaded: LoadedConfig, home: Home, baselines: tuple[str, ...], *, source: Path
) -> None:
    """Run a session to its end, and show its progress; with baselines, all as the points of a sweep of the source."""
    if baselines:
        from fedpkg.cli.experiment_sweeps import run_with_baselines

        run_with_baselines(settings, loaded.config, home, baselines, source)
        return
    from fedpkg.cli.progress import follow
    from fedpkg.session.session import prepare

    session = prepare(loaded.config, home, origins=loaded.origins)
    with follow(settings, home, num_rounds=loaded.config.rounds or 0) as watch:
        session.watch(watch)
        session.run()


def _tell_of_variables(config: RunConfig, words: Sequence[str] | None) -> None:
    """Say which variables are given that fedpkg would set; with ``words``, given by these."""
    from fedpkg.devices import THREAD_VARIABLES
    from fedpkg.fedn.names import DATA_PATHS

    said_by = " ".join(word for word in words or () if word.startswith("environment"))
    known = [name for name in (*DATA_PATHS, "PYTHONHASHSEED", *THREAD_VARIABLES) if name in config.environment]
    if given := [name for name in known if words is None or name in said_by]:
        said = ", ".join(f"{name}={config.environment[name]}" for name in given)
        output.words(f"given    {shown(said)}, in place of what fedpkg sets")


def _app(package: Path | None, words: tuple[str, ...]) -> tuple[Path | None, tuple[str, ...]]:
    """The message app to run, and the other words; None if a run.yaml or another package is to be run.

    The app is a folder or an archive, or the current folder if the words do not begin with a path.
    """
    from fedpkg.session.app_run import is_app_folder

    first = Path(words[0]) if words and "=" not in words[0] else None
    if package is not None:
        return (package, words) if is_app_folder(package) else (None, words)
    if first is None:
        return (Path(), words) if is_app_folder(Path()) and not Path("run.yaml").exists() else (None, words)
    is_app = is_app_folder(first) or (first.is_file() and first.suffix in ARCHIVE_SUFFIXES)
    return (first, words[1:]) if is_app else (None, words)


def _of_app(
    app: Path,
    words: tuple[str, ...],
    home: Home,
    *,
    clients: int | None,
    data: str | None,
    rounds: int | None,
    seed_model: Path | None,
    **options: Any,
) -> LoadedConfig:
    from fedpkg.session.app_run import AppOptions
    from fedpkg.session.package_run import load_app

    if seed_model is not None:
        raise click.UsageError("--seed-model: the ServerApp of a message app makes its own model")
    given = AppOptions(nodes=clients, rounds=rounds, data=data, **options)
    return load_app(app, words, given, cache=home.packages)


def _of_run_yaml(
    words: tuple[str, ...], *, clients: int | None, data: str | None, rounds: int | None, seed_model: Path | None
) -> LoadedConfig:
    from fedpkg.session import configuration

    if not words or "=" in words[0]:
        raise click.UsageError(
            "nothing to run: give a RUN.yaml, a message app, or a compute package with --package PATH"
        )
    if clients is not None or data is not None:
        raise click.UsageError("--clients and --data need --package; a RUN.yaml sets them in its section clients")
    options = {"rounds": rounds, "seed_model": None if seed_model is None else str(seed_model)}
    overrides = [f"{key}={json.dumps(value)}" for key, value in options.items() if value is not None]
    return configuration.load(Path(words[0]), [*overrides, *words[1:]])


def _of_package(
    package: Path,
    words: tuple[str, ...],
    home: Home,
    *,
    clients: int | None,
    data: str | None,
    rounds: int | None,
    seed_model: Path | None,
) -> RunConfig:
    from fedpkg.session.package_run import run_of_package

    if words and "=" not in words[0]:
        raise click.UsageError(f"'{words[0]}': with --package there is no RUN.yaml; KEY=VALUE sets any of its keys")
    config, ways = run_of_package(
        package, words, cache=home.packages, clients=clients, rounds=rounds, data=data, seed_model=seed_model
    )
    if said := [way.words for way in ways.ways if way.words]:
        output.words(f"data     {shown(', '.join(said))}")
    elif data is not None and not ways.missed:
        output.words(
            "warning: the package's scripts do not show how they read their data; each client finds it in "
            "FEDN_DATA_PATH"
        )
    if config.strategy["name"] == "split":
        output.words(f"labels   {shown(str(config.strategy['labels']))}")
    if ways.prepares is not None:
        how = "startup=run or startup=once runs it"
        output.words(f"startup  skipped, as {shown(ways.prepares)} and data is given ({how})")
    for about in ways.missed:
        output.words(f"warning: {shown(about)}")
    return config
