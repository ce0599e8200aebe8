"""The protocol of samplers: who may be asked, what is known of them, and the cohort that comes of it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, runtime_checkable

from fedpkg.errors import ConfigError, nearest
from fedpkg.types import Scheme

if TYPE_CHECKING:  # to list samplers must not cost NumPy
    import numpy as np
    import numpy.typing as npt

    Column: TypeAlias = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Sample:
    """The clients asked in a round, in the order of the given sequence: it fixes their cohort positions.

    ``target`` answers are wanted; under over-selection that is fewer than are asked.
    """

    clients: tuple[str, ...]
    target: int


@dataclass(frozen=True)
class History:
    """What a client has done in the rounds that are committed.

    ``metrics`` are the numbers of its last reply that counted; where that lacks one, of its last validation.
    """

    times_asked: int = 0  # rounds
    times_counted: int = 0
    last_asked: int | None = None  # the round
    last_counted: int | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Candidates:
    """Those who may be asked, in the order of the clients, and what is known of them as the round starts.

    All columns have that order. ``load_history`` and ``load_seconds`` are called when somebody looks: a sampler pays
    for nothing that it does not need.

    Args:
        num_examples: as the last reply said, else as the data was split; empty: of nobody known.
        groups: names of `clients.groups`, and who is in them.
        load_history: of those who were ever asked or validated.
        load_seconds: virtual seconds that a task of each takes, by its profile (``clock`` of the run.yaml).
    """

    client_ids: tuple[str, ...]
    round_number: int = 1
    num_examples: Sequence[float | None] = ()
    groups: Mapping[str, Collection[str]] = field(default_factory=dict)
    load_history: Callable[[], Mapping[str, History]] = dict
    load_seconds: Callable[[str], float] | None = None

    def __len__(self) -> int:
        return len(self.client_ids)

    @functools.cached_property
    def history(self) -> tuple[History, ...]:
        known, nothing = self.load_history(), History()
        return tuple(known.get(client_id, nothing) for client_id in self.client_ids)

    @functools.cached_property
    def seconds(self) -> Column | None:
        import numpy as np

        if self.load_seconds is None:
            return None
        return np.array([self.load_seconds(client_id) for client_id in self.client_ids])

    @property
    def times_asked(self) -> npt.NDArray[np.int64]:
        import numpy as np

        return np.array([one.times_asked for one in self.history], dtype=np.int64)

    @property
    def examples(self) -> Column:
        """Numbers of examples; who never said how many has as many as the others on average, or all have 1."""
        import numpy as np

        known = np.array([np.nan if n is None else n for n in self.num_examples or (None,) * len(self)], np.float64)
        is_known = np.isfinite(known)
        top = known[is_known].max(initial=0.0)
        return np.where(is_known, known, (known[is_known] / top).mean() * top if top > 0 else 1.0)

    def metric(self, name: str) -> Column:
        """What each last said under this name; NaN where it is not known.

        Raises:
            ConfigError: clients have replied, and none of them said it.
        """
        import numpy as np

        said = {word for one in self.history for word in one.metrics}
        if name not in said and any(one.times_counted for one in self.history):
            raise ConfigError(
                f"sampler: it goes by the metric '{name}', which no client has reported{nearest(name, said)}",
                hint=f"they report: {', '.join(sorted(said)[:10])}" if said else "have the package report it",
                key="sampler.metric",
            )
        return np.array([one.metrics.get(name, np.nan) for one in self.history], np.float64)

    def only(self, places: Sequence[int]) -> Candidates:
        """Those at these places."""
        return replace(
            self,
            client_ids=tuple(self.client_ids[i] for i in places),
            num_examples=tuple(self.num_examples[i] for i in places) if self.num_examples else (),
        )


class Sampler(Protocol):
    """Chooses whom to ask. It keeps nothing: the same candidates and draws give the same choice, so it resumes."""

    def choose(self, candidates: Candidates, number: int, rng: np.random.Generator) -> Sequence[int] | Any:
        """The places of ``number`` different candidates, fewer than there are; in any order."""
        ...


@runtime_checkable
class SamplerOfAnySize(Protocol):
    """A sampler that has a chance for each candidate and no number; its cohorts may be empty."""

    def draw(self, candidates: Candidates, share: float, rng: np.random.Generator) -> Sequence[int] | Any:
        """The places of those drawn. ``share`` is what ``fraction_train`` (or ``count``) says, of all who may train."""
        ...


@runtime_checkable
class SamplerOfScheme(Protocol):
    """A sampler that says how it draws, for what depends on it: the accounting of differential privacy."""

    @property
    def scheme(self) -> Scheme: ...


def scheme_of(sampler: Sampler | SamplerOfAnySize) -> Scheme:
    """How a sampler says that it draws; ``other``, if it says nothing.

    Raises:
        ConfigError: it says no `Scheme`, or one that does not go with the method that it has.
    """
    if not isinstance(sampler, SamplerOfScheme):
        return Scheme.OTHER
    of_any_size, said = isinstance(sampler, SamplerOfAnySize), sampler.scheme
    known = (Scheme.POISSON,) if of_any_size else (Scheme.WITHOUT_REPLACEMENT, Scheme.DATA_FREE)
    scheme: Scheme
    for scheme in (*known, Scheme.OTHER):
        if said == scheme:
            return scheme
    raise ConfigError(
        f"sampler {type(sampler).__name__}: a sampler with '{'draw' if of_any_size else 'choose'}' cannot have the "
        f"scheme {said!r:.60}",
        hint=f"write scheme = {' or '.join(f'Scheme.{each.name}' for each in (*known, Scheme.OTHER))}, with: from "
        "fedpkg.samplers import Scheme",
        key="sampler",
    )
