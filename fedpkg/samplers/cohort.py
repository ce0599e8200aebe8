"""The cohort of a round: its size, the available clients, their groups, and the choice of the sampler."""

from __future__ import annotations

import operator
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fedpkg.errors import ConfigError, nearest
from fedpkg.samplers.availability import Availability
from fedpkg.samplers.base import Candidates, Sample, Sampler, SamplerOfAnySize, scheme_of
from fedpkg.samplers.held_out import HeldOut
from fedpkg.samplers.size import Size
from fedpkg.types import Sampling, Scheme

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class CohortSampler:
    """A sampler with the options that all samplers have. It keeps no state from round to round.

    If the cohort has all available clients, nothing is drawn, and ``rng`` is left as it was.

    Args:
        groups: the number of clients of each group, instead of ``size``. A client in several groups counts for the
            first.
        dropout: the probability that a client that was asked does not answer.
        held_out: the clients that never train.
    """

    sampler: Sampler | SamplerOfAnySize
    size: Size = field(default_factory=Size)
    groups: Mapping[str, Size] = field(default_factory=dict)
    availability: Availability | None = None
    dropout: float = 0.0
    held_out: HeldOut = None

    def __post_init__(self) -> None:
        """Raises ConfigError: the sampler declares a scheme that it cannot have."""
        scheme_of(self.sampler)

    @property
    def has_any_size(self) -> bool:
        return isinstance(self.sampler, SamplerOfAnySize)

    def sampling(self, client_ids: Sequence[str], groups: Mapping[str, Collection[str]]) -> Sampling:
        """How the cohorts are drawn from the clients that may train.

        Dropout, and availability with ``poisson``, do not raise the probability of any client. If all clients are
        asked, the choice does not depend on what they report.
        """
        scheme, total = scheme_of(self.sampler), len(client_ids)
        if scheme is Scheme.OTHER or not self.has_any_size:
            rate = min(1.0, self.target(client_ids, groups) / total)
        elif not self.groups:
            rate = self.size.share(total)
        else:
            members = {name: len(set(client_ids).intersection(groups[name])) for name in self.groups}
            rate = sum(size.share(members[name]) * members[name] for name, size in self.groups.items()) / total
        if scheme is Scheme.OTHER:
            return Sampling(Scheme.DATA_FREE if rate >= 1 and not self.has_any_size else scheme, rate)
        is_fixed = not self.has_any_size
        is_plain = not self.groups and not (is_fixed and (self.size.over_selection or self.availability is not None))
        return Sampling(scheme if is_plain else Scheme.DATA_FREE, rate)

    def sample(self, candidates: Candidates, rng: np.random.Generator, *, there: Sequence[int] | None = None) -> Sample:
        """The cohort, from the clients that may train. ``there``: the indices of the available ones; None: all.

        Raises:
            ConfigError: the sampler's parameters do not suit these clients, or it chose invalid indices.
        """
        present = list(range(len(candidates))) if there is None else list(there)
        target, chosen = 0, list[int]()
        for size, members in self._parts(candidates):
            left = present if members is None else [i for i in present if candidates.client_ids[i] in members]
            taken = set(chosen)
            left = [i for i in left if i not in taken] if taken else left
            total = len(candidates) if members is None else len(members)
            found = self._choose(candidates, size, total, left, rng)
            target += len(found) if self.has_any_size else min(size.target(total), len(found))
            chosen += found
        return Sample(tuple(candidates.client_ids[i] for i in sorted(chosen)), target)

    def _parts(self, candidates: Candidates) -> list[tuple[Size, Collection[str] | None]]:
        if not self.groups:
            return [(self.size, None)]
        ids = set(candidates.client_ids)
        return [(size, ids.intersection(candidates.groups.get(name, ()))) for name, size in self.groups.items()]

    def _choose(
        self, candidates: Candidates, size: Size, total: int, left: list[int], rng: np.random.Generator
    ) -> list[int]:
        if not left:
            return []
        of = candidates if len(left) == len(candidates) else candidates.only(left)
        if isinstance(self.sampler, SamplerOfAnySize):
            places = self.sampler.draw(of, size.share(total), rng)
        elif (asked := size.asked(size.target(total))) >= len(left):
            return left
        else:
            places = self.sampler.choose(of, asked, rng)
        try:
            chosen = [operator.index(place) for place in places]
        except TypeError:
            raise ConfigError(
                f"sampler {type(self.sampler).__name__}: it chose {places!r:.60}, not indices of candidates",
                hint="a sampler returns indices of candidates, from 0",
                key="sampler",
            ) from None
        is_wrong = not self.has_any_size and len(chosen) != asked
        if is_wrong or len(set(chosen)) < len(chosen) or not all(0 <= place < len(left) for place in chosen):
            wanted = "different ones" if self.has_any_size else f"{asked} different ones"
            raise ConfigError(
                f"sampler {type(self.sampler).__name__}: it must choose {wanted} of {len(left)} candidates, but it "
                f"chose the indices {chosen[:10]}{' …' * (len(chosen) > 10)}",
                hint="a sampler returns indices of candidates, from 0",
                key="sampler",
            )
        return [left[place] for place in chosen]

    def most(self, client_ids: Sequence[str], groups: Mapping[str, Collection[str]], there: Collection[str]) -> int:
        """The largest size of a cohort if the clients in ``there`` are available."""
        if not self.groups:
            return (
                len(there) if self.has_any_size else min(len(there), self.size.asked(self.size.target(len(client_ids))))
            )
        number, left = 0, set(there)
        for name, size in self.groups.items():
            members = set(client_ids).intersection(groups[name])
            found = left & members
            number += len(found) if self.has_any_size else min(len(found), size.target(len(members)))
            left -= found
        return number

    def target(self, client_ids: Sequence[str], groups: Mapping[str, Collection[str]]) -> int:
        """The number of answers to wait for if all clients are available; with random sizes, the largest number.

        Raises:
            ConfigError: there are fewer clients.
        """
        target = 0
        for name, size in self.groups.items():
            if name not in groups:
                raise ConfigError(
                    f"sampler.groups: there is no group '{name}'{nearest(name, groups)}",
                    hint=f"list its clients: clients.groups.{name}",
                    key=f"sampler.groups.{name}",
                )
            members = set(client_ids).intersection(groups[name])
            self._check_number(f"sampler.groups.{name} is {size.count}", size.count or 0, len(members))
            target += len(members) if self.has_any_size else size.target(len(members))
        total = len(client_ids)
        if self.groups:
            return min(target, total)
        self._check_number(f"sampler: min_clients is {self.size.min_clients}", self.size.min_clients, total)
        self._check_number(f"sampler.count is {self.size.count}", self.size.count or 0, total)
        return total if self.has_any_size else self.size.target(total)

    @staticmethod
    def _check_number(what: str, number: int, total: int) -> None:
        if number > total:
            raise ConfigError(
                f"{what}, but there are {total} clients" + " of them" * ("groups" in what) + " to train",
                hint=f"set it to at most {total}" if total else "add clients",
                number=number,
                clients=total,
            )
