"""Checks of a run before anything of it is recorded: errors and warnings where its parts do not fit one another."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import msgspec

from fedpkg.compute_package.init_seed import seed_script_beside
from fedpkg.compute_package.review import script_of
from fedpkg.config import KeepConfig, RunConfig
from fedpkg.config_sections import ValidationConfig
from fedpkg.config_shape import Places
from fedpkg.errors import ConfigError, DataError, SpecError, nearest
from fedpkg.fedn.names import DATA_PATHS, HELPERS_WITHOUT_WEIGHTS
from fedpkg.log import event
from fedpkg.strategies.traits import traits_of
from fedpkg.types import ENTRY_POINTS

if TYPE_CHECKING:
    from fedpkg.compute_package.unpack import UnpackedPackage
    from fedpkg.samplers.cohort import CohortSampler
    from fedpkg.strategies.base import SteppingStrategy, Strategy
    from fedpkg.strategies.tree import Combiner
    from fedpkg.weights.weights import Weights

    AnyStrategy: TypeAlias = Strategy | SteppingStrategy

logger = logging.getLogger("fedpkg.preflight")


def _warn(name: str, about: str) -> None:
    event(logger, logging.WARNING, name, about=about)


def check_rounds(config: RunConfig, strategy: AnyStrategy) -> None:
    """Raises ConfigError: the session would never end."""
    if config.rounds is None and not traits_of(strategy).ends_itself:
        raise ConfigError(
            f"rounds: null is for strategies that end the session themselves; {config.strategy['name']} does not",
            hint="set the number of rounds, for example rounds: 10",
            key="rounds",
        )


def check_entry_points(config: RunConfig, package: UnpackedPackage, strategy: AnyStrategy) -> None:
    """Raise SpecError or ConfigError if the package lacks an entry point that the strategy uses, that makes the seed
    model, or that the configuration gives arguments for.
    """
    for name in traits_of(strategy).entry_points:
        package.spec.entry_point(name)
    _check_arguments(config.arguments, package, "arguments")
    if not traits_of(strategy).has_model:
        _check_without_model(config)
    elif config.seed_model is None:
        try:
            package.spec.entry_point("build")
        except SpecError as error:
            script = seed_script_beside(Path(config.package))
            found = "" if script is None else f"; {script} beside the package saves one when it is run, as it seems"
            raise ConfigError(
                f"no seed model: seed_model is not set, and package {config.package} has no 'build' entry point",
                hint="set seed_model to a model file (--seed-model FILE), or add an entry point 'build', or a function "
                f"init_seed, that writes a model file to the package{found}",
            ) from error


def _check_arguments(arguments: Mapping[str, object], package: UnpackedPackage, key: str, where: str = "") -> None:
    known = ("all", *dict.fromkeys((*package.spec.entry_points, *ENTRY_POINTS)))
    if unknown := next((name for name in arguments if name not in known), None):
        raise ConfigError(
            f"{where}unknown entry point '{unknown}' in 'arguments'{nearest(unknown, known)}",
            hint=f"'arguments' can have these keys: {', '.join(known)}",
            key=f"{key}.{unknown}" if key == "arguments" else key,
        )


def check_combiners(root: Combiner, package: UnpackedPackage, also: Collection[str] = ()) -> None:
    """Check that the package has what the combiners of a tree ask of their clients, and warn as of the session's
    strategy.

    Args:
        also: entry points that are needed beside those of the combiners' strategies.

    Raises:
        ConfigError: it lacks an entry point, or a combiner has arguments for an unknown one.
    """
    looked_at = {id(root.strategy)}  # the session's strategy is checked itself
    for name in also:
        package.spec.entry_point(name)
    for one in root.everyone():
        where = f"topology, combiner {one.path}: " if one.path else "topology: "
        _check_arguments(one.arguments, package, "topology", where)
        if id(one.strategy) in looked_at or one.keeps_model:  # clusters with own models have the session's, too
            continue
        looked_at.add(id(one.strategy))
        for name in traits_of(one.strategy).entry_points:
            try:
                package.spec.entry_point(name)
            except SpecError as error:
                message = f"{where}strategy {one.said} asks the clients for '{name}': {error.message}"
                raise ConfigError(message, hint=error.hint, key="topology") from error
        warn_of_unread_parameters(one.said, package, one.strategy, where=where)


def check_evaluation(config: RunConfig, package: UnpackedPackage, strategy: AnyStrategy) -> None:
    """Raise an error if a measurement that the configuration asks for cannot take place."""
    evaluation, where = config.evaluation, "evaluation"
    wanted = [key for key in ("before_training", "after_training") if getattr(evaluation, key)]
    wanted += ["server"] if evaluation.server is not None else []
    if not wanted:
        return
    if not traits_of(strategy).has_model:
        problem = f"{where}.{wanted[0]} measures a model, but strategy {config.strategy['name']} has none"
        raise ConfigError(problem, hint=f"remove {where}.{wanted[0]}", key=f"{where}.{wanted[0]}")
    if wanted != ["server"]:
        package.spec.entry_point("validate")
    if evaluation.server is not None:
        package.spec.entry_point(evaluation.server.entry_point)
        check_server_data(config)
        if config.validation.every == 0:
            raise ConfigError(
                f"{where}.server is set, but validation.every is 0: no round would be measured",
                hint="set validation.every to 1 or more (validation.fraction limits the number of clients)",
                key=f"{where}.server",
            )


def check_server_data(config: RunConfig) -> None:
    """Raises DataError: the server's data does not exist."""
    server = config.evaluation.server
    if server is not None and not Path(server.data).exists():
        raise DataError(
            f"evaluation.server.data: {server.data} does not exist", hint="give the path of a file or folder"
        )


def _check_without_model(config: RunConfig) -> None:
    """Raise ConfigError if a key that concerns a model is set, and the strategy has none."""
    given = [key for key in ("seed_model", "buffers", "helper") if getattr(config, key) is not None]
    validation, usual = config.validation, ValidationConfig()
    given += [f"validation.{key}" for key in ("fraction", "count") if getattr(validation, key) != getattr(usual, key)]
    given += ["validation.every"] if validation.every not in (0, usual.every) else []
    given += ["keep.models"] if config.keep.models != KeepConfig().models else []
    if given:
        raise ConfigError(
            f"strategy {config.strategy['name']} has no model, but the configuration sets {', '.join(given)}",
            hint="remove these keys from the run configuration",
            key=given[0],
        )


def check_clients(config: RunConfig, clients: Sequence[str], strategy: AnyStrategy, sampler: CohortSampler) -> None:
    """Refuse counts that no round can reach, and groups and traces that do not fit the clients.

    Raises:
        ConfigError: If a count cannot be reached, or a group or trace does not fit; the hint names the key to change.
        DataError: If a trace names an unknown client.
    """
    from fedpkg.controller.seeds import held_out_rng
    from fedpkg.data.clients import client_groups
    from fedpkg.data.entities import check_placeholders
    from fedpkg.samplers.held_out import held_out_clients

    check_placeholders(config, clients)
    _check_availability(config, clients, sampler)
    found = client_groups(config.clients, list(clients))
    held_out = held_out_clients(sampler.held_out, clients, held_out_rng(config.seed))
    may_train = [client_id for client_id in clients if client_id not in held_out]
    groups = {name: [one for one in ids if one not in held_out] for name, ids in found.items()}
    _check_groups(may_train, groups, strategy)
    _check_counts(config, traits_of(strategy).sampled(may_train, groups), groups, strategy, sampler)


def _check_availability(config: RunConfig, clients: Sequence[str], sampler: CohortSampler) -> None:
    there = sampler.availability
    if there is None:
        return
    there.check(clients)
    if there.goes_by_time and config.clock is None:
        raise ConfigError(
            "sampler.availability: the trace is in virtual seconds, but the run has no virtual clock",
            hint="add a clock section, for example clock: {seconds: {slow-*: 3.0}}, or give the trace in rounds",
            key="clock",
        )


def _check_groups(clients: Sequence[str], groups: Mapping[str, Collection[str]], strategy: AnyStrategy) -> None:
    for name in traits_of(strategy).groups:
        if not groups.get(name):
            raise ConfigError(
                f"strategy: it needs clients in a group '{name}', but clients.groups has no group of that name",
                hint=f'list their ids, or patterns of ids: clients.groups.{name}: ["{clients[0]}"]',
                key="clients.groups",
            )


def _check_counts(
    config: RunConfig,
    clients: Sequence[str],
    groups: Mapping[str, Collection[str]],
    strategy: AnyStrategy,
    sampler: CohortSampler,
) -> None:
    """``clients``: those that the sampler may choose."""
    from fedpkg.strategies.base import ParticularStrategy

    target, needed = sampler.target(clients, groups), traits_of(strategy).needs
    if isinstance(strategy, ParticularStrategy):
        strategy.check(sampler.sampling(clients, groups), len(clients))
    if needed > target:
        raise ConfigError(
            f"strategy: it needs {needed} updates a round, but each round collects only {target} (from {len(clients)} "
            "clients)",
            hint="lower the number of attackers that the strategy allows for, or raise sampler.fraction_train or "
            "sampler.count",
            key="strategy",
        )
    if config.round.required > target:
        raise ConfigError(
            f"round.required is {config.round.required}, but each round collects only {target} replies (from "
            f"{len(clients)} clients)",
            hint="lower round.required, or raise sampler.fraction_train or sampler.count",
        )


def warn_of_unused(config: RunConfig, strategy: AnyStrategy) -> None:
    """Warn of options without effect: the strategy chooses the clients itself, or accepts any number of updates."""
    from fedpkg.samplers import resolve_sampler

    name, required = config.strategy["name"], config.round.required
    if required > 1 and not traits_of(strategy).heeds_required:
        about = f"{name} takes its step with any number of updates: round.required={required} has no effect"
        _warn("required.unused", about)
    if not traits_of(strategy).chooses_clients:
        return
    usual = resolve_sampler({}, Places("run configuration"))
    usual["held_out"] = config.sampler.get("held_out")
    unused = [key for key, value in config.sampler.items() if value not in (None, usual.get(key))]
    if unused:
        keys = ", ".join(f"sampler.{key}" for key in unused)
        _warn("sampler.unused", f"{name} itself chooses the clients that train; these have no effect on them: {keys}")


def suggest_isolation(config: RunConfig) -> None:
    """Suggest isolation, where it is available, for a package that is an archive and so may come from others."""
    from fedpkg.means import means

    if config.isolate.enabled or config.executor.name == "resident" or Path(config.package).is_dir():
        return
    if means().cold is not None:
        about = (
            "the package is an archive, and its programs run with all your permissions; if it comes from others, use "
            "--isolate, so that they see only their package and data"
        )
        _warn("isolate.off", about)


def with_equal_weights(config: RunConfig, package: UnpackedPackage) -> RunConfig:
    """The configuration for a package whose helper is older than update weights: all updates count equally."""
    from fedpkg.compute_package.imports import imports_of, mentions

    if config.round.weighting == "equal":
        return config
    if not set(HELPERS_WITHOUT_WEIGHTS) & {*imports_of(package.folder, _scripts(package))}:
        return config
    if mentions(package.folder, ["num_examples"]):
        return config
    about = "the package's helper never writes num_examples, so all updates count equally (round.weighting=equal)"
    _warn("weighting.equal", about)
    return msgspec.structs.replace(config, round=msgspec.structs.replace(config.round, weighting="equal"))


def _scripts(package: UnpackedPackage) -> list[str]:
    """Files that its commands run; they count as Python even without a suffix."""
    found = (script_of(entry_point.command) for entry_point in package.spec.entry_points.values())
    return [script for script in found if script is not None]


_OF_A_CLIENT = re.compile("{(client_id|client_number|data_path|partition_id)}")


def warn_of_level(paths: Sequence[Path | None]) -> None:
    """Warn if the data of a client seems to be the folder that holds the data of all clients."""
    from fedpkg.data.clients import folder_of_clients

    if (folder := folder_of_clients([path for path in paths if path is not None])) is not None:
        near = folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder
        about = f"{near} is given to one client, but it seems to hold a folder for each client: --data '{near}/*'"
        _warn("data.level", about)


def warn_of_same_data(config: RunConfig, package: UnpackedPackage, paths: Sequence[Path | None]) -> None:
    """Warn if all clients would read the same data. ``paths`` has the path of each client's data."""
    from fedpkg.compute_package.imports import mentions

    own = {f"environment.{name}": value for name, value in config.environment.items()}
    for entry_point, arguments in config.arguments.items():
        own.update({f"arguments.{entry_point}.{name}": str(value) for name, value in arguments.items()})
    if len(paths) < 2 or any(_OF_A_CLIENT.search(value) for value in own.values()):
        return
    of_data = [key for key in own if re.search(f"data[_-]path$|^environment.({'|'.join(DATA_PATHS)})$", key)]
    reason = ""
    if of_data:
        reason = f"{of_data[0]} is the same for each; use {{data_path}} or {{client_number}} in it"
    elif paths[0] is None and mentions(package.folder, (*DATA_PATHS, "data_path")):
        knows = ("fedpkg", "FEDPKG_TASK", "CLIENT_NUMBER", "DATA_SPLIT_INDEX")
        reason = (
            "" if mentions(package.folder, knows) else "none is set, so each reads the package's own (set it: --data)"
        )
    elif paths[0] is not None and len({path and path.resolve() for path in paths}) == 1:
        reason = f"all their paths lead to {paths[0].resolve()}"
    if reason:
        _warn("data.same", f"all {len(paths)} clients get the same data: {reason}")


def check_seed_model(config: RunConfig, seed_model: Weights, strategy: AnyStrategy, *, told: bool) -> None:
    """Refuse, or warn of, a model whose parameters and buffers the strategy would confuse, or cannot move.

    Args:
        told: Whether the configuration, the seed's metadata or usual names define which tensors are buffers.

    Raises:
        ConfigError: If that is not defined, and the tensors look like BatchNorm's; or if the model has no parameters,
            or parameters that the server's optimiser does not support.
    """
    from fedpkg.formats.buffers import usual_buffers
    from fedpkg.strategies.server_optimisers.base import ParticularOptimiser

    traits = traits_of(strategy)
    name, treatment = config.strategy["name"], traits.treatment
    sends_differences = traits.changes_numbers or traits.reply != "weights"
    if not seed_model.parameters:
        if treatment in ("step", "parameters") or sends_differences:
            raise ConfigError(
                f"strategy {name} updates parameters (floating-point tensors that are not buffers), but the seed model "
                "has none",
                hint="save the model's tensors as floats, or use an aggregator alone, such as strategy: {name: fedavg}",
                key="strategy",
            )
        return
    if isinstance(traits.server_optimiser, ParticularOptimiser):
        traits.server_optimiser.check(seed_model)
    if usual := [tensor for tensor in usual_buffers(seed_model) if tensor not in seed_model.buffers]:
        about = f"{_listed(usual)} are treated as parameters, although these are usual names of running statistics"
        _warn("buffers.parameters", about)
    if treatment == "parameters" and (still := _statistics(seed_model)):
        about = (
            f"strategy {name} updates parameters only: {len(still)} buffers ({_listed(still)}) keep the seed model's "
            "values, and the global model is validated with these. Use layers without running statistics (GroupNorm, "
            "LayerNorm), or a seed model with the statistics of trained layers"
        )
        _warn("buffers.stay", about)
    if not told and (treatment not in ("mean", "elsewhere") or sends_differences):
        _check_untold_buffers(seed_model, name)


def _check_untold_buffers(seed_model: Weights, name: object) -> None:
    from fedpkg.formats.buffers import are_numbered, running_statistics

    if found := running_statistics(seed_model):
        raise ConfigError(
            f"the seed model's tensors {_listed(found)} look like running means and variances of BatchNorm, but are "
            f"not declared as buffers: strategy {name} would treat them as parameters",
            hint=f"add to the run.yaml: buffers: {json.dumps(found)} (if they are parameters: buffers: [])",
            key="buffers",
        )
    if are_numbered(seed_model):
        about = (
            f"the seed model's tensors are named by position, so buffers (running statistics) cannot be recognised; "
            f"strategy {name} treats all {len(seed_model.parameters)} floating-point tensors as parameters. If that "
            'is right, add to the run.yaml: buffers: []; otherwise list the buffers, for example buffers: ["4", "5"]'
        )
        _warn("buffers.unknown", about)


def warn_of_whole_numbers(
    config: RunConfig, seed_model: Weights, clients: Sequence[str], strategy: AnyStrategy, sampler: CohortSampler
) -> None:
    """Warn if a model without floating-point parameters would be averaged: its integers come from one client."""
    from fedpkg.data.clients import client_groups

    traits = traits_of(strategy)
    if seed_model.parameters or traits.treatment in (None, "elsewhere"):
        return
    groups = client_groups(config.clients, list(clients))
    if sampler.target(traits.sampled(clients, groups), groups) == 1:
        return
    how = "come from the client with the most examples" if traits.treatment == "mean" else "are lower medians"
    about = f"the seed model has no floating-point parameters, and strategy {config.strategy['name']} does not average "
    about += f"integers: in each round they {how}. With sampler.count: 1, each client continues from the one before"
    _warn("integers.alone", about)


def _statistics(seed_model: Weights) -> list[str]:
    """The buffers that training probably changes: floating-point ones that are finite."""
    constant = seed_model.non_finite_buffers()
    return [
        name
        for name, tensor in seed_model.items()
        if name in seed_model.buffers and name not in constant and tensor.is_floating_point()
    ]


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")


def warn_of_unread_parameters(
    name: object, package: UnpackedPackage, strategy: AnyStrategy, *, where: str = ""
) -> None:
    """Warn if the strategy needs its clients' help, and the package does not seem to give it."""
    from fedpkg.compute_package.imports import imports_of, mentions

    traits = traits_of(strategy)
    names, lines, sends_delta = traits.clients_read, traits.client_lines, traits.reply == "delta"
    sends = traits.clients_send
    if not (names or sends or sends_delta):
        return
    imports = "fedpkg.client" in imports_of(package.folder, _scripts(package))
    if sends_delta and not imports and not mentions(package.folder, ["delta"]):
        about = (
            f"{where}reply: delta: the package does not seem to read 'reply' in task.json, and does not import "
            "fedpkg.client; if it sends a whole model, that is added to the global model as if it were a difference"
        )
        _warn("strategy.unread", about)
    if sends and not imports and not mentions(package.folder, [f"{quote}{each}" for each in sends for quote in "\"'"]):
        about = (
            f"{where}strategy {name}: the package does not seem to send the set {' or '.join(sends)}, and does not "
            "import fedpkg.client; without it, each of its updates counts as failed"
        )
        _warn("strategy.unread", about)
    is_enough = imports and not lines  # the method needs nothing of fedpkg.client but load and save
    if not names or is_enough or mentions(package.folder, (*names, *lines)):
        return
    missing = f"use client.{' or client.'.join(lines)}" if imports else "import fedpkg.client"
    about = (
        f"{where}strategy {name}: the package does not seem to read {' or '.join(names)} in task.json, and "
        f"does not {missing}; its clients will train as with fedavg"
    )
    _warn("strategy.unread", about)
