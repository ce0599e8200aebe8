"""The registry of samplers, their common options, and the sampler that a run.yaml describes."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import msgspec
from msgspec import Meta

from fedpkg.config_shape import Places
from fedpkg.errors import ConfigError
from fedpkg.registry import BelowOne, Count, NotNegative, Registry, Share

if TYPE_CHECKING:
    from fedpkg.samplers.cohort import CohortSampler
    from fedpkg.types import Json

Metric: TypeAlias = Annotated[
    str,
    Meta(
        description="Name of a number that clients report, in the last reply that counted or else the last validation."
    ),
]
_ShareButNotAll = Annotated[float, Meta(gt=0, lt=1)]
_PATH = ("sampler",)


class AvailabilityOptions(msgspec.Struct, frozen=True):
    """Either a trace or a rate."""

    trace: str | None = None
    rate: Share | None = None
    sha256: str | None = None  # digest of the trace; without it, that of the file when the session begins


class SamplerOptions(msgspec.Struct, frozen=True):
    """The options that all samplers have."""

    fraction_train: Annotated[
        Share | None,
        Meta(
            description="Share of the clients to ask in a round, halves rounded up. More clients average out more "
            "noise, but cost more. null: 1, unless `count` or `groups` is given."
        ),
    ] = None
    count: Annotated[Count | None, Meta(description="Number of clients to ask, instead of `fraction_train`.")] = None
    min_clients: Annotated[Count, Meta(description="Least number of clients to ask.")] = 1
    over_selection: Annotated[
        NotNegative,
        Meta(
            description="Share of further clients to ask. The round takes the first answers, in virtual time with a "
            "`clock`, and ends the other tasks. 0.3 is usual against slow clients; it favours fast ones."
        ),
    ] = 0.0
    groups: Annotated[
        dict[str, Count | Share] | None,
        Meta(
            description="Number or share of the clients to ask in each of `clients.groups`, instead of one size for "
            "all, such as {slow: 2, fast: 0.5}."
        ),
    ] = None
    availability: Annotated[
        AvailabilityOptions | None,
        Meta(
            description="The clients that can be asked. {rate: 0.8}: each with this probability in each round. {trace: "
            "FILE}: a CSV or JSON file with client, from_round, to_round, or client, from_s, to_s in virtual seconds. "
            "null: all."
        ),
    ] = None
    dropout: Annotated[
        BelowOne,
        Meta(
            description="Probability that a client that was asked does not answer, to simulate failures. Keep "
            "`round.required` below the answers that are left."
        ),
    ] = 0.0
    held_out: Annotated[
        Count | _ShareButNotAll | list[str] | None,
        Meta(
            description="Clients that never train and only validate: their number or share, drawn once, or a list of "
            "ids and patterns. null: none."
        ),
    ] = None


SAMPLERS = Registry(
    kinds=("sampler",),
    modules=tuple(
        f"fedpkg.samplers.{name}"
        for name in (
            "uniform",
            "weighted",
            "round_robin",
            "least_reused",
            "importance",
            "power_of_choice",
            "poisson",
        )
    ),
    group="fedpkg.samplers",
    able={"sampler": (("choose",), ("draw",))},
    told_by="fedpkg sampler list",
    shared=SamplerOptions,
)

register_sampler = functools.partial(SAMPLERS.register, "sampler")


def resolve_sampler(section: Mapping[str, Json], places: Places, path: tuple[str, ...] = _PATH) -> dict[str, Json]:
    """A run.yaml's ``sampler``, checked, with all defaults: it determines the cohorts.

    Raises:
        ConfigError: it is wrong; with the line and similar names.
        DataError: a trace cannot be read.
    """
    given = {key: value for key, value in section.items() if value is not None}
    file = SAMPLERS.run_file_of(given, places, path, is_named="name" in given)
    given.setdefault("name", "uniform")
    name = given["name"]
    if isinstance(name, str):
        spec = SAMPLERS.find("sampler", name, places, (*path, "name"))
        SAMPLERS.check(spec, given, places, path)
    own = SAMPLERS.resolve("sampler", SAMPLERS.without_options(given), places, path)
    options = {key: value for key, value in given.items() if key in SAMPLERS.options}
    _check_together(options, places)
    if not options.keys() & {"fraction_train", "count", "groups"}:
        options["fraction_train"] = 1.0
    if isinstance(availability := options.get("availability"), dict):
        options["availability"] = _resolved_availability(availability, places)
    resolved = {key: options.get(key, field.default) for key, field in SAMPLERS.options.items()}
    _check_random_size(own, resolved, places)
    return {"name": own["name"], **file, **resolved, **{key: value for key, value in own.items() if key != "name"}}


def make_sampler(section: Mapping[str, Json]) -> CohortSampler:
    """The sampler that a run's configuration describes; see `resolve_sampler`."""
    from fedpkg.samplers.availability import Availability, read_trace
    from fedpkg.samplers.cohort import CohortSampler
    from fedpkg.samplers.size import Size

    places = Places("run configuration")
    resolved = resolve_sampler(section, places)
    options = msgspec.convert({key: resolved[key] for key in SAMPLERS.options}, SamplerOptions)
    sizes = {
        name: Size(
            fraction=amount if isinstance(amount, float) else None,
            count=amount if isinstance(amount, int) else None,
        )
        for name, amount in (options.groups or {}).items()
    }
    there = None
    if options.availability is not None:
        trace, rate = options.availability.trace, options.availability.rate
        there = Availability(read_trace(Path(trace)) if trace else None, 1.0 if rate is None else rate)
    return CohortSampler(
        SAMPLERS.make("sampler", SAMPLERS.without_options(resolved), places, _PATH),
        Size(options.fraction_train, options.count, options.min_clients, options.over_selection),
        groups=sizes,
        availability=there,
        dropout=options.dropout,
        held_out=options.held_out,
    )


def _check_together(options: Mapping[str, Json], places: Places) -> None:
    sizes = [key for key in ("fraction_train", "count", "groups") if key in options]
    if len(sizes) > 1:
        problem = f"'sampler.{sizes[1]}' excludes 'sampler.{sizes[0]}': each of them sets the number of clients"
        hint = f"leave one out; on the command line, sampler.{sizes[0]}=null removes it"
        raise _refused(sizes[1], problem, hint, places)
    if "groups" not in options:
        return
    if options["groups"] == {}:
        hint = "leave it out, or set a number or share for each group, as {slow: 2, fast: 0.5}"
        raise _refused("groups", "'sampler.groups' is empty: no client would be asked", hint, places)
    if options.get("min_clients", 1) != 1:
        problem = "'sampler.min_clients' has no effect with 'sampler.groups'"
        raise _refused("min_clients", problem, "set counts in sampler.groups", places)
    if options.get("over_selection"):
        problem = (
            "'sampler.over_selection' cannot be used with 'sampler.groups': the first answers would count, of whichever"
        )
        raise _refused("over_selection", f"{problem} group", "leave it out, or ask more clients of each group", places)


def _refused(key: str, problem: str, hint: str, places: Places) -> ConfigError:
    path = (*_PATH, *key.split("."))
    return ConfigError(f"{places.where(path)}: {problem}", hint=hint, key=".".join(path))


def _resolved_availability(given: Mapping[str, Json], places: Places) -> dict[str, Json]:
    """The section with the digest of the trace, so that a resumed session has the trace that it began with."""
    from fedpkg.samplers.availability import digest_of, read_trace

    found = {key: given.get(key) for key in ("trace", "rate", "sha256")}
    trace, digest = found["trace"], found["sha256"]
    if (trace is None) == (found["rate"] is None):
        problem, hint = "'sampler.availability' needs either a trace or a rate", "trace: FILE.csv, or rate: 0.8"
        raise _refused("availability", problem, hint, places)
    if isinstance(trace, str):
        found["sha256"] = digest_of(Path(trace))
        read_trace(Path(trace))
        if digest not in (None, found["sha256"]):
            problem = f"{trace} is not the trace with which the session began (sha256 {digest})"
            raise _refused("availability.trace", problem, "restore the file, or start a new run", places)
    return found


def _check_random_size(own: Mapping[str, Json], options: Mapping[str, Json], places: Places) -> None:
    from fedpkg.samplers.base import SamplerOfAnySize

    spec = SAMPLERS.find("sampler", str(own["name"]), places, _PATH)
    if not isinstance(spec.make, type) or not issubclass(spec.make, SamplerOfAnySize):
        return
    for key, plain in (("min_clients", 1), ("over_selection", 0.0)):
        if options[key] != plain:
            problem = f"'sampler.{key}' cannot be used with the sampler '{spec.name}', which draws each client"
            raise _refused(key, f"{problem} independently", "leave it out", places)
