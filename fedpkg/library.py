"""The Python API of `import fedpkg`, for programs and notebooks; see docs/how-to/python.md."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from fedpkg.compute_package.arguments import in_hydra
from fedpkg.config import RunConfig, dump_config
from fedpkg.config_reading import EXPERIMENT, LoadedConfig, config_of, of_experiment
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
    from fedpkg.experiments.baselines import Baseline
    from fedpkg.experiments.planning import Source
    from fedpkg.stores.base import SessionRow, SweepKind, SweepPointRow
    from fedpkg.types import Json
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
    loaded = _configuration(what, place, changes)
    session = _prepared(loaded, place, watch)
    if not progress:
        session.run()
        return session
    from fedpkg.cli.progress import Progress, display_of, displayed

    def command(words: str) -> str:
        return f"fedpkg {words} --home {shlex.quote(str(place.root))}"

    with displayed(display_of(Progress(command, place, loaded.config.rounds or 0))) as show:
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


def sweep(
    what: What,
    values: Mapping[str, Sequence[Any]],
    home: Home | Path | str | None = None,
    *,
    name: str | None = None,
    progress: bool = True,
    parallel: int = 1,
    kind: SweepKind = "grid",
    number: int | None = None,
    draws_seed: int = 0,
    baselines: Sequence[Baseline] = (),
    metric: str | None = None,
    minimise: bool = False,
    prune: bool = False,
    max_points: int | None = None,
    search_path: Sequence[Path | str] = (),
    **changes: Any,
) -> list[tuple[SweepPointRow, SessionRow | None]]:
    """Run a session for each combination of values; Ctrl-C stops it, and ``fedpkg experiment resume`` continues it.

    Args:
        what: As in `prepare`, or the folder of an experiment.
        values: The values of each key, such as ``{"arguments.train.lr": [0.1, 0.01], "seed": range(5)}``.
        name: The name of the sweep. Default: that of the configuration.
        progress: Show the progress on standard error.
        parallel: The number of sessions that run at the same time, on the slots of one executor.
        kind: ``grid``, ``zip``, or ``random`` or ``search`` with a ``number`` of points; ``draws_seed`` decides them.
        metric, minimise, prune: Of a search: what it maximises or minimises, and whether it stops bad points early.
        baselines: ``centralised`` and ``local``, added for every configuration.
        max_points: The largest number of points that is allowed. Default: 1000.
        home, changes: As in `prepare`.

    Returns:
        The points, each with its session. A point that failed does not stop the others: see its ``status``.

    Raises:
        ConfigError: If a key, value or setting is wrong, or no point can be composed.
        SessionError: If there is a sweep of this name.
        StoreError: If the disk cannot hold it.
    """
    from contextlib import nullcontext

    from fedpkg.cli.sweep_progress import following
    from fedpkg.experiments.axes import MAX_POINTS
    from fedpkg.experiments.planning import Settings
    from fedpkg.experiments.record import points_with_sessions
    from fedpkg.experiments.starting import prepare_sweep

    place = open_home(home, create=True)
    settings = Settings(
        kind=kind,
        number=number,
        seed=draws_seed,
        parallel=parallel,
        max_points=max_points or MAX_POINTS,
        baselines=tuple(baselines),
        metric=metric,
        minimise=minimise,
        prune=prune,
        search_path=tuple(str(Path(path).absolute()) for path in search_path),
    )
    source = _source(what, place, changes, search_path)
    with following() if progress else nullcontext() as display:
        watch = (lambda point, event: None) if display is None else display.watch
        prepared = prepare_sweep(place, source, _lists(values), settings, watch=watch, name=name)
        if display is not None:
            display.progress.begin(prepared.planned)
        row = prepared.run()
    return points_with_sessions(place, row.name)


def _source(what: What, home: Home, changes: dict[str, Any], search_path: Sequence[Path | str]) -> Source:
    """What a sweep varies. A run.yaml and the files of an experiment are read again for each point."""
    from fedpkg.experiments.planning import Source, source_of

    path = Path(what) if isinstance(what, (str, Path)) else None
    if path is not None and ((path / EXPERIMENT).is_file() or path.suffix in (".yaml", ".yml")):
        source, given = source_of(path, search_path), _overrides(changes)
        name = f"{source.name} (with changes)" if given else source.name  # a search cannot be resumed without them
        return Source(name, lambda overrides: source.compose([*given, *overrides]), source.experiment)
    base = dump_config(_configuration(what, home, changes).config)
    return Source(f"{base['package']} (in a program)", lambda overrides: config_of(base, overrides, resolve=resolved))


def _lists(values: Mapping[str, Sequence[Any]]) -> list[str]:
    """Overrides with several values, in hydra's grammar."""
    words = []
    for key, several in values.items():
        text = str(several).replace(" ", "")  # of a range
        if not isinstance(several, range):
            plain = [_as_json(value) for value in several]
            text = ",".join(in_hydra(value, interpolates=True) for value in plain)
            if None not in plain:  # hydra's choice() refuses null; in a list with commas, one value is no list
                text = f"choice({text})"
        words.append(f"{key}={text}")
    return words


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


def _prepared(loaded: LoadedConfig, home: Home, watch: Watcher | None, beside: Session | None = None) -> Session:
    session = prepare_session(loaded.config, home, beside=beside, origins=loaded.origins)
    if watch is not None:
        session.watch(watch)
    return session


def _configuration(what: What, home: Home, changes: dict[str, Any]) -> LoadedConfig:
    if isinstance(what, (str, Path)):
        if _is_package(Path(what)):
            clients, data = changes.pop("clients", None), changes.pop("data", None)
            config, _ways = run_of_package(
                Path(what), _overrides(changes), cache=home.packages, clients=clients, data=data
            )
            return LoadedConfig(config, {})
        loaded = load_configuration(Path(what), _overrides(changes))
        origins = {key: "program" if one == "command line" else one for key, one in loaded.origins.items()}
        return LoadedConfig(loaded.config, origins)
    tree = dump_config(what) if isinstance(what, RunConfig) else dict(what)
    return LoadedConfig(config_of(tree, _overrides(changes), resolve=resolved), {})


def _is_package(path: Path) -> bool:
    if path.is_dir():
        if (path / EXPERIMENT).is_file():
            raise of_experiment(path)
        return True
    return path.suffix not in (".yaml", ".yml")


def _overrides(changes: Mapping[str, Any]) -> list[str]:
    return [f"{key}={json.dumps(_as_json(value))}" for key, value in changes.items()]


def _as_json(value: Any) -> Json:
    try:
        read: Json = json.loads(json.dumps(value, default=_plain))
        return read
    except TypeError as error:
        raise ConfigError(f"a key of a run.yaml cannot have this value: {error}") from error


def _plain(value: object) -> str:
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{value!r} is a {type(value).__name__}")
