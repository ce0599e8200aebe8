"""The protocol of samplers: the candidates, what is known about them, and the cohort."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, runtime_checkable

from fedpkg.errors import ConfigError, nearest
from fedpkg.types import Scheme

if TYPE_CHECKING:  # listing samplers must not import NumPy
    import numpy as np
    import numpy.typing as npt

    Column: TypeAlias = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Sample:
    """The clients to ask in a round, in cohort order.

    ``target`` is the number of answers to wait for. With over-selection it is smaller than the number of clients.
    """

    clients: tuple[str, ...]
    target: int


@dataclass(frozen=True)
class History:
    """A client's part in the committed rounds.

    ``metrics`` are the numbers of its last reply that counted; numbers missing there are from its last validation.
    """

    times_asked: int = 0  # in rounds
    times_counted: int = 0
    last_asked: int | None = None  # the round
    last_counted: int | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Candidates:
    """The clients that may be asked, in the order of the clients, and what is known about them as the round starts.

    All columns have that order. ``load_history`` and ``load_seconds`` are called on access, so that a sampler pays only
    for what it uses.

    Args:
        num_examples: from the last reply, else from the split of the data. Empty: not known for any client.
        groups: names of `clients.groups` with their clients.
        load_history: loads the history of all clients that were ever asked or validated.
        load_seconds: the virtual seconds of a client's task, from its profile (``clock`` of the run.yaml).
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
        """Numbers of examples. An unknown number is the mean of the others; if none is known, all are 1."""
        import numpy as np

        known = np.array([np.nan if n is None else n for n in self.num_examples or (None,) * len(self)], np.float64)
        is_known = np.isfinite(known)
        top = known[is_known].max(initial=0.0)
        return np.where(is_known, known, (known[is_known] / top).mean() * top if top > 0 else 1.0)

    def metric(self, name: str) -> Column:
        """The last value of this metric of each client; NaN if it is not known.

        Raises:
            ConfigError: clients have replied, but none of them reported the metric.
        """
        import numpy as np

        said = {word for one in self.history for word in one.metrics}
        if name not in said and any(one.times_counted for one in self.history):
            raise ConfigError(
                f"sampler: it needs the metric '{name}', which no client has reported{nearest(name, said)}",
                hint=f"they report: {', '.join(sorted(said)[:10])}" if said else "the package must report it",
                key="sampler.metric",
            )
        return np.array([one.metrics.get(name, np.nan) for one in self.history], np.float64)

    def only(self, places: Sequence[int]) -> Candidates:
        """The candidates at these indices."""
        return replace(
            self,
            client_ids=tuple(self.client_ids[i] for i in places),
            num_examples=tuple(self.num_examples[i] for i in places) if self.num_examples else (),
        )


class Sampler(Protocol):
    """Chooses the clients to ask. It keeps no state: the same candidates and draws give the same choice."""

    def choose(self, candidates: Candidates, number: int, rng: np.random.Generator) -> Sequence[int] | Any:
        """The indices of ``number`` different candidates, in any order. ``number`` is less than their number."""
        ...


@runtime_checkable
class SamplerOfAnySize(Protocol):
    """A sampler that draws each candidate by chance, so that cohorts differ in size and may be empty."""

    def draw(self, candidates: Candidates, share: float, rng: np.random.Generator) -> Sequence[int] | Any:
        """The indices of the drawn candidates. ``share``: ``fraction_train``, or ``count`` / the number of clients."""
        ...


@runtime_checkable
class SamplerOfScheme(Protocol):
    """A sampler that declares how it draws, which the account of differential privacy needs."""

    @property
    def scheme(self) -> Scheme: ...


def scheme_of(sampler: Sampler | SamplerOfAnySize) -> Scheme:
    """The scheme that a sampler declares; ``other`` if it declares none.

    Raises:
        ConfigError: it is not a `Scheme`, or not one for the method that the sampler has.
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
