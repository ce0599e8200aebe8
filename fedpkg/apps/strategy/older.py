"""Strategies of the older form, which ``server_fn`` of a ServerApp returns: parameters are lists of NumPy arrays.

They are the strategies of this package under other parameters. `aggregate_fit`, `aggregate_evaluate`, `evaluate` and
`initialize_parameters` may be overridden.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from fedpkg.apps.errors import AppExitException
from fedpkg.apps.log import logger
from fedpkg.apps.message import Message
from fedpkg.apps.strategy import fedavg, fedopt, fedprox, qfedavg, robust
from fedpkg.apps.strategy.answers import array_record_of, weighted
from fedpkg.apps.strategy.base import EvaluateFn, Result, exchanged, log_phase
from fedpkg.apps.strategy.metrics import aggregate_metricrecords, metrics_of
from fedpkg.apps.strategy.parts import aggregate_arrayrecords
from fedpkg.apps.typing import (
    Code,
    EvaluateRes,
    FitRes,
    Parameters,
    Status,
    ndarrays_to_parameters,
    parameters_to_ndarrays,
)
from fedpkg.records.array_record import ArrayRecord
from fedpkg.records.record_dict import RecordDict
from fedpkg.records.value_records import ConfigRecord, MetricRecord

MetricsAggregation = Callable[[list[tuple[int, dict[str, Any]]]], Mapping[str, Any]]
ConfigFn = Callable[[int], Mapping[str, Any]]
OlderEvaluateFn = Callable[[int, list[Any], dict[str, Any]], "tuple[float, Mapping[str, Any]] | None"]

GET_PARAMETERS = "query.get_parameters"
LOSS = "loss"
_REPLACED = {"configure_fit": "configure_train", "configure_evaluate": "configure_evaluate"}


@dataclass(frozen=True)
class ClientProxy:
    """A node, as the older form names it."""

    node_id: int

    @property
    def cid(self) -> str:
        return str(self.node_id)


class ClientManager:
    """What chose the clients in the older form. It is a name for annotations: strategies get None in its place."""


class Strategy:
    """The base of the older form, which cannot be run: its methods choose clients by a client manager."""

    def run_components(self, grid: Any, *, num_rounds: int, timeout: float | None = None) -> NoReturn:
        raise AppExitException(
            f"{type(self).__name__} derives from the Strategy of the older form, which cannot be run; derive it from "
            "flwr.serverapp.strategy.Strategy, or from FedAvg of either form"
        )


class _Older(fedavg.FedAvg):
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

    def __init_subclass__(cls, **more: Any) -> None:
        super().__init_subclass__(**more)
        for name, instead in _REPLACED.items():
            if name in vars(cls) and cls.__module__ != __name__:
                raise TypeError(
                    f"{cls.__name__}.{name} cannot be used, as there is no client manager: derive from "
                    f"flwr.serverapp.strategy.FedAvg, and override its {instead}"
                )

    # ---- what may be overridden

    def initialize_parameters(self, client_manager: Any) -> Parameters | None:
        """The parameters before the first round; None: those of a client. There is no client manager."""
        return self.initial_parameters

    def evaluate(self, server_round: int, parameters: Parameters) -> tuple[float, Mapping[str, Any]] | None:
        """The loss and metrics on the server, or None."""
        if self.evaluate_fn is None:
            return None
        return self.evaluate_fn(server_round, parameters_to_ndarrays(parameters), {})

    def aggregate_fit(
        self, server_round: int, results: Sequence[tuple[Any, FitRes]], failures: Sequence[Any]
    ) -> tuple[Parameters | None, dict[str, Any]]:
        """The next parameters and metrics."""
        if not results or (failures and not self.accept_failures):
            return None, {}
        messages = [self._message_of(proxy, result) for proxy, result in results]
        arrays, metrics = super().aggregate_train(server_round, messages)
        return None if arrays is None else _parameters(arrays), dict(metrics or {})

    def aggregate_evaluate(  # type: ignore[override]
        self, server_round: int, results: Sequence[tuple[Any, EvaluateRes]], failures: Sequence[Any]
    ) -> tuple[float | None, dict[str, Any]]:
        """The loss and metrics of the clients' evaluation."""
        if not results or (failures and not self.accept_failures):
            return None, {}
        messages = [self._message_of(proxy, result) for proxy, result in results]
        metrics = dict(super().aggregate_evaluate(server_round, messages) or {})
        return metrics.pop(LOSS, None), metrics

    # ---- the rounds

    def run_components(self, grid: Any, *, num_rounds: int = 1, timeout: float | None = None) -> Result:
        """Run all rounds, as a ServerApp does with what ``server_fn`` returns."""
        initial = self.initialize_parameters(None)
        arrays = self._of_a_client(grid, timeout) if initial is None else _record(initial, None)
        return self.start(grid, arrays, num_rounds, timeout, evaluate_fn=self._evaluation())

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Any
    ) -> Iterable[Message]:
        own = {} if self.on_fit_config_fn is None else self.on_fit_config_fn(server_round)
        return super().configure_train(server_round, arrays, ConfigRecord({**config, **own}), grid)

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Any
    ) -> Iterable[Message]:
        own = {} if self.on_evaluate_config_fn is None else self.on_evaluate_config_fn(server_round)
        return super().configure_evaluate(server_round, arrays, ConfigRecord({**config, **own}), grid)

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
        replies = exchanged(grid, self.configure_evaluate(server_round, arrays, config, grid), timeout, self)
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
        advice = f"set initial_parameters of {type(self).__name__}, or write get_parameters of the client"
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
        metrics = metrics_of(message.content)
        return metrics.pop(self.weighted_by_key), metrics

    def _message_of(self, proxy: Any, result: FitRes | EvaluateRes) -> Message:
        """The reply with the content of a result, which an app may have changed."""
        records: dict[str, Any] = {}
        metrics = {**_numbers(result.metrics), self.weighted_by_key: result.num_examples}
        if isinstance(result, FitRes):
            records[self.arrayrecord_key] = _record(result.parameters, self._round_arrays)
        else:
            metrics[LOSS] = result.loss
        records["metrics"] = MetricRecord(metrics)
        return Message(RecordDict(records), reply_to=Message(RecordDict(), int(proxy.cid), "train"))


_OK = Status(Code.OK, "")


def _aggregation(function: MetricsAggregation | None, *, keeps_loss: bool = False) -> Any:
    """The function for metrics as `fedpkg.apps.strategy` calls it."""
    if function is None:
        return None

    def aggregate(contents: list[RecordDict], key: str) -> MetricRecord:
        pairs = []
        for content in contents:
            metrics = metrics_of(content)
            number = metrics.pop(key)
            if keeps_loss:
                metrics.pop(LOSS, None)
            pairs.append((number, metrics))
        found = dict(_numbers(function(pairs)))
        losses = aggregate_metricrecords(contents, key) if keeps_loss else {}
        return MetricRecord({**({LOSS: losses[LOSS]} if LOSS in losses else {}), **found})

    return aggregate


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
