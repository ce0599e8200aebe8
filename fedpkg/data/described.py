"""A split in numbers and charts: sizes, labels by client, and how far clients are from the whole."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from fedpkg.data.manifest import Manifest, check_unchanged, read_manifest
from fedpkg.pictures.chart import Axis, BarChart, Chart, HeatMap, Histogram, histogram
from fedpkg.registry import OF_FILE

_MOST_COLOURS = 20


def read_split(folder: Path) -> Manifest:
    """The manifest of a split whose files are as they were written.

    Raises:
        DataError: It is no split, or was changed by hand.
    """
    manifest = read_manifest(folder)
    check_unchanged(folder, manifest)
    return manifest


def sizes_of(manifest: Manifest) -> list[int]:
    """The number of training examples of each client."""
    return [entry.num_examples for entry in manifest.partitions]


def name_of(manifest: Manifest) -> str:
    """The scheme in a few words: ``dirichlet (alpha 0.5)``."""
    return _name_of_scheme(manifest.scheme or manifest.settings)


def _name_of_scheme(scheme: Mapping[str, Any]) -> str:
    skip = ("name", "seed", "min_examples", "format", "dataset", "clients", "within", "form", *OF_FILE)
    told = [
        f"{key} {_name_of_scheme(value) if isinstance(value, Mapping) else value}"
        for key, value in scheme.items()
        if key not in skip and value not in (None, False, [])
    ]
    name = str(scheme.get("name"))
    return f"{name} ({', '.join(told)})" if told else name


def statistics(manifest: Manifest) -> dict[str, Any]:
    """Numbers about a split.

    ``labels_per_client`` is the mean number of labels that a client has. ``distance`` is the mean over clients of the
    total variation distance between the client's labels and those of all clients: 0 for equal mixtures, towards 1 if
    each client has labels of its own.
    """
    import numpy as np

    sizes = np.array(sizes_of(manifest))
    found: dict[str, Any] = {
        "clients": len(sizes),
        "examples": int(sizes.sum()),
        "smallest": int(sizes.min()),
        "median": float(np.median(sizes)),
        "largest": int(sizes.max()),
    }
    if "train" in manifest.counts:
        counts = np.array(manifest.counts["train"], np.float64)
        shares = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
        whole = counts.sum(axis=0) / max(1, counts.sum())
        found["labels_per_client"] = float((counts > 0).sum(axis=1).mean())
        found["distance"] = float(np.abs(shares - whole).sum(axis=1).mean() / 2)
    return found


def charts_of(splits: Sequence[tuple[str, Manifest]]) -> list[Chart]:
    """The charts of some splits: labels by client as stacked bars, then as heat maps, then the sizes."""
    found = [list(_charts(name if len(splits) > 1 else "", manifest)) for name, manifest in splits]
    return [
        chart for kind in (BarChart, HeatMap, Histogram) for one in found for chart in one if isinstance(chart, kind)
    ]


def _charts(name: str, manifest: Manifest) -> Iterator[Chart]:
    clients = [Path(entry.file).stem for entry in manifest.partitions]
    counts = manifest.counts.get("train", ()) if manifest.labels is not None else ()
    told = f"{name}: " if name else ""
    return split_charts(clients, sizes_of(manifest), manifest.labels or (), counts, told=told)


def split_charts(
    clients: Sequence[str],
    sizes: Sequence[int],
    labels: Sequence[Any],
    counts: Sequence[Sequence[int]],
    *,
    told: str = "",
) -> Iterator[Chart]:
    """The training examples of each client: by label if ``counts`` (clients × labels) are known, and their numbers.

    Stacked bars are drawn for at most 20 labels: more colours cannot be told apart.
    """
    x, y, names = Axis("client"), Axis("training examples", "whole"), [str(label) for label in labels]
    if counts and len(names) <= _MOST_COLOURS:
        series = {label: [row[number] for row in counts] for number, label in enumerate(names)}
        yield BarChart(title=f"{told}labels by client", labels=clients, series=series, stacked=True, x=x, y=y)
    if counts:
        yield HeatMap(
            title=f"{told}client × label", rows=clients, columns=names, values=counts, x=Axis("label"), y=x, value=y
        )
    yield replace(histogram(sizes, title=f"{told}sizes of the clients", x=y), y=Axis("clients", "whole"))
