"""A run of a federated algorithm: its configuration from the command line, and what it returned."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fedpkg.analytics import eras
from fedpkg.analytics.central_program import FORMS, RESULT, SENT
from fedpkg.analytics.node import DEFAULT
from fedpkg.compute_package.algorithm import Function, read_algorithm
from fedpkg.config import RunConfig
from fedpkg.config_reading import config_of
from fedpkg.errors import ConfigError, NotFound, nearest
from fedpkg.session.configuration import ALGORITHM, resolved
from fedpkg.session.package_run import session_name
from fedpkg.shown import shown
from fedpkg.stores.base import SessionRow
from fedpkg.stores.home import Home
from fedpkg.types import Json

_TEXTS = frozenset(("str", "str | None", "None | str", "Optional[str]", "typing.Optional[str]"))
_LISTS = re.compile(r"(typing\.)?(list|tuple|set|Sequence|Iterable|List|Tuple|Set|Optional\[List|Optional\[list)\b")


@dataclass(frozen=True)
class AlgorithmOptions:
    """Options of ``fedpkg algorithm run``.

    Args:
        arguments: Texts ``name=value``, the arguments of the function.
        nodes: A file of entities, the organizations; or their number. None: one for each match of the database.
        databases: Patterns of paths by label.
        node_config: A folder with the configurations of the nodes.
        organizations: Names of those that take part; empty: all.
    """

    method: str
    arguments: Sequence[str] = ()
    nodes: str | None = None
    databases: Mapping[str, str] = field(default_factory=dict)
    node_config: Path | None = None
    organizations: Sequence[str] = ()
    host: str | None = None
    module: str | None = None
    isolated: bool = True
    allow_pickle: bool = False
    most_tasks: int | None = None
    timeout_s: float | None = None
    in_process: bool = False


def config_of_algorithm(folder: Path, options: AlgorithmOptions, overrides: Sequence[str] = ()) -> RunConfig:
    """The configuration of a run of an algorithm.

    Raises:
        PackageError: the folder has no algorithm, or the algorithm no such function.
        ConfigError: an argument or option is wrong.
    """
    algorithm = read_algorithm(folder, options.module)
    function = algorithm.function(options.method)
    strategy: dict[str, Any] = {
        "name": ALGORITHM,
        "folder": str(folder.absolute()),
        "module": algorithm.module,
        "method": function.name,
        "arguments": arguments_of(function, options.arguments),
        "kind": function.kind,
        "era": function.era,
        "isolated": options.isolated,
        "allow_pickle": options.allow_pickle,
        "in_process": options.in_process,
    }
    for name, value in (("host", options.host), ("most_tasks", options.most_tasks)):
        if value is not None:
            strategy[name] = value
    if options.organizations:
        strategy["organizations"] = list(options.organizations)
    tree: dict[str, Any] = {
        "package": str(folder.absolute()),
        "name": session_name(folder),
        "rounds": None,  # the session ends when the function returns
        "clients": _clients(options),
        "strategy": strategy,
        "python_env": "current",
    }
    if options.timeout_s is not None:
        tree["executor"] = {"timeout_s": options.timeout_s}
    return config_of(tree, overrides, resolve=resolved)


def _clients(options: AlgorithmOptions) -> dict[str, Any]:
    databases = dict(options.databases)
    found: dict[str, Any] = {} if options.node_config is None else {"node_config": str(options.node_config)}
    if options.nodes is not None:
        is_number = options.nodes.isdecimal() and not Path(options.nodes).exists()
        key = {"count": int(options.nodes)} if is_number else {"entities": options.nodes}
        return {**found, **key, "databases": databases}
    if not databases:
        raise ConfigError(
            "an algorithm needs data: --database default='data/*.csv', or --nodes FILE, with the `data` of each "
            "organization or with --node-config DIR",
            key="clients.databases",
        )
    label = DEFAULT if DEFAULT in databases else next(iter(databases))
    return {**found, "folders": databases[label], "databases": databases}


def arguments_of(function: Function, words: Sequence[str]) -> dict[str, Json]:
    """The arguments of a function from texts ``name=value``, checked against its signature.

    Raises:
        ConfigError: one is not in the signature, or missing, or given twice.
    """
    takes = f"{function.name}({function.signature})"
    parameters = {one.name: one for one in function.parameters}
    found: dict[str, Json] = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not equals:
            raise ConfigError(f"--arg {word}: it is not NAME=VALUE", hint=f"the function is {takes}", key="arguments")
        if name in found:
            raise ConfigError(f"--arg {name} is given twice", key="arguments")
        if name not in parameters and not function.takes_any:
            raise ConfigError(
                f"--arg {shown(name)}: {function.name} has no such argument{nearest(name, parameters)}",
                hint=f"the function is {takes}",
                key="arguments",
            )
        annotation = parameters[name].annotation if name in parameters else None
        found[name] = value_of(text, annotation)
    missing = [one.name for one in function.parameters if one.default is None and one.name not in found]
    if missing:
        words_of = " ".join(f"--arg {name}=…" for name in missing)
        raise ConfigError(
            f"{function.name} needs {', '.join(missing)}", hint=f"{words_of}; the function is {takes}", key="arguments"
        )
    return found


def value_of(text: str, annotation: str | None = None) -> Json:
    """The value of an argument: JSON; a text with commas is a list; anything else is text.

    An annotation of text keeps the text as it is, and one of a list makes a list of a single value.
    """
    if annotation is not None and annotation.strip("'\"") in _TEXTS:
        return text
    try:
        value: Json = json.loads(text)
    except ValueError:
        value = [value_of(part.strip()) for part in text.split(",")] if "," in text else text
    if annotation is not None and _LISTS.match(annotation.strip("'\"")) and not isinstance(value, (list, dict)):
        return [] if value is None else [value]
    return value


def result_of(home: Home, session: SessionRow) -> Any:
    """What the function of a session returned.

    Raises:
        NotFound: the session has no result.
    """
    path = result_path(home, session)
    strategy = session.config["strategy"]
    era, data = strategy["era"], path.read_bytes()
    if era == eras.OLD:
        data = f"{path.suffix[1:]}.".encode() + data
    return eras.read_result(era, data, what=str(path), allow_pickle=bool(strategy["allow_pickle"]))


def sent_of(home: Home, session: SessionRow) -> list[dict[str, Any]]:
    """What each organization of a session sent: its tasks, with the size, digest and beginning of each result."""
    found: list[dict[str, Any]] = json.loads((result_path(home, session).parent / SENT).read_bytes())
    return found


def result_path(home: Home, session: SessionRow) -> Path:
    """The file with the result of a session. Raises NotFound."""
    folder = home.session_folder(session.session_id) / "coordinator" / "saved"
    found = [folder / f"{RESULT}.{form}" for form in FORMS]
    path = next((one for one in found if one.is_file()), None)
    if path is None:
        raise NotFound(
            f"session {session.session_id} has no result: it is {session.status}",
            hint=f"fedpkg session show {session.session_id}",
        )
    return path


@dataclass(frozen=True)
class Comparison:
    """What a function returned, and what its tasks sent, as a mock and as a real run.

    Args:
        differences: Where they differ; empty: they are the same.
        sent: What each organization sent in the real run; ``same``: whether the mock has the same bytes.
    """

    mock: Any
    real: Any
    differences: Sequence[str]
    sent: Sequence[Mapping[str, Any]]


def compared(home: Home, mock: SessionRow, real: SessionRow) -> Comparison:
    """Compare a session in the mode ``in_process`` with one that ran tasks."""
    results = [plain(result_of(home, one)) for one in (mock, real)]
    found = [f"result{one}" for one in _differences(*results)]
    of_mock = {(one["task"], one["organization"]): one for one in sent_of(home, mock)}
    sent = []
    for one in sent_of(home, real):
        twin = of_mock.pop((one["task"], one["organization"]), {})
        is_same = all(one.get(key) == twin.get(key) for key in ("bytes", "sha256"))
        sent.append({**one, "same": is_same})
        if not is_same:
            found.append(
                f"task {one['task']} at {one['organization']}: the mock sends {twin.get('preview', 'nothing')}, the "
                f"node {one.get('preview', 'nothing')}"
            )
    found += [f"task {task} at {name}: only the mock has it" for task, name in of_mock]
    return Comparison(results[0], results[1], found, sent)


def _differences(mock: Any, real: Any, place: str = "") -> Iterator[str]:
    """Where two results differ."""
    if isinstance(mock, dict) and isinstance(real, dict) and mock.keys() == real.keys():
        for key in mock:
            yield from _differences(mock[key], real[key], f"{place}[{key!r}]")
    elif isinstance(mock, list) and isinstance(real, list) and len(mock) == len(real):
        for number, pair in enumerate(zip(mock, real, strict=True)):
            yield from _differences(*pair, f"{place}[{number}]")
    elif type(mock) is not type(real) or (mock != real and not (mock != mock and real != real)):
        yield f"{place}: the mock has {_shape(mock)}, the nodes {_shape(real)}"


def _shape(value: Any) -> str:
    if isinstance(value, dict):
        return f"a mapping with {', '.join(map(repr, list(value)[:5])) or 'no keys'}"
    return f"a list of {len(value)}" if isinstance(value, list) else f"{value!r:.60}"


def plain(value: Any) -> Any:
    """A result as JSON, for people: frames as columns, arrays as lists, other objects as text."""
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    if isinstance(value, Mapping):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(one) for one in value]
    for name, args in (("to_dict", ()), ("tolist", ()), ("isoformat", ())):
        if callable(method := getattr(value, name, None)):
            return plain(method(*args))
    return str(value)
