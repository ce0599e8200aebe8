"""What a run is refused or warned of before anything of it is on record: where its parts do not fit one another."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from fedpkg.compute_package.review import script_of
from fedpkg.compute_package.unpack import UnpackedPackage
from fedpkg.config import RunConfig
from fedpkg.config_shape import Places
from fedpkg.errors import ConfigError, SpecError
from fedpkg.log import event

if TYPE_CHECKING:
    from fedpkg.samplers.cohort import CohortSampler
    from fedpkg.strategies.base import SteppingStrategy, Strategy

    AnyStrategy: TypeAlias = Strategy | SteppingStrategy

logger = logging.getLogger("fedpkg.preflight")


def check_entry_points(config: RunConfig, package: UnpackedPackage, strategy: AnyStrategy) -> None:
    """Raises SpecError or ConfigError: the package lacks one that the strategy uses, or that makes the seed model."""
    from fedpkg.strategies.base import entry_points_of

    for name in entry_points_of(strategy):
        package.spec.entry_point(name)
    if config.seed_model is None:
        try:
            package.spec.entry_point("build")
        except SpecError as error:
            raise ConfigError(
                f"no seed model: seed_model is not given, and package {config.package} has no 'build' entry point",
                hint="set seed_model to a model file (--seed-model FILE), or give the package a build entry point that "
                "writes one",
            ) from error


def check_clients(config: RunConfig, clients: Sequence[str], strategy: AnyStrategy, sampler: CohortSampler) -> None:
    """Refuse counts that no round can reach, and groups and traces that do not fit the clients.

    Raises:
        ConfigError: says which, and what to set.
        DataError: a trace names a client that there is not.
    """
    from fedpkg.controller.seeds import held_out_rng
    from fedpkg.data.clients import client_groups
    from fedpkg.samplers.held_out import held_out_clients
    from fedpkg.strategies.base import sampled_from

    _check_availability(config, clients, sampler)
    found = client_groups(config.clients, list(clients))
    held_out = held_out_clients(sampler.held_out, clients, held_out_rng(config.seed))
    may_train = [client_id for client_id in clients if client_id not in held_out]
    groups = {name: [one for one in ids if one not in held_out] for name, ids in found.items()}
    _check_groups(may_train, groups, strategy)
    _check_counts(config, sampled_from(strategy, may_train, groups), groups, strategy, sampler)


def _check_availability(config: RunConfig, clients: Sequence[str], sampler: CohortSampler) -> None:
    there = sampler.availability
    if there is None:
        return
    there.check(clients)
    if there.goes_by_time and config.clock is None:
        raise ConfigError(
            "sampler.availability: the trace counts virtual seconds, and there is no virtual clock",
            hint="add a clock: section, as clock: {seconds: {slow-*: 3.0}}, or give the trace in rounds",
            key="clock",
        )


def _check_groups(clients: Sequence[str], groups: Mapping[str, Collection[str]], strategy: AnyStrategy) -> None:
    from fedpkg.strategies.base import groups_of

    for name in groups_of(strategy):
        if not groups.get(name):
            raise ConfigError(
                f"strategy: it asks the clients of a group '{name}', and clients.groups has none of that name",
                hint=f'name them, by their ids or patterns: clients.groups.{name}: ["{clients[0]}"]',
                key="clients.groups",
            )


def _check_counts(
    config: RunConfig,
    clients: Sequence[str],
    groups: Mapping[str, Collection[str]],
    strategy: AnyStrategy,
    sampler: CohortSampler,
) -> None:
    """``clients``: those whom the sampler may choose."""
    from fedpkg.strategies.base import ParticularStrategy, Sampling, needs_of

    target, needed = sampler.target(clients, groups), needs_of(strategy)
    if isinstance(strategy, ParticularStrategy):
        strategy.check(Sampling(*sampler.sampling(clients, groups)), len(clients))
    if needed > target:
        raise ConfigError(
            f"strategy: it needs {needed} updates a round; of {len(clients)} clients a round wants {target} answers",
            hint="expect fewer attackers, or raise sampler.fraction_train or sampler.count",
            key="strategy",
        )
    if config.round.required > target:
        raise ConfigError(
            f"round.required is {config.round.required}, but of {len(clients)} clients a round wants {target} answers",
            hint="lower round.required, or raise sampler.fraction_train or sampler.count",
        )


def warn_of_unused(config: RunConfig, strategy: AnyStrategy) -> None:
    """Of options that do nothing, as the strategy says itself who is asked, or goes on however few answer."""
    from fedpkg.samplers import resolve_sampler
    from fedpkg.strategies.base import chooses_clients, heeds_required

    name, required = config.strategy["name"], config.round.required
    if required > 1 and not heeds_required(strategy):
        about = f"{name} takes its step however few answer: round.required={required} does nothing"
        event(logger, logging.WARNING, "required.unused", about=about)
    if not chooses_clients(strategy):
        return
    usual = resolve_sampler({}, Places("run configuration"))
    usual["held_out"] = config.sampler.get("held_out")
    unused = [key for key, value in config.sampler.items() if value not in (None, usual.get(key))]
    if unused:
        keys = ", ".join(f"sampler.{key}" for key in unused)
        about = f"{name} chooses the clients that train itself; for these it makes no use of {keys}"
        event(logger, logging.WARNING, "sampler.unused", about=about)


def suggest_isolation(config: RunConfig) -> None:
    """Say once that there is isolation, where it can be had, for an archive: a package that somebody has handed on."""
    from fedpkg.dispatch.isolation import means

    if config.isolate.enabled or config.executor.name == "resident" or Path(config.package).is_dir():
        return
    if means().cold is not None:
        about = (
            "the package is an archive, and its programs can do all that you can; if it is not your own, run it with "
            "--isolate, so that they see only their package and data"
        )
        event(logger, logging.WARNING, "isolate.off", about=about)


def warn_of_unread_parameters(config: RunConfig, package: UnpackedPackage, strategy: AnyStrategy) -> None:
    """Say so where a method does nothing without its clients, and their package seems to know nothing of it."""
    from fedpkg.dispatch.imports import imports_of, mentions
    from fedpkg.strategies.base import client_lines_of, read_by_clients

    names, lines = read_by_clients(strategy), client_lines_of(strategy)
    if not names or mentions(package.folder, (*names, *lines)):
        return
    scripts = [script_of(entry_point.command) for entry_point in package.spec.entry_points.values()]
    imports = "fedpkg.client" in imports_of(package.folder, [script for script in scripts if script is not None])
    if imports and not lines:  # to load and save by it is enough
        return
    missing = f"use client.{' or client.'.join(lines)}" if imports else "import fedpkg.client"
    about = (
        f"strategy {config.strategy['name']}: the package does not seem to read {' or '.join(names)} of task.json, nor "
        f"does it {missing}; its clients will train as under fedavg"
    )
    event(logger, logging.WARNING, "strategy.unread", about=about)
