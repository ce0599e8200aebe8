"""The registry of trackers, and the trackers that a run.yaml names."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from fedpkg.config_shape import Places
from fedpkg.errors import ConfigError
from fedpkg.registry import Registry

if TYPE_CHECKING:
    from fedpkg.tracking.base import Tracker
    from fedpkg.types import Json

ALWAYS = "jsonl"
TRACKERS = Registry(
    kinds=("tracker",),
    modules=tuple(f"fedpkg.tracking.{name}" for name in ("jsonl", "csv", "tensorboard", "mlflow", "wandb")),
    group="fedpkg.trackers",
    able={"tracker": (("begin", "round", "end"),)},
    told_by="docs/how-to/tracking.md",
)
LIBRARIES = {"tensorboard": "tensorboardX", "mlflow": "mlflow", "wandb": "wandb"}  # and the extra of the same name

register_tracker = functools.partial(TRACKERS.register, "tracker")


def resolve_tracking(sections: Sequence[Json], places: Places) -> list[dict[str, Json]]:
    """A run.yaml's ``tracking``, checked, with the defaults of the trackers' parameters.

    Raises:
        ConfigError: a name, parameter or value is unknown, or a tracker is named twice.
    """
    resolved: list[dict[str, Json]] = []
    for number, given in enumerate(sections):
        path = ("tracking", str(number))
        section: Any = {"name": given} if isinstance(given, str) else given
        file: dict[str, Json] = {}
        if isinstance(section, dict):
            section = dict(section)
            file = TRACKERS.run_file_of(section, places, path, is_named="name" in section)
        found = TRACKERS.resolve("tracker", section, places, path)
        if found["name"] == ALWAYS or any(found["name"] == other["name"] for other in resolved):
            why = "always on" if found["name"] == ALWAYS else "named twice"
            raise ConfigError(
                f"{places.where(path)}: tracker '{found['name']}' is {why}", hint="remove it from 'tracking'"
            )
        resolved.append({"name": found["name"], **file, **found})
    return resolved


def check_libraries(sections: Sequence[Mapping[str, Json]]) -> None:
    """Raises ConfigError: the library of a tracker is not installed."""
    for section in sections:
        library = LIBRARIES.get(str(section["name"]))
        if library is not None and find_spec(library) is None:
            raise ConfigError(
                f"tracking: tracker '{section['name']}' needs {library}, which is not installed",
                hint=f'pip install "fedpkg[{section["name"]}]", or remove it from tracking',
                key="tracking",
            )


def make_tracker(section: Mapping[str, Json]) -> Tracker:
    """The tracker that a resolved section describes."""
    places = Places("run configuration")
    given = {key: value for key, value in section.items() if key != "file_sha256"}
    (resolved,) = [section] if given["name"] == ALWAYS else resolve_tracking([given], places)
    tracker: Tracker = TRACKERS.make("tracker", resolved, places, ("tracking",))
    return tracker
