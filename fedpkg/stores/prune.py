"""What may be removed from a home: files outside a keep rule, and leftovers of interrupted work."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from fedpkg.config import KeepRule
from fedpkg.files import remove_tree
from fedpkg.log import event
from fedpkg.stores.base import OUTSTANDING, UNFINISHED, ModelRow
from fedpkg.stores.home import Home
from fedpkg.stores.models import ModelStore
from fedpkg.stores.sql import StateStore
from fedpkg.waist.place import REPLY, round_of

logger = logging.getLogger("fedpkg.stores")
_MODEL_NAME = re.compile(r"([0-9a-f]{64})(\.[^/]+)")


@dataclass(frozen=True)
class Removal:
    """A file or folder that may be removed, and why. With ``contents``, the folder itself is kept, empty."""

    path: Path
    size_bytes: int
    why: str
    contents: bool = False


def rounds_done(store: StateStore, session_id: str) -> int:
    """The last round of a session up to which all are finished; these rounds never run again."""
    done = store.count_rounds(session_id)
    for row in store.list_rounds(session_id, status=UNFINISHED, limit=1):
        done = row.round_number - 1
    return min([done, *(number - 1 for number, _ in outstanding_requests(store, session_id))])


def outstanding_requests(store: StateStore, session_id: str) -> set[tuple[int, str]]:
    """The requests, by round and id, that are outstanding after the last committed round."""
    saved = store.load_strategy_state(session_id)
    return {(one["round"], one["id"]) for one in saved[1].get(OUTSTANDING, ())} if saved else set()


def due_models(store: StateStore, session_id: str, rule: str, *, done: int, best: int | None = None) -> list[ModelRow]:
    """Rows of a session's models that ``rule`` does not keep, marked as pruned.

    The seed model, the one of round ``best``, models from round ``done`` on, and models named in a strategy's state are
    always kept. A cluster's model is kept if it was its cluster's after a round whose models are kept.
    """
    keep = _parse(rule)
    if keep.kind == "all":
        return []
    due = []
    for model in store.list_kept_models(session_id=session_id):
        first = model.round_number
        end = model.until_round if model.cluster else first + 1  # it is the model after the rounds before this one
        if first > 0 and end is not None and end <= done:
            is_best = best is not None and first <= best < end
            if not is_best and not keep.keeps_any(first, end, done=done):
                due.append(replace(model, pruned=rule))
    named = store.state_digests() if due else set()
    return [model for model in due if model.digest not in named]


def prune_models(store: StateStore, models: ModelStore, due: list[ModelRow], *, dry_run: bool = False) -> list[Removal]:
    """Mark models as pruned, then remove their files, except those that other models need; return what was removed."""
    if not due:
        return []
    if not dry_run:
        store.set_pruned(due)
    ids = {model.model_id for model in due}
    going: dict[Path, Removal] = {}
    for model in due:
        path = models.path(model.digest, model.suffix)
        others = (other for other in store.list_kept_models(digest=model.digest) if other.model_id not in ids)
        if path.exists() and next(others, None) is None:
            going[path] = Removal(path, size_of(path), f"models: keep {model.pruned}")
    return remove(going.values(), dry_run=dry_run)


def remove_weights(store: StateStore, models: ModelStore, digests: Iterable[str]) -> None:
    """Remove files of weights that were named in strategies' states, and are in no model and no state now."""
    needed: set[str] | None = None
    for digest in sorted(digests):
        needed = store.state_digests() if needed is None else needed
        if digest not in needed and not store.list_kept_models(digest=digest):
            paths = (models.folder / digest[:2]).glob(f"{digest}.*")
            remove([Removal(path, size_of(path), "of an earlier state") for path in paths])


def due_task_folders(folder: Path, rule: str, *, done: int, keep_updates: bool) -> list[Removal]:
    """Folders of a session's finished rounds that ``rule`` does not keep. Kept updates in them are not removed."""
    keep = _parse(rule)
    if keep.kind == "all":
        return []
    due = []
    for of_round in entries(folder):
        number = round_of(of_round.name)
        if number is None or number > done or keep.keeps(number, done=done):
            continue
        paths = [of_round]
        if keep_updates and not of_round.is_symlink():
            clients = [client for client in entries(of_round) if not client.is_symlink()]
            paths = [path for client in clients for path in entries(client) if path.suffix != REPLY]
        due += [Removal(path, size_of(path), f"task folders: keep {rule}") for path in paths]
    return due


def half_unpacked(home: Home) -> Iterator[Removal]:
    """Partly unpacked packages in the cache, whose unpacking was interrupted."""
    for path in sorted(home.packages.glob(".unpack-*")):
        yield Removal(path, size_of(path), "half written")


def dataset_copies(paths: Iterable[Path]) -> Iterator[Removal]:
    """Copies of datasets that are not needed."""
    for path in paths:
        yield Removal(path, size_of(path), "a copy of a dataset to which no split refers")


def unneeded_models(home: Home, store: StateStore, *, pruned: bool) -> Iterator[Removal]:
    """Model files that are not needed: of pruned models, or never named in any row."""
    needed = {model.digest for model in store.list_kept_models()} | store.state_digests()
    known = {model.digest for model in store.list_models(cluster=None)}
    for path in model_files(home):
        digest = path.name[:64]
        if digest not in needed and (digest in known) == pruned:
            yield Removal(path, size_of(path), "of a pruned model" if pruned else "a model file that no row names")


def packages(home: Home) -> Iterator[Path]:
    """Folders in the cache of unpacked compute packages, each named by its archive's digest."""
    yield from (path for path in entries(home.packages) if re.fullmatch("[0-9a-f]{64}", path.name))


def unneeded_packages(home: Home, store: StateStore) -> Iterator[Removal]:
    """Unpacked packages that no session has used."""
    used = {session.package_digest for session in store.list_sessions()}
    for path in packages(home):
        if path.name not in used:
            yield Removal(path, size_of(path), "an unpacked package that no session uses")


def model_files(home: Home) -> Iterator[Path]:
    """All files with the name of a model file."""
    for folder in entries(home.models):
        if re.fullmatch("[0-9a-f]{2}", folder.name):
            yield from (path for path in entries(folder) if _MODEL_NAME.fullmatch(path.name))


def remove(removals: Iterable[Removal], *, dry_run: bool = False) -> list[Removal]:
    """Remove files and folders; return what was removed. A failure is only logged, because a leftover does no harm."""
    gone = []
    for removal in removals:
        try:
            if not dry_run:
                for path in entries(removal.path) if removal.contents else (removal.path,):
                    remove_tree(path)
        except (OSError, RecursionError) as error:
            event(logger, logging.WARNING, "prune.failed", path=removal.path, error=error)
        else:
            gone.append(removal)
    return gone


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files below a folder; files that vanish meanwhile or cannot be read count as 0."""
    size_bytes, left = 0, [str(path)]
    while left:  # no recursion: clients may nest folders as deep as they like
        here = left.pop()
        try:
            if os.path.islink(here) or not os.path.isdir(here):
                size_bytes += os.lstat(here).st_size
            else:
                with os.scandir(here) as entries:
                    left += [entry.path for entry in entries]
        except OSError:
            continue
    return size_bytes


def entries(folder: Path) -> list[Path]:
    """The sorted entries of a folder; none if it does not exist."""
    try:
        return sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def _parse(rule: str) -> KeepRule:
    keep = KeepRule.parse(rule)
    if keep is None:
        raise ValueError(f"{rule!r} is not a rule")
    return keep
