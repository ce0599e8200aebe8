"""How clusters are found: a method, a distance and a cut, checked without PyTorch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

from fedpkg.config_topology import Distance, Method
from fedpkg.errors import ConfigError, nearest

_CUTS: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "agglomerative": (("clusters",), ("distance",), ("size",)),
    "bipartition": (("eps1", "eps2"),),
    "kmeans": (("clusters",),),
}
_EXAMPLES = {
    "clusters": "clusters: 4",
    "distance": "distance: 0.3",
    "size": "size: [5, 50]",
    "eps1": "eps1: 0.4",
    "eps2": "eps2: 1.6",
}


OF_UPDATES = "bipartition compares updates only: it divides clients whose mean update has become short by training"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """How clusters are found.

    Args:
        method: `agglomerative`, `bipartition` or `kmeans`.
        distance: `cosine` for the directions of vectors, which is the only one of bi-partition, or `euclidean`.
        cut: where the method ends, as its function describes.
        depth: the greatest number of levels of clusters, see `clustering_of`.
        seed: of the draws of k-means.

    Raises:
        ConfigError: one of these is unknown, or they do not go together.
    """

    method: Method = "agglomerative"
    distance: Distance = "cosine"
    cut: Mapping[str, Any]
    depth: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        for key, known in (("method", get_args(Method)), ("distance", get_args(Distance))):
            if (value := getattr(self, key)) not in known:
                raise ConfigError(
                    f"{key}: {value!r} is unknown{nearest(str(value), known)}", hint=f"one of {', '.join(known)}"
                )
        if tuple(self.cut) not in (cuts := _CUTS[self.method]) and tuple(sorted(self.cut)) not in cuts:
            ways = " or ".join("{" + ", ".join(_EXAMPLES[key] for key in keys) + "}" for keys in cuts)
            raise ConfigError(f"cut: {self.method} cannot use {dict(self.cut)}", hint=f"give it {ways}")
        if wrong := next((key for key, value in self.cut.items() if not _is_cut(key, value)), None):
            raise ConfigError(
                f"cut.{wrong}: {self.cut[wrong]!r} is not possible", hint=f"for example {_EXAMPLES[wrong]}"
            )
        if not _is_whole(self.depth):
            raise ConfigError(f"depth: {self.depth!r} is not a positive whole number")
        if self.method == "bipartition" and self.distance != "cosine":
            raise ConfigError("distance: bipartition compares the directions of updates", hint="distance: cosine")


def check_cut(cut: Mapping[str, Any], count: int) -> None:
    """Raises ConfigError: the cut cannot be made of this number of clients."""
    if cut.get("clusters", 0) > count:
        raise ConfigError(f"cut: {cut['clusters']} clusters of {count} clients", hint="give a smaller number")
    least, most = cut.get("size", (1, 1))
    if not -(-count // most) <= count // least:
        raise ConfigError(
            f"cut: {count} clients cannot be divided into clusters of {least} to {most} clients",
            hint="change cut.size, for example to lower its first number",
        )


def _is_cut(key: str, value: Any) -> bool:
    if key == "clusters":
        return _is_whole(value)
    if key == "size":
        is_pair = isinstance(value, (list, tuple)) and len(value) == 2 and all(map(_is_whole, value))
        return is_pair and value[0] <= value[1]
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value) and value >= 0


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1
