"""The registry of partitioners, the options that all have, and the partitioner that a run.yaml describes."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from msgspec import Meta

from fedpkg.config_shape import COMMAND_LINE, Places
from fedpkg.errors import ConfigError
from fedpkg.registry import CountOrZero, Registry, Spec

if TYPE_CHECKING:
    from fedpkg.types import Json

PATH = ("clients", "data", "partition")


class PartitionOptions(msgspec.Struct, frozen=True):
    """The options that all partitioners have."""

    by: Annotated[
        str | None,
        Meta(
            description="The column whose values decide, such as a user's id. null: the labels. Schemes that need no "
            "column take no `by`."
        ),
    ] = None
    seed: Annotated[CountOrZero | None, Meta(description="Seed of the split. null: the seed of the run.")] = None


PARTITIONERS = Registry(
    kinds=("partitioner",),
    modules=(
        "fedpkg.data.partitioners.schemes",
        *(
            f"fedpkg.partitions.{name}"
            for name in (
                "iid",
                "dirichlet",
                "inner_dirichlet",
                "pathological",
                "shards",
                "distribution",
                "continuous",
                "sizes",
                "linear",
                "square",
                "exponential",
                "power_law",
                "log_normal",
                "dirichlet_sizes",
                "natural_id",
                "grouped_ids",
            )
        ),
        "fedpkg.data.partitioners.feature_noise",
        "fedpkg.data.partitioners.rotation",
        "fedpkg.partitions.vertical",
    ),
    group="fedpkg.partitioners",
    able={"partitioner": (("split",), ("split_columns",))},
    told_by="fedpkg data list",
    shared=PartitionOptions,
)

register_partitioner = functools.partial(PARTITIONERS.register, "partitioner")


def resolve_partition(section: Mapping[str, Json], places: Places, path: tuple[str, ...] = PATH) -> dict[str, Json]:
    """A run.yaml's ``clients.data.partition``, or the one at another ``path`` in it, checked, with all defaults.

    Raises:
        ConfigError: it is wrong; with the line and similar names.
    """
    given = {key: value for key, value in section.items() if value is not None}
    file = PARTITIONERS.run_file_of(given, places, path, is_named="name" in given)
    given.setdefault("name", "iid")
    if isinstance(name := given["name"], str):
        spec = PARTITIONERS.find("partitioner", name, places, (*path, "name"))
        given = _without_parameters_of_others(given, spec, places, path)
        PARTITIONERS.check(spec, given, places, path)
    own = PARTITIONERS.resolve("partitioner", PARTITIONERS.without_options(given), places, path)
    if completed := getattr(_dividing(own), "completed", None):
        own = completed(own) if "inner" not in own else {**own, "inner": completed(own["inner"])}
    resolved = {"name": own.pop("name"), **file, **{key: given.get(key) for key in PARTITIONERS.options}, **own}
    _check_column(resolved, places, path)
    return resolved


def make_partitioner(section: Mapping[str, Json]) -> Any:
    """The `Partitioner` or `ColumnPartitioner` that a configuration describes; see `resolve_partition`."""
    places = Places("run configuration")
    resolved = resolve_partition(section, places)
    return PARTITIONERS.make("partitioner", PARTITIONERS.without_options(resolved), places, PATH)


def _without_parameters_of_others(
    given: dict[str, Any], spec: Spec, places: Places, path: tuple[str, ...]
) -> dict[str, Any]:
    """Without parameters of another scheme that the file sets, where the command line names this scheme.

    So ``clients.data.partition.name=iid`` works on a file with ``{name: dirichlet, alpha: 0.1}``. Configurations that
    fedpkg 0.1 stored have an ``alpha`` for ``iid``, too.
    """
    is_named_there = places.line((*path, "name")) == COMMAND_LINE
    is_stored = places.line(path) is None
    kept = {}
    for key, value in given.items():
        is_own = key in spec.parameters or key in PARTITIONERS.options or key == "name"
        is_left_over = is_named_there and places.line((*path, key)) != COMMAND_LINE and _is_of_another(key)
        if is_own or not (is_left_over or (is_stored and (spec.name, key) == ("iid", "alpha"))):
            kept[key] = value
    return kept


def _is_of_another(key: str) -> bool:
    return any(key in spec.parameters for spec in PARTITIONERS.specs("partitioner"))


def needs_of_spec(spec: Spec) -> str:
    """What the scheme needs of each example, in words."""
    if "inner" in spec.parameters:
        return "what the inner scheme needs"
    if hasattr(spec.make, "split_columns"):
        return "the names of the columns"
    return str(getattr(spec.make, "needs", "labels"))


def tells_count(section: Mapping[str, Json]) -> bool:
    """Whether the scheme of a resolved section can tell the number of clients, from the data or its parameters."""
    return bool(getattr(_dividing(section), "tells_count", False)) or (
        section["name"] == "vertical" and section.get("sizes") is not None
    )


def _dividing(section: Mapping[str, Any]) -> Any:
    """The class or function of the scheme that divides the examples: of the inner one, if the section has one."""
    while isinstance(section.get("inner"), (str, dict)):
        inner = section["inner"]
        section = {"name": inner} if isinstance(inner, str) else inner
    return PARTITIONERS.find("partitioner", str(section["name"]), Places("run configuration"), (*PATH, "name")).make


def _check_column(resolved: Mapping[str, Any], places: Places, path: tuple[str, ...]) -> None:
    """Refuse a section without the column that its scheme needs, or with one that has no effect."""
    name, needs = resolved["name"], getattr(_dividing(resolved), "needs", "labels")
    if needs in ("ids", "values") and resolved["by"] is None:
        raise ConfigError(
            f"{places.where(path)}: the partitioner '{name}' needs '{'.'.join(path)}.by'",
            hint=f"set by to the name of the column with the {needs}",
            key=".".join((*path, "by")),
        )
    if needs == "nothing" and resolved["by"] is not None:
        raise ConfigError(
            f"{places.where((*path, 'by'))}: '{'.'.join(path)}.by' has no effect on the {name} partition",
            hint="remove by",
            key=".".join((*path, "by")),
        )
