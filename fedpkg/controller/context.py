"""The context of a running session, created once."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from fedpkg.config import RunConfig
from fedpkg.controller.events import Watcher
from fedpkg.controller.metrics import Weight, common_weights, weight_by_rules_1, with_numbers
from fedpkg.controller.seeds import held_out_rng
from fedpkg.data.clients import client_groups
from fedpkg.data.entities import Entities, entities_of
from fedpkg.errors import StoreError
from fedpkg.formats.base import ModelForm
from fedpkg.formats.metadata import examples_said
from fedpkg.log import event
from fedpkg.samplers.cohort import CohortSampler
from fedpkg.samplers.held_out import held_out_clients
from fedpkg.shown import shown
from fedpkg.stores.base import ClientRow, SessionRow
from fedpkg.stores.models import ModelStore
from fedpkg.stores.sql import StateStore
from fedpkg.strategies.base import SteppingStrategy, Strategy
from fedpkg.strategies.traits import Traits, traits_of
from fedpkg.strategies.tree import TreeStrategy
from fedpkg.strategies.virtual_clock import VirtualClock
from fedpkg.types import Json
from fedpkg.waist.executor import Executor
from fedpkg.waist.order import Isolation, Limits
from fedpkg.waist.place import round_folder

if TYPE_CHECKING:
    from fedpkg.compute_package.spec import PackageSpec

logger = logging.getLogger("fedpkg.controller")
_TEXT_IS_NUMBERS = 4  # the first rules under which numbers in text are read as metrics


@dataclass(frozen=True)
class SessionContext:
    """All that a session's rounds need. ``folder`` is the session's folder; stored paths are relative to ``home``.

    ``said`` has the warnings that were given, to give each once. ``started`` is the token of the state from a
    ``startup`` for all clients.
    """

    session: SessionRow
    config: RunConfig
    folder: Path
    home: Path
    spec: PackageSpec
    limits: Limits
    isolation: Isolation | None
    form: ModelForm
    store: StateStore
    models: ModelStore
    executor: Executor
    strategy: Strategy | SteppingStrategy
    sampler: CohortSampler
    clock: Callable[[], float]  # seconds since the epoch
    watch: Watcher
    said: set[str] = field(default_factory=set)
    started: str | None = None

    @functools.cached_property
    def groups(self) -> Mapping[str, tuple[str, ...]]:
        """The configured groups of clients, without clients that are held out."""
        found = client_groups(self.config.clients, self.client_ids)
        return {name: tuple(one for one in ids if one not in self.held_out) for name, ids in found.items()}

    @functools.cached_property
    def members(self) -> Mapping[str, frozenset[str]]:
        """The same as sets, for looking up a client."""
        return {name: frozenset(ids) for name, ids in self.groups.items()}

    @functools.cached_property
    def entities(self) -> Entities | None:
        return entities_of(self.config.clients)

    @functools.cached_property
    def held_out(self) -> frozenset[str]:
        """Clients that never train."""
        rng, rules = held_out_rng(self.session.seed), self.session.rules
        return held_out_clients(self.sampler.held_out, self.client_ids, rng, rules=rules)

    @functools.cached_property
    def client_ids(self) -> list[str]:
        """In their order."""
        return [client.client_id for client in self.store.list_clients(self.session.session_id)]

    @functools.cached_property
    def virtual_clock(self) -> VirtualClock | None:
        clock = self.config.clock
        return (
            VirtualClock(clock.seconds, clock.spread, clock.jitter, clock.bytes_per_s, clock.links) if clock else None
        )

    @functools.cached_property
    def traits(self) -> Traits:
        return traits_of(self.strategy)

    @functools.cached_property
    def _arguments(self) -> Mapping[str, Mapping[str, Mapping[str, Json]]]:
        """By client, the arguments that the combiners above it set."""
        tree = self.strategy if isinstance(self.strategy, TreeStrategy) else None
        combiners = [] if tree is None else [one for one in tree.root.everyone() if one.arguments]
        return {client_id: one.arguments for one in combiners for client_id in one.clients}

    def arguments_of(self, client_id: str, entry_point: str) -> dict[str, Json]:
        """The arguments of a client's entry point that the tree of combiners sets beside the configuration's."""
        own = self._arguments.get(client_id, {})
        return {**own.get("all", {}), **own.get(entry_point, {})}

    @functools.cached_property
    def least_updates(self) -> int:
        """The least number of updates with which a round can succeed."""
        return max(self.config.round.required, self.traits.needs)

    def reported_weight(self, client: ClientRow, metrics: Json, metadata: Mapping[str, Json]) -> Weight:
        """The weight that a client reports for its metrics and its source; without one, the source is `equal`."""
        if self.session.rules == 1:
            is_equal = client.last_num_examples is not None and self.config.round.weighting == "equal"
            return weight_by_rules_1(metrics, metadata, 1.0 if is_equal else client.last_num_examples)
        number = examples_said(metrics, metadata)
        return (0.0, "equal") if number is None else (number, "reply")

    def measured(self, metrics: Json, who: str) -> Json:
        """A client's metrics; numbers that are written as text are converted, with one warning."""
        if self.session.rules < _TEXT_IS_NUMBERS:
            return metrics
        metrics, names = with_numbers(metrics)
        if names and "text" not in self.said:
            self.said.add("text")
            about = f"{who} writes {', '.join(map(shown, names))} as text; such text is read as numbers (logged once)"
            event(logger, logging.WARNING, "metrics.text", about=about)
        return metrics

    def weights_of_metrics(self, clients: Sequence[ClientRow], reported: Sequence[Weight]) -> list[Weight]:
        """The weights of these clients in one average, given the weights that they reported."""
        if self.session.rules == 1:
            return list(reported)
        numbers = [number if source == "reply" else None for number, source in reported]
        return common_weights(numbers, clients, weighting=self.config.round.weighting)

    def round_folder(self, round_number: int) -> Path:
        return round_folder(self.folder, round_number)

    def disk_is_full(self, what: str) -> StoreError:
        """The error for a full disk; the session stops, and can be resumed."""
        session_id = self.session.session_id
        return StoreError(
            f"the disk of the home {self.home} is full: {what}",
            hint=f"free space (`fedpkg home prune` helps), then `fedpkg session resume {session_id}`",
            session_id=session_id,
            path=str(self.home),
        )

    def check_states(self, clients: Iterable[ClientRow]) -> None:
        """Check that the state of every client is complete.

        Raises:
            StoreError: a state is missing or damaged. A client without it would start afresh; the models would differ.
        """
        session_id = self.session.session_id
        for client in clients:
            if client.state_version is None:
                continue
            if damage := self.executor.states.damage(session_id, client.client_id, client.state_version):
                raise StoreError(
                    f"the state of {client.client_id} {damage}",
                    hint="restore the folder from a copy of the home (`fedpkg home check` lists all that is missing), "
                    f"then `fedpkg session resume {session_id}`; without a copy, start a new run: the same "
                    "configuration and seed give the same models",
                    client_id=client.client_id,
                )
