"""Choose a round's clients with the session's sampler, from the store as the round starts. No state is kept here."""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np

from fedpkg.controller.context import SessionContext
from fedpkg.controller.seeds import step_rng
from fedpkg.errors import NotFound, SessionFailed
from fedpkg.samplers.base import Candidates, History, Sample
from fedpkg.shares import share_of
from fedpkg.stores.base import ClientRow
from fedpkg.strategies.base import Chosen, NobodyToAsk, Payload, sets_of

VIRTUAL_TIME = "virtual_time"  # key in a round's phases: virtual seconds from the session's start to the round's end


def drop_outs(ctx: SessionContext, round_number: int, times_before: int) -> frozenset[str]:
    """Clients that drop out of a round if its sampler chooses them.

    ``times_before``: number of dropouts in earlier attempts at the round.
    """
    draws = step_rng(ctx.session.seed, round_number, f"dropout-{times_before}").random(len(ctx.client_ids))
    return frozenset(ctx.client_ids[i] for i in (draws < ctx.sampler.dropout).nonzero()[0].tolist())


class Choosing:
    """The random draws of one round. They depend on the session's seed, the round, and the committed rounds.

    Args:
        busy: clients that the sampler skips, because they have not answered an outstanding request yet.

    Attributes:
        may_train: all clients except those held out, in their order.
        sampled: clients that the sampler has chosen so far in this round.
    """

    def __init__(
        self,
        ctx: SessionContext,
        round_number: int,
        clients: Sequence[ClientRow],
        *,
        busy: Callable[[], Collection[str]] = frozenset,
    ) -> None:
        self.ctx = ctx
        self._busy = busy
        self.round_number = round_number
        self._clients = clients
        self.may_train = [client for client in clients if client.client_id not in ctx.held_out]
        ids = ctx.traits.sampled((client.client_id for client in self.may_train), ctx.groups)
        of = set(ids) if len(ids) < len(self.may_train) else None
        self._may_be_drawn = [client for client in self.may_train if of is None or client.client_id in of]
        self.sampled: Counter[str] = Counter()
        self._samples = 0

    def sample(self) -> Sample:
        """A cohort from the session's sampler; each call draws another one.

        Raises:
            NobodyToAsk: it has fewer clients than the round requires, and its strategy cannot continue without.
        """
        purpose = "sample" if self._samples == 0 else f"sample-{self._samples}"
        self._samples += 1
        ctx, sampler = self.ctx, self.ctx.sampler
        there, busy = None, self._busy()
        if sampler.availability is not None or busy:
            ids = frozenset(client.client_id for client in self._clients)
            ids = (ids if sampler.availability is None else self._there) - frozenset(busy)
            there = [i for i, client in enumerate(self._may_be_drawn) if client.client_id in ids]
        sample = sampler.sample(self._candidates(), self._rng(purpose), there=there)
        if len(sample.clients) < ctx.least_updates and not ctx.traits.takes_empty_rounds:
            if sampler.availability is not None and self._time_of_enough is None:
                raise SessionFailed(
                    f"round {self.round_number}: from second {self._time_before:g} of the virtual clock on, "
                    f"{ctx.least_updates} clients that the sampler could ask are never available at the same time",
                    hint="start a new run with longer intervals in sampler.availability.trace, or a lower "
                    "round.required",
                    round_number=self.round_number,
                )
            if busy and self._is_short_of(busy):
                raise SessionFailed(
                    f"round {self.round_number}: the sampler found {len(sample.clients)} clients, {ctx.least_updates} "
                    f"are required; {len(busy)} clients have outstanding requests",
                    hint="yield Arrived() before the step asks for more clients than are idle",
                    round_number=self.round_number,
                )
            raise NobodyToAsk(f"the sampler found {len(sample.clients)} clients, {ctx.least_updates} are required")
        self.sampled.update(sample.clients)
        return sample

    def among(self, sampler: Any, client_ids: Sequence[str], purpose: str) -> Chosen:
        """The clients that a combiner of a tree asks, of these; with the session's sampler if it has none of its own.

        ``purpose``: keys the draws; empty: those that the session's sampler makes first.
        """
        of, chosen = set(client_ids), sampler or self.ctx.sampler
        ids = [i for i, client in enumerate(self._may_be_drawn) if client.client_id in of]
        candidates = self._candidates()
        candidates = candidates if len(ids) == len(candidates) else candidates.only(ids)
        there = None
        if self.ctx.sampler.availability is not None:
            there = [i for i, name in enumerate(candidates.client_ids) if name in self._there]
        sample = chosen.sample(candidates, self._rng(f"sample{purpose}"), there=there)
        chooses_for_all = len(ids) == len(self._may_be_drawn)  # else combiners below choose for the others
        if not purpose and chooses_for_all and not sample.clients:
            raise NobodyToAsk("the sampler found no clients")
        self.sampled.update(sample.clients)
        return Chosen(sample.clients, sample.target)

    def _is_short_of(self, busy: Collection[str]) -> bool:
        """Whether the sampler could find enough clients with these idle, and cannot without them."""
        ids = [client.client_id for client in self._may_be_drawn]
        there = ids if self.ctx.sampler.availability is None else [name for name in ids if name in self._there]
        idle = [name for name in there if name not in busy]
        most = functools.partial(self.ctx.sampler.most, ids, self.ctx.groups)
        return most(idle) < self.ctx.least_updates <= most(there)

    def durations(self, cohort: Sequence[str], payload: Payload, number: int) -> list[float] | None:
        """Durations of a request's tasks in virtual seconds; None without a virtual clock."""
        clock = self.ctx.virtual_clock
        if clock is None:
            return None
        num_bytes = sum(one.num_bytes for one in sets_of(payload).values())
        draws = self._rng(f"clock-{number}").standard_normal(len(cohort)).tolist()
        return [
            clock.duration(client_id, num_bytes=num_bytes, draw=draw)
            for client_id, draw in zip(cohort, draws, strict=True)
        ]

    def to_validate(self) -> list[ClientRow]:
        """The clients that validate the round's model: training ones and held-out ones, as set in ``validation``."""
        config, is_former = self.ctx.config.validation, self.ctx.session.rules < 2
        held_out = [client for client in self._clients if client.client_id in self.ctx.held_out]
        chosen: set[str] = set()
        for purpose, clients in (("validate", self.may_train), ("validate-held-out", held_out)):
            count = config.count
            if count is None:
                total = len(clients)
                count = max(1, math.ceil(config.fraction * total) if is_former else share_of(config.fraction, total))
            if self.ctx.sampler.availability is not None:
                clients = [client for client in clients if client.client_id in self._there]
            if count < len(clients):
                places = self._rng(purpose).choice(len(clients), size=count, replace=False)
                clients = [clients[i] for i in sorted(places.tolist())]
            chosen.update(client.client_id for client in clients)
        return [client for client in self._clients if client.client_id in chosen]

    @functools.cached_property
    def time_s(self) -> float:
        """Virtual seconds since the session began. The round waits until enough clients are available."""
        return self._time_before if self._time_of_enough is None else self._time_of_enough

    @functools.cached_property
    def _time_of_enough(self) -> float | None:
        """The time when the round can begin; None: never, according to the trace."""
        ctx, now = self.ctx, self._time_before
        availability = ctx.sampler.availability
        if availability is None or availability.trace is None or not availability.goes_by_time:
            return now
        ids = [client.client_id for client in self._may_be_drawn]
        needed = 1 if ctx.traits.takes_empty_rounds else ctx.least_updates

        def is_enough(there: list[str]) -> bool:
            return ctx.sampler.most(ids, ctx.groups, there) >= needed

        return availability.trace.next_time(ids, now, is_enough)

    @functools.cached_property
    def _time_before(self) -> float:
        if self.ctx.virtual_clock is None:
            return 0.0
        try:
            return self.ctx.store.get_round(self.ctx.session.session_id, self.round_number - 1).phases[VIRTUAL_TIME]
        except (NotFound, KeyError):
            return 0.0

    @functools.cached_property
    def _there(self) -> frozenset[str]:
        """The clients that are available in this round."""
        availability, ids = self.ctx.sampler.availability, [client.client_id for client in self._clients]
        assert availability is not None
        now = self.time_s if availability.goes_by_time else self.round_number
        return frozenset(ids[i] for i in availability.places(ids, now, self._rng("availability")))

    def _candidates(self) -> Candidates:
        clock = self.ctx.virtual_clock
        return Candidates(
            tuple(client.client_id for client in self._may_be_drawn),
            self.round_number,
            tuple(client.known_examples for client in self._may_be_drawn),
            self.ctx.groups,
            self._history,
            None if clock is None else clock.duration,
        )

    def _history(self) -> Mapping[str, History]:
        """The history of clients, including requests of this round, so that a second cohort differs from the first."""
        found = {
            row.client_id: History(
                row.times_asked + self.sampled[row.client_id],
                row.times_counted,
                row.last_asked,
                row.last_counted,
                {**row.validation_metrics, **row.train_metrics},
            )
            for row in self.ctx.store.list_client_history(self.ctx.session.session_id)
        }
        for client_id, times in self.sampled.items():
            found.setdefault(client_id, History(times_asked=times))
        return found

    def _rng(self, purpose: str) -> np.random.Generator:
        return step_rng(self.ctx.session.seed, self.round_number, purpose)
