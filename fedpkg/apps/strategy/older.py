"""Strategies of the older form, which ``server_fn`` of a ServerApp returns: parameters are lists of NumPy arrays.

They are the strategies of this package under other parameters. `configure_fit`, `configure_evaluate`, `aggregate_fit`,
`aggregate_evaluate`, `evaluate` and `initialize_parameters` may be overridden; a strategy that derives from `Strategy`
writes all of them.
"""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from fedpkg.apps.errors import AppExitException
from fedpkg.apps.log import logger
from fedpkg.apps.message import Message, MessageType
from fedpkg.apps.numpy_client import OTHERS, metric_records
from fedpkg.apps.strategy import fedavg, fedopt, fedprox, qfedavg, robust
from fedpkg.apps.strategy.answers import array_record_of, weighted
from fedpkg.apps.strategy.base import EvaluateFn, Result, exchanged, log_phase
from fedpkg.apps.strategy.client_manager import ClientManager, ClientProxy, register_all
from fedpkg.apps.strategy.metrics import aggregate_metricrecords, metrics_of
from fedpkg.apps.strategy.parts import aggregate_arrayrecords
from fedpkg.apps.typing import (
    Code,
    EvaluateIns,
    EvaluateRes,
    FitIns,
    FitRes,
    Parameters,
    Status,
    ndarrays_to_parameters,
    parameters_to_ndarrays,
)
from fedpkg.records.array_record import ArrayRecord
from fedpkg.records.record_dict import RecordDict
from fedpkg.records.value_records import ConfigRecord, MetricRecord
from fedpkg.shares import share_of

MetricsAggregation = Callable[[list[tuple[int, dict[str, Any]]]], Mapping[str, Any]]
ConfigFn = Callable[[int], Mapping[str, Any]]
OlderEvaluateFn = Callable[[int, list[Any], dict[str, Any]], "tuple[float, Mapping[str, Any]] | None"]

GET_PARAMETERS = "query.get_parameters"
LOSS = "loss"


def _other_name(name: str) -> Any:
    """An attribute under the name of the older form."""
    return property(lambda self: getattr(self, name), lambda self, value: setattr(self, name, value))


class Strategy(ABC):
    """The base of the older form. FedAvg below implements its methods."""

    @abstractmethod
    def initialize_parameters(self, client_manager: ClientManager) -> Parameters | None:
        """The parameters before the first round; None: those of a client."""

    @abstractmethod
    def configure_fit(
        self, server_round: int, parameters: Parameters, client_manager: ClientManager
    ) -> Sequence[tuple[Any, FitIns]]:
        """The clients that train in a round, each with what it is given."""

    @abstractmethod
    def aggregate_fit(
        self, server_round: int, results: Sequence[tuple[Any, FitRes]], failures: Sequence[Any]
    ) -> tuple[Parameters | None, dict[str, Any]]:
        """The next parameters (None: they stay) and metrics."""

    @abstractmethod
    def configure_evaluate(
        self, server_round: int, parameters: Parameters, client_manager: ClientManager
    ) -> Sequence[tuple[Any, EvaluateIns]]:
        """The clients that evaluate in a round, each with what it is given."""

    @abstractmethod
    def aggregate_evaluate(
        self, server_round: int, results: Sequence[tuple[Any, EvaluateRes]], failures: Sequence[Any]
    ) -> tuple[float | None, dict[str, Any]]:
        """The loss and metrics of the clients' evaluation."""

    @abstractmethod
    def evaluate(self, server_round: int, parameters: Parameters) -> tuple[float, Mapping[str, Any]] | None:
        """The loss and metrics on the server, or None."""

    def run_components(
        self,
        grid: Any,
        *,
        num_rounds: int = 1,
        timeout: float | None = None,
        client_manager: ClientManager | None = None,
    ) -> Result:
        """Run all rounds, as a ServerApp does with what ``server_fn`` returns."""
        scratch = FromScratch(self)
        return scratch.run_components(grid, num_rounds=num_rounds, timeout=timeout, client_manager=client_manager)


class _Older(fedavg.FedAvg, Strategy):
    """What all of them share.

    Args:
        fraction_fit, fraction_evaluate: The share of the nodes that train, and that evaluate.
        min_fit_clients, min_evaluate_clients, min_available_clients: The fewest nodes.
        evaluate_fn: Called with the number of the round, the parameters and an empty dictionary; returns the loss and
            metrics, or None.
        on_fit_config_fn, on_evaluate_config_fn: Make what clients get as ``config`` in a round.
        accept_failures: False: a round in which a reply cannot be used keeps the parameters.
        initial_parameters: None: those of one client, which is asked for them.
        fit_metrics_aggregation_fn, evaluate_metrics_aggregation_fn: Make metrics from a list of pairs, the number of
            examples and the metrics of a client. None: the average.
        inplace: Has no effect.
        own: Parameters of the method.
    """

    def __init__(
        self,
        *,
        fraction_fit: float = 1.0,
        fraction_evaluate: float = 1.0,
        min_fit_clients: int = 2,
        min_evaluate_clients: int = 2,
        min_available_clients: int = 2,
        evaluate_fn: OlderEvaluateFn | None = None,
        on_fit_config_fn: ConfigFn | None = None,
        on_evaluate_config_fn: ConfigFn | None = None,
        accept_failures: bool = True,
        initial_parameters: Parameters | None = None,
        fit_metrics_aggregation_fn: MetricsAggregation | None = None,
        evaluate_metrics_aggregation_fn: MetricsAggregation | None = None,
        inplace: bool = True,
        **own: Any,
    ) -> None:
        super().__init__(
            fraction_train=fraction_fit,
            fraction_evaluate=fraction_evaluate,
            min_train_nodes=min_fit_clients,
            min_evaluate_nodes=min_evaluate_clients,
            min_available_nodes=min_available_clients,
            train_metrics_aggr_fn=_aggregation(fit_metrics_aggregation_fn),
            evaluate_metrics_aggr_fn=_aggregation(evaluate_metrics_aggregation_fn, keeps_loss=True),
            **own,
        )
        self.evaluate_fn = evaluate_fn
        self.on_fit_config_fn = on_fit_config_fn
        self.on_evaluate_config_fn = on_evaluate_config_fn
        self.accept_failures = accept_failures
        self.initial_parameters = initial_parameters
        self.fit_metrics_aggregation_fn = fit_metrics_aggregation_fn
        self.evaluate_metrics_aggregation_fn = evaluate_metrics_aggregation_fn
        self._clients: ClientManager | None = None  # all nodes, while rounds run
        self._given: tuple[Parameters, ArrayRecord] | None = None  # the parameters of a phase in both forms

    fraction_fit = _other_name("fraction_train")
    min_fit_clients = _other_name("min_train_nodes")
    min_evaluate_clients = _other_name("min_evaluate_nodes")
    min_available_clients = _other_name("min_available_nodes")

    # ---- what may be overridden

    def initialize_parameters(self, client_manager: ClientManager) -> Parameters | None:
        return self.initial_parameters

    def num_fit_clients(self, num_available_clients: int) -> tuple[int, int]:
        """How many clients train, and how many there must be."""
        size = max(share_of(self.fraction_train, num_available_clients, "down"), self.min_train_nodes)
        return size, self.min_available_nodes

    def num_evaluation_clients(self, num_available_clients: int) -> tuple[int, int]:
        """How many clients evaluate, and how many there must be."""
        size = max(share_of(self.fraction_evaluate, num_available_clients, "down"), self.min_evaluate_nodes)
        return size, self.min_available_nodes

    def configure_fit(
        self, server_round: int, parameters: Parameters, client_manager: ClientManager
    ) -> list[tuple[Any, FitIns]]:
        messages = self._fit_messages(server_round, self._arrays_of(parameters), ConfigRecord(), client_manager)
        return self._instructions(messages, FitIns, parameters)

    def configure_evaluate(  # type: ignore[override]
        self, server_round: int, parameters: Parameters, client_manager: ClientManager
    ) -> list[tuple[Any, EvaluateIns]]:
        messages = self._evaluate_messages(server_round, self._arrays_of(parameters), ConfigRecord(), client_manager)
        return self._instructions(messages, EvaluateIns, parameters)

    def evaluate(self, server_round: int, parameters: Parameters) -> tuple[float, Mapping[str, Any]] | None:
        if self.evaluate_fn is None:
            return None
        return self.evaluate_fn(server_round, parameters_to_ndarrays(parameters), {})

    def aggregate_fit(
        self, server_round: int, results: Sequence[tuple[Any, FitRes]], failures: Sequence[Any]
    ) -> tuple[Parameters | None, dict[str, Any]]:
        if not results or (failures and not self.accept_failures):
            return None, {}
        messages = [self._message_of(proxy, result) for proxy, result in results]
        arrays, metrics = super().aggregate_train(server_round, messages)
        return None if arrays is None else _parameters(arrays), dict(metrics or {})

    def aggregate_evaluate(  # type: ignore[override]
        self, server_round: int, results: Sequence[tuple[Any, EvaluateRes]], failures: Sequence[Any]
    ) -> tuple[float | None, dict[str, Any]]:
        if not results or (failures and not self.accept_failures):
            return None, {}
        messages = [self._message_of(proxy, result) for proxy, result in results]
        metrics = dict(super().aggregate_evaluate(server_round, messages) or {})
        return metrics.pop(LOSS, None), metrics

    # ---- the rounds

    def run_components(
        self,
        grid: Any,
        *,
        num_rounds: int = 1,
        timeout: float | None = None,
        client_manager: ClientManager | None = None,
    ) -> Result:
        self._clients = register_all(grid.get_node_ids(), client_manager)
        initial = self.initialize_parameters(self._clients)
        arrays = self._of_a_client(grid, timeout) if initial is None else _record(initial, None)
        return self.start(grid, arrays, num_rounds, timeout, evaluate_fn=self._evaluation())

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Any
    ) -> Iterable[Message]:
        clients = self._clients_of(grid)
        if type(self).configure_fit is _Older.configure_fit:
            return self._fit_messages(server_round, arrays, config, clients)
        given = self.configure_fit(server_round, self._parameters_of(arrays), clients)
        return self._messages(given, MessageType.TRAIN, "configure_fit")

    def _evaluation_messages(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Any
    ) -> Iterable[Message]:
        clients = self._clients_of(grid)
        if type(self).configure_evaluate is _Older.configure_evaluate:
            return self._evaluate_messages(server_round, arrays, config, clients)
        given = self.configure_evaluate(server_round, self._parameters_of(arrays), clients)
        return self._messages(given, MessageType.EVALUATE, "configure_evaluate")

    def _fit_messages(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, clients: ClientManager
    ) -> list[Message]:
        own = {} if self.on_fit_config_fn is None else self.on_fit_config_fn(server_round)
        return list(super().configure_train(server_round, arrays, ConfigRecord({**config, **own}), clients))

    def _evaluate_messages(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, clients: ClientManager
    ) -> list[Message]:
        own = {} if self.on_evaluate_config_fn is None else self.on_evaluate_config_fn(server_round)
        return list(super().configure_evaluate(server_round, arrays, ConfigRecord({**config, **own}), clients))

    def _sampled(self, grid: Any, share: float, least: int, phase: str) -> list[int]:
        """The nodes that the client manager, which is given as the grid, chooses."""
        numbers = self.num_fit_clients if phase == "train" else self.num_evaluation_clients
        size, needed = numbers(grid.num_available())
        return [int(one.cid) for one in grid.sample(num_clients=size, min_num_clients=needed)]

    def _clients_of(self, grid: Any) -> ClientManager:
        if self._clients is None:
            self._clients = register_all(grid.get_node_ids(), None)
        return self._clients

    # ---- what clients are given, in both forms

    def _parameters_of(self, arrays: ArrayRecord) -> Parameters:
        self._given = _parameters(arrays), arrays
        return self._given[0]

    def _arrays_of(self, parameters: Parameters) -> ArrayRecord:
        if self._given is not None and parameters is self._given[0]:
            return self._given[1]
        return _record(parameters, self._round_arrays)

    def _instructions(self, messages: Sequence[Message], kind: Any, parameters: Parameters) -> list[tuple[Any, Any]]:
        """Messages with one content, as the older form has them: all clients share what they are given."""
        if not messages:
            return []
        given = kind(parameters, dict(messages[0].content.config_records[self.configrecord_key]))
        return [(ClientProxy(message.metadata.dst_node_id), given) for message in messages]

    def _messages(self, given: Iterable[tuple[Any, Any]] | None, message_type: str, method: str) -> list[Message]:
        """The messages to clients; equal parameters and equal instructions are in one record."""
        pairs = list(given or ())  # None: no client
        records: dict[int, ArrayRecord] = {}
        contents: dict[int, RecordDict] = {}
        for pair in pairs:
            if not (isinstance(pair, tuple) and len(pair) == 2 and hasattr(pair[1], "parameters")):
                ins = "FitIns" if message_type == MessageType.TRAIN else "EvaluateIns"
                came = type(pair).__name__
                raise TypeError(f"{self._name}.{method} returned a list with a {came}; write pairs (client, {ins}(…))")
            one = pair[1]
            if id(one) not in contents:
                if id(one.parameters) not in records:
                    records[id(one.parameters)] = self._arrays_of(one.parameters)
                contents[id(one)] = RecordDict(
                    {
                        self.arrayrecord_key: records[id(one.parameters)],
                        self.configrecord_key: ConfigRecord(one.config),
                    }
                )
        return [Message(contents[id(one)], int(client.cid), message_type) for client, one in pairs]

    @property
    def _name(self) -> str:
        return type(self).__name__

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        messages = list(replies)
        is_own = type(self).aggregate_fit is not _Older.aggregate_fit
        if not messages:
            return None, None
        answers, model = self._answers(server_round, messages)
        usable = [answer.message for answer in answers]
        failures = _failures(messages, usable)
        if not is_own:
            if failures and not self.accept_failures:
                logger.warning("round %d: the arrays stay as they are, as a reply cannot be used", server_round)
                return None, None
            return self._combined(server_round, answers, model)
        results = [(ClientProxy(one.metadata.src_node_id), self._fit_res(one)) for one in usable]
        parameters, metrics = self.aggregate_fit(server_round, results, failures)
        arrays = None if parameters is None else _record(parameters, self._round_arrays)
        return arrays, _numbers(metrics)

    def _evaluate_phase(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Any, timeout: float | None
    ) -> MetricRecord | None:
        replies = exchanged(grid, self._evaluation_messages(server_round, arrays, config, grid), timeout, self)
        if not replies:
            return None
        answers, left_out = weighted(replies, self.weighted_by_key)
        self._log_left_out(server_round, "evaluation", left_out)
        results = [(ClientProxy(one.message.metadata.src_node_id), self._evaluate_res(one.message)) for one in answers]
        failures = _failures(replies, [answer.message for answer in answers])
        loss, metrics = self.aggregate_evaluate(server_round, results, failures)
        found = _numbers({**({} if loss is None else {LOSS: loss}), **metrics})
        log_phase(server_round, "evaluation", replies, found)
        return found or None

    def _of_a_client(self, grid: Any, timeout: float | None) -> ArrayRecord:
        nodes = list(grid.get_node_ids())
        if not nodes:
            raise AppExitException("there are no nodes, one of which would have to give the initial parameters")
        node = random.choice(nodes)
        content = RecordDict({self.configrecord_key: ConfigRecord()})
        [reply] = exchanged(grid, [Message(content, node, GET_PARAMETERS)], timeout, self)
        advice = f"set initial_parameters of {self._name}, or write get_parameters of the client"
        if reply.has_error():
            raise AppExitException(f"node {node} did not give the initial parameters: {reply.error.reason}; {advice}")
        arrays = next(iter(reply.content.array_records.values()), ArrayRecord())
        if not arrays:
            raise AppExitException(f"node {node} gave no initial parameters; {advice}")
        if hasattr(grid, "stay"):
            grid.stay()  # the first round of training is that of the session
        logger.info("the initial parameters are those of node %d", node)
        return arrays

    def _evaluation(self) -> EvaluateFn | None:
        is_own = type(self).evaluate is not _Older.evaluate
        if not is_own and self.evaluate_fn is None:
            return None

        def evaluate(server_round: int, arrays: ArrayRecord) -> MetricRecord | None:
            if is_own or self.evaluate_fn is None:
                found = self.evaluate(server_round, _parameters(arrays))
            else:
                found = self.evaluate_fn(server_round, arrays.to_numpy_ndarrays(), {})
            return None if found is None else _numbers({LOSS: found[0], **found[1]})

        return evaluate

    # ---- results

    def _fit_res(self, message: Message) -> FitRes:
        arrays = array_record_of(message, self.arrayrecord_key)
        assert isinstance(arrays, ArrayRecord)
        number, metrics = self._examples(message)
        return FitRes(_OK, _parameters(arrays), number, metrics)

    def _evaluate_res(self, message: Message) -> EvaluateRes:
        number, metrics = self._examples(message)
        return EvaluateRes(_OK, metrics.pop(LOSS, float("nan")), number, metrics)

    def _examples(self, message: Message) -> tuple[int, dict[str, Any]]:
        metrics = _all_metrics(message.content)
        return metrics.pop(self.weighted_by_key), metrics

    def _message_of(self, proxy: Any, result: FitRes | EvaluateRes) -> Message:
        """The reply with the content of a result, which an app may have changed."""
        records: dict[str, Any] = {}
        metrics = {**result.metrics, self.weighted_by_key: result.num_examples}
        if isinstance(result, FitRes):
            records[self.arrayrecord_key] = _record(result.parameters, self._round_arrays)
        else:
            metrics[LOSS] = result.loss
        records.update(metric_records(metrics))
        return Message(RecordDict(records), reply_to=Message(RecordDict(), int(proxy.cid), "train"))


_OK = Status(Code.OK, "")


def _aggregation(function: MetricsAggregation | None, *, keeps_loss: bool = False) -> Any:
    """The function for metrics as `fedpkg.apps.strategy` calls it."""
    if function is None:
        return None

    def aggregate(contents: list[RecordDict], key: str) -> MetricRecord:
        pairs = []
        for content in contents:
            metrics = _all_metrics(content)
            number = metrics.pop(key)
            if keeps_loss:
                metrics.pop(LOSS, None)
            pairs.append((number, metrics))
        found = dict(_numbers(function(pairs)))
        losses = aggregate_metricrecords(contents, key) if keeps_loss else {}
        return MetricRecord({**({LOSS: losses[LOSS]} if LOSS in losses else {}), **found})

    return aggregate


def _all_metrics(content: RecordDict) -> dict[str, Any]:
    """The metrics of a client, also those that are no numbers."""
    return {**content.config_records.get(OTHERS, {}), **metrics_of(content)}


def _numbers(metrics: Mapping[str, Any]) -> MetricRecord:
    """The numbers among metrics: the older form also allows texts, bytes and booleans."""
    return MetricRecord({name: value for name, value in metrics.items() if not isinstance(value, (str, bytes, bool))})


def _parameters(arrays: ArrayRecord) -> Parameters:
    return ndarrays_to_parameters(arrays.to_numpy_ndarrays())


def _record(parameters: Parameters, like: ArrayRecord | None) -> ArrayRecord:
    """Parameters under the names of other arrays, if they are as many."""
    ndarrays = parameters_to_ndarrays(parameters)
    if like is None or len(like) != len(ndarrays):
        return ArrayRecord(ndarrays)
    return ArrayRecord(dict(zip(like, ndarrays, strict=True)))


def _failures(messages: Sequence[Message], usable: Sequence[Message]) -> list[BaseException]:
    kept = set(map(id, usable))
    return [
        RuntimeError(f"node {one.metadata.src_node_id}: {one.error.reason if one.has_error() else 'unusable'}")
        for one in messages
        if id(one) not in kept
    ]


class FromScratch(_Older):
    """The rounds of a strategy that derives from `Strategy` alone."""

    def __init__(self, strategy: Strategy) -> None:
        super().__init__()
        self._of = strategy

    def initialize_parameters(self, client_manager: ClientManager) -> Parameters | None:
        return self._of.initialize_parameters(client_manager)

    def configure_fit(self, server_round: int, parameters: Parameters, client_manager: ClientManager) -> Any:
        return self._of.configure_fit(server_round, parameters, client_manager)

    def aggregate_fit(self, server_round: int, results: Any, failures: Any) -> Any:
        return self._of.aggregate_fit(server_round, results, failures)

    def configure_evaluate(self, server_round: int, parameters: Parameters, client_manager: ClientManager) -> Any:  # type: ignore[override]
        return self._of.configure_evaluate(server_round, parameters, client_manager)

    def aggregate_evaluate(self, server_round: int, results: Any, failures: Any) -> Any:  # type: ignore[override]
        return self._of.aggregate_evaluate(server_round, results, failures)

    def evaluate(self, server_round: int, parameters: Parameters) -> Any:
        return self._of.evaluate(server_round, parameters)

    def summary(self) -> None:
        logger.info("%s", self._name)

    @property
    def _name(self) -> str:
        return type(self._of).__name__


class FedAvg(_Older):
    """`fedpkg.apps.strategy.FedAvg` with the parameters of the older form."""


class FedAvgM(_Older, fedopt.FedAvgM):
    """FedAvg with momentum: ``server_learning_rate=1.0``, ``server_momentum=0.0``."""


class FedProx(_Older, fedprox.FedProx):
    """FedAvg whose clients find ``proximal_mu`` in their config."""

    config_key = "proximal_mu"


class FedAdagrad(_Older, fedopt.FedAdagrad):
    """Adagrad on the server: ``eta``, ``eta_l``, ``tau``."""


class FedAdam(_Older, fedopt.FedAdam):
    """Adam on the server: ``eta``, ``eta_l``, ``beta_1``, ``beta_2``, ``tau``."""


class FedYogi(_Older, fedopt.FedYogi):
    """Yogi on the server: ``eta``, ``eta_l``, ``beta_1``, ``beta_2``, ``tau``."""


class FedMedian(_Older, robust.FedMedian):
    """The median of each element."""


class FedTrimmedAvg(_Older, robust.FedTrimmedAvg):
    """The trimmed mean of each element: ``beta=0.2``."""


class Krum(_Older, robust.MultiKrum):
    """Krum, or with ``num_clients_to_keep`` above 0 the mean of that number of clients."""

    def __init__(self, *, num_malicious_clients: int = 0, num_clients_to_keep: int = 0, **older: Any) -> None:
        super().__init__(
            num_malicious_nodes=num_malicious_clients, num_nodes_to_select=num_clients_to_keep or 1, **older
        )


class QFedAvg(_Older, qfedavg.QFedAvg):
    """q-FedAvg, for which clients report ``train_loss``, their loss before training, among the metrics of ``fit``."""

    def __init__(self, *, q_param: float = 0.2, qffl_learning_rate: float = 0.1, **older: Any) -> None:
        super().__init__(client_learning_rate=qffl_learning_rate, q=q_param, **older)


def aggregate(results: Iterable[tuple[Sequence[Any], float]]) -> list[Any]:
    """The mean of lists of NumPy arrays, each with its number of examples, by the rules of `fedpkg.apps.strategy`.

    Raises:
        AggregationError: None of them can be used.
    """
    contents = [
        RecordDict({"arrays": ArrayRecord(list(arrays)), "metrics": MetricRecord({"num-examples": number})})
        for arrays, number in results
    ]
    return aggregate_arrayrecords(contents, "num-examples").to_numpy_ndarrays()


def aggregate_inplace(results: Iterable[tuple[Any, FitRes]]) -> list[Any]:
    """The mean of the parameters in results of clients."""
    return aggregate((parameters_to_ndarrays(result.parameters), result.num_examples) for _, result in results)


def weighted_loss_avg(results: Iterable[tuple[float, float]]) -> float:
    """The mean of losses, each after its number of examples; that without examples is NaN."""
    contents = [RecordDict({"metrics": MetricRecord({"n": number, LOSS: loss})}) for number, loss in results]
    return float(aggregate_metricrecords(contents, "n").get(LOSS, float("nan")))
