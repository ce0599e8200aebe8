"""The registry of strategies and their parts, and the strategy that a run.yaml describes."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias, TypeVar

from msgspec import Meta

from fedpkg.config_shape import Places
from fedpkg.registry import Part, Registry, Spec
from fedpkg.strategies.folds import fold_of
from fedpkg.strategies.travelling import Travelling
from fedpkg.transforms.registry import TRANSFORMS

if TYPE_CHECKING:
    from fedpkg.strategies.base import SteppingStrategy, Strategy
    from fedpkg.types import Json

_Made = TypeVar("_Made", bound=Callable[..., Any])

STRATEGIES = Registry(
    kinds=("strategy", "aggregator", "server_optimiser", "schedule"),
    modules=(
        *(
            f"fedpkg.strategies.{name}"
            for name in (
                "aggregators.mean",
                "aggregators.uniform_mean",
                "aggregators.fednova",
                "aggregators.qfedavg",
                "aggregators.median",
                "aggregators.trimmed_mean",
                "aggregators.krum",
                "aggregators.bulyan",
                "aggregators.geometric_median",
                "aggregators.centered_clipping",
                "aggregators.norm_bounding",
                "methods.fltrust",
                "aggregators.bucketing",
                "server_optimisers.sgd",
                "server_optimisers.fedopt",
                "server_optimisers.lamb",
                "server_optimisers.torch_optimiser",
                "server_optimisers.schedules",
                "pipeline",
                "methods.client_methods",
                "methods.dp_fedavg",
                "methods.fedsgd",
                "methods.scaffold",
                "methods.feddyn",
                "methods.mime",
                "methods.fedexp",
                "methods.ifca",
                "methods.fedamp",
                "methods.fedbuff",
                "methods.fedasync",
                "methods.svrp",
                "methods.svrs",
                "methods.vrcs",
            )
        ),
        "fedpkg.coordinators.named",
    ),
    group="fedpkg.strategies",
    able={
        "strategy": (("init", "step"), ("init", "ask", "tell")),
        "aggregator": (("fold",), ("aggregate",), ("aggregate_next",)),
        "server_optimiser": (("step",),),
        "schedule": (("factor",),),
    },
    told_by="fedpkg strategy list",
)

# Parameters that several strategies share, with their explanations.
AggregatorName: TypeAlias = Annotated[
    Any,
    Part("aggregator"),
    Meta(description="Combines the updates of a round into one model: the name of an aggregator, or its section."),
]
ServerOptimiserName: TypeAlias = Annotated[
    Any,
    Part("server_optimiser"),
    Meta(
        description="Takes a step from the global model towards the aggregate. null: the aggregate is the next global "
        "model."
    ),
]
_Transforms: TypeAlias = Annotated[Any, Part("transform", many=True, registry=TRANSFORMS)]
Transforms: TypeAlias = Annotated[
    _Transforms,
    Meta(
        description="Transforms that each client applies to its update before it sends it, in this order. The server "
        "undoes them on arrival."
    ),
]
ServerTransforms: TypeAlias = Annotated[
    _Transforms,
    Meta(
        description="Transforms of the updates on arrival, in this order: to clip, to add noise, or to try a lossy "
        "transform out. They do not reduce what clients send."
    ),
]
DownloadTransforms: TypeAlias = Annotated[
    _Transforms,
    Meta(
        description="Transforms of the global model on its way to the clients, in this order. Those for updates alone "
        "(`clip`, `top_k`) are refused."
    ),
]
ReplyContent: TypeAlias = Annotated[
    Literal["weights", "delta"],
    Meta(
        description="`weights`: clients send their trained weights. `delta`: they send the difference to the weights "
        "that they received. It must match the package."
    ),
]
ClientParameters: TypeAlias = Annotated[
    dict[str, Any] | None,
    Meta(description="Values for the clients' part of the method. Clients find them in task.json. null: none."),
]

_MEAN, _PIPELINE = "weighted_mean", "pipeline"  # the defaults of the aggregator and the strategy
_SERVER_FUNCTIONS = "server_functions"  # the strategy that is named by its one parameter
# Parameters of a pipeline besides one part: types and defaults.
_PARTS: Mapping[str, tuple[Any, Any]] = {
    "aggregator": (AggregatorName, _MEAN),
    "server_optimiser": (ServerOptimiserName, None),
}
_TRANSFORMS: Mapping[str, tuple[Any, Any]] = {
    "transforms": (Transforms, ()),
    "server_transforms": (ServerTransforms, ()),
    "download_transforms": (DownloadTransforms, ()),
}
_AFTER_ONE_PART: Mapping[str, tuple[Any, Any]] = {
    **_TRANSFORMS,
    "reply": (ReplyContent, "weights"),
    "parameters": (ClientParameters, None),
}

register_strategy = functools.partial(STRATEGIES.register, "strategy")
register_schedule = functools.partial(STRATEGIES.register, "schedule")


def register_aggregator(name: str, *, strategy: str | None = None, **facts: Any) -> Callable[[_Made], _Made]:
    """Decorate an aggregator. Alone it is also a strategy, with its name and, if given, the name ``strategy``."""

    def decorate(make: _Made) -> _Made:
        STRATEGIES.register("aggregator", name, aliases=(strategy,) if strategy else (), **facts)(make)
        names = (strategy, name) if strategy else (name,)
        STRATEGIES.register("strategy", names[0], aliases=names[1:], **facts)(_composed(make, "aggregator"))
        return make

    return decorate


def register_server_optimiser(name: str, *, strategy: str | None = None, **facts: Any) -> Callable[[_Made], _Made]:
    """Decorate a server optimiser. After the weighted mean it is also a strategy, if ``strategy`` names it."""

    def decorate(make: _Made) -> _Made:
        STRATEGIES.register("server_optimiser", name, aliases=(strategy,) if strategy else (), **facts)(make)
        if strategy:
            of_a_mean = _composed(make, "server_optimiser")
            STRATEGIES.register("strategy", strategy, **facts)(of_a_mean)
        return make

    return decorate


def register_client_method(
    name: str, *, aliases: tuple[str, ...] = (), lines: tuple[str, ...] = (), **facts: Any
) -> Callable[[_Made], _Made]:
    """Decorate a function that returns the parameters of a method that the clients implement, in a pipeline.

    Args:
        lines: the functions of `fedpkg.client` that implement it, besides `load` and `save`.
    """

    def decorate(make: _Made) -> _Made:
        whole = _composed(make, "method", {**_PARTS, **_AFTER_ONE_PART}, client_lines=lines)
        STRATEGIES.register("strategy", name, aliases=aliases, **facts)(whole)
        return make

    return decorate


def register_asking_strategy(name: str, **facts: Any) -> Callable[[_Made], _Made]:
    """Decorate a stepping strategy that asks for one kind of update a round. It gets the parameters for transforms."""

    def decorate(make: _Made) -> _Made:
        own = inspect.signature(make)
        more = {way: _keyword(way, *_TRANSFORMS[way]) for way in ("transforms", "download_transforms")}

        @functools.wraps(make, updated=())
        def strategy(**given: Any) -> Strategy | SteppingStrategy:
            ways = {way: given.pop(way, ()) for way in more}
            method: SteppingStrategy = make(**given)
            return Travelling(method, **ways) if any(ways.values()) else method

        strategy.__signature__ = own.replace(parameters=[*own.parameters.values(), *more.values()])  # type: ignore[attr-defined]
        STRATEGIES.register("strategy", name, **facts)(strategy)
        return make

    return decorate


def _keyword(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _composed(
    make: Callable[..., Any], part: str, rest: Mapping[str, tuple[Any, Any]] = _AFTER_ONE_PART, **fixed: Any
) -> Callable[..., Any]:
    """A function that makes a pipeline with this part. ``rest``: its other parameters, with types and defaults."""
    own = inspect.signature(make)
    more = {
        name: _keyword(name, annotation, default)
        for name, (annotation, default) in rest.items()
        if name not in own.parameters
    }

    @functools.wraps(make, updated=())
    def strategy(**given: Any) -> Strategy:
        places = Places("fedpkg")
        said = {name: given.pop(name) for name in more if name in given}
        if "aggregator" not in said:
            said["aggregator"] = STRATEGIES.make("aggregator", {"name": _MEAN}, places, ())
        whole = STRATEGIES.find("strategy", _PIPELINE, places, ()).make(**said)
        made: Strategy = replace(whole, **{part: make(**given)}, **fixed)
        return made

    strategy.__signature__ = own.replace(parameters=[*own.parameters.values(), *more.values()])  # type: ignore[attr-defined]
    strategy.part = part  # type: ignore[attr-defined]
    return strategy


def resolve_strategy(
    section: Mapping[str, Json], places: Places, path: tuple[str, ...] = ("strategy",)
) -> dict[str, Json]:
    """A run.yaml's ``strategy``, checked, with all defaults: it determines the result.

    Raises:
        ConfigError: it is wrong; with the line and similar names.
    """
    given = dict(section)
    is_named = given.get("name") is not None or "aggregator" in given or _SERVER_FUNCTIONS in given
    is_from = STRATEGIES.run_file_of(given, places, path, is_named=is_named)
    if given.get("name") is None:
        given["name"] = _SERVER_FUNCTIONS if _SERVER_FUNCTIONS in given else _PIPELINE
    resolved = STRATEGIES.resolve("strategy", given, places, path)
    return {"name": resolved["name"], **is_from, **resolved}


def folds_in_a_tree(spec: Spec, section: Mapping[str, Json] | None = None) -> bool:
    """Whether a strategy or an aggregator can be folded in parts, given its section of a run.yaml.

    Without a section its defaults decide, or its class if a parameter is required.

    Raises:
        ConfigError: the section is wrong.
    """
    if section is None and any(parameter.is_required for parameter in spec.parameters.values()):
        part = getattr(spec.make, "part", "aggregator")
        return fold_of(inspect.unwrap(spec.make) if part == "aggregator" else make_strategy({})) is not None
    one = {"name": spec.name, **(section or {})}
    return fold_of(make_strategy({"aggregator": one} if spec.kind == "aggregator" else one)) is not None


def make_strategy(section: Mapping[str, Json]) -> Strategy:
    """The strategy that a run's configuration describes; see `resolve_strategy`."""
    places = Places("run configuration")
    made: Strategy = STRATEGIES.make("strategy", resolve_strategy(section, places), places, ("strategy",))
    return made
