"""Modules of another library that are made from a table of its names, and of where fedpkg has the same.

Runs inside a task's interpreter: standard library only.
"""

from __future__ import annotations

import importlib
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType

TYPE_CHECKING = False  # type checkers recognise the name, and importing typing takes time
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any


class Library:
    """The modules of one library; as a finder it makes those below its package.

    Args:
        name: of the package, which has ``__getattr__ = Library(…).look_up``.
        modules: for each module the names that it has, and where each one is: ``module``, or ``module:other name``.
            A module inside one, such as ``flwr.serverapp.strategy.fedavg``, has those of its names that are written as
            it is. A name that is also a module, such as a decorator ``metadata`` in a module ``metadata``, is what the
            table says.
        reasons: why a name does not exist, or what to use instead.
    """

    def __init__(
        self, name: str, modules: Mapping[str, Mapping[str, str]], reasons: Mapping[str, str] | None = None
    ) -> None:
        self._name = name
        self._modules = modules
        self._reasons = reasons or {}
        self.look_up = self._looking_up(sys.modules[name], modules.get(name, {}))
        sys.meta_path[:] = [one for one in sys.meta_path if not (isinstance(one, Library) and one._name == name)]
        sys.meta_path.insert(0, self)

    def table_of(self, module: str) -> Mapping[str, str] | None:
        """The names of a module; None if it does not exist."""
        if module in self._modules:
            return self._modules[module]
        outer, _, own = module.rpartition(".")
        if outer not in self._modules:
            return None
        plain = own.replace("_", "").lower()
        found = {name: home for name, home in self._modules[outer].items() if name.lower() == plain}
        return found or None

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if not name.startswith(self._name + "."):
            return None
        if self.table_of(name) is not None:
            return ModuleSpec(name, self, is_package=True)  # type: ignore[arg-type]
        if name in self._reasons:
            raise ModuleNotFoundError("%s: %s" % (name, self._reasons[name]), name=name)
        outer, _, own = name.rpartition(".")
        if own.startswith("__") or ((table := self.table_of(outer)) is None and outer != self._name):
            return None
        raise ModuleNotFoundError(self._about_missing(name, outer, list(table or ())), name=name)

    def create_module(self, spec: ModuleSpec) -> None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        table = self.table_of(module.__name__) or {}
        module.__all__ = list(table)  # type: ignore[attr-defined]
        module.__getattr__ = self._looking_up(module, table)  # type: ignore[method-assign]
        for name in table:
            inner = "%s.%s" % (module.__name__, name)
            if inner in self._modules:  # an import of it sets this name of the package, now and not later
                importlib.import_module(inner)
                delattr(module, name)

    def _looking_up(self, module: ModuleType, table: Mapping[str, str]) -> Callable[[str], Any]:
        def look_up(name: str) -> Any:
            if name in table:
                home, _, there = table[name].partition(":")
                try:
                    value = getattr(importlib.import_module(home), there or name)
                except AttributeError as error:  # which would mean that the name is that of a module
                    raise ImportError("%s.%s: %s: %s" % (module.__name__, name, home, error)) from error
                setattr(module, name, value)
                return value
            whole = "%s.%s" % (module.__name__, name)
            if self.table_of(whole) is not None:
                return importlib.import_module(whole)
            if name.startswith("__"):
                raise AttributeError(name)
            raise ImportError(self._about_missing(whole, module.__name__, list(table)))

        return look_up

    def _about_missing(self, name: str, home: str, there: list[str]) -> str:
        """About a name or a module that does not exist here."""
        reason = self._reasons.get(name, "fedpkg has no such name")
        inner = [one[len(home) + 1 :] for one in self._modules if one.startswith(home + ".")]
        known = sorted({*there, *(one for one in inner if "." not in one)})
        return "%s: %s. %s has: %s" % (name, reason, home, ", ".join(known) or "nothing")
