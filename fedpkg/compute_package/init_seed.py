"""The seed model of packages without an entry point `build`: a script's function ``init_seed``, found by parsing."""

from __future__ import annotations

import ast
import dataclasses
import shlex
from pathlib import Path

from fedpkg.compute_package.imports import mentions, trees_of
from fedpkg.compute_package.review import script_of
from fedpkg.compute_package.spec import EntryPoint, PackageSpec
from fedpkg.fedn.callbacks import command_of_function
from fedpkg.fedn.names import INIT_SEED
from fedpkg.waist.place import BUILD


def with_init_seed(folder: Path, spec: PackageSpec) -> PackageSpec:
    """The entry points of the package in ``folder``, with an ``init_seed`` as `build` if there is no other.

    It is that of the script whose command has the name of its entry point as a word (`python entrypoint train`, as
    before FEDn 0.9), or else that of the only file beside fedn.yaml that has such a function.
    """
    if BUILD in spec.entry_points:
        return spec
    of_script = (_command(folder, entry) for entry in spec.entry_points.values())
    command = next(filter(None, of_script), None) or _command_of_file(folder)
    if command is None:
        return spec
    return dataclasses.replace(spec, entry_points={**spec.entry_points, BUILD: EntryPoint(BUILD, command)})


def _command_of_file(folder: Path) -> str | None:
    trees = trees_of(folder) if mentions(folder, (f"def {INIT_SEED}(",)) else {}
    found = [path.name for path, tree in trees.items() if path.parent == folder and INIT_SEED in _functions(tree)]
    return command_of_function(INIT_SEED, found[0]) if len(found) == 1 else None


def _command(folder: Path, entry: EntryPoint) -> str | None:
    script = script_of(entry.command)
    try:
        words = shlex.split(entry.command)
    except ValueError:
        return None
    if script is None or entry.name not in words:
        return None
    tree = trees_of(folder, [script]).get(folder / script)
    function = None if tree is None else _function(tree)
    if function is None:
        return None
    command = " ".join([*map(shlex.quote, words[: words.index(entry.name)]), INIT_SEED])
    takes_a_path = function.args.args or function.args.posonlyargs or function.args.vararg
    # A function without a path writes seed.npz; the "#" turns the path that is appended later into a comment.
    return command if takes_a_path else f"{command} #"


def _function(tree: ast.Module) -> ast.FunctionDef | None:
    """The function ``init_seed``, or the one to which a mapping for fire gives this name."""
    functions = _functions(tree)
    if INIT_SEED in functions:
        return functions[INIT_SEED]
    for node in ast.walk(tree):
        if isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values, strict=True):
                is_it = isinstance(key, ast.Constant) and key.value == INIT_SEED and isinstance(value, ast.Name)
                if is_it and isinstance(value, ast.Name) and value.id in functions:
                    return functions[value.id]
    return None


def _functions(tree: ast.Module) -> dict[str, ast.FunctionDef]:
    return {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
