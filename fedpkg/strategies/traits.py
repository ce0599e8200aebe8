"""The properties that a strategy or an aggregator declares, which the rest of fedpkg reads."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from fedpkg.errors import ConfigError
from fedpkg.transforms.stage import Stage

if TYPE_CHECKING:
    from fedpkg.transforms.message import Transform
    from fedpkg.types import Content

InTrees: TypeAlias = Literal["anywhere", "above_clients", "never"]
Treatment: TypeAlias = Literal["mean", "aggregate", "step", "parameters", "elsewhere"]


@dataclass(frozen=True, kw_only=True)
class Traits:
    """The properties of a strategy. The defaults hold for a strategy without ``traits``; an aggregator has ``needs``,
    ``treatment`` and ``only_averages`` alone.

    Args:
        entry_points: those that the strategy uses. The package must have them.
        groups: the groups of clients that the strategy asks. The run.yaml must name clients for each.
        apart: groups that are asked beside the sampled clients. The sampler leaves their clients out.
        needs: the fewest usable replies of sampled clients for which the method is defined. A run whose rounds collect
            fewer is refused.
        treatment: what is done with parameters and with the rest, buffers and integers. ``mean``: all floating tensors
            get the same mean. ``aggregate``: parameters follow one rule, the rest another. ``step``: parameters take a
            step of the server, the rest is averaged. ``parameters``: only parameters change. ``elsewhere``: a
            program of the person's own makes the global model. None: not known. It
            decides which warnings a run gets, and whether a model in half precision is kept in float32 between rounds
            (`fedpkg.strategies.master`).
        only_averages: nothing is squared, and each result lies between the replies, which may therefore hold larger
            numbers (`fedpkg.strategies.base.Request.use`).
        reply: what the tensors of the clients' updates are.
        changes_numbers: transforms change the numbers of what travels (`change_numbers`).
        server_optimiser: the server optimiser. One that has ``check`` is asked whether it can step the seed model.
        has_model: the state's ``model`` is a global model. Without one, ``init`` gets None and the state is any data: a
            session needs no seed model, its rounds keep no model, and nothing is validated.
        takes_empty_rounds: the step is taken even if the sampler finds no clients. Otherwise the round keeps the state.
        makes_model: with ``has_model=False``: the state has a ``model`` from the first step on that returns one. From
            then on, the session has a global model, whose tensors may change from round to round.
        ends_itself: the session may have any number of rounds (``rounds: null``): it ends when a step says so.
        takes_no_replies: a round goes on without any usable reply if all its requests have ``required=0``.
        heeds_required: a round with fewer usable replies than ``round.required`` stops the session.
        chooses_clients: the strategy chooses all clients and does not use the sampler.
        in_trees: the combiners of a tree (`topology` of the run.yaml) that can have the strategy. ``anywhere``: it asks
            for updates of one model, which combiners can send as well as clients. ``above_clients``: it needs more of
            those that it asks, so there can be no combiners below. ``never``: it leaves requests outstanding, or makes
            a promise about the session as a whole.
        why_not_in_trees: the reason, for the error.
        clients_read: parameters of which the package must read at least one. Otherwise the clients train as under
            FedAvg, and the run gets a warning.
        client_lines: names of `fedpkg.client` that implement the clients' part. Empty: loading and saving with
            `fedpkg.client` is enough.
        clients_send: names of sets that clients send beside their models. If the package seems to send none of them,
            the run gets a warning.
    """

    entry_points: tuple[str, ...] = ("train",)
    groups: tuple[str, ...] = ()
    apart: tuple[str, ...] = ()
    needs: int = 1
    treatment: Treatment | None = None
    only_averages: bool = False
    reply: Content = "weights"
    changes_numbers: bool = False
    server_optimiser: Any = None
    has_model: bool = True
    makes_model: bool = False
    ends_itself: bool = False
    takes_no_replies: bool = False
    takes_empty_rounds: bool = False
    heeds_required: bool = True
    chooses_clients: bool = False
    in_trees: InTrees = "anywhere"
    why_not_in_trees: str = ""
    clients_read: tuple[str, ...] = ()
    client_lines: tuple[str, ...] = ()
    clients_send: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Raises ConfigError: properties of a model are declared, but there is none."""
        said = (self.treatment, self.server_optimiser, self.changes_numbers or None)
        if not self.has_model and (any(one is not None for one in said) or self.reply != "weights"):
            raise ConfigError(
                "strategy: it has no model (has_model=False), so it cannot declare a treatment, a server optimiser, a "
                "kind of update, or transforms that change numbers",
                key="strategy",
            )

    def sampled(self, clients: Iterable[str], groups: Mapping[str, Sequence[str]]) -> list[str]:
        """The clients that the sampler may choose: all but those of the groups that are asked apart."""
        apart = {name for group in self.apart for name in groups.get(group, ())}
        return [name for name in clients if name not in apart]


# Attributes of older versions, in place of `Traits`. Ignoring them would silently change a strategy.
_FORMER = frozenset(field.name for field in fields(Traits)) - {"reply", "changes_numbers", "server_optimiser"}
_NONE = object()


def traits_of(one: object) -> Traits:
    """The traits of a strategy or an aggregator; the defaults, if it has none.

    Raises:
        ConfigError: its ``traits`` have another type, or it has a trait as an attribute.
    """
    name = type(one).__name__
    if (traits := getattr(one, "traits", _NONE)) is not _NONE:
        if isinstance(traits, Traits):
            return traits
        raise ConfigError(
            f"{name}: 'traits' is a {type(traits).__name__}, not a fedpkg.strategies.Traits", key="strategy"
        )
    if former := sorted(each for each in _FORMER if hasattr(one, each)):
        said = ", ".join(f"{each}=…" for each in former)
        raise ConfigError(
            f"{name}: fedpkg does not read the attribute '{former[0]}'; it is one of the traits",
            hint=f"write traits = Traits({said}), with: from fedpkg.strategies import Traits",
            key="strategy",
        )
    return Traits()


def change_numbers(*ways: Iterable[Transform]) -> bool:
    """Whether any of these transforms changes numbers instead of only compressing bytes."""
    return any(step.stage != Stage.PACK for way in ways for step in way)
