"""What a warm interpreter imports before a script begins: only what the script would get by importing it first.

Found by parsing, never by running. Each script is followed statement by statement, together with the modules of the
package that it imports, as far as the first statement that could change a later import. Constant assignments to the
environment and constant warning filters are steps like the imports: the warm interpreter takes them in the script's
order. Statements after the last import do not matter. Imports inside functions come after all of that: they are
preloaded only where nothing in the script's files changes settings.

Scripts with the same settings share a warm interpreter; a script with other settings has its own.
"""

from __future__ import annotations

import ast
import builtins
import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fedpkg.compute_package.imports import USES_NUMPY, own_names, python_files, trees_of
from fedpkg.types import Json

# ("import", module, names) · ("environ", "set" | "setdefault" | "putenv", name, value)
# ("warnings", function, arguments, named arguments) · ("optimiser",): the first step of one imports torch._dynamo
Step = tuple[Any, ...]
OPTIMISER: Step = ("optimiser",)

# Calls that change nothing an import could see.
_HARMLESS = re.compile(
    r"(os\.path|pathlib|re|math|typing|typing_extensions|collections|functools|itertools|dataclasses|enum|abc|operator"
    r"|string|time|datetime|json|copy|argparse|contextlib|textwrap|uuid|platform|fedn|scaleoututil|fedpkg)\..+"
    r"|logging\.getLogger|os\.(getenv|getcwd|getpid|listdir|cpu_count|fspath|stat|scandir|walk|remove|setsid|setpgid)"
    r"|os\.environb?\.(get|copy|items|keys|values)|sys\.(exit|intern|getsizeof)|warnings\.catch_warnings"
    r"|(numpy|torch)\.(append|add|insert)"
)
_HARMFUL_BUILTINS = {"exec", "eval", "__import__", "setattr", "delattr", "breakpoint", "input"}
# Functions whose names say that they set something, whatever they return.
_SETS = re.compile(
    r"set\w*|use(_\w+)?|(enable|disable|init|install|patch|register|config|activate|switch|load_dotenv)\w*|\w*seed\w*"
    r"|chdir|update|\w+warnings|simplefilter|append|extend|insert|pop|popitem|remove|clear|add|discard|putenv|unsetenv"
    r"|(basic|dict|file)Config"
)
_WRITES = re.compile(r"write\w*|mkdir|touch")
# Changes that are common in functions and do not bear on imports.
_NO_IMPORT = re.compile(
    r"(.*\.)?(\w*seed\w*|set_num_threads|set_grad_enabled|set_(rng_)?state)|(torch\.backends|logging|random|numpy\.random)\..*|builtins\.open"
)
_FILTER_ACTIONS = ("ignore", "default", "always", "module", "once")
_SEEN_BY_TORCH = re.compile(
    r"os\.(environb?\b.*|putenv|unsetenv)|sys\.(modules|meta_path)\b.*|builtins\.(exec|setattr)|.*dotenv.*"
)
_READ_BY_TORCH = re.compile(r"TORCH|TRITON|DYNAMO|INDUCTOR")
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)


@dataclass(frozen=True)
class LeftOut:
    """A module that the script imports anew in every task, and why."""

    module: str
    because: str


@dataclass(frozen=True)
class Preload:
    """What one warm interpreter does before it forks, for the scripts that share it."""

    scripts: tuple[str, ...]
    steps: tuple[Step, ...]
    left_out: tuple[LeftOut, ...] = ()

    @property
    def modules(self) -> list[str]:
        """Dotted names of what is imported, names taken from a module included."""
        imports = [step for step in self.steps if step[0] == "import"]
        return list(
            dict.fromkeys(f"{name}.{part}" if part else name for _, name, parts in imports for part in parts or ("",))
        )

    @property
    def settings(self) -> list[str]:
        """What it sets before or between the imports, for people."""
        said = {
            "set": "os.environ[{0!r}] = {1!r}",
            "setdefault": "os.environ.setdefault({0!r}, {1!r})",
            "putenv": "os.putenv({0!r}, {1!r})",
        }
        return [
            said[step[1]].format(*step[2:]) if step[0] == "environ" else f"warnings.{step[1]}"
            for step in self.steps
            if step[0] in ("environ", "warnings")
        ]

    def to_json(self) -> dict[str, Json]:
        return {
            "scripts": list(self.scripts),
            "settings": list(self.settings),
            "modules": list(self.modules),
            "left_out": [{"module": one.module, "because": one.because} for one in self.left_out],
        }


def is_slow(module: str) -> bool:
    """Whether to import a module anew in every task takes long enough to speak of it."""
    return module.partition(".")[0] not in sys.stdlib_module_names


def preloads_of(
    folder: Path, scripts: Iterable[str], modules: Iterable[str] = (), *, settings: bool = True
) -> dict[str, Preload]:
    """What to preload for each script, and each module that ``python -m`` runs (key ``-m name``).

    Without ``settings``, none of a script's settings is made before it is forked: the imports after it stay out.
    """
    package = _Package(folder, scripts)
    starts = {script: [folder / script] for script in scripts}
    starts.update(
        (f"-m {name}", package.files_of(f"{name}.__main__", folder, folder) or package.files_of(name, folder, folder))
        for name in modules
    )
    readers = {}
    for name, files in starts.items():
        readers[name] = reader = _Reader(package, files[-1].parent if files else folder, settings=settings)
        for file in files:
            reader.read(file, main=file is files[-1])
    elsewhere = package.unread({file for reader in readers.values() for file in reader.files})
    groups: dict[object, list[tuple[str, list[Step], list[LeftOut]]]] = {}
    for name, reader in readers.items():
        steps, left_out = reader.finish(elsewhere)
        last = max((number for number, step in enumerate(steps, 1) if step[0] in ("environ", "warnings")), default=0)
        optimiser = OPTIMISER in steps
        key = (tuple(steps), tuple(left_out)) if left_out else (tuple(steps[:last]), optimiser)
        groups.setdefault(key, []).append((name, steps, left_out))
    found = {}
    for members in groups.values():
        together = dict.fromkeys(step for _, steps, _ in members for step in steps)
        if together.pop(OPTIMISER, OPTIMISER) is None:
            together[OPTIMISER] = None
        names = tuple(name for name, _, _ in members)
        found.update(dict.fromkeys(names, Preload(names, tuple(together), tuple(members[0][2]))))
    return found


@dataclass
class _File:
    """One of the package's files, and what the names in it stand for."""

    shown: str
    tree: ast.Module
    names: dict[str, str] = field(default_factory=dict)  # → dotted name of something outside the package
    own: set[str] = field(default_factory=set)

    def origin(self, node: ast.AST) -> str | None:
        """The dotted name of what an expression refers to, if that lies outside the package."""
        parts: list[str] = []
        while isinstance(node, ast.Attribute):
            parts.append(node.attr)
            node = node.value
        if not isinstance(node, ast.Name):
            return None
        base = self.names.get(node.id)
        if base is None and node.id not in self.own and hasattr(builtins, node.id):
            base = f"builtins.{node.id}"
        return ".".join([base, *reversed(parts)]) if base else None

    def place(self, node: ast.AST) -> str:
        return f"{self.shown}:{getattr(node, 'lineno', 1)}"


@dataclass(frozen=True)
class _Change:
    """A statement that could change a later import."""

    node: ast.AST
    what: str
    about: str  # what it changes: a dotted name
    variable: str | None = None  # of the environment, where it is known
    in_function: bool = False

    @property
    def bears(self) -> bool:
        """Whether it counts for imports in functions."""
        return not _NO_IMPORT.fullmatch(self.about)

    @property
    def seen_by_torch(self) -> bool:
        """Whether the import of ``torch._dynamo``, which the first optimiser does, could see it."""
        return bool(_SEEN_BY_TORCH.fullmatch(self.about) and _READ_BY_TORCH.search(self.variable or "TORCH"))


class _Package:
    """The package's files, parsed, and which of them an import finds."""

    def __init__(self, folder: Path, scripts: Iterable[str]) -> None:
        self.folder = folder
        self.own = own_names(folder)
        self._trees = trees_of(folder, scripts)
        self.files = dict.fromkeys([*self._trees, *python_files(folder)])
        self._read: dict[Path, _File | None] = {}

    def file(self, path: Path) -> _File | None:
        if path not in self._read:
            tree = self._trees.get(path)
            self._read[path] = None if tree is None else self._names(path, tree)
        return self._read[path]

    def unread(self, read: set[Path]) -> list[_File]:
        return [file for path in self.files if path not in read and (file := self.file(path)) is not None]

    def _names(self, path: Path, tree: ast.Module) -> _File:
        file = _File(self.shown(path), tree)
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    if not self.is_own(alias.name):
                        name = alias.name if alias.asname else alias.name.partition(".")[0]
                        file.names[alias.asname or name] = name
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module and not self.is_own(node.module):
                file.names.update((alias.asname or alias.name, f"{node.module}.{alias.name}") for alias in node.names)
            elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                file.own.add(node.name)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                file.own.add(node.id)
        for node in ast.walk(tree):  # ``env = os.environ``
            if isinstance(node, ast.Assign) and (origin := file.origin(node.value)):
                file.names.update((target.id, origin) for target in node.targets if isinstance(target, ast.Name))
        return file

    def shown(self, path: Path) -> str:
        return str(path.relative_to(self.folder)) if path.is_relative_to(self.folder) else str(path)

    def is_own(self, module: str) -> bool:
        return module.partition(".")[0] in self.own

    def files_of(self, module: str, *places: Path) -> list[Path]:
        """The package's files that run when ``module`` is imported from one of the folders, or from anywhere in it."""
        parts = module.split(".")
        for place in places:
            found = []
            for part in parts:
                if (init := place / part / "__init__.py") in self.files:
                    found.append(init)
                elif (file := place / f"{part}.py") in self.files:
                    found.append(file)
                place = place / part
            if found and (found[-1].stem == parts[-1] or found[-1].parent.name == parts[-1]):
                return found
        named = (f"{parts[-1]}.py", f"{parts[-1]}/__init__.py")
        return [path for path in self.files if path.as_posix().endswith(tuple(f"/{name}" for name in named))]


class _Reader:
    """Follows one script through its statements and modules, in the order in which they would run."""

    def __init__(self, package: _Package, script_folder: Path, *, settings: bool) -> None:
        self.package = package
        self.script_folder = script_folder
        self.settings = settings
        self.steps: list[Step] = []
        self.late: dict[str, str] = {}  # module → why it is left out
        self.files: dict[Path, None] = {}
        self.change: str | None = None  # the first one that nothing may be imported ahead of
        self.unsettled: str | None = None  # why imports in functions stay out
        self.taken: set[ast.AST] = set()  # nodes of settings that are steps
        self.changes: dict[Path, list[_Change]] = {}

    # ---- statements

    def read(self, path: Path, *, main: bool = False) -> None:
        if path in self.files:
            return
        self.files[path] = None
        file = self.package.file(path)
        if file is None:
            self.stop(f"{self.package.shown(path)} cannot be read")
            return
        self.changes[path] = _changes_in(file)
        try:
            self.body(file.tree.body, file, path, main, certain=True)
        except RecursionError:  # an ``elif`` is a level deeper than the one before it
            self.unsettled = self.unsettled or f"{file.shown} has too many blocks in one another"
            self.stop(self.unsettled)

    def body(self, nodes: Iterable[ast.stmt], file: _File, path: Path, main: bool, *, certain: bool) -> None:
        for node in nodes:
            self.statement(node, file, path, main, certain)

    def statement(self, node: ast.stmt, file: _File, path: Path, main: bool, certain: bool) -> None:
        if isinstance(node, ast.Import):
            for alias in node.names:
                self.module(alias.name, (), path)
        elif isinstance(node, ast.ImportFrom):
            self.module(self.absolute(node, path), tuple(alias.name for alias in node.names if alias.name != "*"), path)
        elif isinstance(node, ast.If) and (truth := _known(node.test, main)) is not None:
            self.body(node.body if truth else node.orelse, file, path, main, certain=certain)
        elif not certain or self.change or not self.setting(node, file):
            if not self.change:
                for change in self.at_once(node, file):
                    self.stop(f"{file.place(change.node)} {change.what}")
                    break
            for nested in _nested(node):
                self.body(nested, file, path, main, certain=certain and isinstance(node, ast.ClassDef))

    def absolute(self, node: ast.ImportFrom, path: Path) -> str:
        if not node.level:
            return node.module or ""
        place = path.parents[node.level - 1] if node.level <= len(path.parents) else None
        if place is None or not place.is_relative_to(self.package.folder):  # it fails, in every task
            return ""
        return ".".join([*place.relative_to(self.package.folder).parts, *filter(None, [node.module])])

    def module(self, name: str, names: tuple[str, ...], path: Path) -> None:
        if name == "__future__":
            return
        if not name or self.package.is_own(name):
            places = (self.script_folder, self.package.folder, path.parent)
            for wanted in (name, *(f"{name}.{part}".strip(".") for part in names)):
                if wanted and (wanted == name or self.package.is_own(wanted)):
                    for found in (
                        self.package.files_of(wanted, *places) if wanted == name else self.inner(wanted, places)
                    ):
                        self.read(found)
        elif self.change is None:
            self.steps.append(("import", name, names))
        elif not self.has(name):
            self.late.setdefault(name, self.change)

    def inner(self, module: str, places: Sequence[Path]) -> list[Path]:
        """``from own import name``: the files of the module ``own.name``, if it is one."""
        parts = module.split(".")
        files = [place.joinpath(*parts).with_suffix(".py") for place in places]
        files += [place.joinpath(*parts, "__init__.py") for place in places]
        return [file for file in files if file in self.package.files]

    def has(self, module: str) -> bool:
        return any(
            step[0] == "import" and (step[1] == module or step[1].startswith(f"{module}.")) for step in self.steps
        )

    def stop(self, because: str) -> None:
        self.change = self.change or because

    # ---- settings that the warm interpreter can make itself

    def setting(self, node: ast.stmt, file: _File) -> bool:
        steps = _constant_settings(node, file)
        if steps is None or not (self.settings or all(step[0] == "warnings" for step in steps)):
            return False
        self.steps += steps
        self.taken.update(ast.walk(node))
        return True

    # ---- what else could change an import

    def at_once(self, node: ast.stmt, file: _File) -> Iterator[_Change]:
        """What the statement itself changes when it runs, without the statements in it."""
        discarded = node.value if isinstance(node, ast.Expr) else None
        entered = [item.context_expr for item in node.items] if isinstance(node, (ast.With, ast.AsyncWith)) else []
        yield from _assigned(node, file)
        for one in _expressions(node):
            for call in _walk(one, stop=ast.Lambda):
                if not isinstance(call, ast.Call):
                    continue
                origin = file.origin(call.func)
                if origin in ("importlib.import_module", "builtins.__import__"):
                    yield _Change(call, f"imports a module by {origin}", origin)
                elif change := _call(call, file):
                    yield change
                elif origin is None:
                    if change := self.within(call):
                        yield change
                elif (call is discarded or call in entered) and not _is_harmless(origin):
                    if node.lineno < _last_definition(file):
                        self.unsettled = self.unsettled or f"{file.place(call)} calls {origin}"
                    yield _Change(call, f"calls {origin}", origin)

    def within(self, call: ast.Call) -> _Change | None:
        """What a call of something that is not from outside may change: whatever the package's functions change."""
        name = call.func.attr if isinstance(call.func, ast.Attribute) else ""
        if isinstance(call.func, ast.Attribute) and isinstance(call.func.value, (ast.Constant, ast.JoinedStr)):
            return None  # a method of a string
        if _WRITES.fullmatch(name):
            return _Change(call, f"calls {name}", name)
        for path, changes in self.changes.items():
            for change in changes:
                if change.in_function and change.about != "builtins.open":  # whose files are seldom read by imports
                    where = f"{self.package.shown(path)}:{getattr(change.node, 'lineno', 1)}"
                    return _Change(call, f"may run {where}, which {change.what}", change.about)
        return None

    # ---- imports in functions, and in files that no script imports in plain sight

    def finish(self, elsewhere: Iterable[_File]) -> tuple[list[Step], list[LeftOut]]:
        read = [(path, file) for path in self.files if (file := self.package.file(path)) is not None]
        changes = [
            (file, change) for path, file in read for change in self.changes[path] if change.node not in self.taken
        ]
        bearing = [f"{file.place(change.node)} {change.what}" for file, change in changes if change.bears]
        because = next(filter(None, [self.unsettled, self.change if self.late else None, *bearing]), None)
        late = dict(self.late)
        for name, names in (one for _, file in read for one in _imports(file.tree)):
            if self.package.is_own(name):
                continue
            if because is None:
                self.steps.append(("import", name, names))
            elif not self.has(name):
                late.setdefault(name, because)
        if because is None:
            calm = [file for file in elsewhere if not any(change.bears for change in _changes_in(file))]
            found = [one for file in calm for one in _imports(file.tree) if not self.package.is_own(one[0])]
            self.steps += [("import", *one) for one in found]
            tops = {step[1].partition(".")[0] for step in self.steps if step[0] == "import"}
            if tops.intersection(USES_NUMPY):
                self.steps.append(("import", "numpy", ()))
            if "fedpkg" in tops:
                self.steps.append(("import", "fedpkg.client", ()))  # ``from fedpkg import client``
        seen = [f"{file.place(change.node)} {change.what}" for file, change in changes if change.seen_by_torch]
        if not seen:
            self.steps.append(OPTIMISER)
        elif self.has("torch"):
            late.setdefault("torch._dynamo", seen[0])
        return list(dict.fromkeys(self.steps)), [LeftOut(*one) for one in late.items()]


# ---- parts of statements


def _nested(node: ast.stmt) -> Iterator[list[ast.stmt]]:
    """The blocks of a statement that run with it."""
    if isinstance(node, _FUNCTIONS):
        return
    for name in ("body", "handlers", "cases", "orelse", "finalbody"):
        for one in getattr(node, name, []):
            yield [one] if isinstance(one, ast.stmt) else one.body


def _expressions(node: ast.stmt) -> Iterator[ast.AST]:
    """The expressions of a statement that run with it, without those of the statements in it."""
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
        yield from [*node.decorator_list, *node.args.defaults, *filter(None, node.args.kw_defaults)]
        return
    for name, value in ast.iter_fields(node):
        if name not in ("body", "orelse", "finalbody", "handlers", "cases"):
            yield from (one for one in (value if isinstance(value, list) else [value]) if isinstance(one, ast.AST))


def _walk(node: ast.AST, *, stop: type[ast.AST]) -> Iterator[ast.AST]:
    pending = [node]
    while pending:  # a sum of a thousand terms is a thousand levels deep
        node = pending.pop()
        if not isinstance(node, stop):
            yield node
            pending += reversed(list(ast.iter_child_nodes(node)))


def _known(test: ast.expr, main: bool) -> bool | None:
    """The truth of ``__name__ == "__main__"`` and ``TYPE_CHECKING``; None for everything else."""
    if (
        isinstance(test, (ast.Name, ast.Attribute))
        and getattr(test, "id", getattr(test, "attr", "")) == "TYPE_CHECKING"
    ):
        return False
    if isinstance(test, ast.Compare) and len(test.ops) == 1 and isinstance(test.ops[0], ast.Eq):
        sides = (test.left, test.comparators[0])
        if any(isinstance(side, ast.Name) and side.id == "__name__" for side in sides):
            return main if any(isinstance(side, ast.Constant) and side.value == "__main__" for side in sides) else None
    return None


def _imports(tree: ast.AST) -> list[tuple[str, tuple[str, ...]]]:
    """Absolute imports anywhere in a file."""
    found: list[tuple[str, tuple[str, ...]]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.name, ()) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.append((node.module, tuple(alias.name for alias in node.names if alias.name != "*")))
    return [(name, names) for name, names in found if name != "__future__"]


def _last_definition(file: _File) -> int:
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return max((node.lineno for node in file.tree.body if isinstance(node, kinds)), default=0)


# ---- what changes an import


def _is_harmless(origin: str) -> bool:
    if origin.startswith("builtins."):
        return origin.split(".")[1] not in _HARMFUL_BUILTINS
    return _HARMLESS.fullmatch(origin) is not None


def _changes_in(file: _File) -> list[_Change]:
    """Statements anywhere in a file that could change an import which comes after them."""
    inside = {node for one in ast.walk(file.tree) if isinstance(one, _FUNCTIONS) for node in ast.walk(one)}
    found: list[_Change] = []
    for node in ast.walk(file.tree):
        if isinstance(node, ast.stmt):
            found += _assigned(node, file)
        elif isinstance(node, ast.Call) and (change := _call(node, file)):
            found.append(change)
    return [replace(change, in_function=change.node in inside) for change in found]


def _assigned(node: ast.stmt, file: _File) -> Iterator[_Change]:
    """Assignments to parts of what is outside the package, as ``os.environ[…]`` and ``torch.nn.Linear.forward``."""
    targets: Sequence[ast.expr] = ()
    if isinstance(node, (ast.Assign, ast.Delete)):
        targets = node.targets
    elif isinstance(node, (ast.AugAssign, ast.AnnAssign)):
        targets = [node.target]
    for target in targets:
        for one in target.elts if isinstance(target, (ast.Tuple, ast.List)) else [target]:
            root: ast.AST = one
            while isinstance(root, ast.Subscript):
                root = root.value
            about = file.origin(root)
            if about is None and isinstance(root, ast.Attribute):
                inner: ast.AST = root
                while isinstance(inner, (ast.Attribute, ast.Subscript)):
                    inner = inner.value
                about = file.origin(inner)
            if isinstance(root, ast.Call) and (called := file.origin(root.func)):
                yield _Change(node, f"changes what {called} returns", called)
            elif about is not None and (
                root is not one or isinstance(one, ast.Attribute) or isinstance(node, ast.AugAssign)
            ):
                variable = (
                    one.slice.value if isinstance(one, ast.Subscript) and isinstance(one.slice, ast.Constant) else None
                )
                yield _Change(node, f"changes {about}", about, variable if isinstance(variable, str) else None)


def _call(call: ast.Call, file: _File) -> _Change | None:
    """Whether a call sets something outside the package, by its name."""
    origin = file.origin(call.func)
    given = [file.origin(argument) for argument in call.args]
    if origin is None:
        handed = next((one for one in given if one in ("os.environ", "sys.path", "sys.modules")), None)
        return _Change(call, f"hands {handed} on", handed) if handed else None
    if origin in ("builtins.setattr", "builtins.delattr"):
        return _Change(call, f"changes {given[0]}", given[0]) if given and given[0] else None
    if origin == "builtins.open":
        modes = [
            one for one in (*call.args[1:2], *(key.value for key in call.keywords)) if isinstance(one, ast.Constant)
        ]
        writes = any(
            isinstance(mode.value, str) and re.fullmatch(r"[rwaxbt+]*[wax+][rwaxbt+]*", mode.value) for mode in modes
        )
        return _Change(call, "writes a file", "builtins.open") if writes else None
    if _is_harmless(origin):
        return None
    if origin == "builtins.exec" or (_SETS.fullmatch(origin.rpartition(".")[2]) and not origin.startswith("builtins.")):
        first = call.args[0].value if call.args and isinstance(call.args[0], ast.Constant) else None
        return _Change(call, f"calls {origin}", origin, first if isinstance(first, str) else None)
    return None


def _constant_settings(node: ast.stmt, file: _File) -> list[Step] | None:
    """The steps of a statement that only sets variables of the environment, or a warning filter, to constants."""
    pairs: list[tuple[str, ast.AST, ast.AST]] = []
    if isinstance(node, ast.Assign):
        for target in node.targets:
            if not isinstance(target, ast.Subscript) or file.origin(target.value) != "os.environ":
                return None
            pairs.append(("set", target.slice, node.value))
    elif isinstance(node, ast.AugAssign):
        if file.origin(node.target) != "os.environ" or not isinstance(node.op, ast.BitOr):
            return None
        if not isinstance(node.value, ast.Dict):
            return None
        pairs = [("set", key, value) for key, value in zip(node.value.keys, node.value.values, strict=True) if key]
    elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        call = node.value
        origin = file.origin(call.func)
        if origin in ("warnings.filterwarnings", "warnings.simplefilter"):
            return _warning_filter(origin.rpartition(".")[2], call, file)
        if origin in ("os.environ.setdefault", "os.putenv") and len(call.args) == 2 and not call.keywords:
            pairs = [(origin.rpartition(".")[2], call.args[0], call.args[1])]
        elif origin == "os.environ.update" and len(call.args) <= 1:
            for given in call.args:
                if not isinstance(given, ast.Dict) or None in given.keys:
                    return None
                pairs += [("set", key, value) for key, value in zip(given.keys, given.values, strict=True) if key]
            pairs += [("set", ast.Constant(one.arg), one.value) for one in call.keywords]
    steps: list[Step] = []
    for how, name, value in pairs:
        if not isinstance(name, ast.Constant) or not isinstance(value, ast.Constant):
            return None
        if not _can_be_set(name.value, value.value):
            return None
        steps.append(("environ", how, name.value, value.value))
    return steps or None


def _can_be_set(name: object, value: object) -> bool:
    if not isinstance(name, str) or not isinstance(value, str) or not name or "=" in name or "\0" in name + value:
        return False
    try:
        return bool(os.fsencode(name + value))
    except UnicodeEncodeError:
        return False


def _warning_filter(function: str, call: ast.Call, file: _File) -> list[Step] | None:
    def constant(node: ast.AST) -> object:
        if isinstance(node, ast.Constant) and isinstance(node.value, (str, int)):
            return node.value
        kind = getattr(builtins, (file.origin(node) or "").removeprefix("builtins."), None)
        return [kind.__name__] if isinstance(kind, type) and issubclass(kind, Warning) else None

    given = tuple(constant(node) for node in call.args)
    named = {one.arg: constant(one.value) for one in call.keywords}
    action = given[0] if given else named.get("action")
    if action not in _FILTER_ACTIONS or None in given or None in named or None in named.values():
        return None
    return [("warnings", function, _frozen(given), _frozen(sorted(named.items(), key=str)))]


def _frozen(values: Iterable[Any]) -> tuple[Any, ...]:
    return tuple(_frozen(value) if isinstance(value, (list, tuple)) else value for value in values)
