"""The base of strategies: the rounds of training and evaluation, and their result."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from fedpkg.apps.log import logger
from fedpkg.records.array_record import ArrayRecord
from fedpkg.records.value_records import ConfigRecord, MetricRecord

if TYPE_CHECKING:
    from fedpkg.apps.message import Message

EvaluateFn = Callable[[int, ArrayRecord], "MetricRecord | None"]


class Sender(Protocol):
    """What a strategy needs of a grid. `fedpkg.apps.grid.Grid` also has ``announce``, ``stay`` and ``end_round``."""

    def get_node_ids(self) -> Iterable[int]: ...

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]: ...


@dataclass
class Result:
    """What training has given.

    Attributes:
        arrays: The arrays after the last round.
        train_metrics_clientapp: By round, the aggregated metrics of training.
        evaluate_metrics_clientapp: By round, the aggregated metrics of the nodes' evaluation.
        evaluate_metrics_serverapp: By round, what ``evaluate_fn`` returned; round 0 has the initial arrays.
    """

    arrays: ArrayRecord = field(default_factory=ArrayRecord)
    train_metrics_clientapp: dict[int, MetricRecord] = field(default_factory=dict)
    evaluate_metrics_clientapp: dict[int, MetricRecord] = field(default_factory=dict)
    evaluate_metrics_serverapp: dict[int, MetricRecord] = field(default_factory=dict)

    def __repr__(self) -> str:
        size = sum(array.num_bytes for array in self.arrays.values())
        lines = [f"Result: {len(self.arrays)} arrays, {size / 1e6:.2f} MB"]
        for title, by_round in (
            ("training on the nodes", self.train_metrics_clientapp),
            ("evaluation on the nodes", self.evaluate_metrics_clientapp),
            ("evaluation on the server", self.evaluate_metrics_serverapp),
        ):
            if by_round:
                lines.append(f"  {title}")
                lines += [f"    round {number}: {shown_metrics(record)}" for number, record in by_round.items()]
        return "\n".join(lines)


class Strategy(ABC):
    """What is asked of the nodes in each round, and what is made of their replies.

    Override the methods below; or derive from one of the strategies and change only some of them. `start` runs all
    rounds. To end training early, override `should_stop`.
    """

    _round_arrays: ArrayRecord | None = None  # those of the current round

    @abstractmethod
    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Any
    ) -> Iterable[Message]:
        """The training messages of a round."""

    @abstractmethod
    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """The next arrays (None: they stay), and metrics. Replies, some of them errors, are in the messages' order."""

    @abstractmethod
    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Any
    ) -> Iterable[Message]:
        """The evaluation messages of a round."""

    @abstractmethod
    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Metrics of the evaluation."""

    @abstractmethod
    def summary(self) -> None:
        """Log the settings."""

    def should_stop(self, server_round: int, result: Result) -> bool:
        """Whether training ends after this round. ``result`` has the arrays and all metrics up to it."""
        return False

    def shown(
        self, train: MetricRecord | None, evaluate: MetricRecord | None, server: MetricRecord | None
    ) -> dict[str, Any]:
        """The numbers that the session shows with a round, by name.

        Sessions show averages of what clients report by themselves.
        """
        parts = {"train": train, "evaluate": evaluate, "server": server}
        return {f"{part}_{name}": value for part, record in parts.items() for name, value in (record or {}).items()}

    def start(
        self,
        grid: Any,
        initial_arrays: ArrayRecord,
        num_rounds: int = 3,
        timeout: float | None = 3600,
        train_config: ConfigRecord | None = None,
        evaluate_config: ConfigRecord | None = None,
        evaluate_fn: EvaluateFn | None = None,
    ) -> Result:
        """Run all rounds.

        Each round trains on the nodes, aggregates their replies, evaluates the next arrays on the nodes, and by
        ``evaluate_fn`` on the server.

        Args:
            grid: Sends the messages.
            initial_arrays: The arrays before the first round.
            timeout: Seconds that the nodes have to answer in each phase of a round. None: no limit.
            train_config, evaluate_config: Sent to the nodes with each message.
            evaluate_fn: Called with the number of the round (0: before the first one) and the arrays; returns metrics
                or None.
        """
        if not isinstance(initial_arrays, ArrayRecord):
            kind = type(initial_arrays).__name__
            raise TypeError(f"initial_arrays is a {kind}; write ArrayRecord(model.state_dict()), or ArrayRecord(list)")
        if num_rounds < 0:
            raise ValueError(f"num_rounds is {num_rounds}; it must be 0 or more")
        configs = [_config("train_config", train_config), _config("evaluate_config", evaluate_config)]
        self.summary()
        if hasattr(grid, "announce"):
            grid.announce(num_rounds)
        result = Result(arrays=initial_arrays)
        _evaluate_on_server(evaluate_fn, 0, result)
        for server_round in range(1, num_rounds + 1):
            self._round_arrays = result.arrays
            arrays, train = self._train_phase(server_round, result.arrays, configs[0], grid, timeout)
            if arrays is not None:
                result.arrays = arrays
            evaluate = self._evaluate_phase(server_round, result.arrays, configs[1], grid, timeout)
            if train is not None:
                result.train_metrics_clientapp[server_round] = train
            if evaluate is not None:
                result.evaluate_metrics_clientapp[server_round] = evaluate
            server = _evaluate_on_server(evaluate_fn, server_round, result)
            if hasattr(grid, "end_round"):
                grid.end_round(arrays=arrays, metrics=self.shown(train, evaluate, server))
            if self.should_stop(server_round, result):
                logger.info("training ends after round %d of %d (should_stop)", server_round, num_rounds)
                if hasattr(grid, "announce"):
                    grid.announce(0)
                break
        return result

    def _train_phase(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Any, timeout: float | None
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        messages = self.configure_train(server_round, arrays, config, grid)
        replies, found = self._trained(server_round, messages, grid, timeout)
        if not (isinstance(found, tuple) and len(found) == 2):
            kind = type(found).__name__
            raise TypeError(f"{type(self).__name__}.aggregate_train returned {kind}; it must return (arrays, metrics)")
        next_arrays, metrics = found
        _check(next_arrays, ArrayRecord, f"the arrays of {type(self).__name__}.aggregate_train")
        _check(metrics, MetricRecord, f"the metrics of {type(self).__name__}.aggregate_train")
        log_phase(server_round, "training", replies, metrics)
        return next_arrays, metrics

    def _trained(
        self, server_round: int, messages: Iterable[Message] | None, grid: Any, timeout: float | None
    ) -> tuple[Sequence[Message], Any]:
        """The replies to the messages of training, and what `aggregate_train` makes of them."""
        replies = exchanged(grid, messages, timeout, self)
        return replies, self.aggregate_train(server_round, replies)

    def _evaluate_phase(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Any, timeout: float | None
    ) -> MetricRecord | None:
        replies = exchanged(grid, self.configure_evaluate(server_round, arrays, config, grid), timeout, self)
        metrics = self.aggregate_evaluate(server_round, replies)
        _check(metrics, MetricRecord, f"the metrics of {type(self).__name__}.aggregate_evaluate")
        log_phase(server_round, "evaluation", replies, metrics)
        return metrics


def exchanged(
    grid: Sender, messages: Iterable[Message] | None, timeout: float | None, strategy: object
) -> list[Message]:
    """Send messages, and return the replies in the order of the messages, whatever order a grid has."""
    if messages is None:
        raise TypeError(f"{type(strategy).__name__}: configure_… returned None; it must return messages, or []")
    sent = list(messages)
    replies = list(grid.send_and_receive(sent, timeout=timeout))
    place = {message.metadata.message_id: number for number, message in enumerate(sent)}
    return sorted(replies, key=lambda reply: place.get(reply.metadata.reply_to_message_id, len(sent)))


def shown_metrics(record: Mapping[str, Any]) -> str:
    """Metrics as text: ``loss 0.6931, accuracy 0.5``."""
    return ", ".join(f"{name} {_number(value)}" for name, value in record.items()) or "none"


def _number(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_number, value[:6]))}{', …' if len(value) > 6 else ''}]"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _evaluate_on_server(evaluate_fn: EvaluateFn | None, server_round: int, result: Result) -> MetricRecord | None:
    if evaluate_fn is None:
        return None
    metrics = evaluate_fn(server_round, result.arrays)
    _check(metrics, MetricRecord, "the result of evaluate_fn")
    if metrics is not None:
        result.evaluate_metrics_serverapp[server_round] = metrics
        logger.info("round %d: evaluation on the server: %s", server_round, shown_metrics(metrics))
    return metrics


def log_phase(server_round: int, phase: str, replies: Sequence[Message], metrics: MetricRecord | None) -> None:
    """Log what came of a phase."""
    if replies:
        failed = sum(reply.has_error() for reply in replies)
        about = "" if metrics is None else f": {shown_metrics(metrics)}"
        logger.info("round %d: %s, %d of %d replies%s", server_round, phase, len(replies) - failed, len(replies), about)


def _config(name: str, given: ConfigRecord | None) -> ConfigRecord:
    if given is not None and not isinstance(given, ConfigRecord):
        raise TypeError(f"{name} is a {type(given).__name__}; write ConfigRecord({{'lr': 0.01}})")
    return ConfigRecord(given)  # a copy, as strategies change it from round to round


def _check(value: object, kind: type, what: str) -> None:
    if value is not None and not isinstance(value, kind):
        raise TypeError(f"{what} is a {type(value).__name__}; it must be a {kind.__name__}, or None")


def fraction(name: str, value: float) -> float:
    """A number from 0 to 1. Raises ValueError."""
    if not 0 <= value <= 1:
        raise ValueError(f"{name} is {value}; it must be a number from 0 to 1")
    return value


def positive(name: str, value: float, *, or_zero: bool = False) -> float:
    """A finite number above 0, or from 0 on. Raises ValueError."""
    if not (math.isfinite(value) and (value > 0 or (or_zero and value == 0))):
        raise ValueError(f"{name} is {value}; it must be a finite number {'from 0 on' if or_zero else 'above 0'}")
    return value
