"""The registry of datasets, and the source that ``clients.data.dataset`` of a run.yaml describes."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedpkg.config import DATASET_SUFFIXES, NAMED_DATASETS
from fedpkg.config_shape import Places
from fedpkg.errors import ConfigError, nearest
from fedpkg.registry import OF_FILE, Registry

if TYPE_CHECKING:
    from fedpkg.types import Json

DATASETS = Registry(
    kinds=("dataset",),
    modules=tuple(
        f"fedpkg.data.sources.{name}"
        for name in ("npz", "pt", "safetensors", "csv", "parquet", "sql", "images", "saved_dataset")
    ),
    group="fedpkg.datasets",
    able={"dataset": (("read",), ("__getitem__", "__len__"))},
    told_by="fedpkg data list",
)

register_dataset = functools.partial(DATASETS.register, "dataset")

PATH = ("clients", "data", "dataset")
BY_SUFFIX = {suffix: suffix[1:] for suffix in DATASET_SUFFIXES}
WHERE_IT_IS = ("path", "database", *OF_FILE)  # parameters of a source that its digest makes superfluous
_AS_TEXT = (".npz", ".pt")  # configurations keep them as they always did: the path alone


def resolve_dataset(
    given: str | Mapping[str, Json], places: Places, path: tuple[str, ...] = PATH
) -> str | dict[str, Json]:
    """A run.yaml's ``clients.data.dataset``, or the dataset at another ``path`` in it, checked, with all defaults.

    scikit-learn's datasets and paths of .npz and .pt files stay text; other text becomes a section: the path of a file
    by its suffix, otherwise the name of a registered dataset, or ``module:object``.

    Raises:
        ConfigError: there is no such dataset or parameter.
    """
    if isinstance(given, str):
        kind = BY_SUFFIX.get(Path(given).suffix)
        if given in NAMED_DATASETS or given.endswith(_AS_TEXT):
            return given
        section: dict[str, Any] = {"name": given} if kind is None else {"name": kind, "path": given}
        if kind is None and given not in DATASETS.installed() and ":" not in given:
            _check_name(given, places, path)
    else:
        section = {key: value for key, value in given.items() if value is not None}
    file = DATASETS.run_file_of(section, places, path, is_named="name" in section)
    resolved = DATASETS.resolve("dataset", section, places, path)
    return {"name": resolved.pop("name"), **file, **resolved}


def _check_name(name: str, places: Places, path: tuple[str, ...]) -> None:
    known = [*NAMED_DATASETS, *(spec.name for spec in DATASETS.specs("dataset"))]
    if name not in known:
        kinds = ", ".join(BY_SUFFIX)
        raise ConfigError(
            f"{places.where(path)}: there is no dataset '{name}'{nearest(name, known)}",
            hint=f"give the path of a file ({kinds}), one of {', '.join(NAMED_DATASETS)}, or a section with a name "
            "(`fedpkg data list`)",
            key=".".join(path),
        )
