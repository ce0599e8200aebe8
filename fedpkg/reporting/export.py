"""A session as a folder of plain files, which other programs read and which can be archived beside a paper."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from fedpkg.coordinators.saved import FOLDER, SAVED, saved_files
from fedpkg.errors import ConfigError
from fedpkg.files import copy_file, fsync_tree, remove_tree
from fedpkg.pictures.rows import csv_of
from fedpkg.reporting.provenance import STARTS, changes_of, read_starts
from fedpkg.reporting.report import Facts, report_page
from fedpkg.reporting.stored_config import without_secrets, yaml_of
from fedpkg.stores.models import ModelStore

if TYPE_CHECKING:
    from fedpkg.stores.base import MetricRow, ModelRow, RequestRow
    from fedpkg.stores.home import Home
    from fedpkg.stores.sql import StateStore

Models: TypeAlias = Literal["all", "last", "none"]
LOGS = ("stdout.log", "stderr.log")
_SPARE_BYTES = 100_000_000  # of the disk, which stay free


def export_session(home: Home, store: StateStore, facts: Facts, target: Path, *, models: Models = "all") -> list[str]:
    """Write the session to a new folder; returns the names of what is in it. The folder is complete or absent.

    Args:
        models: ``all`` copies every model file that is kept, ``last`` the newest one, and the current one of each
            cluster.

    Raises:
        ConfigError: the folder exists and is not empty, it cannot be written, or the disk cannot hold it.
    """
    of_clusters = [model for model in store.list_models(facts.session.session_id, cluster=None) if model.cluster]
    chosen = [*_chosen(facts.models, models), *_chosen_of_clusters(of_clusters, models)]
    logs = list(_logs(facts.folder))
    saved, names = saved_files(facts.folder)
    _check_target(target)
    _check_room(target, [model.size_bytes for _, model in chosen], [*logs, *(saved / name for name in names)])
    unfinished = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        unfinished.mkdir(parents=True)
        for name, text in _texts(store, facts):
            (unfinished / name).write_text(text, encoding="utf-8", errors="backslashreplace")
        _copy_starts(facts.folder, unfinished)
        for path in logs:
            _copy(path, unfinished / "logs" / path.relative_to(facts.folder))
        for name in names:
            _copy(saved / name, unfinished / SAVED / name)
        for name, model in chosen:
            _copy(ModelStore(home.models).path(model.digest, model.suffix), unfinished / "models" / name)
        fsync_tree(unfinished)
        if target.is_dir():
            target.rmdir()
        unfinished.rename(target)
    except OSError as error:
        at = f" ({error.filename})" if error.filename else ""
        raise ConfigError(f"{target} cannot be written: {error.strerror or error}{at}", path=str(target)) from error
    finally:
        if unfinished.is_dir():
            remove_tree(unfinished)
    return sorted(path.name + "/" * path.is_dir() for path in target.iterdir())


def _check_target(target: Path) -> None:
    if target.is_symlink() or (target.exists() and (not target.is_dir() or any(target.iterdir()))):
        raise ConfigError(f"{target} exists and is not an empty folder", hint="name a new folder", path=str(target))


def _check_room(target: Path, sizes: Sequence[int], files: Sequence[Path]) -> None:
    """Refuse what the disk cannot hold, before the first byte is written."""
    needed = sum(sizes) + sum(path.stat().st_size for path in files)
    above = next(parent for parent in target.absolute().parents if parent.is_dir())
    if needed + _SPARE_BYTES > (free := shutil.disk_usage(above).free):
        raise ConfigError(
            f"the export needs about {needed / 1e6:.0f} MB, and the disk of {above} has {free / 1e6:.0f} MB",
            hint="choose another folder, or leave out models with --models last or --models none",
        )


def _chosen(models: Sequence[ModelRow], which: Models) -> list[tuple[str, ModelRow]]:
    kept = [model for model in models if model.pruned is None]
    kept = {"all": kept, "last": kept[-1:], "none": []}[which]
    width = len(str(max((model.round_number for model in models), default=0)))
    return [(f"round-{model.round_number:0{width}d}{model.suffix}", model) for model in kept]


def _chosen_of_clusters(models: Sequence[ModelRow], which: Models) -> list[tuple[str, ModelRow]]:
    """Names by digest, as in models.jsonl: the path of a cluster may be no name of a file, and models may be equal."""
    kept = [model for model in models if model.pruned is None and (which == "all" or model.until_round is None)]
    return [] if which == "none" else list({f"clusters/{one.digest}{one.suffix}": one for one in kept}.items())


def _logs(folder: Path) -> Iterator[Path]:
    """The logs that are not empty: of tasks, below ``round-<n>/<client>/<entry point>``, and of a coordinator."""
    for path in sorted([*folder.glob("round-*/*/*/*.log"), *folder.glob(f"{FOLDER}/starts/*/*.log")]):
        if path.name.endswith(LOGS) and path.is_file() and not path.is_symlink() and path.stat().st_size:
            yield path


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    copy_file(source, target)
    target.chmod(0o644)  # in the home it is read-only


def _copy_starts(folder: Path, target: Path) -> None:
    """Versions and commits, and the uncommitted changes of each start."""
    if not (entries := read_starts(folder)):
        return
    (target / STARTS).write_text(json.dumps(entries, indent=1), encoding="utf-8")
    for entry in entries:
        if (changes := changes_of(folder, entry)) is not None:
            _copy(changes, target / changes.name)


def _texts(store: StateStore, facts: Facts) -> Iterator[tuple[str, str]]:
    """Names of files and their content."""
    session_id = facts.session.session_id
    yield "config.yaml", yaml_of(facts.session.config)
    about = {**asdict(facts.session), "config": without_secrets(facts.session.config), "status": facts.status}
    yield "session.json", json.dumps(_plain(about), indent=1, ensure_ascii=False)
    metrics = [_flat(measure) for rounds in facts.measured.metrics.values() for measure in rounds.values()]
    metrics.sort(key=lambda line: line["round"])
    clusters = store.list_metric_rows(session_id, cluster=None)
    metrics += [_flat(row) for row in clusters if row.cluster]
    yield "metric_rows.jsonl", json_lines(metrics)
    yield "metric_rows.csv", csv_text(metrics)
    yield "rounds.csv", csv_text(list(_round_lines(facts)))
    validations = [asdict(row) for row in store.list_validations(session_id)]
    yield "validations.jsonl", json_lines(validations)
    yield "failures.jsonl", json_lines([asdict(task) for task in facts.failed])
    yield "clients.jsonl", json_lines([asdict(client) for client in facts.clients])
    models = store.list_models(session_id, cluster=None)
    yield "models.jsonl", json_lines([asdict(model) for model in models])
    if len(models) > len(facts.models):
        yield "cluster_clients.jsonl", json_lines([asdict(row) for row in store.list_cluster_changes(session_id)])
    if combiners := store.list_combiners(session_id):
        yield "combiners.jsonl", json_lines([asdict(row) for row in combiners])
    yield "report.html", report_page(facts)


def _flat(row: MetricRow) -> dict[str, Any]:
    """The aggregates of a metric in columns of numbers and words."""
    line = asdict(row)
    del line["session_id"]
    number, clients, deciles = line.pop("round_number"), line.pop("num_clients"), line.pop("deciles") or [None] * 9
    told = {f"decile_{k}": value for k, value in enumerate(deciles, start=1)}
    return {"round": number, **line, "num_clients": clients, **told}


def _round_lines(facts: Facts) -> Iterator[dict[str, Any]]:
    by_round: dict[int, list[RequestRow]] = {}
    for request in facts.requests:
        by_round.setdefault(request.round_number, []).append(request)
    for row in facts.rounds:
        asked = by_round.get(row.round_number, [])
        yield {
            "round": row.round_number, "status": row.status, "started_at": row.started_at, "seconds": row.wall_s,
            "ok": row.num_ok, "failed": row.num_failed, "num_examples": row.num_examples,
            "calls": sum(len(request.cohort) for request in asked),
            "bytes_down": sum(request.bytes_down for request in asked),
            "bytes_up": sum(request.bytes_up for request in asked), "model_id": row.model_id,
        }  # fmt: skip


def json_lines(rows: Iterable[Mapping[str, Any]]) -> str:
    """One JSON object on each line; numbers that are not finite are null."""
    return "".join(f"{json.dumps(_plain(row), ensure_ascii=False)}\n" for row in rows)


def csv_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows with the keys of the first as header. A text that a spreadsheet would compute begins with an apostrophe."""
    return csv_of(list(rows[0]), ([row.get(name) for name in rows[0]] for row in rows)) if rows else ""


def _plain(value: Any) -> Any:
    """JSON has no NaN: null stands for what is not finite."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(key): _plain(part) for key, part in value.items()}
    return [_plain(part) for part in value] if isinstance(value, (list, tuple)) else value
