"""``fedpkg model``: global models, where they come from, and as files."""

from __future__ import annotations

import math
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fedpkg.cli import output
from fedpkg.cli.call import call_and_show, copy_whole, parse_arguments, show_tensors, temporary_folder
from fedpkg.cli.completing import clusters as clusters_completed
from fedpkg.cli.completing import models, models_and_files, packages, sessions
from fedpkg.cli.options import Settings, common_options, model_ref
from fedpkg.errors import ModelFileError, NotFound, nearest
from fedpkg.session.record import find_session
from fedpkg.stores.metric_rows import best_is_lowest, is_lower_better, name_in, round_values

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from fedpkg.formats.base import ModelForm
    from fedpkg.stores.base import ModelRow
    from fedpkg.stores.home import Home
    from fedpkg.stores.sql import StateStore
    from fedpkg.types import Json
    from fedpkg.weights.weights import Weights

_MODEL = click.argument("ref", metavar="[MODEL]", required=False, shell_complete=models)
_CLUSTER = click.option(
    "--cluster",
    metavar="PATH",
    shell_complete=clusters_completed,
    help="The model of this cluster, in a session that has models of clusters.",
)
_OUTPUT = click.option("-o", "--output", "target", metavar="FILE", type=click.Path(path_type=Path), required=True)
_FORCE = click.option("--force", is_flag=True, help="Overwrite FILE if it exists.")


@click.group("model")
def command() -> None:
    """Look at global models, compare them, write them to files.

    \b
      fedpkg model list
      fedpkg model export latest -o model.safetensors

    MODEL is an id (SESSION.ROUND), the beginning of a digest, a session (its last model) or `latest`. In a session
    with models of clusters, `--cluster PATH` or MODEL/PATH is that of a cluster.
    """


@command.command("list")
@click.argument("session_ref", metavar="[SESSION]", required=False, shell_complete=sessions)
@click.option("--all", "of_all", is_flag=True, help="List the models of all sessions, not only of the newest.")
@click.option(
    "--best",
    metavar="[METRIC]",
    is_flag=False,
    flag_value="",
    help="Show only the model with the best value of this metric.  [default: stop.metric of the session]",
)
@click.option(
    "--lowest/--highest", "lowest", default=None, help="With --best: whether the highest or the lowest value is best."
)
@click.option("--cluster", metavar="PATH", shell_complete=clusters_completed, help="List the models of this cluster.")
@click.option("--clusters", is_flag=True, help="List the models of all clusters.")
@common_options
@click.pass_obj
def list_models(
    settings: Settings,
    session_ref: str | None,
    of_all: bool,
    best: str | None,
    lowest: bool | None,
    cluster: str | None,
    clusters: bool,
) -> None:
    """List a session's global models by round, with their metrics.

    \b
      fedpkg model list
      fedpkg model list --best accuracy
      fedpkg model list --best score --lowest
      fedpkg model list digits --best
      fedpkg model list digits --cluster north/kiruna

    A cluster's model has a row for each round that changed it: `rounds` are those after which it was the cluster's.
    With --best, the highest value is best, except for metrics whose name contains loss, error, mse, mae, rmse, nll or
    perplexity. --lowest and --highest override this, and so does stop.mode of the session. Of models with equal values,
    the earliest is shown. Values that are not finite do not count.
    """
    if lowest is not None and best is None:
        raise click.UsageError("--lowest and --highest belong to --best METRIC")
    if (cluster or clusters) and (of_all or (cluster and clusters)):
        raise click.UsageError("--cluster and --clusters are of one session, and exclude each other")
    with settings.reading() as (home, store):
        session_id = None if of_all else find_session(store, session_ref).session_id
        if session_id is not None and (cluster or clusters):
            models, metrics = _of_clusters(store, session_id, cluster), _metrics_of_clusters(store, session_id)
            if not models and not settings.json:
                output.words(f"session {session_id} has no clusters with models of their own")
                return
        else:
            models, metrics = store.list_models(session_id), _metrics(store, session_id)
        if best is not None:
            values = metrics
            if not (cluster or clusters):
                rounds = store.list_rounds(session_id)
                values = {f"{row.session_id}.{row.round_number}": round_values(row) for row in rounds}
            stop = {} if session_id is None else store.get_session(session_id).config.get("stop") or {}
            best = best or stop.get("metric")
            if best is None:
                raise click.UsageError("--best needs a METRIC, as the session has no stop.metric")
            if lowest is None:
                lowest = best_is_lowest(stop) if best == stop.get("metric") else is_lower_better(best)
            models = [_best(models, values, best, lowest=lowest)]
        _show_models(settings, home, models, metrics)


def _metrics(store: StateStore, session_id: str | None) -> dict[str, dict[str, Any]]:
    """What validation measured, by model."""
    return {f"{row.session_id}.{row.round_number}": row.metrics for row in store.list_rounds(session_id)}


def _of_clusters(store: StateStore, session_id: str, path: str | None) -> list[ModelRow]:
    """The models of a session's clusters, or of one. Raises NotFound: there is no such cluster."""
    if path is not None:
        store.get_cluster_model(session_id, path)
        return store.list_models(session_id, cluster=path)
    return [model for model in store.list_models(session_id, cluster=None) if model.cluster]


def _metrics_of_clusters(store: StateStore, session_id: str) -> dict[str, dict[str, Any]]:
    """What the clients of each cluster measured of its model, the last time that they did, by model."""
    found: dict[str, dict[str, Any]] = {}
    models: dict[str, list[ModelRow]] = {}
    for model in _of_clusters(store, session_id, None):
        models.setdefault(model.cluster, []).append(model)
    for row in store.list_metric_rows(session_id, phase="validate", cluster=list(models)) if models else ():
        for model in models[row.cluster]:
            if model.is_current_at(row.round_number):
                found.setdefault(model.model_id, {})[row.metric] = row.weighted_mean
    return found


def _model(store: StateStore, ref: str | None, cluster: str | None) -> ModelRow:
    """The model to which a command refers."""
    ref = model_ref(store, ref)
    return store.get_model(f"{ref}/{cluster}" if cluster else ref)


def _best(models: list[ModelRow], metrics: Mapping[str, Mapping[str, Any]], name: str, *, lowest: bool) -> ModelRow:
    from fedpkg.cli.report import metric_names

    found = {model.model_id: metrics.get(model.model_id, {}) for model in models}
    values: dict[str, Any] = {model_id: of.get(name_in(name, of)) for model_id, of in found.items()}
    measured = [model for model in models if is_finite_number(values[model.model_id])]
    if not measured:
        known = metric_names({key: value for one in metrics.values() for key, value in one.items()})
        raise NotFound(
            f"no model has a finite value of '{name}'{nearest(name, known)}",
            hint=f"metrics of these models: {', '.join(known)}" if known else "no round has been validated",
        )
    return (min if lowest else max)(measured, key=lambda model: values[model.model_id])


def is_finite_number(value: object) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


@command.command()
@_MODEL
@_CLUSTER
@common_options
@click.pass_obj
def trail(settings: Settings, ref: str | None, cluster: str | None) -> None:
    """Show the models that a model comes from.

    \b
      fedpkg model trail latest
      fedpkg model trail latest --cluster north/kiruna

    A cluster's model may come from several models, if clusters were merged, and several may come from one.
    """
    with settings.reading() as (home, store):
        model = _model(store, ref, cluster)
        trail_of, metrics = store.model_trail(model.model_id), _metrics(store, model.session_id)
        if model.cluster:
            metrics |= _metrics_of_clusters(store, model.session_id)
        _show_models(settings, home, trail_of, metrics)


def _show_models(
    settings: Settings, home: Home, models: list[ModelRow], metrics: Mapping[str, Mapping[str, Any]]
) -> None:
    from fedpkg.cli.report import METRIC_COLUMNS, metric_names
    from fedpkg.stores.models import ModelStore

    files = ModelStore(home.models)
    if settings.json:
        output.document(
            [
                {
                    **asdict(model),
                    "metrics": dict(metrics.get(model.model_id, {})),
                    "path": files.path(model.digest, model.suffix),
                }
                for model in models
            ]
        )
        return
    if not models:
        output.words("there is no model")
        return
    measured = [metrics.get(model.model_id, {}) for model in models]
    names = metric_names({name: value for one in reversed(measured) for name, value in one.items()})[:METRIC_COLUMNS]
    columns = [output.measures([one.get(name) for one in measured]) for name in names]
    has_clusters = any(model.cluster for model in models)
    rows = [
        [
            model.model_id,
            *([_rounds_words(model), _parents_words(model)] if has_clusters else []),
            model.digest[:12],
            output.when(model.created_at),
            f"{len(model.contributors)} client{'s' * (len(model.contributors) != 1)}"
            if model.round_number
            else "seed model",
            output.number(math.fsum(part.get("num_examples") or 0.0 for part in model.contributors))
            if model.contributors
            else "-",
            *(column[i] for column in columns),
            output.size(model.size_bytes) if model.pruned is None else f"pruned (kept: {model.pruned})",
        ]
        for i, model in enumerate(models)
    ]
    of_clusters = ["rounds", "from"] if has_clusters else []
    output.table(["model", *of_clusters, "sha256", "made", "of", "examples", *names, "size"], rows)


def _rounds_words(model: ModelRow) -> str:
    """The rounds after which it was the model."""
    if not model.cluster:
        return str(model.round_number)
    if model.until_round is None:
        return f"{model.round_number}-"
    last = model.until_round - 1
    return str(last) if last == model.round_number else f"{model.round_number}-{last}"


def _parents_words(model: ModelRow) -> str:
    parents = model.parents or ([model.parent_id] if model.parent_id else [])
    return ", ".join(parent.removeprefix(f"{model.session_id}.") for parent in parents)


@command.command()
@_MODEL
@_OUTPUT
@_FORCE
@_CLUSTER
@common_options
@click.pass_obj
def export(settings: Settings, ref: str | None, target: Path, force: bool, cluster: str | None) -> None:
    """Write a global model to a file.

    \b
      fedpkg model export latest -o model.npz
      fedpkg model export latest --cluster north -o north.npz
      fedpkg model export digits.3 -o round-3.safetensors

    The suffix of FILE chooses the format: .npz or .safetensors (or, for a model of one bare array, .f64, .f32 or .txt).
    FILE-metadata lists the buffers among the tensors, so that FILE can be the seed_model of another run.
    """
    from fedpkg.stores.models import ModelStore

    suffix = _check_target(target, force)
    with settings.reading() as (home, store):
        model = _model(store, ref, cluster)
        source = ModelStore(home.models).verify_model(model)
    _write_as(suffix, source, target)
    _put_beside(target, {"buffers": list(model.buffers)})
    if settings.json:
        output.document({"model_id": model.model_id, "digest": model.digest, "path": target, "buffers": model.buffers})
    else:
        output.result(f"{target}  ({model.model_id}, {output.size(target.stat().st_size)})")


@command.command()
@click.argument("package", metavar="PACKAGE", type=click.Path(path_type=Path), shell_complete=packages)
@_OUTPUT
@click.option("--seed", type=click.IntRange(min=0), default=0, metavar="N", show_default=True)
@_FORCE
@click.argument("arguments", metavar="[-- --KEY=VALUE ...]", nargs=-1, type=click.UNPROCESSED)
@common_options
@click.pass_obj
def seed(settings: Settings, package: Path, target: Path, seed: int, force: bool, arguments: tuple[str, ...]) -> None:
    """Make a seed model with a package's build entry point.

    \b
      fedpkg model seed packages/digits -o seed.npz --seed 1
    """
    from fedpkg.files import remove_tree, sha256_file
    from fedpkg.formats.base import SEED_SUFFIXES
    from fedpkg.session.by_hand import Call

    suffix = _check_target(target, force)
    folder = temporary_folder()
    try:
        call = Call(package, "build", folder, seed=seed, arguments=parse_arguments(arguments))
        if suffix in SEED_SUFFIXES:
            call = replace(call, seed_suffix=suffix)  # type: ignore[arg-type]
        called = call_and_show(call)
        reply, weights = called.reply, called.sets[""]
        assert reply is not None
        _write_as(suffix, reply, target)
        _put_beside(target, called.answer.metadata)  # which tensors are buffers, say
        if settings.json:
            facts = {"path": target, "digest": sha256_file(target), "num_parameters": weights.num_parameters}
            output.document(facts)
        else:
            output.result(f"{target}  ({weights.num_parameters} parameters)\n")
            show_tensors(weights)
    finally:
        if not (folder / "failed").exists():
            remove_tree(folder)


@command.command()
@click.argument("first", metavar="A", shell_complete=models_and_files)
@click.argument("second", metavar="B", shell_complete=models_and_files)
@common_options
@click.pass_obj
def diff(settings: Settings, first: str, second: str) -> None:
    """Compare two models, tensor by tensor.

    \b
      fedpkg model diff latest.1 latest
      fedpkg model diff seed.npz latest

    A and B are models of this home or files. Relative L2 is |A - B| / |A|, the Euclidean norms of all elements.
    """
    a, form_a = _read(settings, first)
    b, form_b = _read(settings, second)
    same_keys = form_a.keys == form_b.keys or set(a) == set(b)
    if not same_keys and len(a) == len(b):  # names on one side, positions on the other: the order is the same
        from fedpkg.weights.weights import Weights

        b = Weights(dict(zip(a, b.values(), strict=True)))
    identical = a.equal(b)
    rows = [_compare(name, a.get(name), b.get(name)) for name in [*a, *(name for name in b if name not in a)]]
    if settings.json:
        output.document({"a": first, "b": second, "identical": identical, "tensors": rows})
        return
    table = [
        [
            row["name"],
            row["shape_a"] if row["shape_a"] == row["shape_b"] else f"{row['shape_a']} / {row['shape_b']}",
            row["dtype_a"] if row["dtype_a"] == row["dtype_b"] else f"{row['dtype_a']} / {row['dtype_b']}",
            _difference(row["max_abs"]),
            _difference(row["relative_l2"]),
            row["what"],
        ]
        for row in rows
    ]
    output.table(["tensor", "shape", "dtype", "max abs", "relative L2", ""], table)
    differing = sum(row["what"] != "identical" for row in rows)
    output.result()
    output.result("bit-identical" if identical else f"{differing} of {len(rows)} tensors differ")


def _difference(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


def _compare(name: str, a: Tensor | None, b: Tensor | None) -> dict[str, Any]:
    import torch

    from fedpkg.weights.weights import dtype_name, raw_bytes

    row: dict[str, Any] = {"name": name, "max_abs": None, "relative_l2": None}
    for side, tensor in (("a", a), ("b", b)):
        row[f"shape_{side}"] = "-" if tensor is None else str(tuple(tensor.shape))
        row[f"dtype_{side}"] = "-" if tensor is None else dtype_name(tensor)
    if a is None or b is None:
        return {**row, "what": "only in B" if a is None else "only in A"}
    if a.shape != b.shape:
        return {**row, "what": "shapes differ"}
    if a.dtype == b.dtype and torch.equal(raw_bytes(a), raw_bytes(b)):
        return {**row, "max_abs": 0.0, "relative_l2": 0.0, "what": "identical"}
    wide = torch.complex128 if a.is_complex() or b.is_complex() else torch.float64
    a64 = a.to(wide)
    difference = a64 - b.to(wide)
    norm = torch.linalg.vector_norm(a64).item()
    distance = torch.linalg.vector_norm(difference).item()
    row["max_abs"] = difference.abs().max().item() if difference.numel() else 0.0
    row["relative_l2"] = distance / norm if norm else (0.0 if distance == 0 else math.inf)
    return {**row, "what": "dtypes differ" if a.dtype != b.dtype else "differs"}


def _read(settings: Settings, ref: str) -> tuple[Weights, ModelForm]:
    """A model file, or the model of this home that goes by this name."""
    from fedpkg.formats.model_file import read_seed_model
    from fedpkg.stores.models import ModelStore

    if Path(ref).is_file():
        return read_seed_model(Path(ref))
    wrong = ModelFileError(f"there is no file {ref}", hint="give a model file, or a model's id: fedpkg model list")
    if ref.endswith((".npz", ".safetensors", ".pt", ".pth")) or ref.startswith(("/", ".")):
        raise wrong
    with settings.reading() as (home, store):
        try:
            model = store.get_model(model_ref(store, ref))
        except NotFound as error:
            if "cluster" in error.fields or "/" not in ref:
                raise
            raise wrong from error
        return read_seed_model(ModelStore(home.models).verify_model(model))


def _check_target(target: Path, force: bool) -> str:
    """The suffix of a file to write, after a look at what is there."""
    from fedpkg.formats.base import SUFFIXES
    from fedpkg.formats.metadata import metadata_path

    if target.suffix not in SUFFIXES:
        raise ModelFileError(
            f"{target}: a model file's name ends in .npz or .safetensors", hint=f"for example -o {target.stem}.npz"
        )
    if target.is_dir():
        raise ModelFileError(f"{target} is a folder", hint="name a file")
    for path in (target, metadata_path(target)):
        if path.exists() and not force:
            raise ModelFileError(f"{path} exists already", hint="take another name, or --force to overwrite it")
    return target.suffix


def _write_as(suffix: str, source: Path, target: Path) -> None:
    """A model file in the format of this suffix: a copy, or written anew."""
    from fedpkg.formats.model_file import detect_form, read_model, write_model

    form = detect_form(source)
    if form.suffix == suffix:
        copy_whole(source, target)
    else:
        write_model(target, read_model(source), replace(form, suffix=suffix))  # type: ignore[arg-type]


def _put_beside(target: Path, metadata: Mapping[str, Json]) -> None:
    """Write a model's metadata, in the place of what belonged to another model of this name."""
    from fedpkg.formats.metadata import metadata_path, write_metadata

    try:
        if metadata:
            write_metadata(target, dict(metadata))
        else:
            metadata_path(target).unlink(missing_ok=True)
    except OSError as error:
        raise ModelFileError(f"{metadata_path(target)}: cannot be written: {error.strerror}") from error
