"""The older form of a client: a class with ``fit`` and ``evaluate`` on lists of NumPy arrays.

Messages carry the same records as those of functions: the first array record has the parameters, the first config
record the configuration; a reply has an array record of the same name, the metric record ``metrics``, and the config
record ``metrics.others`` with the metrics that are no numbers, if there are any.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from fedpkg.apps.message import Message
from fedpkg.records import ArrayRecord, ConfigRecord, MetricRecord, RecordDict

if TYPE_CHECKING:
    from fedpkg.apps.context import Context

ARRAYS, METRICS, OTHERS, PROPERTIES = "arrays", "metrics", "metrics.others", "properties"
NUM_EXAMPLES = "num-examples"
_TRAIN, _EVALUATE, _GET_PROPERTIES, _GET_PARAMETERS = "fit", "evaluate", "get_properties", "get_parameters"


class NumPyClient:
    """A client whose parameters are a list of NumPy arrays. Override the methods that the server uses."""

    context: Context

    def get_properties(self, config: dict[str, Any]) -> dict[str, Any]:
        """Properties of the client: numbers, texts, bytes and booleans by name."""
        return {}

    def get_parameters(self, config: dict[str, Any]) -> list[Any]:
        """The parameters of the local model."""
        return []

    def fit(self, parameters: list[Any], config: dict[str, Any]) -> tuple[list[Any], int, dict[str, Any]]:
        """Train; return the new parameters, the number of examples, and metrics."""
        raise NotImplementedError

    def evaluate(self, parameters: list[Any], config: dict[str, Any]) -> tuple[float, int, dict[str, Any]]:
        """Evaluate; return the loss, the number of examples, and metrics."""
        raise NotImplementedError

    def get_context(self) -> Context:
        return self.context

    def set_context(self, context: Context) -> None:
        self.context = context

    def to_client(self) -> NumPyClient:
        """The client itself: there is only one form."""
        return self


class Client(NumPyClient):
    """The base of the oldest form, whose methods take serialised parameters; it cannot be used."""

    def __init_subclass__(cls, **more: Any) -> None:
        super().__init_subclass__(**more)
        if issubclass(cls, Client):
            raise TypeError(
                f"{cls.__name__} derives from Client, whose methods take serialised parameters; derive it from "
                "NumPyClient, whose methods take lists of NumPy arrays"
            )


def answering(client_fn: Callable[[Context], Any]) -> Callable[[Message, Context], Message]:
    """The function of a ClientApp that answers messages by the methods of the client that ``client_fn`` makes."""

    def answer(message: Message, context: Context) -> Message:
        client = client_fn(context)
        if hasattr(client, "to_client"):
            client = client.to_client()
        if not isinstance(client, NumPyClient):
            raise TypeError(f"client_fn returned a {type(client).__name__}; it must return a NumPyClient")
        client.set_context(context)
        name, given = next(iter(message.content.array_records.items()), (ARRAYS, ArrayRecord()))
        parameters, config = given.to_numpy_ndarrays(), _config(message)
        category, _, action = message.metadata.message_type.partition(".")
        if category == "train":
            arrays, number, metrics = _three(client.fit(parameters, config), client, _TRAIN)
            content = RecordDict({name: _arrays(arrays, given, client), **_metrics(number, metrics, client, _TRAIN)})
        elif category == "evaluate":
            loss, number, metrics = _three(client.evaluate(parameters, config), client, _EVALUATE)
            content = RecordDict({**_metrics(number, {"loss": loss, **metrics}, client, _EVALUATE)})
        elif action == _GET_PARAMETERS:
            content = RecordDict({ARRAYS: ArrayRecord(client.get_parameters(config))})
        else:
            content = RecordDict({PROPERTIES: ConfigRecord(client.get_properties(config))})
        return Message(content, reply_to=message)

    return answer


def _config(message: Message) -> dict[str, Any]:
    found = next(iter(message.content.config_records.values()), None)
    config = dict(found or {})
    if "server-round" in config:
        config.setdefault("server_round", config["server-round"])  # the key of this form
    return config


def _three(returned: object, client: NumPyClient, method: str) -> tuple[Any, Any, dict[str, Any]]:
    expected = {_TRAIN: "(list of arrays, num_examples, dict)", _EVALUATE: "(loss, num_examples, dict)"}[method]
    if not (isinstance(returned, tuple) and len(returned) == 3 and isinstance(returned[2], Mapping)):
        came = f"a tuple of {len(returned)}" if isinstance(returned, tuple) else f"a {type(returned).__name__}"
        raise TypeError(f"{type(client).__name__}.{method} returned {came}; it must return {expected}")
    return returned[0], returned[1], dict(returned[2])


def _arrays(arrays: Any, given: ArrayRecord, client: NumPyClient) -> ArrayRecord:
    """The arrays under the names of those that the client was given, which it never saw."""
    if not isinstance(arrays, list) or len(arrays) != len(given):
        came = f"{len(arrays)} arrays" if isinstance(arrays, list) else f"a {type(arrays).__name__}"
        raise TypeError(f"{type(client).__name__}.fit returned {came}; it must return a list of {len(given)} arrays")
    numbered = ArrayRecord(arrays)
    return ArrayRecord(dict(zip(given, numbered.values(), strict=True)))


def _metrics(number: Any, metrics: dict[str, Any], client: NumPyClient, method: str) -> dict[str, Any]:
    if isinstance(number, bool) or (not isinstance(number, (int, float)) and not hasattr(number, "item")):
        raise TypeError(
            f"{type(client).__name__}.{method} returned {number!r} as the number of examples; it must be a number"
        )
    return metric_records({NUM_EXAMPLES: number, **metrics})


def metric_records(metrics: Mapping[str, Any]) -> dict[str, MetricRecord | ConfigRecord]:
    """The records of metrics: texts, bytes and booleans have no average, and are in a record of their own."""
    others = {name: value for name, value in metrics.items() if isinstance(value, (str, bytes, bool))}
    records: dict[str, MetricRecord | ConfigRecord] = {
        METRICS: MetricRecord({name: value for name, value in metrics.items() if name not in others})
    }
    if others:
        records[OTHERS] = ConfigRecord(others)
    return records
