"""``fedpkg cluster``: trees of combiners, before a run and of a session."""

from __future__ import annotations

import shlex
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fedpkg.cli import output
from fedpkg.cli.completing import overrides
from fedpkg.cli.options import Settings, common_options

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fedpkg.clusters.tree import Clustering
    from fedpkg.config import RunConfig
    from fedpkg.session.clustering import Combined
    from fedpkg.strategies.tree import TreeStrategy
    from fedpkg.topology.telling import Told


_PICTURE = click.option(
    "--picture",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Draw it (.html; .svg, .png and .pdf need matplotlib).",
)


@click.group("cluster")
def command() -> None:
    """Look at the tree of combiners of a run.yaml or a session.

    \b
      fedpkg cluster tree examples/clusters/run.yaml
      fedpkg cluster infer SESSION --cut clusters=3 -o tree.yaml
    """


@command.command()
@click.argument("ref", metavar="RUN.yaml|SESSION")
@click.argument("changes", metavar="[KEY=VALUE]...", nargs=-1, shell_complete=overrides)
@_PICTURE
@common_options
@click.pass_obj
def tree(settings: Settings, ref: str, changes: tuple[str, ...], picture: Path | None) -> None:
    """Show the combiners of a run.yaml or a session.

    Of a session that finds clusters, it shows the newest ones; its picture is their dendrogram.

    \b
      fedpkg cluster tree run.yaml topology.fanout=[2,3]
      fedpkg cluster tree digits --picture tree.svg
    """
    from fedpkg.pictures.files import check_suffix, save_charts
    from fedpkg.topology.telling import chart_of, some_of

    if picture is not None:
        check_suffix(picture)
    found, clusters = _told(settings, ref, changes)
    if picture is not None:
        chart = chart_of(found) if clusters is None else clusters.chart()
        save_charts([chart], picture, title=chart.title)
    if settings.json:
        output.document([asdict(one) for one in found])
        return
    columns = ["combiner", "strategy", "rounds", "required", "clients", "which"]
    rows = [
        [one.indented, one.strategy, str(one.rounds), str(one.required), str(one.num_clients), some_of(one.clients)]
        for one in found
    ]
    output.table(columns, rows)


@command.command()
@click.argument("source", metavar="SESSION|FOLDER|FILE")
@click.option(
    "--method",
    type=click.Choice(["agglomerative", "bipartition", "kmeans"]),
    default="agglomerative",
    show_default=True,
)
@click.option("--distance", type=click.Choice(["cosine", "euclidean"]), default="cosine", show_default=True)
@click.option(
    "--cut",
    "cuts",
    multiple=True,
    metavar="KEY=VALUE",
    help="Where it ends: clusters=4, distance=0.3, size=[5,50]; bipartition: eps1=0.4 and eps2=1.6.",
)
@click.option("--depth", type=click.IntRange(1, 100), default=1, show_default=True, help="Levels of combiners.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the draws of kmeans.")
@click.option(
    "--round",
    "round_number",
    type=click.IntRange(1, 10**9),
    metavar="N",
    help="The session's round.  [default: the newest with updates]",
)
@click.option(
    "--attribute", "attributes", multiple=True, metavar="NAME", help="Compare only these attributes of entities."
)
@click.option(
    "-o",
    "--output",
    "output_path",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write the tree as a section topology.",
)
@_PICTURE
@common_options
@click.pass_obj
def infer(
    settings: Settings,
    source: str,
    method: str,
    distance: str,
    cuts: tuple[str, ...],
    depth: int,
    seed: int,
    round_number: int | None,
    attributes: tuple[str, ...],
    output_path: Path | None,
    picture: Path | None,
) -> None:
    """Find clusters of clients.

    They are found from the updates that a session has kept (keep.updates=true), from the labels of a split (a folder
    that `fedpkg data partition` wrote), or from the attributes in a file of entities. Needs fedpkg[clusters].

    \b
      fedpkg cluster infer digits --cut clusters=2 -o tree.yaml --picture tree.svg
      fedpkg cluster infer parts --method kmeans --distance euclidean --cut clusters=3
    """
    import yaml

    from fedpkg.clusters.infer import infer as found_in
    from fedpkg.clusters.method import Finding
    from fedpkg.errors import ConfigError
    from fedpkg.pictures.files import check_suffix, save_charts, write_file
    from fedpkg.topology.telling import some_of
    from fedpkg.yaml_places import read_yaml

    if picture is not None:
        check_suffix(picture)
    cut = {}
    for one in cuts:
        key, equals, value = one.partition("=")
        if not equals:
            raise ConfigError(f"--cut {one}: not KEY=VALUE", hint="--cut clusters=4")
        cut[key] = read_yaml(value, source=f"--cut {key}")[0]
    finding = Finding(method=method, distance=distance, cut=cut or {"clusters": 2}, depth=depth, seed=seed)  # type: ignore[arg-type]
    home = None if Path(source).exists() else settings.open_home()
    found = found_in(source, finding, home=home, round_number=round_number, names=attributes)
    section = {"topology": found.topology()}
    if output_path is not None:
        write_file(output_path, yaml.safe_dump(section, sort_keys=False, allow_unicode=True).encode())
    if picture is not None:
        chart = found.chart()
        save_charts([chart], picture, title=chart.title)
    if settings.json:
        output.document({"clusters": found.leaves(), "left_out": found.left_out, **section})
        return
    rows = [
        [
            "  " * path.count("/") + cluster.name,
            str(len(cluster.clients)),
            f"{cluster.height:.4g}",
            some_of(cluster.clients),
        ]
        for path, cluster in found.walk()
    ]
    output.table(["cluster", "clients", "distance", "which"], rows)
    if found.left_out:
        output.result(f"without an update: {some_of(found.left_out)}; a run has them directly below the root")
    if output_path is not None:
        change = shlex.quote(f"topology={{file: {output.near(output_path)}}}")
        output.words(f"use it: fedpkg run RUN.yaml {change}")


@command.command()
@click.argument("run_yaml", metavar="RUN.yaml")
@click.argument("changes", metavar="[KEY=VALUE]...", nargs=-1, shell_complete=overrides)
@common_options
@click.pass_obj
def check(settings: Settings, run_yaml: str, changes: tuple[str, ...]) -> None:
    """Check the tree of a run.yaml.

    Every client must have one place, every strategy one where it can be, and the package what they need.

    \b
      fedpkg cluster check run.yaml
    """
    from fedpkg.clusters.section import infer_of
    from fedpkg.data.clients import client_names
    from fedpkg.session.clustering import combined, is_inferred
    from fedpkg.session.configuration import load
    from fedpkg.topology.telling import told

    config = load(Path(run_yaml), changes).config
    if is_inferred(config):
        ids = client_names(config.clients)
        clustered = combined(config, ids, [None] * len(ids))
        assert clustered is not None
        _check_package(config, clustered)
        infer = infer_of(config.topology or {})
        facts = {"clients": len(ids), "found_in_round": infer.first, "found_from": infer.source}
        if settings.json:
            output.document(facts)
        else:
            output.result(f"{run_yaml}: clusters of {len(ids)} clients are found in round {infer.first}")
        return
    known = _known(_of_file(config), run_yaml)
    _check_package(config, known)
    found = told(known.root)
    levels = 1 + max(one.depth for one in found)
    facts = {"combiners": len(found) - 1, "levels": levels, "clients": found[0].num_clients}
    if settings.json:
        output.document(facts)
        return
    counts = [f"{number} {one}{'s' * (number != 1)}" for one in ("client", "combiner") if (number := facts[f"{one}s"])]
    output.result(f"{run_yaml}: {' below '.join(counts)} and the root, on {levels} level{'s' * (levels != 1)}")


def _check_package(config: RunConfig, tree: Combined) -> None:
    """Check that the package has what the tree needs, if it is at its path."""
    import tempfile

    from fedpkg.preflight import check_combiners
    from fedpkg.session.admission import package_to_check

    with tempfile.TemporaryDirectory(prefix="fedpkg-") as cache:
        if (package := package_to_check(config, Path(cache))) is not None:
            check_combiners(tree.root, package, tree.traits.entry_points)


def _told(settings: Settings, ref: str, changes: tuple[str, ...]) -> tuple[Sequence[Told], Clustering | None]:
    """The combiners, and how clusters were found, if they are clusters that were found."""
    from fedpkg.errors import ConfigError
    from fedpkg.session.clustering import is_inferred, tree_of_session
    from fedpkg.session.configuration import load
    from fedpkg.session.record import find_session
    from fedpkg.topology.telling import told

    clusters = None
    if changes or Path(ref).suffix in (".yaml", ".yml") or Path(ref).is_file():
        config = load(Path(ref), changes).config
        if is_inferred(config):
            raise ConfigError(
                f"{ref}: its clusters are found during the run",
                hint="fedpkg cluster check RUN.yaml, and after its run: fedpkg cluster tree SESSION",
                key="topology.infer",
            )
        found = _of_file(config)
    else:
        with settings.reading() as (home, store):
            found, clusters = tree_of_session(store, find_session(store, ref), home.root)
    return told(_known(found, ref).root), clusters


def _known(tree: TreeStrategy | None, ref: str) -> TreeStrategy:
    from fedpkg.errors import ConfigError

    if tree is None:
        raise ConfigError(
            f"{ref} has no tree of combiners: the controller combines all updates",
            hint="describe one in the section topology of a run.yaml (fedpkg config explain topology)",
            key="topology",
        )
    return tree


def _of_file(config: RunConfig) -> TreeStrategy | None:
    """The tree of a run.yaml. Raises ConfigError: it cannot run."""
    from fedpkg.topology.building import check_needs

    tree = _placed(config)
    if tree is not None:
        check_needs(tree)
    return tree


def _placed(config: RunConfig) -> TreeStrategy | None:
    """The dataset is read, and not divided into files, if the tree or the clients need it."""
    from fedpkg.data.clients import client_names, numbered_ids
    from fedpkg.topology.building import facts_of, needs_split, shares_of, tree_of

    clients = config.clients
    if clients.data is None or not needs_split(config):
        shares_of(config)
        return tree_of(config, client_names(clients))
    from fedpkg.data.split import look_at

    ids = client_names(clients) if clients.entities is not None else numbered_ids(clients.count or 0)
    split = look_at(clients.data, len(ids) or None, seed=config.seed, facts=facts_of(config))
    return tree_of(config, ids or numbered_ids(len(split.partitions)), manifest=lambda: split)
