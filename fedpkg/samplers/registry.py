"""Samplers by name, and what a run.yaml's ``sampler`` makes of them and of the options that go with every one."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from fedpkg.config_shape import Places, check_shape
from fedpkg.errors import ConfigError
from fedpkg.registry import BelowOne, Count, NotNegative, Registry, Share, Spec

if TYPE_CHECKING:
    from fedpkg.samplers.cohort import CohortSampler
    from fedpkg.types import Json

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
)

register_sampler = functools.partial(SAMPLERS.register, "sampler")

_ShareButNotAll = Annotated[float, msgspec.Meta(gt=0, lt=1)]
_PATH = ("sampler",)
_OF_FILE = ("file", "file_sha256")


class AvailabilityOptions(msgspec.Struct, frozen=True):
    """Either of the first two."""

    trace: str | None = None
    rate: Share | None = None
    sha256: str | None = None  # of the trace; without it, that of the file as the session begins


class SamplerOptions(msgspec.Struct, frozen=True):
    """Keys that go with every sampler:

    fraction_train  share of the clients that are asked in a round (1, without count and groups)
    count           … or how many
    min_clients     but at least so many
    over_selection  ask this share more; the first answers count (with a `clock`, the first in virtual time)
    groups          instead of these: how many, or what share, of each of `clients.groups`, as {slow: 2, fast: 0.5}
    availability    who is there to be asked: {rate: 0.8}, drawn for each client and round; or {trace: FILE.csv}, with
                    columns client, from_round, to_round; or client, from_s, to_s (virtual seconds); or .json of such
    dropout         the chance of each client that was asked not to answer
    held_out        clients that never train, only validate: so many, a share (both drawn), or ids and patterns
    """

    fraction_train: Share | None = None
    count: Count | None = None
    min_clients: Count = 1
    over_selection: NotNegative = 0.0
    groups: dict[str, Count | Share] | None = None
    availability: AvailabilityOptions | None = None
    dropout: BelowOne = 0.0
    held_out: Count | _ShareButNotAll | list[str] | None = None


OPTIONS: Mapping[str, Any] = {each.name: each for each in msgspec.structs.fields(SamplerOptions)}


def resolve_sampler(section: Mapping[str, Json], places: Places) -> dict[str, Json]:
    """A run.yaml's ``sampler``, checked and complete: all that decides who is asked is in it.

    Raises:
        ConfigError: says the line, and what is near.
        DataError: a trace cannot be read.
    """
    given = {key: value for key, value in section.items() if value is not None}
    file = SAMPLERS.run_file_of(given, places, _PATH, is_named="name" in given)
    given.setdefault("name", "uniform")
    name = given["name"]
    if isinstance(name, str):
        spec = SAMPLERS.find("sampler", name, places, (*_PATH, "name"))
        check_shape({key: value for key, value in given.items() if key != "name"}, _schema(spec), places, _PATH)
    own = SAMPLERS.resolve("sampler", {key: value for key, value in given.items() if key not in OPTIONS}, places, _PATH)
    options = {key: value for key, value in given.items() if key in OPTIONS}
    _check_together(options, places)
    if not options.keys() & {"fraction_train", "count", "groups"}:
        options["fraction_train"] = 1.0
    if isinstance(availability := options.get("availability"), dict):
        options["availability"] = _resolved_availability(availability, places)
    resolved = {key: options.get(key, field.default) for key, field in OPTIONS.items()}
    _check_random_size(own, resolved, places)
    return {"name": own["name"], **file, **resolved, **{key: value for key, value in own.items() if key != "name"}}


def make_sampler(section: Mapping[str, Json]) -> CohortSampler:
    """What a run's configuration chooses its cohorts with; see `resolve_sampler`."""
    from fedpkg.samplers.availability import Availability, read_trace
    from fedpkg.samplers.cohort import CohortSampler
    from fedpkg.samplers.size import Size

    places = Places("run configuration")
    resolved = resolve_sampler(section, places)
    options = msgspec.convert({key: resolved[key] for key in OPTIONS}, SamplerOptions)
    own = {key: value for key, value in resolved.items() if key not in OPTIONS and key not in _OF_FILE}
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
        SAMPLERS.make("sampler", own, places, _PATH),
        Size(options.fraction_train, options.count, options.min_clients, options.over_selection),
        groups=sizes,
        availability=there,
        dropout=options.dropout,
        held_out=options.held_out,
    )


@functools.lru_cache(maxsize=64)
def _schema(spec: Spec) -> type:
    """The section of a sampler: its own parameters, and the options of all."""
    if both := spec.parameters.keys() & {*OPTIONS, "name", *_OF_FILE}:
        raise ConfigError(
            f"sampler '{spec.name}', of {spec.source}: its parameter '{min(both)}' is a key that every sampler has",
            hint="give the parameter another name",
            name=spec.name,
        )
    own: list[Any] = [
        (each.name, each.type) if each.is_required else (each.name, each.type, None)
        for each in spec.parameters.values()
    ]
    return msgspec.defstruct("sampler", own, bases=(SamplerOptions,), kw_only=True)


def _check_together(options: Mapping[str, Json], places: Places) -> None:
    sizes = [key for key in ("fraction_train", "count", "groups") if key in options]
    if len(sizes) > 1:
        problem = f"'sampler.{sizes[1]}' excludes 'sampler.{sizes[0]}': each of them says how many are asked"
        hint = f"leave one out; on the command line, sampler.{sizes[0]}=null takes it back"
        raise _refused(sizes[1], problem, hint, places)
    if "groups" not in options:
        return
    if options["groups"] == {}:
        hint = "leave it out, or say how many of which group, as {slow: 2, fast: 0.5}"
        raise _refused("groups", "'sampler.groups' is empty: nobody would be asked", hint, places)
    if options.get("min_clients", 1) != 1:
        problem = "'sampler.min_clients' means nothing with 'sampler.groups'"
        raise _refused("min_clients", problem, "give counts in sampler.groups", places)
    if options.get("over_selection"):
        problem = (
            "'sampler.over_selection' does not go with 'sampler.groups': the first answers would count, of whichever"
        )
        raise _refused("over_selection", f"{problem} group", "leave it out, or ask for more of each group", places)


def _refused(key: str, problem: str, hint: str, places: Places) -> ConfigError:
    path = (*_PATH, *key.split("."))
    return ConfigError(f"{places.where(path)}: {problem}", hint=hint, key=".".join(path))


def _resolved_availability(given: Mapping[str, Json], places: Places) -> dict[str, Json]:
    """With the digest of the trace, so that a session that goes on finds the one that it began with."""
    from fedpkg.samplers.availability import digest_of, read_trace

    found = {key: given.get(key) for key in ("trace", "rate", "sha256")}
    trace, digest = found["trace"], found["sha256"]
    if (trace is None) == (found["rate"] is None):
        problem, hint = "'sampler.availability' has either a trace or a rate", "trace: FILE.csv, or rate: 0.8"
        raise _refused("availability", problem, hint, places)
    if isinstance(trace, str):
        found["sha256"] = digest_of(Path(trace))
        read_trace(Path(trace))
        if digest not in (None, found["sha256"]):
            problem = f"{trace} is not the trace that it was (sha256 {digest})"
            raise _refused("availability.trace", problem, "put it back, or start a new run", places)
    return found


def _check_random_size(own: Mapping[str, Json], options: Mapping[str, Json], places: Places) -> None:
    from fedpkg.samplers.base import SamplerOfAnySize

    spec = SAMPLERS.find("sampler", str(own["name"]), places, _PATH)
    if not isinstance(spec.make, type) or not issubclass(spec.make, SamplerOfAnySize):
        return
    for key, plain in (("min_clients", 1), ("over_selection", 0.0)):
        if options[key] != plain:
            problem = f"'sampler.{key}' does not go with the sampler '{spec.name}', which asks each client by chance"
            raise _refused(key, f"{problem}, and not a number of them", "leave it out", places)
