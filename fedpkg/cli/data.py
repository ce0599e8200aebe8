"""``fedpkg data``: the partitioners and datasets that a run.yaml can name, with their parameters."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fedpkg.cli import output
from fedpkg.cli.completing import partitioners_and_datasets
from fedpkg.cli.data_splits import describe, partition
from fedpkg.cli.options import Settings, common_options
from fedpkg.cli.registered import (
    facts_of,
    facts_of_installed,
    facts_of_options,
    file_option,
    include,
    names_in,
    show_names,
    show_options,
    show_spec,
    specs_of,
)

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
    from fedpkg.data.partitioners.registry import PARTITIONERS

    registries = _registries(file)
    if settings.json:
        facts = [facts_of(spec) for registry in registries for spec in specs_of(registry)]
        output.document(facts + [each for registry in registries for each in facts_of_installed(registry)])
        return
    for registry in registries:
        show_names(registry, specs_of(registry))
    output.result(f"datasets of scikit-learn: {', '.join(NAMED_DATASETS)}\n")
    show_options(PARTITIONERS)


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
    from fedpkg.data.partitioners.registry import PARTITIONERS, needs_of_spec

    spec = _found(name, _registries(file))
    is_partitioner = spec.kind == "partitioner"
    needs = needs_of_spec(spec) if is_partitioner else ""
    if settings.json:
        more = {"needs": needs, "options": facts_of_options(PARTITIONERS)} if is_partitioner else {}
        output.document({**facts_of(spec), **more})
        return
    facts = [("name", names_in(spec)), ("needs", needs), ("equation", spec.equation), ("paper", spec.paper)]
    show_spec(spec, [*facts, ("defined in", spec.source)])
    if is_partitioner:
        output.result()
        show_options(PARTITIONERS)


def _registries(file: Path | None) -> tuple[Registry, Registry]:
    """The registries of partitioners and datasets, with what a file registers, if it is given."""
    from fedpkg.data.partitioners.registry import PARTITIONERS
    from fedpkg.data.sources.registry import DATASETS

    include(file, PARTITIONERS, DATASETS)
    return PARTITIONERS, DATASETS


def _found(name: str, registries: Sequence[Registry]) -> Spec:
    """The partitioner of a name or, if there is none, the kind of datasets."""
    from fedpkg.config_shape import Places
    from fedpkg.errors import ConfigError, nearest
    from fedpkg.registry import names_of

    known = {one.kinds[0]: {*names_of(specs_of(one)), *one.installed()} for one in registries}
    for registry in registries:
        (kind,) = registry.kinds
        if name in known[kind] or ":" in name:
            spec = registry.find(kind, name, Places("fedpkg data explain"), ())
            is_partitioner = hasattr(spec.make, "split") or hasattr(spec.make, "split_columns")
            if kind == "dataset" or name in known[kind] or is_partitioner:
                return spec
    words = sorted(set().union(*known.values()))
    raise ConfigError(
        f"there is no partitioner or dataset '{name}'{nearest(name, words)}", hint="`fedpkg data list` lists them"
    )
