"""Baselines of a configuration: the same training with all data in one place, and by each client alone."""

from __future__ import annotations

import glob
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

from fedpkg.config import RunConfig, dump_config
from fedpkg.config_reading import config_of
from fedpkg.errors import ConfigError
from fedpkg.topology.section import sets_data

if TYPE_CHECKING:
    from pathlib import Path

Baseline = Literal["centralised", "local"]
BASELINES: tuple[Baseline, ...] = ("centralised", "local")
_ALONE = "alone"  # the group of the one client that trains


def baseline_configs(
    config: RunConfig, baseline: Baseline, *, cache: Path
) -> Iterator[tuple[dict[str, Any], RunConfig]]:
    """The configurations of a baseline, each with the choices that name it.

    Both train with plain averaging of one update (which is that update), from the same seed model, with the same
    arguments. The number of rounds is scaled with the share of the clients that a round asks, so that as many examples
    are seen as in the federation.

    - ``centralised``: one client with all data.
    - ``local``: for each client a session in which it trains alone. All clients validate its last model.

    Args:
        cache: the folder of split data, in which nothing is written.

    Raises:
        ConfigError: the configuration has no such baseline.
    """
    if config.rounds is None:
        raise ConfigError("a baseline needs a number of rounds, but the configuration has rounds: null", key="rounds")
    if sets_data(config.topology):
        raise ConfigError(
            "a baseline needs one dataset for all clients, but combiners of the topology have data of their own",
            hint="remove the baseline, or set clients.data alone",
            key="topology",
        )
    share, names = _share_and_clients(config, cache)
    rounds = max(1, round(config.rounds * share))
    if baseline == "centralised":
        yield {}, _configuration(config, rounds, _pooled(config))
        return
    for name in names:
        yield {"client": name}, _configuration(config, rounds, _alone(config, name, rounds))


def _share_and_clients(config: RunConfig, cache: Path) -> tuple[float, list[str]]:
    """The mean share of the training clients that a round asks; the clients that train."""
    import msgspec

    from fedpkg.controller.seeds import held_out_rng
    from fedpkg.data.clients import client_groups, prepare_clients
    from fedpkg.samplers import make_sampler
    from fedpkg.samplers.held_out import held_out_clients

    without_data = msgspec.structs.replace(config.clients, data=None)
    names = [client.client_id for client in prepare_clients(without_data, cache=cache, seed=config.seed)]
    sampler = make_sampler(config.sampler)
    held_out = held_out_clients(sampler.held_out, names, held_out_rng(config.seed))
    training = [name for name in names if name not in held_out]
    rate = sampler.sampling(training, client_groups(config.clients, names)).rate
    return rate, training


def _pooled(config: RunConfig) -> dict[str, Any]:
    if config.clients.data is None:
        raise ConfigError(
            "the baseline 'centralised' needs data that fedpkg splits, which it then leaves in one piece",
            hint="set clients.data, or run the baseline by hand with a client that has all data",
            key="clients.data",
        )
    if config.sampler.get("held_out") is not None:
        raise ConfigError(
            "the baseline 'centralised' would train on the data of the clients in 'sampler.held_out'",
            hint="remove sampler.held_out, or this baseline",
            key="sampler.held_out",
        )
    tree: Any = dump_config(config)
    data = tree["clients"]["data"]
    partition = {"name": "iid", "seed": data["partition"].get("seed")}
    pooled = {"count": 1, "data": {**data, "partition": partition}, "groups": {}, "environment": {}}
    return {"clients": pooled, "sampler": {"name": "uniform"}}


def _alone(config: RunConfig, name: str, rounds: int) -> dict[str, Any]:
    groups = {**config.clients.groups, _ALONE: [glob.escape(name)]}
    sampler = {"name": "uniform", "groups": {_ALONE: 1}, "held_out": config.sampler.get("held_out")}
    return {"clients": {"groups": groups}, "sampler": sampler, "validation": {"every": rounds}}


def _configuration(config: RunConfig, rounds: int, changes: dict[str, Any]) -> RunConfig:
    from fedpkg.session.configuration import resolved

    tree: Any = dump_config(config)
    for key, value in changes.items():
        has_fixed_keys = key in ("clients", "validation")
        tree[key] = {**tree[key], **value} if has_fixed_keys else value
    tree |= {"strategy": {"name": "fedavg"}, "topology": None, "clock": None, "replay": None, "rounds": rounds}
    tree["round"] = {**tree["round"], "required": 1}
    return config_of(tree, resolve=resolved)
