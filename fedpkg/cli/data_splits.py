"""``fedpkg data partition`` and ``describe``: split a dataset into files, and look at splits."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fedpkg.cli import output
from fedpkg.cli.completing import data_parts
from fedpkg.cli.options import Settings, common_options

if TYPE_CHECKING:
    from fedpkg.config import DataConfig
    from fedpkg.data.manifest import Manifest

_SHOWN = 30  # clients in a table
_MOST_LABELS = 12  # columns of labels in a table


@click.command("partition")
@click.argument("source", metavar="SOURCE")
@click.argument("words", metavar="[KEY=VALUE]…", nargs=-1)
@click.option("--by", "scheme", metavar="NAME", default="iid", shell_complete=data_parts, help="The partitioner.")
@click.option("--clients", type=click.IntRange(1, 10**6), help="Number of clients.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of the split.")
@click.option(
    "-o",
    "--output",
    "folder",
    metavar="FOLDER",
    required=True,
    type=click.Path(path_type=Path),
    help="Folder to write.",
)
@common_options
@click.pass_obj
def partition(
    settings: Settings, source: str, words: tuple[str, ...], scheme: str, clients: int | None, seed: int, folder: Path
) -> None:
    """Split a dataset into a file for each client.

    SOURCE is a file (.npz, .pt, .safetensors, .csv, .parquet), a folder of images, the name of a dataset, or
    module:Class. Parameters of the partitioner are written as key=value, those of the source as source.KEY=VALUE;
    within.test=0.2 and form=references are known, too. The folder also gets partition.json: what was split, and how.

    \b
      fedpkg data partition sklearn/digits --by dirichlet alpha=0.3 --clients 10 -o parts
      fedpkg data partition people.csv source.label=ill --clients 5 within.test=0.2 -o parts
    """
    from fedpkg.data.described import read_split
    from fedpkg.data.split import split_into
    from fedpkg.errors import FedpkgError

    try:
        is_new = split_into(folder, _config(source, scheme, words), clients, seed=seed)
    except FedpkgError as error:
        raise type(error)(
            _as_options(error.message), hint=_as_options(error.hint or "") or None, **error.fields
        ) from error
    manifest = read_split(folder)
    if settings.json:
        output.document(_document(folder, manifest))
        return
    output.words(f"{len(manifest.partitions)} files in {output.near(folder)}" + ("" if is_new else " (there already)"))
    _show([(output.near(folder), manifest)])


@click.command("describe")
@click.argument("folders", metavar="SPLIT…", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--picture", metavar="FILE", type=click.Path(path_type=Path), help="Also write charts: .html, .png, .svg or .pdf."
)
@common_options
@click.pass_obj
def describe(settings: Settings, folders: tuple[Path, ...], picture: Path | None) -> None:
    """Show what clients got in a split, or compare several.

    SPLIT is a folder of `fedpkg data partition`, or one in `data` of a home. The distance is that between the labels of
    a client and those of all clients (total variation, mean over clients): 0 for equal mixtures.

    \b
      fedpkg data describe parts
      fedpkg data describe iid skewed --picture splits.html
    """
    from fedpkg.data.described import charts_of, name_of, read_split

    if picture is not None:
        from fedpkg.pictures.files import check_suffix

        check_suffix(picture)
    found = [(output.near(folder), read_split(folder)) for folder in folders]
    if settings.json:
        output.document([_document(folder, manifest) for folder, (_, manifest) in zip(folders, found, strict=True)])
    else:
        _show(found)
    if picture is not None:
        from fedpkg.pictures.files import save_charts

        charts = charts_of([(f"{name}, {name_of(manifest)}", manifest) for name, manifest in found])
        save_charts(charts, picture, title=", ".join(name for name, _ in found))
        output.words(f"written: {output.near(picture)}")


def _as_options(text: str) -> str:
    """An error in the words of a run.yaml, in those of this command."""
    text = text.replace("clients.count", "--clients").replace("clients.data.partition.", "partition.")
    return re.sub(r"\bpartition\.(?=[a-z_]+\b(?!\())", "", text)


def _config(source: str, scheme: str, words: Sequence[str]) -> DataConfig:
    """The section ``clients.data`` that the words mean."""
    import msgspec

    from fedpkg.config import DATASET_SUFFIXES, DataConfig
    from fedpkg.config_reading import parse_override
    from fedpkg.config_shape import Places, check_shape
    from fedpkg.data.partitioners.registry import resolve_partition
    from fedpkg.data.sources.registry import BY_SUFFIX, resolve_dataset

    tree: dict[str, Any] = {"partition": {"name": scheme}, "within": {}}
    given: dict[str, Any] = {}
    for word in words:
        keys, value = parse_override(word)
        if keys[0] == "source" and len(keys) == 2:
            is_path = keys[1] in ("path", "file", "database") and "://" not in str(value)
            given[keys[1]] = os.path.abspath(str(value)) if is_path else value
        elif keys[0] == "within" and len(keys) == 2:
            tree["within"][keys[1]] = value
        elif keys == ("form",):
            tree["form"] = value
        else:
            tree["partition"][".".join(keys)] = value
    if os.path.isdir(source) or source.endswith(DATASET_SUFFIXES):
        source = os.path.abspath(source)
    kind = "images" if os.path.isdir(source) else BY_SUFFIX.get(Path(source).suffix)
    named = {"name": source} if kind is None else {"name": kind, "path": source}
    tree["dataset"] = {**named, **given} if given or os.path.isdir(source) else source
    places = Places("on the command line")
    check_shape(tree, DataConfig, places)
    tree["dataset"] = resolve_dataset(tree["dataset"], places)
    tree["partition"] = resolve_partition(tree["partition"], places)
    return msgspec.convert(tree, DataConfig)


def _document(folder: Path, manifest: Manifest) -> dict[str, Any]:
    from dataclasses import asdict

    from fedpkg.data.described import statistics

    return {"folder": str(folder), **asdict(manifest), "statistics": statistics(manifest)}


def _show(found: Sequence[tuple[str, Manifest]]) -> None:
    if len(found) == 1:
        _show_one(*found[0])
        return
    from fedpkg.data.described import name_of, statistics

    columns = ["split", "scheme", "clients", "examples", "smallest", "median", "largest", "labels/client", "distance"]
    keys = ("clients", "examples", "smallest", "median", "largest", "labels_per_client", "distance")
    rows = []
    for name, manifest in found:
        numbers = statistics(manifest)
        numbers["median"] = f"{numbers['median']:g}"
        rows.append([name, name_of(manifest), *(output.number(numbers.get(key)) for key in keys)])
    output.table(columns, rows)


def _show_one(name: str, manifest: Manifest) -> None:
    from fedpkg.data.described import name_of, statistics

    numbers = statistics(manifest)
    source, scheme = manifest.source, manifest.scheme
    dropped = [f"{number} of {split}" for split, number in manifest.dropped.items()]
    facts = [
        ("split", name),
        ("dataset", str(source.get("dataset", ""))),
        ("digest", str(source.get("digest", manifest.settings.get("dataset", "")))),
        ("scheme", name_of(manifest)),
        ("seed", str(scheme.get("seed", manifest.settings.get("seed", "")))),
        ("form", manifest.form),
        ("within", ", ".join(f"{part} {share:g}" for part, share in manifest.within.items())),
        ("clients", str(numbers["clients"])),
        ("examples", f"{numbers['smallest']} to {numbers['largest']}, median {numbers['median']:g}"),
        ("labels", f"{output.number(numbers.get('labels_per_client'))} per client"),
        ("distance", output.number(numbers.get("distance"))),
        ("dropped", ", ".join(dropped)),
    ]
    output.facts([(label, value) for label, value in facts if value])
    output.result()
    _table(manifest)


def _table(manifest: Manifest) -> None:
    """Sizes by client and part, and the labels of the training examples."""
    counts, labels = manifest.counts.get("train"), [str(label) for label in manifest.labels or ()]
    is_wide = not 0 < len(labels) <= _MOST_LABELS
    parts = [part for part in manifest.sizes if part != "train"]
    rows = []
    for k, entry in enumerate(manifest.partitions[:_SHOWN]):
        row = [Path(entry.file).stem, str(entry.num_examples), *(str(manifest.sizes[part][k]) for part in parts)]
        if counts is not None:
            row += [str(sum(map(bool, counts[k])))] if is_wide else [str(number) for number in counts[k]]
        rows.append(row)
    last = [] if counts is None else ["labels"] if is_wide else labels
    output.table(["client", "train", *parts, *last], rows)
    if len(manifest.partitions) > _SHOWN:
        output.words(f"… and {len(manifest.partitions) - _SHOWN} more clients (--json shows all)")
