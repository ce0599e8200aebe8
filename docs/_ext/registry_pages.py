"""A page for each name that a run.yaml can use: strategies, aggregators, optimisers, schedules, samplers, partitioners,
transforms."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml
from described import default, kind
from equations import rendered
from markdown import ORPHAN, block, code, definitions, inline, page, prose, table

from fedpkg.data.partitioners.registry import PARTITIONERS
from fedpkg.data.sources.registry import BY_SUFFIX, DATASETS
from fedpkg.registry import Parameter, Spec, names_of
from fedpkg.samplers.registry import SAMPLERS
from fedpkg.strategies.registry import STRATEGIES, folds_in_a_tree
from fedpkg.transforms.registry import TRANSFORMS

KINDS = {
    "strategy": (
        "strategies",
        "Strategies",
        "What the clients are asked, and what becomes of their replies: `strategy`.",
    ),
    "aggregator": ("aggregators", "Aggregators", "How the replies of a round become one model: `strategy.aggregator`."),
    "server_optimiser": (
        "server-optimisers",
        "Server optimisers",
        "How the server steps from the global model towards the aggregate: `strategy.server_optimiser`.",
    ),
    "schedule": ("schedules", "Schedules", "How the learning rate of a server optimiser changes from round to round."),
    "sampler": ("samplers", "Samplers", "Which clients a round asks: `sampler`."),
    "partitioner": (
        "partitioners",
        "Partitioners",
        "How a dataset is split among the clients: `clients.data.partition`.",
    ),
    "dataset": ("datasets", "Datasets", "What is split among the clients: `clients.data.dataset`."),
    "transform": ("transforms", "Transforms", "What is done to an update, or to the global model, on its way."),
}
# Parts of modules' names, and titles of the strategies in them.
GROUPS = (
    ("fltrust", "Means and robust aggregation"),
    ("aggregators.", "Means and robust aggregation"),
    ("server_optimisers.", "Optimisers at the server"),
    ("pipeline", "Composed of parts"),
    ("client_methods", "Methods of the clients"),
    ("fedbuff", "Asynchronous methods"),
    ("fedasync", "Asynchronous methods"),
    ("dp_fedavg", "Privacy"),
    ("ifca", "Personalisation by the server"),
    ("fedamp", "Personalisation by the server"),
    ("methods.split", "Split learning"),
    ("methods.sv", "Variance reduction with gradients and proximal steps"),
    ("methods.vrcs", "Variance reduction with gradients and proximal steps"),
    ("methods.", "Methods with a step of the server"),
    ("coordinators.", "Programs of your own"),
)
# Values of parameters that have no default, for the examples.
REQUIRED: Mapping[str, Any] = {
    "app": "my_app.server_app:app",
    "bits": 8,
    "classes_per_client": 2,
    "command": "python server.py",
    "database": "clinic.sqlite",
    "epsilon": 8.0,
    "every": 30,
    "folder": "server",
    "labels": "labels.pt",
    "local": ["head.*"],
    "matrix": [[0.9, 0.1], [0.1, 0.9]],
    "method": "central_mean",
    "module": "mean_of_clinics",
    "mu": 0.1,
    "noise_multiplier": 1.0,
    "norm": 1.0,
    "optimiser": "NAdam",
    "p": 0.01,
    "path": "data",
    "q": 0.01,
    "query": "SELECT age, height, label FROM visits ORDER BY id",
    "rounds": 100,
    "server_functions": "server_functions.py",
    "share": 0.1,
    "sizes": [0.5, 0.3, 0.2],
    "std": 0.01,
    "theta": 0.07,
    "trusted": "client-0",
}


def specs(of_kind: str) -> Iterator[Spec]:
    registry = next(one for one in (STRATEGIES, TRANSFORMS, SAMPLERS, PARTITIONERS, DATASETS) if of_kind in one.kinds)
    yield from registry.specs(of_kind)


def pages() -> Iterator[tuple[str, str]]:
    """Names of files below the folder of generated pages, and what is in them."""
    for of_kind, (folder, title, about) in KINDS.items():
        found = list(specs(of_kind))
        told = _options_of_partitioners() if of_kind == "partitioner" else ()
        yield f"{folder}/index.md", page(title, about, *_listed(found), *told)
        for spec in found:
            yield f"{folder}/{slug(spec)}.md", page_of(spec)


def _options_of_partitioners() -> Iterator[str]:
    yield "## Options of all partitioners"
    yield _definitions(PARTITIONERS.options)


def _listed(found: Sequence[Spec]) -> Iterator[str]:
    """Tables of names; of many, one for each group, by the modules that they are in."""
    groups: dict[str, list[Spec]] = {}
    for spec in found:
        module = inspect.unwrap(spec.make).__module__
        group = next((title for part, title in GROUPS if part in module), "Others") if len(found) > 20 else ""
        groups.setdefault(group, []).append(spec)
    for group, specs_of_it in groups.items():
        rows = [[f"[{one.name}]({slug(one)}.md)", ", ".join(one.aliases), inline(one.about)] for one in specs_of_it]
        if group:
            yield f"## {group}"
        yield table(["name", "also called", ""], rows)


def slug(spec: Spec) -> str:
    return re.sub(r"[^a-z0-9]+", "-", spec.name.lower())


def page_of(spec: Spec) -> str:
    return ORPHAN + page(
        f"{spec.kind.replace('_', ' ').capitalize()} {spec.name}",
        prose(spec.text),
        "## Equation\n\n" + rendered(spec.equation) if spec.equation else "",
        "## Parameters\n\n" + _parameters(spec) if spec.parameters else "",
        "## Example\n\n" + block("yaml", example(spec)),
        "## Facts\n\n" + table(["", ""], list(_facts(spec))),
    )


def _facts(spec: Spec) -> Iterator[tuple[str, str]]:
    if spec.aliases:
        yield "other names", ", ".join(map(code, names_of([spec])))
    if spec.paper:
        yield "paper", re.sub(r"arXiv:(\d+\.\d+)", r"[arXiv:\1](https://arxiv.org/abs/\1)", inline(spec.paper))
    if spec.kind in ("strategy", "aggregator"):
        yield "tolerated attackers", inline(spec.attackers)
        yield "[folds in a tree](../../../how-to/write-an-aggregator.md)", "yes" if folds_in_a_tree(spec) else "no"
    command = {"sampler": "sampler show", "partitioner": "data explain", "dataset": "data explain"}.get(
        spec.kind, "strategy show"
    )
    yield "in the terminal", code(f"fedpkg {command} {spec.name}")
    yield "source", code(inspect.unwrap(spec.make).__module__)


def _parameters(spec: Spec) -> str:
    return _definitions(spec.parameters)


def _definitions(parameters: Mapping[str, Parameter]) -> str:
    told = []
    for each in parameters.values():
        value = "required" if each.is_required else f"default {code(default(each.default))}"
        told.append((code(each.name), f"{type_of(each)}; {value}", inline(each.about)))
    return definitions(told)


def type_of(each: Parameter) -> str:
    if each.part is None:
        return kind(each.type)
    folder, title, _ = KINDS[each.part.kind]
    words = title.lower() if each.part.many else title.lower().removesuffix("s")
    link = f"[{words}](../{folder}/index.md)"
    return f"a list of {link}" if each.part.many else f"{'an' if words[0] in 'aeiou' else 'a'} {link}"


def example(spec: Spec) -> str:
    """The section of a run.yaml that uses a spec, with the parameters that must be given."""
    one = {"name": spec.name, **{name: REQUIRED[name] for name, each in spec.parameters.items() if each.is_required}}
    section: dict[str, Any] = {
        "strategy": {"strategy": one},
        "aggregator": {"strategy": {"aggregator": one}},
        "server_optimiser": {"strategy": {"server_optimiser": one}},
        "schedule": {"strategy": {"server_optimiser": {"name": "sgd", "schedule": one}}},
        "sampler": {"sampler": {**one, "fraction_train": 0.1}},
        "partitioner": {"clients": {**_count(spec), "data": {"dataset": "data.npz", "partition": one | _column(spec)}}},
        "dataset": {"clients": {"count": 10, "data": {"dataset": one | _path(spec)}}},
        "transform": {"strategy": {"name": "fedavg", "transforms": [one]}},
    }[spec.kind]
    return yaml.dump(section, sort_keys=False, default_flow_style=None, width=200, allow_unicode=True)


def _path(spec: Spec) -> dict[str, Any]:
    return {"path": f"data.{spec.name}"} if spec.name in BY_SUFFIX.values() else {}


def _count(spec: Spec) -> dict[str, Any]:
    return {} if getattr(spec.make, "tells_count", False) and "group_size" not in spec.parameters else {"count": 10}


def _column(spec: Spec) -> dict[str, Any]:
    needs = getattr(spec.make, "needs", "labels")
    return {"ids": {"by": "user"}, "values": {"by": "age"}}.get(needs if isinstance(needs, str) else "", {})
