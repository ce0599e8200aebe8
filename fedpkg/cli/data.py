"""``fedpkg data``: the partitioners and datasets that a run.yaml can name, with their parameters."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fedpkg.cli import output
from fedpkg.cli.completing import partitioners_and_datasets
from fedpkg.cli.data_splits import describe, partition
from fedpkg.cli.options import Settings, common_options
from fedpkg.cli.registered import facts_of, facts_of_parameter, file_option, show_parameters, show_spec

if TYPE_CHECKING:
    from fedpkg.registry import Registry, Spec


@click.group("data")
def command() -> None:
    """Split datasets among clients; look at splits and partitioners.

    \b
      fedpkg data list
      fedpkg data explain dirichlet
      fedpkg data partition sklearn/digits --by dirichlet alpha=0.3 --clients 10 -o parts
      fedpkg data describe parts
    """


command.add_command(partition)
command.add_command(describe)


@command.command("list")
@file_option
@common_options
@click.pass_obj
def list_parts(settings: Settings, file: Path | None) -> None:
    """List partitioners, their common options, and kinds of datasets.

    \b
      fedpkg data list
    """
    from fedpkg.config import NAMED_DATASETS
    from fedpkg.data.partitioners.registry import OPTIONS

    found = _registries(file)
    if settings.json:
        specs = [facts_of(spec) for kind, registry in found.items() for spec in registry.specs(kind)]
        installed = [(kind, *each) for kind, registry in found.items() for each in registry.installed().items()]
        output.document(specs + [{"kind": kind, "name": name, "source": value} for kind, name, value in installed])
        return
    for kind, registry in found.items():
        rows = [[", ".join((spec.name, *spec.aliases)), spec.about] for spec in registry.specs(kind)]
        rows += [[name, f"installed: {value}"] for name, value in registry.installed().items()]
        output.table([kind, ""], rows)
        output.result()
    output.result(f"datasets of scikit-learn: {', '.join(NAMED_DATASETS)}\n")
    show_parameters("options of all partitioners", OPTIONS.values())


@command.command("explain")
@click.argument("name", metavar="NAME", shell_complete=partitioners_and_datasets)
@file_option
@common_options
@click.pass_obj
def explain_part(settings: Settings, name: str, file: Path | None) -> None:
    """Show the parameters of a partitioner or a kind of datasets.

    \b
      fedpkg data explain dirichlet
      fedpkg data explain csv
    """
    from fedpkg.data.partitioners.registry import OPTIONS, needs_of_spec

    spec = _found(name, _registries(file))
    is_partitioner = spec.kind == "partitioner"
    needs = needs_of_spec(spec) if is_partitioner else ""
    if settings.json:
        options = [facts_of_parameter(each) for each in OPTIONS.values()]
        output.document({**facts_of(spec), **({"needs": needs, "options": options} if is_partitioner else {})})
        return
    names = ", ".join((spec.name, *spec.aliases))
    facts = [("name", names), ("needs", needs), ("equation", spec.equation), ("paper", spec.paper)]
    show_spec(spec, [*facts, ("defined in", spec.source)])
    if is_partitioner:
        output.result()
        show_parameters("options of all partitioners", OPTIONS.values())


def _registries(file: Path | None) -> dict[str, Registry]:
    """The registries by their kinds; with what a file registers, if it is given."""
    from fedpkg.data.partitioners.registry import PARTITIONERS
    from fedpkg.data.sources.registry import DATASETS

    registries = {"partitioner": PARTITIONERS, "dataset": DATASETS}
    if file is not None:
        for registry in registries.values():
            registry.run_file(file.absolute())
    return registries


def _found(name: str, registries: Mapping[str, Registry]) -> Spec:
    """The partitioner of a name or, if there is none, the kind of datasets."""
    from fedpkg.config_shape import Places
    from fedpkg.errors import ConfigError, nearest
    from fedpkg.registry import names_of

    known = {kind: {*names_of(each.specs(kind)), *each.installed()} for kind, each in registries.items()}
    for kind, registry in registries.items():
        if name in known[kind] or ":" in name:
            spec = registry.find(kind, name, Places("fedpkg data explain"), ())
            is_partitioner = hasattr(spec.make, "split") or hasattr(spec.make, "split_columns")
            if kind == "dataset" or name in known[kind] or is_partitioner:
                return spec
    words = sorted(set().union(*known.values()))
    raise ConfigError(
        f"there is no partitioner or dataset '{name}'{nearest(name, words)}", hint="`fedpkg data list` lists them"
    )
