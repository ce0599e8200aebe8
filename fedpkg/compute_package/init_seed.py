"""The seed model of packages without an entry point `build`: a function or a script that makes it, found by parsing."""

from __future__ import annotations

import ast
import dataclasses
import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path

from fedpkg.compute_package.imports import mentions, trees_of
from fedpkg.compute_package.review import script_of
from fedpkg.compute_package.spec import EntryPoint, PackageSpec
from fedpkg.fedn.callbacks import command_of_function, command_of_saving
from fedpkg.fedn.names import INIT_SEED, SERVED
from fedpkg.python_source import parsed
from fedpkg.waist.place import BUILD

_INIT_MODEL = "init_model"  # the name of the function in some packages, and of the script before FEDn 0.4
_SAVE = ("save_model", "save")  # methods of FEDn's helpers
_BIGGEST_SCRIPT = 1 << 20
_TWO_PATHS = re.compile(rb"\bargv\[[2-9]")  # of a script that turns one model into another, which another file may call


def with_init_seed(folder: Path, spec: PackageSpec) -> PackageSpec:
    """The entry points of the package in ``folder``, with a `build` that is found by parsing if there is no other.

    It is, in this order:

    - the function ``init_seed`` (or an ``init_model`` that writes a file) of the script whose command has the name of
      its entry point as a word (`python entrypoint train`, as before FEDn 0.9);
    - the ``init_seed`` of the only file beside fedn.yaml that has one;
    - the only script beside fedn.yaml, such as init_model.py, that is no entry point and saves a model by one of FEDn's
      helpers when it is run (as before FEDn 0.4).
    """
    if BUILD in spec.entry_points or spec.app is not None:  # a ServerApp makes its own model
        return spec
    of_script = (_command(folder, entry) for entry in spec.entry_points.values())
    command = next(filter(None, of_script), None) or _command_of_file(folder) or _command_of_script(folder, spec)
    if command is None:
        return spec
    return dataclasses.replace(spec, entry_points={**spec.entry_points, BUILD: EntryPoint(BUILD, command)})


def seed_script_beside(package: Path) -> str | None:
    """The script beside a package's folder or archive that saves a seed model when it is run; None if not just one."""
    scripts = [path.name for path in _saving_scripts(package.absolute().parent)]
    named = [name for name in scripts if "seed" in name or "init" in name]
    return named[0] if len(named) == 1 else None


def _command_of_file(folder: Path) -> str | None:
    trees = trees_of(folder) if mentions(folder, (f"def {INIT_SEED}(",)) else {}
    found = [path.name for path, tree in trees.items() if path.parent == folder and INIT_SEED in _functions(tree)]
    return command_of_function(INIT_SEED, found[0]) if len(found) == 1 else None


def _command_of_script(folder: Path, spec: PackageSpec) -> str | None:
    called = {script_of(entry.command) for entry in spec.entry_points.values()}
    found = [path.name for path in _saving_scripts(folder) if path.name not in called]
    return command_of_saving(found[0]) if len(found) == 1 else None


def _saving_scripts(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.glob("*.py")) if _saves_when_run(path)]


def _saves_when_run(path: Path) -> bool:
    """Whether a script imports FEDn and its main block, or a function that it calls there, saves a model.

    Scripts that take the paths of two models do not count.
    """
    try:
        if path.is_symlink() or not path.is_file() or path.stat().st_size > _BIGGEST_SCRIPT:
            return False
        text = path.read_bytes()
        if not any(name.encode() in text for name in SERVED) or b"__main__" not in text or _TWO_PATHS.search(text):
            return False
        tree = parsed(text)
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return any(_saves(block, _functions(tree)) for block in _main_blocks(tree))


def _main_blocks(tree: ast.Module) -> Iterator[ast.If]:
    for node in tree.body:
        if isinstance(node, ast.If) and "__main__" in ast.dump(node.test):
            yield node


def _saves(block: ast.AST, functions: Mapping[str, ast.FunctionDef]) -> bool:
    calls = [node.func for node in ast.walk(block) if isinstance(node, ast.Call)]
    if any(isinstance(call, ast.Attribute) and call.attr in _SAVE for call in calls):
        return True
    called = (functions[call.id] for call in calls if isinstance(call, ast.Name) and call.id in functions)
    return any(_saves(function, {}) for function in called)


def _command(folder: Path, entry: EntryPoint) -> str | None:
    script = script_of(entry.command)
    try:
        words = shlex.split(entry.command)
    except ValueError:
        return None
    if script is None or entry.name not in words:
        return None
    tree = trees_of(folder, [script]).get(folder / script)
    found = None if tree is None else _function(tree)
    if found is None:
        return None
    name, function = found
    command = " ".join([*map(shlex.quote, words[: words.index(entry.name)]), name])
    takes_a_path = function.args.args or function.args.posonlyargs or function.args.vararg
    # A function without a path writes seed.npz; the "#" turns the path that is appended later into a comment.
    return command if takes_a_path else f"{command} #"


def _function(tree: ast.Module) -> tuple[str, ast.FunctionDef] | None:
    """The function ``init_seed`` (or ``init_model``), by its own name or the one that a mapping for fire gives it."""
    named = {**_functions(tree), **_mapped(tree)}
    if INIT_SEED in named:
        return INIT_SEED, named[INIT_SEED]
    function = named.get(_INIT_MODEL)  # often it only returns a model
    return None if function is None or not _saves(function, _functions(tree)) else (_INIT_MODEL, function)


def _mapped(tree: ast.Module) -> dict[str, ast.FunctionDef]:
    functions, found = _functions(tree), {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values, strict=True):
                if isinstance(key, ast.Constant) and isinstance(value, ast.Name) and value.id in functions:
                    found[str(key.value)] = functions[value.id]
    return found


def _functions(tree: ast.Module) -> dict[str, ast.FunctionDef]:
    return {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
