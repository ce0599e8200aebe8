"""Finds statements in a package's files that could change a later import, by parsing them and comparing names."""

from __future__ import annotations

import ast
import builtins
import os
import re
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

# ("import", module, names) · ("environ", "set" | "setdefault" | "putenv", name, value)
# ("warnings", function, arguments, named arguments) · ("optimiser",): its first step imports torch._dynamo
Step = tuple[Any, ...]

# Calls that do not change anything that an import could see.
_HARMLESS = re.compile(
    r"(os\.path|pathlib|re|math|typing|typing_extensions|collections|functools|itertools|dataclasses|enum|abc|operator"
    r"|string|time|datetime|json|copy|argparse|contextlib|textwrap|uuid|platform|fedn|scaleoututil|fedpkg)\..+"
    r"|logging\.getLogger|os\.(getenv|getcwd|getpid|listdir|cpu_count|fspath|stat|scandir|walk|remove|setsid|setpgid)"
    r"|os\.environb?\.(get|copy|items|keys|values)|sys\.(exit|intern|getsizeof)|warnings\.catch_warnings"
    r"|(numpy|torch)\.(append|add|insert)"
)
_HARMFUL_BUILTINS = {"exec", "eval", "__import__", "setattr", "delattr", "breakpoint", "input"}
# Functions that set something according to their names, whatever they return.
_SETS = re.compile(
    r"set\w*|use(_\w+)?|(enable|disable|init|install|patch|register|config|activate|switch|load_dotenv)\w*|\w*seed\w*"
    r"|chdir|update|\w+warnings|simplefilter|append|extend|insert|pop|popitem|remove|clear|add|discard|putenv|unsetenv"
    r"|(basic|dict|file)Config"
)
# Changes that are common in functions and do not affect imports.
_NO_IMPORT = re.compile(
    r"(.*\.)?(\w*seed\w*|set_num_threads|set_grad_enabled|set_(rng_)?state)|(torch\.backends|logging|random|numpy\.random)\..*|builtins\.open"
)
_FILTER_ACTIONS = ("ignore", "default", "always", "module", "once")
_SEEN_BY_TORCH = re.compile(
    r"os\.(environb?\b.*|putenv|unsetenv)|sys\.(modules|meta_path)\b.*|builtins\.(exec|setattr)|.*dotenv.*"
)
_READ_BY_TORCH = re.compile(r"TORCH|TRITON|DYNAMO|INDUCTOR")
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)


@dataclass
class File:
    """One of the package's files, and what its names refer to."""

    shown: str
    tree: ast.Module
    names: dict[str, str] = field(default_factory=dict)  # → dotted name of something outside the package
    own: set[str] = field(default_factory=set)

    @cached_property
    def nodes(self) -> dict[ast.AST, bool]:
        """All nodes in the order of `ast.walk`, which takes longer than parsing, and whether each is in a function."""
        found: dict[ast.AST, bool] = {}
        waiting: deque[tuple[ast.AST, bool]] = deque([(self.tree, False)])
        while waiting:
            node, inside = waiting.popleft()
            found[node] = inside
            inside = inside or isinstance(node, FUNCTIONS)
            waiting.extend((child, inside) for child in ast.iter_child_nodes(node))
        return found

    def origin(self, node: ast.AST) -> str | None:
        """The dotted name of what an expression refers to, if it is outside the package."""
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
class Change:
    """A statement that could change a later import."""

    node: ast.AST
    what: str
    about: str  # what it changes: a dotted name
    variable: str | None = None  # the environment variable, if it is known
    in_function: bool = False

    @property
    def bears(self) -> bool:
        """Whether it affects imports in functions."""
        return not _NO_IMPORT.fullmatch(self.about)

    @property
    def seen_by_torch(self) -> bool:
        """Whether the import of ``torch._dynamo``, which the first optimiser triggers, could see it."""
        return bool(_SEEN_BY_TORCH.fullmatch(self.about) and _READ_BY_TORCH.search(self.variable or "TORCH"))


def is_harmless(origin: str) -> bool:
    if origin.startswith("builtins."):
        return origin.split(".")[1] not in _HARMFUL_BUILTINS
    return _HARMLESS.fullmatch(origin) is not None


def changes_in(file: File) -> list[Change]:
    """All statements of a file that could change a later import."""
    found: list[Change] = []
    for node in file.nodes:
        if isinstance(node, ast.stmt):
            found += assignments(node, file)
        elif isinstance(node, ast.Call) and (change := change_of_call(node, file)):
            found.append(change)
    return [replace(change, in_function=file.nodes[change.node]) for change in found]


def assignments(node: ast.stmt, file: File) -> Iterator[Change]:
    """Assignments to attributes or items of objects outside the package, such as ``os.environ[…]``."""
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
                yield Change(node, f"changes what {called} returns", called)
            elif about is not None and (
                root is not one or isinstance(one, ast.Attribute) or isinstance(node, ast.AugAssign)
            ):
                variable = (
                    one.slice.value if isinstance(one, ast.Subscript) and isinstance(one.slice, ast.Constant) else None
                )
                yield Change(node, f"changes {about}", about, variable if isinstance(variable, str) else None)


def change_of_call(call: ast.Call, file: File) -> Change | None:
    """The change if a call sets something outside the package, judging by its name."""
    origin = file.origin(call.func)
    given = [file.origin(argument) for argument in call.args]
    if origin is None:
        handed = next((one for one in given if one in ("os.environ", "sys.path", "sys.modules")), None)
        return Change(call, f"hands {handed} on", handed) if handed else None
    if origin in ("builtins.setattr", "builtins.delattr"):
        return Change(call, f"changes {given[0]}", given[0]) if given and given[0] else None
    if origin == "builtins.open":
        modes = [
            one for one in (*call.args[1:2], *(key.value for key in call.keywords)) if isinstance(one, ast.Constant)
        ]
        writes = any(
            isinstance(mode.value, str) and re.fullmatch(r"[rwaxbt+]*[wax+][rwaxbt+]*", mode.value) for mode in modes
        )
        return Change(call, "writes a file", "builtins.open") if writes else None
    if is_harmless(origin):
        return None
    if origin == "builtins.exec" or (_SETS.fullmatch(origin.rpartition(".")[2]) and not origin.startswith("builtins.")):
        first = call.args[0].value if call.args and isinstance(call.args[0], ast.Constant) else None
        return Change(call, f"calls {origin}", origin, first if isinstance(first, str) else None)
    return None


def constant_settings(node: ast.stmt, file: File) -> list[Step] | None:
    """The steps of a statement that only sets environment variables or a warning filter to constants."""
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


def _warning_filter(function: str, call: ast.Call, file: File) -> list[Step] | None:
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
