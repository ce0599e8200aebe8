"""What a session needs to run, put together once; and the tasks that are made of it."""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from fedpkg.config import RunConfig
from fedpkg.controller.events import Watcher
from fedpkg.controller.metrics import Weight, common_weights, reported_examples, weight_by_rules_1
from fedpkg.controller.seeds import held_out_rng, task_seed
from fedpkg.data.clients import client_groups
from fedpkg.dispatch.base import Executor, Isolation, Limits, PackageOnDisk, Task
from fedpkg.dispatch.isolation import isolation_of
from fedpkg.dispatch.limits import limits_of
from fedpkg.errors import StoreError
from fedpkg.files import fsync_folder, fsync_tree, remove_tree
from fedpkg.formats.base import ModelForm
from fedpkg.log import event
from fedpkg.samplers.cohort import CohortSampler
from fedpkg.samplers.held_out import held_out_clients
from fedpkg.stores.base import ClientRow, SessionRow, StateStore, TaskRow
from fedpkg.stores.models import ModelStore
from fedpkg.strategies.base import SteppingStrategy, Strategy
from fedpkg.strategies.traits import Traits, traits_of
from fedpkg.strategies.virtual_clock import VirtualClock
from fedpkg.types import Json, ReplyKind, Use

if TYPE_CHECKING:
    from fedpkg.transforms.chain import Chain
    from fedpkg.weights.weights import Weights

logger = logging.getLogger("fedpkg.controller")


@dataclass(frozen=True)
class SessionContext:
    """Everything a session's rounds are run with. ``folder`` is the session's own, stored paths start at ``home``.

    ``said`` has the warnings that are given once.
    """

    session: SessionRow
    config: RunConfig
    folder: Path
    home: Path
    package: PackageOnDisk
    form: ModelForm
    store: StateStore
    models: ModelStore
    executor: Executor
    strategy: Strategy | SteppingStrategy
    sampler: CohortSampler
    clock: Callable[[], float]  # seconds since the epoch
    watch: Watcher
    said: set[str] = field(default_factory=set)

    @functools.cached_property
    def limits(self) -> Limits:
        """What each task may use; worked out once, as the machine's files tell it."""
        return limits_of(self.config.limits)

    @functools.cached_property
    def groups(self) -> Mapping[str, tuple[str, ...]]:
        """The groups of clients that the configuration names, without those held out."""
        found = client_groups(self.config.clients, self._client_ids)
        return {name: tuple(one for one in ids if one not in self.held_out) for name, ids in found.items()}

    @functools.cached_property
    def held_out(self) -> frozenset[str]:
        """Clients that never train."""
        rng, rules = held_out_rng(self.session.seed), self.session.rules
        return held_out_clients(self.sampler.held_out, self._client_ids, rng, rules=rules)

    @functools.cached_property
    def _client_ids(self) -> list[str]:
        return [client.client_id for client in self.store.list_clients(self.session.session_id)]

    @functools.cached_property
    def virtual_clock(self) -> VirtualClock | None:
        clock = self.config.clock
        return VirtualClock(clock.seconds, clock.spread, clock.jitter, clock.bytes_per_s) if clock else None

    @functools.cached_property
    def traits(self) -> Traits:
        return traits_of(self.strategy)

    @functools.cached_property
    def least_updates(self) -> int:
        """Fewer are of no use to a round."""
        return max(self.config.round.required, self.traits.needs)

    def reported_weight(self, client: ClientRow, metrics: Json, metadata: Mapping[str, Json]) -> Weight:
        """What a client's metrics say that they weigh; `equal` where they do not say it."""
        if self.session.rules == 1:
            is_equal = client.last_num_examples is not None and self.config.round.weighting == "equal"
            return weight_by_rules_1(metrics, metadata, 1.0 if is_equal else client.last_num_examples)
        number = reported_examples(metrics, metadata)
        return (0.0, "equal") if number is None else (number, "reply")

    def weights_of_metrics(self, clients: Sequence[ClientRow], reported: Sequence[Weight]) -> list[Weight]:
        """What these clients weigh in one average, given what each reported."""
        if self.session.rules == 1:
            return list(reported)
        numbers = [number if source == "reply" else None for number, source in reported]
        return common_weights(numbers, clients, weighting=self.config.round.weighting)

    @functools.cached_property
    def isolation(self) -> Isolation | None:
        return isolation_of(self.config)

    def client_folder(self, client_id: str) -> Path:
        """Where the versions of a client's working copy and state are."""
        return self.folder / "clients" / client_id

    def state_of(self, client_id: str, version: str | None) -> Path | None:
        """The folder of a version of a client's state; None: the client starts from the package.

        Raises:
            StoreError: it is missing. Without it the client would start anew, and the models would be other ones.
        """
        if version is None:
            return None
        folder = self.client_folder(client_id) / version
        if not folder.is_dir():
            raise StoreError(
                f"the state of {client_id} is missing: {folder}",
                hint="put the folder back from a copy of the home (`fedpkg home check` lists all that is missing), "
                f"then `fedpkg session resume {self.session.session_id}`; without a copy, start a new run: the same "
                "configuration and seed give the same models",
                client_id=client_id,
                path=str(folder),
            )
        return folder

    def round_folder(self, round_number: int) -> Path:
        return self.folder / f"round-{round_number}"

    def reply_folder(self, task: TaskRow) -> Path:
        """Where the reply of a recorded task is kept."""
        return self.home / f"{task.folder}.reply"

    def task(
        self,
        client: ClientRow,
        *,
        round_number: int,
        position: int,
        num_clients: int,
        entry_point: str,
        reply_kind: ReplyKind,
        model: Path | None,
        template: Weights | None = None,
        input_sets: tuple[str, ...] = (),
        sets: Mapping[str, Weights | None] | None = None,
        parameters: dict[str, Json] | None = None,
        content: str = "weights",
        transforms: Chain | None = None,
        sent_bytes: int | None = None,
        use: Use = "averaged",
        request_id: str | None = None,
        request_number: int = 1,
        attempt: int = 1,
        is_first: bool = True,
    ) -> Task:
        """A new call of one client's entry point; it gets folders that no earlier one of the round has used.

        Args:
            attempt: the first number that may be free.
            is_first: in this round, so it may be the client's first of all.
        """
        while True:
            folder = self.round_folder(round_number) / client.client_id / _attempt(entry_point, attempt)
            next_state = self.client_folder(client.client_id) / f"{round_number}-{_attempt(entry_point, attempt)}"
            # A version without such a folder was left by a controller that was killed before it made the folder.
            if not folder.exists() and remove_version(next_state):
                break
            attempt += 1
        config = self.config
        data_path = None if client.data_path is None else self.home / client.data_path
        return Task(
            task_id=f"{self.session.session_id}/{round_number}/{client.client_id}/{_attempt(entry_point, attempt)}",
            session_id=self.session.session_id,
            round_number=round_number,
            client_id=client.client_id,
            entry_point=entry_point,
            package=self.package,
            reply_kind=reply_kind,
            folder=folder,
            next_state=next_state,
            state=self.state_of(client.client_id, client.state_version),
            attempt=attempt,
            position=position,
            partition_id=client.position,
            num_partitions=num_clients,
            model=model,
            suffix=self.form.suffix,
            template=template,
            weighted=self.session.rules > 1
            if reply_kind is ReplyKind.METRICS
            else config.round.weighting == "examples",
            input_sets=input_sets,
            sets=sets or {},
            starts_up=is_first and client.state_version is None and client.last_num_examples is None,
            data_path=data_path,
            links={} if data_path is None else {name: data_path / to for name, to in config.clients.links.items()},
            content=content,
            transforms=transforms,
            sent_bytes=sent_bytes,
            use=use if self.session.rules >= 2 else "former",
            request_id=request_id,
            seed=task_seed(self.session.seed, round_number, client.client_id, request_number),
            arguments={**config.arguments.get("all", {}), **config.arguments.get(entry_point, {})},
            parameters=parameters or {},
            run_config=config.run_config,
            environment=config.environment,
            threads=config.executor.threads,
            timeout_s=config.executor.timeout_s,
            limits=self.limits,
            isolation=self.isolation,
            log_bytes=config.limits.log_bytes,
            reply_bytes=config.limits.reply_bytes,
        )

    def save_states(self, clients: Mapping[str, str | None]) -> None:
        """Have these versions of clients' states survive a power cut, before the store names them."""
        saved = [
            self.client_folder(client_id) / version for client_id, version in clients.items() if version is not None
        ]
        for folder in saved:
            fsync_tree(folder)
            fsync_folder(folder.parent)
        for folder in [self.folder / "clients", self.folder, self.folder.parent] if saved else ():
            fsync_folder(folder)

    def forget_states(self, clients: Mapping[str, str | None]) -> None:
        """Remove every version of these clients' folders but the named one, which the store says is current."""
        for client_id, current in clients.items():
            folder = self.client_folder(client_id)
            if folder.is_dir():
                for version in folder.iterdir():
                    if version.name != current:
                        remove_version(version)


def remove_version(version: Path) -> bool:
    """Remove a version of a client's state that no row names; False if its place cannot be used again.

    Where the client has made its removal impossible, it stays, and `fedpkg home check` lists it.
    """
    try:
        remove_tree(version)
    except OSError as error:
        event(logger, logging.WARNING, "state.left", path=version, error=error)
        return not os.path.lexists(version)  # its folder may be what cannot be read: another name would not help
    return True


def _attempt(entry_point: str, attempt: int) -> str:
    return entry_point if attempt == 1 else f"{entry_point}-{attempt}"
