"""A coordinator that calls FEDn's server functions: ``python -m _fedpkg_server_functions FILE``.

The file's class ``ServerFunctions`` may choose the clients, define their settings and aggregate their updates. For
functions that are missing or return None, defaults apply: clients of the sampler, no settings, the mean by examples.

Runs in the coordinator's process: standard library only, NumPy and fedpkg's client as it needs them.
"""

from __future__ import annotations

import inspect
import json
import os
import sys
import traceback
from contextlib import contextmanager

import _fedpkg_compat  # type: ignore[import-not-found]

TYPE_CHECKING = False  # type checkers recognise the name, and importing typing takes time
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any


class Failed(Exception):
    """A function of the file cannot be used; the message is for its author."""


@contextmanager
def guarded(what: str, path: str) -> Iterator[None]:
    """Turn an error of the file's code into one that names its line."""
    try:
        yield
    except Failed:
        raise
    except Exception as error:
        traceback.print_exc()
        where = [one for one in traceback.extract_tb(error.__traceback__) if one.filename == path]
        line = ", line %s" % where[-1].lineno if where else ""
        raise Failed("%s failed (%s%s): %s: %s" % (what, path, line, type(error).__name__, error)) from error


def read(path: str, wanted: str, names: dict[str, Any]) -> dict[str, Any]:
    """The namespace of a file that is executed with these names; it must define ``wanted``."""
    namespace = {**names, "__name__": os.path.splitext(path)[0], "__file__": path}
    with open(path, "rb") as file:
        code = compile(file.read(), path, "exec", dont_inherit=True)
    with guarded("the file", path):
        exec(code, namespace)
    if wanted not in namespace:
        raise Failed("%s has no class %s" % (path, wanted))
    return namespace


class Functions:
    """The functions of a file, which is executed with the names that FEDn provides."""

    def __init__(self, path: str) -> None:
        from fedn.network.combiner.hooks import allowed_import

        self.path = path
        self.api_client = allowed_import.api_client
        names = {name: getattr(allowed_import, name) for name in allowed_import.__all__}
        found = read(path, "ServerFunctions", names)["ServerFunctions"]
        self.base: Any = allowed_import.ServerFunctionsBase
        with guarded("ServerFunctions", path):
            self.own: Any = found()

    def has(self, name: str) -> bool:
        """Whether the file defines a function."""
        return getattr(type(self.own), name, None) not in (None, getattr(self.base, name, None))

    def call(self, name: str, *arguments: Any) -> Any:
        """Call a function with as many of these arguments as it takes; None if the file does not define it."""
        if not self.has(name):
            return None
        function = getattr(self.own, name)
        with guarded(name, self.path):
            return function(*arguments[: len(inspect.signature(function).parameters)])


def main(path: str) -> None:
    _fedpkg_compat.install()
    _fedpkg_compat.serve_instead()
    from fedpkg.client import coordinator

    functions: Functions | None = None
    for step in coordinator.rounds():
        try:
            functions = functions or Functions(path)
            step.commit(_next_model(functions, step))
        except (Failed, SyntaxError) as error:
            step.fail(str(error))
            raise SystemExit(1) from error


def _next_model(functions: Functions, step: Any) -> dict[str, Any]:
    """Ask the clients that the functions choose, and aggregate their replies."""
    model = _arrays(step.path)
    chosen = _chosen(functions, [one.client_id for one in step.clients])
    [replies] = step.ask("train", clients=chosen, parameters=_settings(functions, list(model.values())))
    for reply in replies:
        logged = reply.metadata.get("logged")
        if isinstance(logged, dict):
            functions.api_client.attributes.setdefault(reply.client_id, {}).update(logged.get("attributes", {}))
    return _fitted(_aggregated(functions, model, replies), model, functions.path)


def _chosen(functions: Functions, clients: list[str]) -> list[str] | None:
    found = functions.call("client_selection", list(clients), _training())
    if found is None:
        return None
    where = "client_selection (%s)" % functions.path
    if isinstance(found, (str, bytes)) or not hasattr(found, "__iter__"):
        raise Failed("%s returned %r, not a list of clients" % (where, found))
    chosen = list(dict.fromkeys(str(one) for one in found))
    unknown = [one for one in chosen if one not in clients]
    if unknown:
        raise Failed("%s chose %s; the clients are %s" % (where, ", ".join(unknown[:3]), ", ".join(clients[:10])))
    if not chosen:
        raise Failed("%s chose no client" % where)
    return chosen


def _settings(functions: Functions, model: list[Any]) -> Any:
    name = "client_settings" if functions.has("client_settings") else "client_config"  # its name in FEDn 0.19
    found = functions.call(name, model)
    if found is not None and not isinstance(found, dict):
        raise Failed("%s (%s) returned %r, not a dictionary of settings" % (name, functions.path, found))
    with guarded("JSON of what %s returned" % name, functions.path):
        return json.loads(json.dumps(found or {}, default=_plain, allow_nan=False))


def _aggregated(functions: Functions, model: dict[str, Any], replies: Any) -> Any:
    previous = list(model.values())
    if functions.has("incremental_aggregate"):
        for reply in replies:
            arrays = list(_arrays(reply.path).values())
            functions.call("incremental_aggregate", reply.client_id, arrays, dict(reply.metadata), previous)
        found = functions.call("get_incremental_aggregate_model")
    elif functions.has("aggregate"):
        updates = {one.client_id: [list(_arrays(one.path).values()), dict(one.metadata)] for one in replies}
        found = functions.call("aggregate", previous, updates)
    else:
        found = None
    return _mean(replies) if found is None else found


def _mean(replies: Any) -> list[Any]:
    import numpy as np

    total = sum(reply.num_examples for reply in replies)
    sums: list[Any] = []
    for reply in replies:
        arrays = [np.asarray(one, np.result_type(one, np.float64)) for one in _arrays(reply.path).values()]
        terms = [one * (reply.num_examples / total) for one in arrays]
        sums = [left + right for left, right in zip(sums, terms)] if sums else terms
    return sums


def _fitted(found: Any, model: dict[str, Any], path: str) -> dict[str, Any]:
    """The aggregated arrays with the names and dtypes of the model."""
    import numpy as np

    with guarded("the aggregated model is not a list of arrays: NumPy", path):
        arrays = [np.asarray(one) for one in found]
        shapes, wanted = [one.shape for one in arrays], [one.shape for one in model.values()]
        if shapes != wanted:
            raise Failed("%s: the aggregated model has arrays of the shapes %s, not %s" % (path, shapes, wanted))
        return {name: new.astype(old.dtype) for (name, old), new in zip(model.items(), arrays)}


def _arrays(path: str) -> dict[str, Any]:
    """The arrays of a model file, in the order of the file."""
    import numpy as np

    if not path.endswith(".npz"):
        from fedpkg.client import arrays

        return {name: tensor.numpy() for name, tensor in arrays.read(path).items()}
    with np.load(path, allow_pickle=False) as found:
        return {name: found[name] for name in found.files}


def _training() -> Any:
    from fedn.network.combiner.hooks.serverfunctionsbase import RoundType

    return RoundType.TRAINING


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else str(value)


if __name__ == "__main__":
    main(os.path.basename(sys.argv[1]))
