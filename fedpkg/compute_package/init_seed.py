"""The seed model of packages for FEDn before 0.9: the function ``init_seed`` of their script, found by parsing it."""

from __future__ import annotations

import ast
import dataclasses
import shlex
from pathlib import Path

from fedpkg.compute_package.imports import trees_of
from fedpkg.compute_package.review import script_of
from fedpkg.compute_package.spec import EntryPoint, PackageSpec
from fedpkg.fedn.names import INIT_SEED
from fedpkg.waist.place import BUILD


def with_init_seed(folder: Path, spec: PackageSpec) -> PackageSpec:
    """The entry points of the package in ``folder``; `build` may be its script's ``init_seed``.

    It counts in the script that a command calls by the name of an entry point: `python entrypoint train`.
    """
    if BUILD in spec.entry_points:
        return spec
    for entry in spec.entry_points.values():
        command = _command(folder, entry)
        if command is not None:
            return dataclasses.replace(spec, entry_points={**spec.entry_points, BUILD: EntryPoint(BUILD, command)})
    return spec


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
    # What takes no path writes seed.npz; the path that is appended then stands in a comment.
    return command if takes_a_path else f"{command} #"


def _function(tree: ast.Module) -> ast.FunctionDef | None:
    """The function ``init_seed``, or the one that a mapping for fire calls so."""
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    if INIT_SEED in functions:
        return functions[INIT_SEED]
    for node in ast.walk(tree):
        if isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values, strict=True):
                is_it = isinstance(key, ast.Constant) and key.value == INIT_SEED and isinstance(value, ast.Name)
                if is_it and isinstance(value, ast.Name) and value.id in functions:
                    return functions[value.id]
    return None
