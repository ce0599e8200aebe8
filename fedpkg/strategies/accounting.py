"""The privacy loss of rounds with noise: epsilon at a given delta, by the accountants of `dp-accounting`."""

from __future__ import annotations

import functools
import importlib.util
import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple, TypeAlias

from fedpkg.errors import ConfigError

Accountant: TypeAlias = Literal["rdp", "pld"]


class Spent(NamedTuple):
    """A number of rounds with the same settings.

    Args:
        scheme: how their clients were drawn: ``poisson`` (each independently), ``without_replacement`` (a fixed
            number), or ``other``: each client may have been asked in every round, in the place of another.
        rate: the share of the clients that was asked, or its expectation.
        noise_multiplier: standard deviation of the noise, divided by the largest norm that one client adds to the sum.
        rounds: number of rounds.
    """

    scheme: str
    rate: float
    noise_multiplier: float
    rounds: int


def epsilon(spent: Sequence[Spent], delta: float, *, population: int, accountant: Accountant = "rdp") -> float:
    """The least epsilon that the accountant can prove for all rounds together; infinite without noise.

    Two sets of clients are neighbours if one of them has one more client. If a client takes the place of another in a
    cohort (all schemes but ``poisson`` and cohorts of all clients), they are neighbours if one client is replaced: then
    the sum differs by twice as much.

    Raises:
        ConfigError: the accountant cannot account for the scheme, or is not installed.
    """
    return _epsilon(tuple(spent), delta, population, accountant)


@functools.lru_cache(maxsize=64)
def _epsilon(spent: tuple[Spent, ...], delta: float, population: int, accountant: Accountant) -> float:
    dp = _dp_accounting()
    if any(part.noise_multiplier == 0 for part in spent):
        return math.inf
    replaces = any(_scheme(part) in ("without_replacement", "other") for part in spent)
    relation = dp.NeighboringRelation.REPLACE_ONE if replaces else dp.NeighboringRelation.ADD_OR_REMOVE_ONE
    if accountant == "pld":
        if replaces:
            raise ConfigError(
                "the accountant 'pld' cannot account for cohorts of a fixed size",
                hint="set sampler.name=poisson, or the strategy's accountant=rdp",
            )
        ledger = dp.pld.PLDAccountant(relation)
    else:
        ledger = dp.rdp.RdpAccountant(neighboring_relation=relation)
    for part in spent:
        noise = dp.GaussianDpEvent(part.noise_multiplier / (2 if replaces else 1))
        event = noise
        if _scheme(part) == "poisson":
            event = dp.PoissonSampledDpEvent(part.rate, noise)
        elif _scheme(part) == "without_replacement":
            event = dp.SampledWithoutReplacementDpEvent(population, max(1, round(part.rate * population)), noise)
        with _quiet():
            ledger.compose(event, part.rounds)
    return float(ledger.get_epsilon(delta))


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress the warnings of Renyi orders that do not converge; the account does not need those orders."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _scheme(spent: Spent) -> str:
    return "all" if spent.rate >= 1 else spent.scheme


def check_installed() -> None:
    """Raises ConfigError: the accountants are not installed."""
    if importlib.util.find_spec("dp_accounting") is None:  # importing it takes a second
        raise ConfigError("the account of privacy needs the package dp-accounting", hint="pip install 'fedpkg[dp]'")


def _dp_accounting() -> Any:
    check_installed()
    import dp_accounting
    import dp_accounting.pld
    import dp_accounting.rdp

    return dp_accounting
