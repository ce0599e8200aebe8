"""FedAvg, and what the strategies that derive from it share: choosing nodes, messages, and checks of replies."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fedpkg.apps.errors import AggregationError, TooFewNodes
from fedpkg.apps.log import logger
from fedpkg.apps.message import Message, MessageType
from fedpkg.apps.strategy.answers import Answer, LeftOut, error_of, opened, weighted
from fedpkg.apps.strategy.base import Strategy, fraction, shown_metrics
from fedpkg.apps.strategy.metrics import MetricsAggregation, aggregate_metricrecords
from fedpkg.apps.strategy.parts import sampled
from fedpkg.apps.strategy.stepping import Stepping
from fedpkg.client.arrays import BITS
from fedpkg.client.coordinator import Mean
from fedpkg.records.array_record import ArrayRecord
from fedpkg.records.record_dict import RecordDict
from fedpkg.records.value_records import ConfigRecord, MetricRecord
from fedpkg.shares import share_of

if TYPE_CHECKING:
    from fedpkg.apps.grid import NodesMean
    from fedpkg.strategies.base import Reply
    from fedpkg.strategies.pipeline import Pipeline
    from fedpkg.strategies.server_optimisers.base import ServerOptimiser
    from fedpkg.strategies.traits import Traits
    from fedpkg.types import Use
    from fedpkg.weights.weights import Weights

SERVER_ROUND = "server-round"
_DURATION = re.compile(r" after [0-9.]+ s\b")  # of a call that failed; without it, equal failures are one line
_MOST_NODES = 5  # named in a line of log
# What a subclass must not change for the mean of the replies to be all that it needs of them.
_OF_THE_MEAN = ("aggregate_train", "_combined", "_aggregate", "_answers", "method", "aggregator")
_HALVES = frozenset((*BITS, "float16"))


@dataclass(frozen=True)
class Noisy:
    """An aggregator whose aggregate is changed before the server's step; ``noise`` gets the aggregate and the model."""

    of: Any
    noise: Callable[[Weights, Weights], Weights]

    @property
    def traits(self) -> Traits:
        from fedpkg.strategies.traits import traits_of

        return traits_of(self.of)

    def aggregate(self, replies: Iterator[Reply], model: Weights) -> Weights:
        from fedpkg.strategies.folds import fold_of, folded

        fold = fold_of(self.of)
        found = self.of.aggregate(replies, model) if fold is None else folded(fold(model), replies)
        return self.noise(found, model)


class FedAvg(Strategy):
    """Sampled nodes train, and the next arrays are the mean of theirs, weighted by their numbers of examples.

        w <- sum_k (n_k / n) w_k,  n = sum_k n_k                    [McMahan et al. 2017, arXiv:1602.05629]

    Floating-point arrays are summed in float32 (float64 in float64), in the order of the messages; integers and
    booleans are those of the reply with the largest weight; a single reply is taken as it is. A reply that cannot be
    used (an error, no arrays or several array records without the named one, other names or shapes, NaN or infinite
    values, no usable weight) is left out, and logged with its node and the reason.

    In a session, fedpkg averages the arrays of the replies where they arrive, and the app gets the mean alone, unless a
    subclass or one of the functions below needs the replies themselves. The result has the same bits.

    To combine replies in another way, override `method`, or `aggregate_train`.

    Args:
        fraction_train, fraction_evaluate: The share of the nodes that train, and that evaluate; 0: none.
        min_train_nodes, min_evaluate_nodes: The fewest nodes that train, and that evaluate.
        min_available_nodes: The fewest nodes without which no round begins.
        weighted_by_key: The metric by which replies are weighted.
        arrayrecord_key, configrecord_key: The names of the records in messages.
        train_metrics_aggr_fn, evaluate_metrics_aggr_fn: Make the metrics of a phase from the contents of the usable
            replies and the name of the weight. By default, `aggregate_metricrecords`.
    """

    needs = 1  # the fewest replies for which the method is defined
    needs_sent_arrays = False  # whether replies must have the names and shapes of what was sent

    def __init__(
        self,
        fraction_train: float = 1.0,
        fraction_evaluate: float = 1.0,
        min_train_nodes: int = 2,
        min_evaluate_nodes: int = 2,
        min_available_nodes: int = 2,
        weighted_by_key: str = "num-examples",
        arrayrecord_key: str = "arrays",
        configrecord_key: str = "config",
        train_metrics_aggr_fn: MetricsAggregation | None = None,
        evaluate_metrics_aggr_fn: MetricsAggregation | None = None,
    ) -> None:
        self.fraction_train = fraction("fraction_train", fraction_train)
        self.fraction_evaluate = fraction("fraction_evaluate", fraction_evaluate)
        self.min_train_nodes = min_train_nodes
        self.min_evaluate_nodes = min_evaluate_nodes
        self.min_available_nodes = min_available_nodes
        self.weighted_by_key = weighted_by_key
        self.arrayrecord_key = arrayrecord_key
        self.configrecord_key = configrecord_key
        self.train_metrics_aggr_fn = train_metrics_aggr_fn or aggregate_metricrecords
        self.evaluate_metrics_aggr_fn = evaluate_metrics_aggr_fn or aggregate_metricrecords
        self.stepping = Stepping()
        # Set by a strategy around this one: changes the aggregate, given that and the model, before the server's step.
        self.noise: Callable[[Weights, Weights], Weights] | None = None
        self._said: set[str] = set()

    # ---- the method

    def method(self) -> Pipeline:
        """How replies are combined: an aggregator of fedpkg, and an optional server optimiser."""
        from fedpkg.strategies.pipeline import Pipeline

        aggregator = self.aggregator()
        if self.noise is not None:
            aggregator = Noisy(aggregator, self.noise)
        return Pipeline(aggregator, self.server_optimiser())

    def aggregator(self) -> Any:
        """Makes one model of the replies (`fedpkg.strategies.aggregators`)."""
        from fedpkg.strategies.aggregators.mean import WeightedMean

        return WeightedMean()

    def server_optimiser(self) -> ServerOptimiser | None:
        """Takes the step from the arrays that were sent towards the aggregate. None: the aggregate is the result."""
        return None

    # ---- training

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Any
    ) -> Iterable[Message]:
        self._round_arrays = arrays
        if self.fraction_train == 0:
            return []
        nodes = self._sampled(grid, self.fraction_train, self.min_train_nodes, "train")
        if len(nodes) < self.needs:
            raise TooFewNodes(
                f"{type(self).__name__} needs {self.needs} nodes that train, but a round has {len(nodes)}: run with "
                f"--nodes {self.needs}, choose a larger fraction_train, or expect fewer malicious nodes"
            )
        return self._construct_messages(self._content(server_round, arrays, config), nodes, MessageType.TRAIN)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        return self._combined(server_round, *self._answers(server_round, replies))

    def _trained(
        self, server_round: int, messages: Iterable[Message] | None, grid: Any, timeout: float | None
    ) -> tuple[Sequence[Message], Any]:
        sent = None if messages is None else list(messages)
        if sent and self._takes_the_mean(sent) and hasattr(grid, "send_and_average"):
            wanted = Mean(self.arrayrecord_key, self.weighted_by_key, self.needs_sent_arrays, self._use)
            if (came := grid.send_and_average(sent, wanted, timeout=timeout)) is not None:
                replies, mean = came
                return replies, self._of_the_mean(server_round, replies, mean)
        return super()._trained(server_round, sent, grid, timeout)

    def _takes_the_mean(self, sent: Sequence[Message]) -> bool:
        """Whether the mean of the replies' arrays is all that this strategy needs of them."""
        if any(name in vars(self) or getattr(type(self), name) is not getattr(FedAvg, name) for name in _OF_THE_MEAN):
            return False
        if self.noise is not None or self.train_metrics_aggr_fn is not aggregate_metricrecords:
            return False
        arrays = self._round_arrays
        if arrays is None or any(one.content.get(self.arrayrecord_key) is not arrays for one in sent):
            return False
        # Steps from a model in half precision are taken in float32, from the replies.
        return self.server_optimiser() is None or not any(one.dtype in _HALVES for one in arrays.values())

    def _of_the_mean(
        self, server_round: int, replies: Sequence[Message], mean: NodesMean
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """What `aggregate_train` returns, of the mean of the replies' arrays."""
        reasons = {**mean.left_out}
        for message in replies:
            if (error := error_of(message)) is not None:
                reasons[message.metadata.src_node_id] = error
        left_out = [
            LeftOut(message, reasons[node]) for message in replies if (node := message.metadata.src_node_id) in reasons
        ]
        usable = [message for message in replies if message.metadata.src_node_id not in reasons]
        self._log_left_out(server_round, "training", left_out)
        self._say_how(is_other=mean.is_other, converted=mean.converted)
        if not usable:
            return None, None
        arrays = mean.arrays
        if mean.error:
            self._say_kept(server_round, mean.error)
        if self.server_optimiser() is None or arrays is None or self._round_arrays is None:
            self.stepping.pass_over()
        else:
            reply = self.stepping.reply_of(arrays)
            arrays = self._aggregate(
                server_round, [Answer(usable[0], reply)], self.stepping.weights_of(self._round_arrays)
            )
        return arrays, self.train_metrics_aggr_fn([message.content for message in usable], self.weighted_by_key)

    def _combined(
        self, server_round: int, answers: Sequence[Answer], model: Weights | None
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """The next arrays, and metrics, of what `_answers` has found."""
        if not answers or model is None:
            return None, None
        arrays = self._aggregate(server_round, answers, model)
        contents = [answer.message.content for answer in answers]
        return arrays, self.train_metrics_aggr_fn(contents, self.weighted_by_key)

    def _aggregate(self, server_round: int, answers: Sequence[Answer], model: Weights) -> ArrayRecord | None:
        from fedpkg.errors import AggregationError as NotAggregated
        from fedpkg.strategies.master import with_master

        replies: list[Reply] = [answer.reply for answer in answers if answer.reply is not None]
        try:
            stepped = self.stepping.step(with_master(self.method()), model, server_round, replies)
        except NotAggregated as error:
            self._say_kept(server_round, error.message)
            return None
        return self.stepping.record_of(stepped)

    @property
    def _use(self) -> Use:
        from fedpkg.strategies.traits import traits_of

        return "averaged" if traits_of(self.method()).only_averages else "stepped"

    def _answers(self, server_round: int, replies: Iterable[Message]) -> tuple[list[Answer], Weights | None]:
        """The usable replies, and what their arrays fit."""
        messages = list(replies)
        if not messages:
            return [], None
        model = None if self._round_arrays is None else self.stepping.weights_of(self._round_arrays)
        if self.needs_sent_arrays and model is None:
            raise AggregationError(
                f"{type(self).__name__} moves the arrays that were sent, which it does not know: call configure_train "
                "before aggregate_train"
            )
        answers, left_out, template = opened(
            messages,
            arrays_key=self.arrayrecord_key,
            weight_key=self.weighted_by_key,
            model=model,
            needs_model=self.needs_sent_arrays,
            use=self._use,
        )
        self._log_left_out(server_round, "training", left_out)
        converted = next((answer.converted for answer in answers if answer.converted), "")
        is_other = bool(answers) and model is not None and template is not model
        self._say_how(is_other=is_other, converted=converted)
        return answers, template

    # ---- evaluation

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Any
    ) -> Iterable[Message]:
        if self.fraction_evaluate == 0:
            return []
        nodes = self._sampled(grid, self.fraction_evaluate, self.min_evaluate_nodes, "evaluate")
        return self._construct_messages(self._content(server_round, arrays, config), nodes, MessageType.EVALUATE)

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        answers, left_out = weighted(replies, self.weighted_by_key)
        self._log_left_out(server_round, "evaluation", left_out)
        if not answers:
            return None
        contents = [answer.message.content for answer in answers]
        return self.evaluate_metrics_aggr_fn(contents, self.weighted_by_key)

    # ---- what they share

    def summary(self) -> None:
        """Log the settings that differ from FedAvg's defaults."""
        usual = {**vars(FedAvg()), "needs_sent_arrays": True}
        settings = {
            name: value
            for name, value in vars(self).items()
            if isinstance(value, (int, float, str)) and not name.startswith("_") and usual.get(name) != value
        }
        logger.info("%s: %s", type(self).__name__, shown_metrics(settings) if settings else "default settings")

    def shown(
        self, train: MetricRecord | None, evaluate: MetricRecord | None, server: MetricRecord | None
    ) -> dict[str, Any]:
        """The numbers of the server. Averages of what clients report are shown by the session itself."""
        own_train = train if self.train_metrics_aggr_fn is not aggregate_metricrecords else None
        own_evaluate = evaluate if self.evaluate_metrics_aggr_fn is not aggregate_metricrecords else None
        return super().shown(own_train, own_evaluate, server)

    def _content(self, server_round: int, arrays: ArrayRecord, config: ConfigRecord) -> RecordDict:
        """What all messages of a phase have in common; the given config stays as it is."""
        config = ConfigRecord(config)
        config[SERVER_ROUND] = server_round
        return RecordDict({self.arrayrecord_key: arrays, self.configrecord_key: config})

    def _construct_messages(self, record: RecordDict, node_ids: Sequence[int], message_type: str) -> list[Message]:
        """One message to each node, all with the same content."""
        return [Message(record, node_id, message_type) for node_id in node_ids]

    def _sampled(self, grid: Any, share: float, least: int, phase: str) -> list[int]:
        """The nodes of a phase, in the order of the grid.

        Raises:
            TooFewNodes: There are fewer than the settings ask for.
        """
        nodes = list(grid.get_node_ids())
        size = max(share_of(share, len(nodes), "down"), least)
        needed = max(size, self.min_available_nodes)
        if len(nodes) < needed:
            raise TooFewNodes(
                f"there are {len(nodes)} nodes, and {needed} are needed (min_{phase}_nodes={least}, "
                f"min_available_nodes={self.min_available_nodes}): run with --nodes {needed}, or set these parameters "
                f"of {type(self).__name__} to at most {len(nodes)}"
            )
        return sampled(nodes, size)

    def _check_and_log_replies(
        self, replies: Iterable[Message], is_train: bool, validate: bool = True
    ) -> tuple[list[Message], list[Message]]:
        """The usable replies and all others, for a strategy that derives from this one."""
        messages = list(replies)
        if not validate:
            usable = [message for message in messages if message.has_content()]
        elif is_train:
            usable = [answer.message for answer in self._answers(0, messages)[0]]
        else:
            answers, left_out = weighted(messages, self.weighted_by_key)
            self._log_left_out(0, "evaluation", left_out)
            usable = [answer.message for answer in answers]
        kept = set(map(id, usable))
        return usable, [message for message in messages if id(message) not in kept]

    def _log_left_out(self, server_round: int, phase: str, left_out: Sequence[LeftOut]) -> None:
        where = f"round {server_round}: {phase}" if server_round else phase
        nodes: dict[str, list[int]] = {}
        for one in left_out:
            nodes.setdefault(_DURATION.sub("", one.reason), []).append(one.message.metadata.src_node_id)
        for reason, together in nodes.items():
            logger.warning("%s: %s left out: %s", where, _named(together), reason)

    def _say_how(self, *, is_other: bool, converted: str) -> None:
        if is_other:
            self._say_once("other", "replies have other arrays than were sent; they are combined among themselves")
        if converted:
            self._say_once("converted", f"replies have arrays in another precision, which are converted: {converted}")

    def _say_kept(self, server_round: int, reason: str) -> None:
        logger.warning("round %d: the arrays stay as they are: %s", server_round, reason)

    def _say_once(self, key: str, text: str) -> None:
        if key not in self._said:
            self._said.add(key)
            logger.warning("%s", text)


def _named(nodes: Sequence[int]) -> str:
    """``node 3 is``, or ``nodes 1, 2, 3 and 4 more are``."""
    if len(nodes) == 1:
        return f"node {nodes[0]} is"
    more = f" and {len(nodes) - _MOST_NODES} more" if len(nodes) > _MOST_NODES else ""
    return f"nodes {', '.join(map(str, nodes[:_MOST_NODES]))}{more} are"
