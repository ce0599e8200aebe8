"""What a warm interpreter imports before a script begins: imports whose result does not depend on the script.

They are found by parsing, never by running. Each script is followed statement by statement, together with the modules
of the package that it imports, up to the first statement that could change a later import. Constant assignments to the
environment and constant warning filters are steps like the imports: the warm interpreter takes them in the script's
order. Statements after the last import do not matter. Imports inside functions run after all of these: they are
preloaded only if nothing in the script's files changes settings.

Scripts with the same settings share a warm interpreter; a script with other settings has its own.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fedpkg.compute_package.app import RUN_BY
from fedpkg.compute_package.imports import USES_NUMPY, own_names, python_files, trees_of
from fedpkg.dispatch.changes import (
    FUNCTIONS,
    Change,
    File,
    Step,
    assignments,
    change_of_call,
    changes_in,
    constant_settings,
    is_harmless,
)
from fedpkg.types import Json

OPTIMISER: Step = ("optimiser",)

_WRITES = re.compile(r"write\w*|mkdir|touch")


@dataclass(frozen=True)
class LeftOut:
    """A module that is not preloaded, so that every task imports it, and the reason; ``nested``: only in a function."""

    module: str
    because: str
    nested: bool = False


@dataclass(frozen=True)
class Preload:
    """What one warm interpreter does before it forks, for the scripts that share it."""

    scripts: tuple[str, ...]
    steps: tuple[Step, ...]
    left_out: tuple[LeftOut, ...] = ()

    @property
    def modules(self) -> list[str]:
        """Dotted names of all imports, including names that are imported from a module."""
        imports = [step for step in self.steps if step[0] == "import"]
        return list(
            dict.fromkeys(f"{name}.{part}" if part else name for _, name, parts in imports for part in parts or ("",))
        )

    @property
    def settings(self) -> list[str]:
        """The settings that it makes before or between the imports, as readable text."""
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

    def suits(self, other: Preload) -> bool:
        """Whether a fork is, for the script of ``other``, as its own imports would have left it."""
        are_plain = not any(step[0] in ("environ", "warnings") for step in (*self.steps, *other.steps))
        return are_plain and set(other.left_out) <= set(self.left_out)

    def to_json(self) -> dict[str, Json]:
        return {
            "scripts": list(self.scripts),
            "settings": list(self.settings),
            "modules": list(self.modules),
            "left_out": [{"module": one.module, "because": one.because} for one in self.left_out],
        }


def is_slow(module: str) -> bool:
    """Whether importing a module in every task takes long enough to mention it."""
    return module.partition(".")[0] not in sys.stdlib_module_names


def preloads_of(
    folder: Path,
    scripts: Iterable[str],
    modules: Iterable[str] = (),
    *,
    apps: Mapping[str, str] | None = None,
    settings: bool = True,
) -> dict[str, Preload]:
    """What to preload for each script, and each module that ``python -m`` runs (key ``-m name``).

    ``apps``: the module with the ClientApp that a program of fedpkg imports, by the name of that program. Without
    ``settings``, no setting of a script is made before the fork, and imports after a setting are left out.
    """
    package = _Package(folder, scripts)
    starts = {script: [folder / script] for script in scripts}
    starts.update(
        (f"-m {name}", package.files_of(f"{name}.__main__", folder, folder) or package.files_of(name, folder, folder))
        for name in modules
    )
    starts.update((f"-m {program}", package.files_of(name, folder)) for program, name in (apps or {}).items())
    readers = {}
    for name, files in starts.items():
        is_app = name.removeprefix("-m ") in (apps or {})
        readers[name] = reader = _Reader(
            package, files[-1].parent if files and not is_app else folder, settings=settings
        )
        if is_app:
            reader.steps += [("import", module, ()) for module in RUN_BY[name.removeprefix("-m ")]]
        for file in files:
            reader.read(file, main=file is files[-1] and not is_app)
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


class _Package:
    """The package's files, parsed, and a search for those that an import finds."""

    def __init__(self, folder: Path, scripts: Iterable[str]) -> None:
        self.folder = folder
        self.own = own_names(folder)
        self._trees = trees_of(folder, scripts)
        self.files = dict.fromkeys([*self._trees, *python_files(folder)])
        self._read: dict[Path, File | None] = {}

    def file(self, path: Path) -> File | None:
        if path not in self._read:
            tree = self._trees.get(path)
            self._read[path] = None if tree is None else self._names(path, tree)
        return self._read[path]

    def unread(self, read: set[Path]) -> list[File]:
        return [file for path in self.files if path not in read and (file := self.file(path)) is not None]

    def _names(self, path: Path, tree: ast.Module) -> File:
        file = File(self.shown(path), tree)
        for node in file.nodes:
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
        for node in file.nodes:  # ``env = os.environ``
            if isinstance(node, ast.Assign) and (origin := file.origin(node.value)):
                file.names.update((target.id, origin) for target in node.targets if isinstance(target, ast.Name))
        return file

    def shown(self, path: Path) -> str:
        return str(path.relative_to(self.folder)) if path.is_relative_to(self.folder) else str(path)

    def is_own(self, module: str) -> bool:
        return module.partition(".")[0] in self.own

    def files_of(self, module: str, *places: Path) -> list[Path]:
        """The package's files that run when ``module`` is imported from a folder, else all files of that name."""
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
        self.change: str | None = None  # the first one; later imports are left out
        self.unsettled: str | None = None  # why imports in functions are left out
        self.taken: set[ast.AST] = set()  # nodes of settings that became steps
        self.changes: dict[Path, list[Change]] = {}

    # ---- statements

    def read(self, path: Path, *, main: bool = False) -> None:
        if path in self.files:
            return
        self.files[path] = None
        file = self.package.file(path)
        if file is None:
            self.stop(f"{self.package.shown(path)} cannot be read")
            return
        self.changes[path] = changes_in(file)
        try:
            self.body(file.tree.body, file, path, main, certain=True)
        except RecursionError:  # an ``elif`` is a level deeper than the one before it
            self.unsettled = self.unsettled or f"{file.shown} nests too many blocks"
            self.stop(self.unsettled)

    def body(self, nodes: Iterable[ast.stmt], file: File, path: Path, main: bool, *, certain: bool) -> None:
        for node in nodes:
            self.statement(node, file, path, main, certain)

    def statement(self, node: ast.stmt, file: File, path: Path, main: bool, certain: bool) -> None:
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
        if place is None or not place.is_relative_to(self.package.folder):  # it fails in every task
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

    def setting(self, node: ast.stmt, file: File) -> bool:
        steps = constant_settings(node, file)
        if steps is None or not (self.settings or all(step[0] == "warnings" for step in steps)):
            return False
        self.steps += steps
        self.taken.update(ast.walk(node))
        return True

    # ---- what else could change an import

    def at_once(self, node: ast.stmt, file: File) -> Iterator[Change]:
        """What the statement itself changes when it runs, without nested statements."""
        discarded = node.value if isinstance(node, ast.Expr) else None
        entered = [item.context_expr for item in node.items] if isinstance(node, (ast.With, ast.AsyncWith)) else []
        yield from assignments(node, file)
        for one in _expressions(node):
            for call in _walk(one, stop=ast.Lambda):
                if not isinstance(call, ast.Call):
                    continue
                origin = file.origin(call.func)
                if origin in ("importlib.import_module", "builtins.__import__"):
                    yield Change(call, f"imports a module with {origin}", origin)
                elif change := change_of_call(call, file):
                    yield change
                elif origin is None:
                    if change := self.within(call):
                        yield change
                elif (call is discarded or call in entered) and not is_harmless(origin):
                    if node.lineno < _last_definition(file):
                        self.unsettled = self.unsettled or f"{file.place(call)} calls {origin}"
                    yield Change(call, f"calls {origin}", origin)

    def within(self, call: ast.Call) -> Change | None:
        """What a call within the package may change: whatever the package's functions change."""
        name = call.func.attr if isinstance(call.func, ast.Attribute) else ""
        if isinstance(call.func, ast.Attribute) and isinstance(call.func.value, (ast.Constant, ast.JoinedStr)):
            return None  # a method of a string
        if _WRITES.fullmatch(name):
            return Change(call, f"calls {name}", name)
        for path, changes in self.changes.items():
            for change in changes:
                if change.in_function and change.about != "builtins.open":  # imports seldom read such files
                    where = f"{self.package.shown(path)}:{getattr(change.node, 'lineno', 1)}"
                    return Change(call, f"may run {where}, which {change.what}", change.about)
        return None

    # ---- imports in functions, and in files that no script visibly imports

    def finish(self, elsewhere: Iterable[File]) -> tuple[list[Step], list[LeftOut]]:
        read = [(path, file) for path in self.files if (file := self.package.file(path)) is not None]
        changes = [
            (file, change) for path, file in read for change in self.changes[path] if change.node not in self.taken
        ]
        bearing = [f"{file.place(change.node)} {change.what}" for file, change in changes if change.bears]
        because = next(filter(None, [self.unsettled, self.change if self.late else None, *bearing]), None)
        late = dict(self.late)
        for name, names in (one for _, file in read for one in _imports(file)):
            if self.package.is_own(name):
                continue
            if because is None:
                self.steps.append(("import", name, names))
            elif not self.has(name):
                late.setdefault(name, because)
        if because is None:
            calm = [file for file in elsewhere if not any(change.bears for change in changes_in(file))]
            found = [one for file in calm for one in _imports(file) if not self.package.is_own(one[0])]
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
        return list(dict.fromkeys(self.steps)), [LeftOut(*one, one[0] not in self.late) for one in late.items()]


# ---- parts of statements


def _nested(node: ast.stmt) -> Iterator[list[ast.stmt]]:
    """The nested blocks that run with a statement."""
    if isinstance(node, FUNCTIONS):
        return
    for name in ("body", "handlers", "cases", "orelse", "finalbody"):
        for one in getattr(node, name, []):
            yield [one] if isinstance(one, ast.stmt) else one.body


def _expressions(node: ast.stmt) -> Iterator[ast.AST]:
    """The expressions that run with a statement, without those of nested statements."""
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
        yield from [*node.decorator_list, *node.args.defaults, *filter(None, node.args.kw_defaults)]
        return
    for name, value in ast.iter_fields(node):
        if name not in ("body", "orelse", "finalbody", "handlers", "cases"):
            yield from (one for one in (value if isinstance(value, list) else [value]) if isinstance(one, ast.AST))


def _walk(node: ast.AST, *, stop: type[ast.AST]) -> Iterator[ast.AST]:
    pending = [node]
    while pending:  # a sum of a thousand terms is nested a thousand levels deep
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


def _imports(file: File) -> list[tuple[str, tuple[str, ...]]]:
    """Absolute imports anywhere in a file."""
    found: list[tuple[str, tuple[str, ...]]] = []
    for node in file.nodes:
        if isinstance(node, ast.Import):
            found += [(alias.name, ()) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.append((node.module, tuple(alias.name for alias in node.names if alias.name != "*")))
    return [(name, names) for name, names in found if name != "__future__"]


def _last_definition(file: File) -> int:
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return max((node.lineno for node in file.tree.body if isinstance(node, kinds)), default=0)
