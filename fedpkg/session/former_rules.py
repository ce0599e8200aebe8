"""Sessions of older versions: the rules of computation that they keep, and those that prevent resuming."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from fedpkg.config import RunConfig
from fedpkg.devices import THREAD_VARIABLES
from fedpkg.errors import ConfigError
from fedpkg.fedn.names import DATA_PATH
from fedpkg.rules import refusal
from fedpkg.shares import Rounding, share_of
from fedpkg.stores.base import ModelRow, SessionRow
from fedpkg.strategies.master import WithMaster
from fedpkg.strategies.pipeline import Pipeline
from fedpkg.types import Json

if TYPE_CHECKING:
    from fedpkg.controller.context import SessionContext

SAME_SUMS = 256
"""Means over cohorts of up to this size have the same bits under all rules."""


def check_rules(session: SessionRow, config: RunConfig) -> None:
    """Refuse a session whose results this version would compute differently."""
    if reason := refusal(session.rules, str(config.strategy["name"])):
        raise _cannot_resume(session, reason)


def _cannot_resume(session: SessionRow, reason: str) -> ConfigError:
    return ConfigError(
        f"session {session.session_id} cannot be resumed: {reason}",
        hint=f"start a new session from its last model: fedpkg model export {session.session_id} -o seed.npz, then "
        "fedpkg run … --seed-model seed.npz; or resume it with the version that started it",
        key="strategy",
    )


def by_its_rules(session: SessionRow) -> dict[str, Json]:
    """A session's configuration, with settings that preserve the meaning of sections from former rules."""
    if session.rules < 2:
        for section in _sections(session.config["strategy"]):
            if section.get("name") in ("trimmed_mean", "fedtrimmedavg"):
                section.setdefault("leeway", 0.0)
    if session.rules < 4:
        for name in (DATA_PATH, "PYTHONHASHSEED", *THREAD_VARIABLES):  # fedpkg's own values took precedence
            session.config.get("environment", {}).pop(name, None)
    return session.config


def check_former_shares(ctx: SessionContext, seed: ModelRow) -> None:
    """Refuse a session of rules below 2 that rounded a share of clients or tensors differently."""
    from fedpkg.controller.session import read_stored_model

    sizes = (ctx.sampler.size, *ctx.sampler.groups.values())
    counts = range(len(ctx.store.list_clients(ctx.session.session_id)) + 1)
    of_clients: list[tuple[float, Rounding]] = [(size.fraction or 0.0, "nearest") for size in sizes]
    of_clients += [(size.over_selection, "up") for size in sizes]
    changed = [
        share
        for share, how in of_clients
        for n in counts
        if share_of(share, n, how) != share_of(share, n, how, leeway=0)
    ]
    sections = [one for one in _sections(ctx.config.strategy) if one.get("name") in ("top_k", "random_k")]
    if sections:
        model = read_stored_model(ctx, seed)
        n = sum(model[name].numel() * (2 if model[name].is_complex() else 1) for name in model.parameters)
        changed += [one["share"] for one in sections if round(one["share"] * n) != share_of(one["share"], n)]
    if changed:
        raise _cannot_resume(
            ctx.session,
            f"it was started by an older version of fedpkg, which rounded the share {changed[0]} differently",
        )


def check_former_sums(ctx: SessionContext) -> None:
    """Refuse a session of rules below 3 with means over more than `SAME_SUMS` positions: their order has changed."""
    strategy = ctx.strategy.strategy if isinstance(ctx.strategy, WithMaster) else ctx.strategy
    if isinstance(strategy, Pipeline) and strategy.fold is None:  # its aggregator computes no mean
        return
    ids = [client.client_id for client in ctx.store.list_clients(ctx.session.session_id)]
    numbers = [len(row.cohort) for row in ctx.store.list_requests(ctx.session.session_id)]
    numbers.append(ctx.sampler.most(ids, ctx.groups, ids))
    if ctx.config.strategy["name"] == "fedamp":  # its mean is over all clients
        numbers.append(len(ids))
    if max(numbers) > SAME_SUMS:
        raise _cannot_resume(
            ctx.session,
            f"it was started by an older version of fedpkg, which added the updates of more than {SAME_SUMS} clients "
            f"({max(numbers)} here) in another order, so that the last bits of its models differ",
        )


def check_repeated_split(earlier: SessionRow, config: RunConfig) -> None:
    """Refuse to repeat a session of rules below 5 whose data fedpkg has split, because the draws have changed since."""
    if earlier.rules < 5 and config.clients.data is not None:
        raise ConfigError(
            f"'replay' names session {earlier.session_id}, whose data was split by an older version of fedpkg; this "
            "version would give its clients other examples",
            hint="repeat it with the version that ran it, or start a new run without 'replay'",
            key="replay",
        )


def _sections(value: Any) -> Iterator[dict[str, Any]]:
    """All sections of a configuration, including nested ones."""
    if isinstance(value, dict):
        yield value
        value = list(value.values())
    for part in value if isinstance(value, list) else ():
        yield from _sections(part)
