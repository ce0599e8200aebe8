"""Imports point down: the rows of fedpkg/DESIGN.md, checked on every module."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3] / "fedpkg"
# From the top. A row imports rows below it, never its neighbours; within one name everything goes.
ROWS = [
    {"library"},
    {"cli"},
    {"dashboard"},
    {"fedn_imports"},
    {"api_client", "api"},
    {"api_remote"},
    {"api_reading"},
    {"api_answers", "api_settings"},
    {"experiments"},
    {"session"},
    {"clusters", "preflight", "reporting", "tracking", "topology"},
    {"controller", "dispatch", "coordinators", "apps.strategy", "apps.transforming"},
    {"compute_package", "environments", "strategies", "samplers", "data", "stores"},
    {"replies"},
    {"transforms"},
    {"formats"},
    {"weights"},
    {"config_reading", "config_keys"},
    {"config_rules"},
    {"config", "registry", "package_yaml"},
    {"config_topology"},
    {"config_shape", "config_sections", "yaml_places", "toml_places"},
    {"waist", "pictures"},
    {"interpreters", "means", "devices", "small_files"},
    {"files"},
    {"log"},
    {"apps", "analytics"},
    {"partitions"},
    {"errors", "types", "rules", "shown", "shares", "fedn"},
    {"records"},
    {"client"},
    {"python_source"},
]
LEVEL = {name: len(ROWS) - number for number, row in enumerate(ROWS) for name in row}
IN_TASKS = {
    "client",
    "records",
    "apps",
    "analytics",
    "partitions",
    "errors",
}  # these are found in every task, even if fedpkg is not installed there
# Parts of apps that are not there in every task: they use the rooms of the strategies and transforms.
APART = {"apps/strategy": "apps.strategy", "apps/mods/transforming.py": "apps.transforming"}
# The same within strategies/; what is not named here, and the protocols of the rooms (base.py), lie below.
STRATEGIES = [{"methods"}, {"pipeline"}, {"aggregators", "server_optimisers"}]


def modules() -> Iterator[Path]:
    for path in sorted(ROOT.rglob("*.py")):
        if "templates" in path.parts:  # they are copied, and not imported
            continue
        if path.parent != ROOT or path.name not in ("__init__.py", "__main__.py"):
            yield path


def room_of(path: Path) -> str:
    inside = path.relative_to(ROOT)
    apart = next((room for part, room in APART.items() if inside.is_relative_to(part)), None)
    return apart or inside.parts[0].removesuffix(".py")


@functools.cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def imports_of(path: Path) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports are absolute"
            yield node.lineno, node.module or ""
        elif isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)


@functools.cache
def graph() -> dict[str, frozenset[str]]:
    """The modules of fedpkg that each one imports."""
    found = {}
    paths = {".".join(path.relative_to(ROOT.parent).with_suffix("").parts): path for path in ROOT.rglob("*.py")}
    paths = {name.removesuffix(".__init__"): path for name, path in paths.items()}
    for module, path in paths.items():
        named = set()
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.ImportFrom):
                inner = {f"{node.module}.{alias.name}" for alias in node.names}
                named |= (inner & paths.keys()) | ({node.module or ""} if inner - paths.keys() else set())
            elif isinstance(node, ast.Import):
                named |= {alias.name for alias in node.names}
        found[module] = frozenset(named & paths.keys() - {module})
    return found


# Programs of the runtime that run what packages and apps have: they use FEDn's modules, and what is in every task.
PROGRAMS = (
    "_fedpkg_algorithm_central.py",
    "_fedpkg_algorithm_node.py",
    "_fedpkg_callbacks.py",
    "_fedpkg_client_app.py",
    "_fedpkg_model_app.py",
    "_fedpkg_server_app.py",
    "_fedpkg_server_functions.py",
    "_fedpkg_split.py",
    "_fedpkg_split_server.py",
)


@pytest.mark.parametrize("room", sorted({room_of(path) for path in modules()}))
def test_modules_of_a_room_import_only_what_is_below_it(room: str) -> None:
    found = [(path, *imported) for path in modules() if room_of(path) == room for imported in imports_of(path)]
    for path, line, name in found:
        if not name.startswith("fedpkg"):
            continue
        target = [*name.split("."), ""][1]
        if room == "runtime" and target in IN_TASKS:  # which is found everywhere
            assert path.name in PROGRAMS, f"{path}:{line}: of what runs in a task, only programs that call a package's"
            continue
        assert room != "runtime", f"{path}:{line}: what runs inside a task imports nothing of fedpkg"
        assert room not in IN_TASKS or target in IN_TASKS, f"{path}:{line}: it is all of fedpkg that entry points have"
        if target in ("", room.partition(".")[0]):
            continue
        assert LEVEL[room] > LEVEL[target], f"{path}:{line}: {room} may not import {target}"


def test_rooms_of_the_strategies_import_only_what_is_below_them() -> None:
    level = {room: len(STRATEGIES) - number for number, row in enumerate(STRATEGIES) for room in row}
    inside = {name: name.split(".")[2] for name in graph() if name.startswith("fedpkg.strategies.")}
    for name, room in inside.items():
        for target in graph()[name] & inside.keys():
            is_below = level.get(room, 0) > level.get(inside[target], 0)
            assert room == inside[target] or is_below or inside[target] not in level or target.endswith(".base"), (
                f"{name} may not import {target}"
            )


def test_there_is_no_circle_of_imports() -> None:
    """Of any kind: at the top of a module, in a function, or for types alone. What is found by its name in a run.yaml
    (`fedpkg/registry.py`) is imported by that name, which no module writes down as an import.
    """
    left = dict(graph())
    while free := {name for name, imported in left.items() if not imported & left.keys()}:
        left = {name: imported for name, imported in left.items() if name not in free}
    assert not left, f"each of these imports one of the others: {', '.join(sorted(left))}"


def test_only_a_session_knows_what_runs_its_tasks() -> None:
    """Whoever lies above the seam sees an `Executor`: the controller is its neighbour, the others go by the session."""
    rooms = {room_of(path) for path in modules() for _, name in imports_of(path) if name.startswith("fedpkg.dispatch")}
    assert rooms == {"dispatch", "session"}


def test_every_room_has_a_row() -> None:
    assert {room_of(path) for path in modules()} - {"runtime"} == set(LEVEL)


def test_zygote_needs_only_the_standard_library() -> None:
    import sys

    for path in (ROOT / "runtime").rglob("*.py"):
        serves_fedn = "compat" in path.parts or path.name in PROGRAMS
        # What a package of FEDn's needs anyway; of fedpkg, the client that is found everywhere.
        compat = ("numpy", "fedn", "vantage6") if serves_fedn else ()
        if path.name == "_fedpkg_split_server.py":  # whose model is a torch module
            compat += ("torch",)
        for line, name in imports_of(path):
            top = name.partition(".")[0]
            known = top in sys.stdlib_module_names or top.startswith("_fedpkg_") or top in compat
            known = known or (serves_fedn and name.startswith(tuple(f"fedpkg.{room}" for room in IN_TASKS)))
            assert known, f"{path}:{line}: {name}"


def test_client_needs_numpy_and_torch_only_when_they_are_used() -> None:
    import sys

    for path in (ROOT / "client").rglob("*.py"):
        for node in tree_of(path).body:
            names = [each.name for each in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                assert name.partition(".")[0] in {*sys.stdlib_module_names, "fedpkg"}, f"{path}:{node.lineno}: {name}"
        for line, name in imports_of(path):
            top = name.partition(".")[0]
            assert top in {*sys.stdlib_module_names, "fedpkg", "numpy", "torch"}, f"{path}:{line}: {name}"


def test_the_database_of_a_home_is_chosen_in_one_place() -> None:
    who = {
        str(path.relative_to(ROOT)) for path in modules() for _, name in imports_of(path) if name.endswith(".sqlite")
    }
    assert who == {"stores/opening.py"}


def test_every_module_says_what_it_is_for() -> None:
    for path in ROOT.rglob("*.py"):
        assert ast.get_docstring(tree_of(path)), f"{path} has no docstring"
