"""Estimate the disk space and the time of sessions before they start, and refuse those that the disk cannot hold."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fedpkg.config import KeepRule, RunConfig
from fedpkg.errors import StoreError

if TYPE_CHECKING:
    from fedpkg.stores.home import Home
    from fedpkg.stores.sql import StateStore

# Measured with examples/digits (task.json, two logs and their folders; the rows of a task in the database).
TASK_FOLDER_BYTES = 14_000
TASK_ROW_BYTES = 1_800
UNCHECKED_BYTES = 100_000_000  # less is not checked: the estimate is rough
LARGE_CLIENTS = 10_000
_LARGE_TASKS = 10_000
_LARGE_BYTES = 1_000_000_000
_FORMER_SESSIONS = 20  # that are searched for one with the same package


@dataclass(frozen=True)
class Estimate:
    """What sessions need.

    Args:
        disk_bytes: the most at one time, without what the clients' programs keep in their state.
        num_tasks: calls of entry points.
        seconds: None: nothing is known about the time.
        has_models: whether the size of the model was known.
    """

    disk_bytes: int
    num_tasks: int
    seconds: float | None = None
    has_models: bool = True

    @property
    def is_large(self) -> bool:
        """Whether it is worth a line before the start."""
        return self.num_tasks >= _LARGE_TASKS or self.disk_bytes >= _LARGE_BYTES

    def __str__(self) -> str:
        units = ((1e12, "TB"), (1e9, "GB"))
        large = (f"{self.disk_bytes / unit:,.1f} {name}" for unit, name in units if self.disk_bytes >= unit)
        size = next(large, f"{max(1.0, self.disk_bytes / 1e6):.0f} MB")
        models = "" if self.has_models else " without the models, whose size is not known yet"
        time = "; how long they take is known after the first round"
        if self.seconds is not None:
            minutes = self.seconds / 60
            amount = f"{minutes / 60:.1f} hours" if minutes > 90 else f"{minutes:.0f} minutes"
            amount = f"{minutes / 1440:,.0f} days" if minutes > 3 * 1440 else amount
            time = f" and {amount if minutes >= 1.5 else f'{self.seconds:.0f} seconds'}"
        return f"{self.num_tasks:,} task{'s' * (self.num_tasks != 1)}: about {size} of disk{models}{time}"


@dataclass(frozen=True)
class Known:
    """What former sessions tell: the size of the model, and the seconds of a task with all that surrounds it."""

    model_bytes: int | None = None
    task_s: float | None = None


def known_of(config: RunConfig, store: StateStore | None) -> Known:
    """What is known before a session has started: from its seed model, and the newest session with its package."""
    model_bytes = None
    if config.seed_model is not None and Path(config.seed_model).is_file():
        model_bytes = Path(config.seed_model).stat().st_size
    if store is None:
        return Known(model_bytes)
    for session in store.list_sessions(newest_first=True, limit=_FORMER_SESSIONS):
        rounds = [row for row in store.list_rounds(session.session_id, status="finished") if row.wall_s is not None]
        if session.config.get("package") != config.package or not rounds:
            continue
        models = store.list_models(session.session_id, limit=1)
        if model_bytes is None and models:
            model_bytes = models[0].size_bytes
        asked = sum(row.num_ok + row.num_failed for row in rounds)
        return Known(model_bytes, sum(row.wall_s or 0.0 for row in rounds) / asked if asked else None)
    return Known(model_bytes)


def estimate(config: RunConfig, known: Known, *, num_clients: int | None = None) -> Estimate:
    """The estimate for one session.

    Args:
        num_clients: the number of clients, if it is known; else it is that of the configuration, or 1.
    """
    from fedpkg.samplers import make_sampler

    clients = num_clients or config.clients.count or 1
    names = [str(number) for number in range(clients)]
    groups = dict.fromkeys(config.clients.groups, names)  # how many are in each is known later
    cohort = make_sampler(config.sampler).most(names, groups, names)
    validating = _validating(config, clients)
    rounds = config.rounds or 1  # as far as is known
    tasks = rounds * cohort + validating * _times_validated(config)
    a_round = cohort + validating
    model_bytes = known.model_bytes or 0
    kept_folders = _kept(config.keep.task_folders, rounds)
    models = _kept(config.keep.models, rounds) + 4  # the seed model, the newest, two states of the strategy
    replies = cohort * (rounds if config.keep.updates else 1)
    disk = (models + replies) * model_bytes + tasks * TASK_ROW_BYTES + kept_folders * a_round * TASK_FOLDER_BYTES
    seconds = None if known.task_s is None else known.task_s * rounds * cohort
    return Estimate(disk, tasks, seconds, has_models=known.model_bytes is not None)


def total(estimates: Sequence[Estimate]) -> Estimate:
    """The estimate for several sessions in one home. Their times add up also side by side: they share the slots."""
    times = [one.seconds for one in estimates]
    return Estimate(
        sum(one.disk_bytes for one in estimates),
        sum(one.num_tasks for one in estimates),
        None if None in times else sum(one or 0.0 for one in times),
        has_models=all(one.has_models for one in estimates),
    )


def check_disk(home: Home, needed: Estimate, what: str) -> None:
    """Check that the disk of the home holds what is needed.

    Raises:
        StoreError: it does not. Less than 100 MB are never refused.
    """
    free = shutil.disk_usage(home.root).free
    if needed.disk_bytes > max(free, UNCHECKED_BYTES):
        raise StoreError(
            f"{what} has {needed}, and {home.root} has {free / 1e9:.1f} GB left",
            hint="keep less (keep.models: last 1, keep.task_folders: last 1, keep.updates: false), free space "
            "(`fedpkg home prune`), or use another --home",
            path=str(home.root),
            disk_bytes=needed.disk_bytes,
            free_bytes=free,
        )


def _kept(rule: str, rounds: int) -> int:
    keep = KeepRule.parse(rule)
    if keep is None or keep.kind == "all":
        return rounds
    return min(rounds, keep.number + 1) if keep.kind == "last" else rounds // keep.number + 1


def _times_validated(config: RunConfig) -> int:
    every = config.validation.every
    return 0 if every == 0 else -(-(config.rounds or 1) // every)


def _validating(config: RunConfig, clients: int) -> int:
    if config.validation.every == 0:
        return 0
    return min(clients, config.validation.count or max(1, round(config.validation.fraction * clients)))
