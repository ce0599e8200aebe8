"""What the words of a command line can become when the Tab key is pressed. Nothing here imports PyTorch or NumPy."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem

from fedpkg.cli.candidates import beginning, names_of_kind, with_suffix
from fedpkg.cli.options import Settings

if TYPE_CHECKING:
    from fedpkg.registry import Registry

MODEL_SUFFIXES = (".npz", ".safetensors", ".pt", ".pth")
ARCHIVE_SUFFIXES = (".tgz", ".gz", ".tar", ".bz2", ".xz")
YAML_SUFFIXES = (".yaml", ".yml")


def packages(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Packages: archives, and folders, which are walked through until one holds a fedn.yaml."""
    found = with_suffix(incomplete, ARCHIVE_SUFFIXES)
    for item in found:
        value = os.path.expanduser(item.value)
        if value.endswith("/") and is_package(Path(value)):
            item.value = item.value.rstrip("/")
    return found


PACKAGES_HERE = (Path("."), Path("client"))  # where `fedpkg` and `fedpkg init` look for one


def is_package(folder: Path) -> bool:
    """Whether a folder holds a fedn.yaml, or is a message app."""
    from fedpkg.compute_package.spec import spec_path

    return spec_path(folder).is_file()


def entry_points(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Of ``package call``: the package, then one of its entry points."""
    from fedpkg.compute_package.spec import read_spec, spec_path

    words = context.params.get("words") or ()
    given = context.params.get("path") or next(iter(words), None)
    if given is None:
        return packages(context, parameter, incomplete)
    if len(words) > (context.params.get("path") is None):
        return []
    spec = read_spec(spec_path(Path(given)))
    return beginning(incomplete, [(name, entry.command) for name, entry in spec.entry_points.items()])


def sessions(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Sessions of the home, the newest first."""
    with _settings(context).reading() as (_home, store):
        rows = store.list_sessions(newest_first=True)
    return beginning(incomplete, [(row.session_id, f"{row.status}, {row.num_rounds} rounds") for row in rows])


def sweeps(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Sweeps of the home, the newest first."""
    with _settings(context).reading() as (_home, store):
        rows = list(reversed(store.sweeps.all()))
    return beginning(incomplete, [(row.name, f"{row.status}, {row.kind}") for row in rows])


def sweeps_and_sessions(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Sweeps and sessions of the home."""
    return sweeps(context, parameter, incomplete) + sessions(context, parameter, incomplete)


def models(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Models of the home, the newest session's first."""
    with _settings(context).reading() as (_home, store):
        order = [row.session_id for row in store.list_sessions(newest_first=True)]
        rows = sorted(store.list_models(), key=lambda row: (order.index(row.session_id), -row.round_number))
    named = [(row.model_id, f"sha256 {row.digest[:12]}") for row in rows if row.pruned is None]
    return beginning(incomplete, [("latest", "the newest model"), *named])


def clusters(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Clusters with models of their own: of the session or model that stands before it, or of the newest session."""
    from fedpkg.session.record import find_session

    # An option without its value yet ends click's reading of the line before it has named the arguments.
    ref = next(iter(context.args), None)
    session_ref = None if ref in (None, "latest") else re.sub(r"\.\d+(/.*)?$", "", ref)
    with _settings(context).reading() as (_home, store):
        rows = store.list_clusters(find_session(store, session_ref).session_id)
    return beginning(incomplete, [(row.cluster, f"its model is of round {row.round_number}") for row in rows])


def models_and_files(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Models of the home, if there is one, and model files."""
    known = models(context, parameter, incomplete) if _settings(context).home_path.is_dir() else []
    return known + with_suffix(incomplete, MODEL_SUFFIXES)


def strategies(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Strategies and their parts, transforms among them."""
    from fedpkg.strategies.registry import STRATEGIES
    from fedpkg.transforms.registry import TRANSFORMS

    return beginning(incomplete, dict(_names(STRATEGIES, TRANSFORMS)).items())


def strategy_parameters(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """KEY=VALUE of the strategy that stands before it."""
    from fedpkg.cli.completing_keys import of_strategy

    return of_strategy(str(context.params["name"]), incomplete)


def samplers(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Samplers by name."""
    from fedpkg.samplers.registry import SAMPLERS

    return beginning(incomplete, _names(SAMPLERS))


def data_parts(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Partitioners by name."""
    from fedpkg.data.partitioners.registry import PARTITIONERS

    return beginning(incomplete, _names(PARTITIONERS))


def partitioners_and_datasets(
    _context: click.Context, _parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Partitioners and kinds of datasets by name."""
    from fedpkg.data.partitioners.registry import PARTITIONERS
    from fedpkg.data.sources.registry import DATASETS

    return beginning(incomplete, _names(PARTITIONERS, DATASETS))


def _names(*registries: Registry) -> Iterator[tuple[str, str]]:
    for registry in registries:
        for kind in registry.kinds:
            yield from names_of_kind(registry, kind)
        yield from ((name, f"installed: {value}") for name, value in registry.installed().items())


def run_words(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """A RUN.yaml or a message app, then KEY=VALUE; only the latter with --package."""
    from fedpkg.cli.completing_keys import of_app, of_run

    words = tuple(context.params.get("words") or ())
    if not words and context.params.get("package") is None:
        return with_suffix(incomplete, YAML_SUFFIXES)
    app = Path(context.params.get("package") or words[0])
    if is_package(app) and (found := of_app(app, words, incomplete)) is not None:
        return found
    return of_run(words, incomplete)


def run_file(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Folders and .yaml files."""
    return with_suffix(incomplete, YAML_SUFFIXES)


def overrides(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """KEY=VALUE of a run.yaml, or of an experiment's folder, that stands before it."""
    from fedpkg.cli.completing_keys import of_app, of_experiment, of_run

    given = tuple(context.params.get("overrides") or ())
    if (found := of_app(Path(str(context.params.get("run_yaml"))), given, incomplete)) is not None:
        return found
    if Path(first := str(context.params.get("run_yaml"))).is_dir():
        return of_experiment(Path(first), given, incomplete)
    return of_run((first, *given), incomplete)


def experiment_words(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """An experiment's folder or a RUN.yaml; then GROUP=OPTION, the experiment's parameters, and KEY=VALUE."""
    from fedpkg.cli.completing_keys import of_experiment

    if parameter.name != "overrides":
        return with_suffix(incomplete, YAML_SUFFIXES)
    given = tuple(context.params.get("overrides") or ())
    first = context.params.get("folder") or context.params.get("source")
    return of_experiment(Path(str(first)), given, incomplete)


def keys_of_run(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Keys and sections of a run.yaml by their whole names."""
    from fedpkg.config_keys import all_keys

    return beginning(incomplete, ((key.name, key.about) for key in all_keys()))


def _settings(context: click.Context) -> Settings:
    return context.find_object(Settings) or Settings()
