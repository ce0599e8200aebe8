"""The Python API of `import fedpkg`, for programs and notebooks; see docs/how-to/python.md."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from fedpkg.config import RunConfig, dump_config
from fedpkg.config_reading import EXPERIMENT, config_of, of_experiment
from fedpkg.errors import ConfigError
from fedpkg.session.configuration import load as load_configuration
from fedpkg.session.configuration import resolved
from fedpkg.session.package_run import run_of_package
from fedpkg.session.record import open_home
from fedpkg.session.session import Session
from fedpkg.session.session import prepare as prepare_session
from fedpkg.stores.home import Home

if TYPE_CHECKING:
    from fedpkg.controller.events import Watcher
    from fedpkg.weights.weights import Weights

What: TypeAlias = "RunConfig | Mapping[str, Any] | Path | str"


def run(
    what: What,
    home: Home | Path | str | None = None,
    *,
    progress: bool = True,
    watch: Watcher | None = None,
    **changes: Any,
) -> Session:
    """Run a federation to its end in this thread; Ctrl-C stops it.

    Args:
        progress: Show the progress on standard error, or in a notebook below the cell.
        what, home, watch, changes: See `prepare`.

    Raises:
        FedpkgError: If an error stops it. A session that is recorded can be resumed: ``Session.open(home).resume()``.
    """
    place = open_home(home, create=True)
    config = _configuration(what, place, changes)
    session = _prepared(config, place, watch)
    if not progress:
        session.run()
        return session
    from fedpkg.cli.progress import Progress, display_of, displayed

    def command(words: str) -> str:
        return f"fedpkg {words} --home {shlex.quote(str(place.root))}"

    with displayed(display_of(Progress(command, place, config.rounds))) as show:
        session.watch(show)
        session.run()
    return session


def prepare(
    what: What,
    home: Home | Path | str | None = None,
    *,
    watch: Watcher | None = None,
    beside: Session | None = None,
    **changes: Any,
) -> Session:
    """Create a session without starting it: `Session.start` runs it in a separate thread.

    Args:
        what: A run.yaml, a compute package (a folder or an archive), a mapping with the keys of a run.yaml, or a
            `RunConfig`.
        home: The folder in which it is recorded; None: ``$FEDPKG_HOME``, or else ``.fedpkg``.
        watch: A function that is called with each event; see `Session.watch`.
        beside: A session of the same home, with the same sections ``executor``, ``environment`` and ``isolate``: both
            can run at the same time, on the slots of one executor.
        changes: Keys of the run.yaml, such as ``rounds=3`` or ``strategy={"name": "fedadam"}``; keys in a section as
            ``**{"arguments.train.lr": 0.02}``. For a package also ``clients=3`` (their number) and
            ``data="clients/*/mnist.pt"``.

    Raises:
        ConfigError: If a key or value is wrong.
        PackageError: If the package cannot be used.
    """
    place = beside.home if beside is not None and home is None else open_home(home, create=True)
    return _prepared(_configuration(what, place, changes), place, watch, beside)


def compose(folder: Path | str, *overrides: str, search_path: Sequence[Path | str] = ()) -> RunConfig:
    """Compose an experiment to a configuration, which `run` and `prepare` take; hydra-core does it.

    Args:
        folder: The folder of an experiment.yaml, or the file.
        overrides: Overrides in hydra's grammar, such as ``"method=scaffold"`` or ``"lr=0.1"``.
        search_path: Folders with further groups, after the experiment's own.

    Raises:
        ConfigError: If a group, option, key or value is wrong, or hydra-core is not installed.
    """
    from fedpkg.experiments.composing import compose as compose_experiment

    return compose_experiment(folder, overrides, search_path=search_path).config


def load(file: Path | str) -> Weights:
    """Read the model in a file (npz, safetensors, or a PyTorch state dict), with the buffers that its metadata lists.

    Raises:
        ModelFileError: If it cannot be read.
    """
    from fedpkg.formats.model_file import read_seed_model

    weights, _form = read_seed_model(Path(file))
    return weights


def _prepared(config: RunConfig, home: Home, watch: Watcher | None, beside: Session | None = None) -> Session:
    session = prepare_session(config, home, beside=beside)
    if watch is not None:
        session.watch(watch)
    return session


def _configuration(what: What, home: Home, changes: dict[str, Any]) -> RunConfig:
    if isinstance(what, (str, Path)):
        if _is_package(Path(what)):
            clients, data = changes.pop("clients", None), changes.pop("data", None)
            config, _ways = run_of_package(
                Path(what), _overrides(changes), cache=home.packages, clients=clients, data=data
            )
            return config
        return load_configuration(Path(what), _overrides(changes)).config
    tree = dump_config(what) if isinstance(what, RunConfig) else dict(what)
    return config_of(tree, _overrides(changes), resolve=resolved)


def _is_package(path: Path) -> bool:
    if path.is_dir():
        if (path / EXPERIMENT).is_file():
            raise of_experiment(path)
        return True
    return path.suffix not in (".yaml", ".yml")


def _overrides(changes: Mapping[str, Any]) -> list[str]:
    try:
        return [f"{key}={json.dumps(value, default=_plain)}" for key, value in changes.items()]
    except TypeError as error:
        raise ConfigError(f"a key of a run.yaml cannot have this value: {error}") from error


def _plain(value: object) -> str:
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{value!r} is a {type(value).__name__}")
