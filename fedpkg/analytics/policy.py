"""A node's policy: what it lets an algorithm do with its data. The runner checks it, outside the algorithm's process.

A policy is written in the node's configuration (`policies`), travels as plain JSON, and is checked in three places:
before a task starts (`check_algorithm`, `check_function`, `check_organizations`), when its data were read (`reduced`,
`check_rows`), and when its result is there (`released`). docs/reference/node-policy.md describes every key.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, NoReturn

from fedpkg.errors import ConfigError, nearest

ALL = "*"  # of the databases of a node
_DIGEST, _SIGNER = "sha256:", "ed25519:"
_COUNTS = re.compile(r"^[ \t]*Counts:[ \t]*(.+)$", re.MULTILINE)  # in the docstring of a function
# Keys of a vantage6 node that promise what one machine cannot keep: they are refused, not passed over.
_OF_A_NETWORK = {
    "allowed_users": "there are no users here, only the person who runs the algorithm",
    "allowed_algorithm_stores": "there are no stores here",
}
# … and those that concern images and stores only. They restrict nothing that an algorithm does with data.
WITHOUT_EFFECT = ("require_algorithm_pull", "allow_basics_algorithm", "allow_either_whitelist_or_store")


class NotAllowed(Exception):
    """A node refuses a call. The message has the rule, and nothing about the data."""

    def __init__(self, rule: str, why: str) -> None:
        super().__init__(rule, why)
        self.rule = rule
        self.why = why

    def __str__(self) -> str:
        return f"the node's policy does not allow it: {self.rule}: {self.why}"


@dataclass(frozen=True)
class Algorithm:
    """What a node can know of an algorithm: its image or name, the digest of its package, and who signed that."""

    name: str
    digest: str = ""
    signers: tuple[str, ...] = ()


@dataclass(frozen=True)
class ArgumentRule:
    """What an argument may be, or each item of a list; without any rule, anything."""

    values: tuple[Any, ...] | None = None
    minimum: float | None = None
    maximum: float | None = None
    pattern: str | None = None
    maximum_length: int | None = None

    def allows(self, value: Any) -> bool:
        most = self.maximum_length
        if most is not None and isinstance(value, (list, tuple, str, Mapping)) and len(value) > most:
            return False
        if isinstance(value, (list, tuple)):
            return self._is_open or all(self._allows_one(one) for one in value)
        return self._is_open or self._allows_one(value)

    @property
    def _is_open(self) -> bool:
        return self.values is None and self.minimum is None and self.maximum is None and self.pattern is None

    def _allows_one(self, value: Any) -> bool:
        if not isinstance(value, (str, int, float, bool, type(None))):
            return False
        if self.values is not None and not any(type(value) is type(one) and value == one for one in self.values):
            return False
        if self.pattern is not None and not (isinstance(value, str) and re.fullmatch(self.pattern, value)):
            return False
        if self.minimum is None and self.maximum is None:
            return True
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            return False
        return (self.minimum is None or value >= self.minimum) and (self.maximum is None or value <= self.maximum)


@dataclass(frozen=True)
class FunctionRule:
    """Rules of one function; None: there is no such rule, or that of the whole policy holds."""

    arguments: Mapping[str, ArgumentRule] | None = None
    counts: tuple[str, ...] = ()
    maximum_calls: int | None = None
    minimum_organizations: int | None = None


@dataclass(frozen=True)
class Policy:
    """All rules of a node. `policy_of` reads one, and says what each means."""

    allowed_algorithms: tuple[str, ...] | None = None
    allowed_functions: Mapping[str, FunctionRule] | None = None
    allowed_organizations: tuple[str, ...] | None = None
    allowed_queries: tuple[str, ...] | None = None
    allowed_columns: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # by label
    forbidden_columns: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    minimum_rows: Mapping[str, int] = field(default_factory=dict)
    minimum_organizations: int | None = None
    minimum_count: int | None = None
    maximum_calls: int | None = None
    wall_time_s: float | None = None
    memory_bytes: int | None = None
    isolated: bool = True

    # ---------------------------------------------------------------- before a task

    def check_algorithm(self, algorithm: Algorithm) -> None:
        """Raises NotAllowed: no entry is its digest, one of its signers, or a pattern of its whole name."""
        allowed = self.allowed_algorithms
        if allowed is not None and not any(_is_algorithm(entry, algorithm) for entry in allowed):
            digest = f" ({_DIGEST}{algorithm.digest})" if algorithm.digest else ""
            raise NotAllowed("allowed_algorithms", f"{algorithm.name}{digest} is not in the list")

    def check_function(self, name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """Raises NotAllowed: the function, or one of its arguments, is not allowed.

        Args:
            name: The name by which the function is looked up in its module (``RPC_…`` for versions 1 to 3).
        """
        if self.allowed_functions is None:
            return
        if name not in self.allowed_functions:
            raise NotAllowed("allowed_functions", f"{name} is not in the list")
        rules = self.allowed_functions[name].arguments
        if rules is None:
            return
        where = f"allowed_functions.{name}.arguments"
        if args:
            raise NotAllowed(where, "arguments must be given by their names, since the node checks them by name")
        for key, value in kwargs.items():
            if key not in rules:
                raise NotAllowed(where, f"{key} is not in the list")
            if not rules[key].allows(value):
                raise NotAllowed(f"{where}.{key}", "its value is not allowed")

    def check_organizations(self, name: str, *, initiators: Sequence[Sequence[str]], number: int | None) -> None:
        """Raises NotAllowed: another organization may not start tasks here, or too few are asked.

        Args:
            name: The function.
            initiators: Name and id of each organization whose functions led to the task.
            number: Of the organizations that are asked for the same result; None: it is a central function.
        """
        if self.allowed_organizations is not None:
            for one in initiators:
                if not set(one) & set(self.allowed_organizations):
                    raise NotAllowed("allowed_organizations", f"{one[0]} is not in the list")
        least = self.minimum_organizations_of(name)
        if number is not None and least is not None and number < least:
            asked = f"{number} organization{'s' * (number != 1)}"
            raise NotAllowed("minimum_organizations", f"{name} was asked of {asked}, and must be of {least} or more")

    def minimum_organizations_of(self, name: str) -> int | None:
        """How many organizations must have a result of a function; None: any number."""
        return self._rule(name).minimum_organizations or self.minimum_organizations

    def maximum_calls_of(self, name: str) -> int | None:
        """How often a function may be called in a collaboration; None: as often as one wants."""
        own = self._rule(name).maximum_calls
        return self.maximum_calls if own is None else own

    def _rule(self, name: str) -> FunctionRule:
        return (self.allowed_functions or {}).get(name, FunctionRule())

    # ---------------------------------------------------------------- data

    def hides_columns_of(self, label: str) -> bool:
        return any(_of(rule, label) is not None for rule in (self.allowed_columns, self.forbidden_columns))

    def shows(self, label: str, column: str) -> bool:
        """Whether a column of a database may be seen. Case and blanks around a name matter for allowed columns only.

        A column without a name may be a forbidden one, whose name is in another row.
        """
        allowed, forbidden = _of(self.allowed_columns, label), _of(self.forbidden_columns, label) or ()
        folded = column.strip().casefold()
        if (forbidden and not folded) or any(fnmatchcase(folded, one.strip().casefold()) for one in forbidden):
            return False
        return allowed is None or any(fnmatchcase(column, one) for one in allowed)

    def minimum_rows_of(self, label: str) -> int | None:
        found: int | None = _of(self.minimum_rows, label)
        return found

    def check_query(self, label: str, query: str | None, own: str | None) -> None:
        """Raises NotAllowed: the query is neither the node's own nor in the list, and rows are counted.

        A free query can repeat the row of one person until there are enough.
        """
        if query is None or query == own:
            return
        if self.allowed_queries is None:
            if self.minimum_rows_of(label) is not None:
                raise NotAllowed("allowed_queries", "the node counts rows, and has no list of queries")
        elif not any(re.fullmatch(one, query, re.DOTALL) for one in self.allowed_queries):
            raise NotAllowed("allowed_queries", "the query is not in the list")

    def reduced(self, label: str, frame: Any) -> Any:
        """The columns of a DataFrame that may be seen; its index too, if that has a name."""
        if not self.hides_columns_of(label):
            return frame
        if any(name is not None and not self.shows(label, str(name)) for name in frame.index.names):
            frame = frame.reset_index(drop=True)
        seen = [number for number, name in enumerate(frame.columns) if self.shows(label, str(name))]
        return frame if len(seen) == len(frame.columns) else frame.iloc[:, seen].copy()

    def check_rows(self, label: str, number: int | None) -> None:
        """Raises NotAllowed: a database, as the algorithm would get it, has too few rows, or they cannot be counted."""
        least = self.minimum_rows_of(label)
        if least is None:
            return
        if number is None:
            raise NotAllowed("minimum_rows", f"the rows of database {label!r} cannot be counted")
        if number < least:  # how many there are is not said
            raise NotAllowed("minimum_rows", f"database {label!r} has fewer than {least} rows")

    # ---------------------------------------------------------------- results

    def counts_of(self, name: str, docstring: str | None = None) -> tuple[str, ...]:
        """Where a function's result has counts: as the policy says, and the line ``Counts:`` of its docstring."""
        declared = _COUNTS.search(docstring or "")
        words = tuple(one.strip() for one in declared[1].split(",")) if declared else ()
        return tuple(dict.fromkeys((*self._rule(name).counts, *filter(None, words))))

    def released(self, result: Any, counts: Sequence[str]) -> Any:
        """The result as it may leave the node: a count from 1 to ``minimum_count`` - 1 is None (NaN in arrays).

        Raises:
            NotAllowed: there are no counts where they are declared, or something else.
        """
        if self.minimum_count is None:
            return result
        for path in counts:
            result = _suppressed(result, path.split("."), self.minimum_count, path)
        return result


def _of(rule: Mapping[str, Any], label: str) -> Any:
    return rule.get(label, rule.get(ALL))


def _is_algorithm(entry: str, algorithm: Algorithm) -> bool:
    name, _, digest = entry.rpartition("@" + _DIGEST)
    if name:
        return bool(digest) and digest == algorithm.digest and _is_name(name, algorithm.name)
    if entry.startswith(_DIGEST):
        return bool(algorithm.digest) and entry.removeprefix(_DIGEST) == algorithm.digest
    if entry.startswith(_SIGNER):
        return entry in algorithm.signers
    return _is_name(entry, algorithm.name)


def _is_name(entry: str, name: str) -> bool:
    """Whether a pattern fits all of a name, with or without its tag."""
    without_tag = re.sub(r":[^:/]*\Z", "", name)
    return any(entry == one or re.fullmatch(entry, one) is not None for one in (name, without_tag))


# ---------------------------------------------------------------- small counts


def _suppressed(value: Any, path: Sequence[str], least: int, whole: str) -> Any:
    if not path:
        return _cells(value, least, whole)
    key, rest = path[0], path[1:]
    if _is_frame(value):
        names = [name for name in value.columns if key in (ALL, str(name))]
        if not names:
            raise _not_there(whole)
        changed = value.copy()
        for name in names:
            changed[name] = _suppressed(value[name], rest, least, whole)
        return changed
    if isinstance(value, Mapping):
        names = [name for name in value if key in (ALL, str(name))]
        if not names and not (key == ALL and not value):
            raise _not_there(whole)
        return {name: _suppressed(one, rest, least, whole) if name in names else one for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        if key != ALL and not (key.isdecimal() and int(key) < len(value)):
            raise _not_there(whole)
        changed = [
            _suppressed(one, rest, least, whole) if key in (ALL, str(number)) else one
            for number, one in enumerate(value)
        ]
        return tuple(changed) if isinstance(value, tuple) else changed
    raise _not_there(whole)


def _cells(value: Any, least: int, whole: str) -> Any:
    """A count, or a collection of counts of any depth, without the small ones."""
    if value is None:
        return None
    if isinstance(value, Mapping):
        return {name: _cells(one, least, whole) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        cells = [_cells(one, least, whole) for one in value]
        return tuple(cells) if isinstance(value, tuple) else cells
    if _is_frame(value):
        return value.apply(lambda column: _cells(column, least, whole))
    if hasattr(value, "dtype"):
        return _array_cells(value, least, whole)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise NotAllowed("minimum_count", f"{whole} has a {type(value).__name__} where counts are declared")
    if isinstance(value, float) and math.isnan(value):
        return value
    return None if _is_small(value, least) else value


def _array_cells(value: Any, least: int, whole: str) -> Any:
    """Of a NumPy array or scalar, or a Series."""
    import numpy as np

    cells = np.asarray(value)
    if cells.dtype.kind not in "iuf":
        raise NotAllowed("minimum_count", f"{whole} has {cells.dtype} where counts are declared")
    is_small = (cells != 0) & (np.abs(cells) < least)
    if not is_small.any():
        return value
    if cells.ndim == 0:
        return None
    changed = np.where(is_small, np.nan, cells.astype(np.float64))
    return type(value)(changed, index=value.index, name=value.name) if hasattr(value, "index") else changed


def _is_small(value: float, least: int) -> bool:
    return value != 0 and abs(value) < least


def _is_frame(value: Any) -> bool:
    return hasattr(value, "columns") and hasattr(value, "dtypes")


def _not_there(path: str) -> NotAllowed:
    return NotAllowed("minimum_count", f"the result has no {path}, where counts are declared")


# ---------------------------------------------------------------- reading a policy


def policy_of(given: Any, where: str = "policies") -> Policy:
    """The policy in a node's configuration.

    Raises:
        ConfigError: a key is unknown or its value is wrong. A rule that cannot be understood is never left out.
    """
    read = _Reader(where)
    words = read.mapping(given, "", tuple(_KEYS), passed=WITHOUT_EFFECT, refused=_OF_A_NETWORK)
    return Policy(**{name: _KEYS[name](read, value, name) for name, value in words.items()})


class _Reader:
    def __init__(self, where: str) -> None:
        self.where = where

    def wrong(self, key: str, what: str, hint: str | None = None) -> NoReturn:
        name = f"{self.where}.{key}" if key else self.where
        raise ConfigError(f"{name}: {what}", hint=hint, key=name)

    def mapping(
        self,
        value: Any,
        key: str,
        known: Sequence[str] | None,
        *,
        passed: Sequence[str] = (),
        refused: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
            self.wrong(key, f"expected keys and values, found {value!r:.80}")
        for name in value:
            if name in (refused or {}):
                self.wrong(f"{key}.{name}".strip("."), f"it cannot be kept: {(refused or {})[name]}", "remove it")
            if known is not None and name not in known and name not in passed:
                self.wrong(
                    f"{key}.{name}".strip("."),
                    f"there is no such rule{nearest(name, known)}",
                    f"rules: {', '.join(known)}",
                )
        return {name: one for name, one in value.items() if name not in passed}

    def texts(self, value: Any, key: str) -> tuple[str, ...]:
        if not isinstance(value, (list, tuple)):
            self.wrong(key, f"expected a list, found {value!r:.80}")
        for one in value:
            if not isinstance(one, (str, int)) or isinstance(one, bool) or one == "":
                self.wrong(key, f"expected texts, found {one!r:.80}")
        return tuple(map(str, value))

    def patterns(self, value: Any, key: str) -> tuple[str, ...]:
        return tuple(self.pattern(one, key) for one in self.texts(value, key))

    def pattern(self, value: Any, key: str) -> str:
        if not isinstance(value, str):
            self.wrong(key, f"expected a pattern, found {value!r:.80}")
        if not value.startswith((_DIGEST, _SIGNER)):
            try:
                re.compile(value)
            except re.error as error:
                self.wrong(key, f"{value!r} is not a regular expression: {error}")
        return value

    def algorithms(self, value: Any, key: str) -> tuple[str, ...]:
        found = self.patterns(value, key)
        for one in found:
            _, is_digest, digest = one.rpartition(_DIGEST)
            if is_digest and not re.fullmatch(r"[0-9a-f]{64}", digest):
                self.wrong(key, f"{one!r}: a digest has 64 hexadecimal digits, in lower case")
        return found

    def count(self, value: Any, key: str) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            self.wrong(key, f"expected a whole number from 1, found {value!r:.80}")
        return int(value)

    def calls(self, value: Any, key: str) -> int:
        return 0 if value == 0 and not isinstance(value, bool) else self.count(value, key)

    def number(self, value: Any, key: str) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            self.wrong(key, f"expected a number, found {value!r:.80}")
        return float(value)

    def seconds(self, value: Any, key: str) -> float:
        if self.number(value, key) <= 0:
            self.wrong(key, f"expected a number of seconds above 0, found {value!r:.80}")
        return float(value)

    def flag(self, value: Any, key: str) -> bool:
        if not isinstance(value, bool):
            self.wrong(key, f"expected true or false, found {value!r:.80}")
        return value

    def rows(self, value: Any, key: str) -> dict[str, int]:
        if isinstance(value, Mapping):
            by_label = self.mapping(value, key, None)
            return {label: self.count(one, f"{key}.{label}") for label, one in by_label.items()}
        return {ALL: self.count(value, key)}

    def columns(self, value: Any, key: str) -> dict[str, tuple[str, ...]]:
        if isinstance(value, Mapping):
            by_label = self.mapping(value, key, None)
            return {label: self.texts(one, f"{key}.{label}") for label, one in by_label.items()}
        return {ALL: self.texts(value, key)}

    def functions(self, value: Any, key: str) -> dict[str, FunctionRule]:
        if isinstance(value, (list, tuple)):
            return {name: FunctionRule() for name in self.texts(value, key)}
        by_name = self.mapping(value, key, None)
        return {name: self.function(one, f"{key}.{name}") for name, one in by_name.items()}

    def function(self, value: Any, key: str) -> FunctionRule:
        if value is None:
            return FunctionRule()
        words = self.mapping(value, key, tuple(_OF_A_FUNCTION))
        return FunctionRule(**{name: _OF_A_FUNCTION[name](self, one, f"{key}.{name}") for name, one in words.items()})

    def arguments(self, value: Any, key: str) -> dict[str, ArgumentRule]:
        if isinstance(value, (list, tuple)):
            return {name: ArgumentRule() for name in self.texts(value, key)}
        return {name: self.argument(one, f"{key}.{name}") for name, one in self.mapping(value, key, None).items()}

    def argument(self, value: Any, key: str) -> ArgumentRule:
        if value is None:
            return ArgumentRule()
        if isinstance(value, (list, tuple)):
            return ArgumentRule(values=self.plain(value, key))
        words = self.mapping(value, key, tuple(_OF_AN_ARGUMENT))
        return ArgumentRule(**{name: _OF_AN_ARGUMENT[name](self, one, f"{key}.{name}") for name, one in words.items()})

    def plain(self, value: Any, key: str) -> tuple[Any, ...]:
        if not isinstance(value, (list, tuple)):
            self.wrong(key, f"expected a list, found {value!r:.80}")
        for one in value:
            if not isinstance(one, (str, int, float, bool)):
                self.wrong(key, f"expected texts or numbers, found {one!r:.80}")
        return tuple(value)


_OF_AN_ARGUMENT: dict[str, Any] = {
    "values": _Reader.plain,
    "minimum": _Reader.number,
    "maximum": _Reader.number,
    "pattern": _Reader.pattern,
    "maximum_length": _Reader.count,
}
_OF_A_FUNCTION: dict[str, Any] = {
    "arguments": _Reader.arguments,
    "counts": _Reader.texts,
    "maximum_calls": _Reader.calls,
    "minimum_organizations": _Reader.count,
}
_KEYS: dict[str, Any] = {
    "allowed_algorithms": _Reader.algorithms,
    "allowed_functions": _Reader.functions,
    "allowed_organizations": _Reader.texts,
    "allowed_queries": _Reader.patterns,
    "allowed_columns": _Reader.columns,
    "forbidden_columns": _Reader.columns,
    "minimum_rows": _Reader.rows,
    "minimum_organizations": _Reader.count,
    "minimum_count": _Reader.count,
    "maximum_calls": _Reader.calls,
    "wall_time_s": _Reader.seconds,
    "memory_bytes": _Reader.count,
    "isolated": _Reader.flag,
}
