"""The task that a callback client runs here: one call of one callback, and the values that it logs."""

from __future__ import annotations

import inspect
import json
import os
import sys
import threading

from fedn.utils.model import FednModel, write_model

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

# One line of a log; a failure shows 200 characters of it.
MAKE_ONE = (
    "make one, without threads or processes; --clients N sets their number, and "
    "arguments.all.number='{partition_id}' numbers them"
)
SEVERAL = "this program makes several clients, but a task runs one: " + MAKE_ONE
MOST_STEPS = 10000  # logged in one task; a reply's metadata must stay small


class OneTask:
    """One call of an entry point: ``train``, ``validate`` or ``predict``."""

    current: OneTask | None = None  # set by the runner before the package's code runs

    def __init__(self, entry_point: str, in_path: str, out_path: str) -> None:
        self.entry_point = entry_point
        self.in_path = in_path
        self.out_path = out_path
        self.is_done = False
        self.has_client = False
        self.process_id = os.getpid()
        self.step = 0
        self.steps: list[dict[str, Any]] = []
        self.attributes: dict[str, Any] = {}
        self.telemetry: dict[str, Any] = {}

    def enlist(self) -> None:
        """Register a client. A second one fails the task.

        An exception in another thread or process would end only that, and the program would continue.
        """
        if not self.has_client and os.getpid() == self.process_id:
            self.has_client = True
        elif os.getpid() == self.process_id and threading.current_thread() is threading.main_thread():
            raise SystemExit(SEVERAL)
        else:
            print(SEVERAL, file=sys.stderr, flush=True)
            os._exit(1)

    # ---- what is logged

    def log_metric(self, metrics: Mapping[str, Any], step: int | None = None, commit: bool = True) -> None:
        """Log metrics of a step. Without ``step``, of the step after the last committed one."""
        self.step = self.step if step is None else int(step)
        if len(self.steps) < MOST_STEPS:
            self.steps.append({"step": self.step, **{str(name): plain(value) for name, value in metrics.items()}})
        elif len(self.steps) == MOST_STEPS:
            self.steps.append({"step": self.step})
            print("log_metric: only the first %d calls of a task are kept" % MOST_STEPS, file=sys.stderr)
        self.step += commit

    def logged(self) -> dict[str, Any]:
        """All logged values; an empty dictionary if there are none."""
        found = {"metrics": self.steps[:MOST_STEPS], "attributes": self.attributes, "telemetry": self.telemetry}
        return {name: value for name, value in found.items() if value}

    def with_logged(self, said: Mapping[str, Any]) -> dict[str, Any]:
        """The callback's result, the last value of each logged number, and all logged values under ``logged``."""
        logged = self.logged()
        if not logged:
            return dict(said)
        last: dict[str, Any] = {}
        for one in (*self.steps[:MOST_STEPS], self.telemetry):
            numbers = {name: value for name, value in one.items() if isinstance(value, (int, float))}
            last.update({name: value for name, value in numbers.items() if name not in ("step", "num_examples")})
        return {**last, **said, "logged": logged}

    # ---- the task

    def run(self, callbacks: Mapping[str, Callable[..., Any] | None]) -> None:
        """Call the callback of this entry point with the model and write its reply."""
        self.is_done = True
        callback = callbacks.get(self.entry_point)
        model = FednModel.from_file(self.in_path)
        if self.entry_point == "train":
            self._train(callback, model)
            return
        if callback is None:
            print("the client has no %s callback, so nothing is measured" % self.entry_point, file=sys.stderr)
        said = {} if callback is None else call(callback, model, self.settings(), with_settings=False)
        said = {} if said is None else said
        with open(self.out_path, "w") as file:
            json.dump(self.with_logged(said) if isinstance(said, dict) else said, file, default=plain)

    def _train(self, callback: Callable[..., Any] | None, model: FednModel) -> None:
        if callback is None:
            raise SystemExit("the client has no train callback: FednClient(train_callback=…) or set_train_callback")
        result = call(callback, model, self.settings(), with_settings=True)
        if not isinstance(result, tuple) or len(result) != 2 or result[0] is None:
            raise SystemExit(
                "the train callback must return the model and metadata, as in "
                'model, {"training_metadata": {"num_examples": 100}}; it returned %s' % type(result).__name__
            )
        trained, metadata = result
        write_model(trained, self.out_path)
        said = metadata.get("training_metadata", metadata)
        with open(self.out_path + "-metadata", "w") as file:
            json.dump(self.with_logged(said), file, default=plain)

    def settings(self) -> dict[str, Any]:
        """The settings of the session for its clients: FEDn's client_settings."""
        try:
            with open(self.in_path + "-metadata") as file:
                found: dict[str, Any] = json.load(file)
            return found
        except FileNotFoundError:
            return {}


def call(callback: Callable[..., Any], model: FednModel, settings: dict[str, Any], *, with_settings: bool) -> Any:
    """Call a callback with the arguments that it accepts: before FEDn 0.20, ``train`` had no settings.

    Other callbacks get the settings only if they require a second argument.
    """
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    try:
        parameters = list(inspect.signature(callback).parameters.values())
    except (TypeError, ValueError):  # a function that is not written in Python
        return callback(model, settings) if with_settings else callback(model)
    takes = [one for one in parameters if one.kind in kinds]
    needed = [one for one in takes if one.default is inspect.Parameter.empty]
    takes_any = any(one.kind is inspect.Parameter.VAR_POSITIONAL for one in parameters)
    if len(needed) > 1 or (with_settings and (len(takes) > 1 or takes_any)):
        return callback(model, settings)
    return callback(model)


def plain(value: Any) -> Any:
    """Convert a value to JSON: scalars of NumPy and PyTorch become numbers, unknown types become text."""
    if isinstance(value, (bool, int, float, str, list, dict)) or value is None:
        return value
    if hasattr(value, "tolist"):
        return value.tolist()
    return str(value)


def identity() -> str:
    """The id of this task's client."""
    try:
        with open(os.environ["FEDPKG_TASK"], encoding="utf-8") as file:
            return str(json.load(file)["client_id"])
    except (KeyError, OSError, ValueError):
        return "by-hand"
