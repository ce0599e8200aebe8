"""Every strategy of fedpkg in a message app: its requests become messages."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fedpkg.apps.errors import AppExitException
from fedpkg.apps.log import logger
from fedpkg.apps.message import Message
from fedpkg.apps.strategy.answers import Answer, Answered, LeftOut, opened_sets, to_record
from fedpkg.apps.strategy.base import exchanged, log_phase, shown_metrics
from fedpkg.apps.strategy.fedavg import SERVER_ROUND, FedAvg
from fedpkg.apps.strategy.stepping import context
from fedpkg.records.record_dict import RecordDict
from fedpkg.records.value_records import ConfigRecord, MetricRecord

if TYPE_CHECKING:
    from fedpkg.apps.strategy.base import Result
    from fedpkg.records.array_record import ArrayRecord
    from fedpkg.strategies.base import Client, Request, StepContext, StepResult
    from fedpkg.weights.weights import Weights

REPLY = "reply"  # in the config of a message: what the arrays of a reply are, if they are not weights


class FedStrategy(FedAvg):
    """A strategy of fedpkg by its name (``fedpkg strategy list``): ``FedStrategy("scaffold", learning_rate=0.5)``.

    Its requests become messages:

    - Entry point ``train`` becomes ``@app.train()``, ``validate`` becomes ``@app.evaluate()``, and any other, such as
      ``gradient``, becomes ``@app.train("gradient")``.
    - The model becomes the array record ``arrays``; several sets become one array record each, under their names.
    - Parameters for the clients are in the config record under their names, also with hyphens (``proximal_mu`` and
      ``proximal-mu``), besides ``server-round`` and what the app sends. ``config["reply"]`` is ``"delta"`` or
      ``"gradient"`` if replies must be that.

    A reply to a request for sets has an array record for each of them. Nodes are sampled as in FedAvg, unless the
    strategy chooses them.

    Args:
        name: The name of the strategy.
        parameters: Its parameters, and those of FedAvg.

    Raises:
        ConfigError (of fedpkg.errors): there is no such strategy, or a parameter is wrong.
        AppExitException: The strategy needs something that messages do not have.
    """

    needs_sent_arrays = True

    def __init__(self, name: str, **parameters: Any) -> None:
        from fedpkg.strategies.master import with_master
        from fedpkg.strategies.registry import make_strategy
        from fedpkg.strategies.traits import traits_of

        if name in _PROGRAMS:
            raise AppExitException(f"strategy {name!r} is a program of its own: write what it does as a ServerApp")
        common = {key: parameters.pop(key) for key in _COMMON if key in parameters}
        super().__init__(**common)
        self.name = name
        self.parameters = parameters
        self.finished: str | None = None
        self._method = with_master(make_strategy({"name": name, **parameters}))
        traits = traits_of(self._method)
        self._step_metrics: dict[str, Any] = {}
        if not traits.has_model:
            raise AppExitException(f"strategy {name!r} has no model: write a ServerApp that sends its own messages")
        if traits.groups:
            groups = ", ".join(traits.groups)
            raise AppExitException(f"strategy {name!r} needs groups of clients ({groups}), which nodes do not have")

    def _train_phase(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Any, timeout: float | None
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        from fedpkg.errors import AggregationError

        if self.fraction_train == 0:
            return None, None
        state = self.stepping.begin(self._method, self.stepping.weights_of(arrays))
        step = self.stepping.steps(self._method, state, self._context(server_round, grid))
        contents: list[RecordDict] = []  # of the replies to the last requests
        answers: Any = None
        try:
            while True:
                asks = step.send(answers)
                requests = asks if isinstance(asks, Sequence) else [asks]
                found = self._asked(server_round, requests, state["model"], config, grid, timeout, contents)
                if found is None:
                    return None, None
                answers = found if isinstance(asks, Sequence) else found[0]
        except StopIteration as end:
            result: StepResult = end.value
        except AggregationError as error:
            logger.warning("round %d: the arrays stay as they are: %s", server_round, error.message)
            return None, None
        finally:
            step.close()
        self._step_metrics = {key: value for key, value in result.metrics.items() if isinstance(value, (int, float))}
        self.finished = result.finished
        next_arrays = self.stepping.record_of(self.stepping.keep(result))
        metrics = self.train_metrics_aggr_fn(contents, self.weighted_by_key)
        logger.info("round %d: %s: %s", server_round, self.name, shown_metrics({**metrics, **self._step_metrics}))
        return next_arrays, metrics

    def should_stop(self, server_round: int, result: Result) -> bool:
        """Whether the strategy itself ends the training, such as at the end of a privacy budget."""
        if self.finished is not None:
            logger.info("round %d: %s", server_round, self.finished)
        return self.finished is not None

    def shown(
        self, train: MetricRecord | None, evaluate: MetricRecord | None, server: MetricRecord | None
    ) -> dict[str, Any]:
        """The numbers of the server, and those of the strategy's step."""
        return {**self._step_metrics, **super().shown(train, evaluate, server)}

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Any
    ) -> Iterable[Message]:
        raise AppExitException(_ONLY_START)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        raise AppExitException(_ONLY_START)

    # ---- requests

    def _context(self, server_round: int, grid: Any) -> StepContext:
        from fedpkg.strategies.base import Client, ParticularStrategy
        from fedpkg.types import Sampling, Scheme

        nodes = list(grid.get_node_ids())
        sampled = self._sampled(grid, self.fraction_train, self.min_train_nodes, "train")
        clients: tuple[Client, ...] = tuple(Client(str(node)) for node in nodes)
        drawn = [sampled]  # for the first call

        def sample() -> tuple[str, ...]:
            found = drawn.pop() if drawn else self._sampled(grid, self.fraction_train, self.min_train_nodes, "train")
            return tuple(map(str, found))

        sampling = Sampling(Scheme.WITHOUT_REPLACEMENT, len(sampled) / len(nodes))
        if server_round == 1 and isinstance(self._method, ParticularStrategy):
            self._method.check(sampling, len(nodes))
        return context(server_round, clients, sample, sampling)

    def _asked(
        self,
        server_round: int,
        requests: Sequence[Request],
        model: Weights,
        config: ConfigRecord,
        grid: Any,
        timeout: float | None,
        contents: list[RecordDict],
    ) -> tuple[Answered, ...] | None:
        """The replies to several requests at once; None: too few of them are usable, and the round is skipped."""
        self._check(requests)
        drawn = None
        asked: list[list[Message]] = []
        for request in requests:
            if request.clients is not None:
                nodes = list(map(int, request.clients))
            else:
                drawn = drawn or self._sampled(grid, self.fraction_train, self.min_train_nodes, "train")
                nodes = drawn
            content = self._payload(server_round, request, config)
            asked.append(self._construct_messages(content, nodes, _TYPES.get(request.entry_point, _action(request))))
        replies = exchanged(grid, [message for messages in asked for message in messages], timeout, self)
        log_phase(server_round, "training", replies, None)
        by_message = {reply.metadata.reply_to_message_id: reply for reply in replies}
        found = []
        contents.clear()
        for request, messages in zip(requests, asked, strict=True):
            came = [by_message[one.metadata.message_id] for one in messages if one.metadata.message_id in by_message]
            answers, left_out = self._read(request, came, model)
            self._log_left_out(server_round, request.entry_point, left_out)
            usable = [answer.reply for answer in answers if answer.reply is not None]
            required = 1 if request.required is None else request.required
            if messages and len(usable) < required:
                say = f"; the ClientApp needs @app.train({request.entry_point!r})" if _is_action(request) else ""
                logger.warning(
                    "round %d: the arrays stay as they are: %d of %d replies to %r are usable%s",
                    server_round,
                    len(usable),
                    len(messages),
                    request.entry_point,
                    say,
                )
                return None
            contents += [answer.message.content for answer in answers]
            names = [str(message.metadata.dst_node_id) for message in messages]
            found.append(Answered(request, server_round, names, usable))
        return tuple(found)

    def _check(self, requests: Sequence[Any]) -> None:
        """Raises AppExitException: the requests cannot be carried by messages."""
        from fedpkg.strategies.base import Request
        from fedpkg.types import ReplyKind
        from fedpkg.weights.records import Records

        for request in requests:
            reason = ""
            if not isinstance(request, Request) or request.wait != "all":
                reason = "is asynchronous, and the rounds of a message app are not"
            elif request.transforms is not None or request.download is not None:
                reason = "has transforms: use fedpkg.apps.mods.TransformMod in the ClientApp instead"
            elif request.group is not None:
                reason = f"asks the group {request.group!r} of clients, which nodes do not have"
            elif isinstance(request.payload, Records):
                reason = "sends records with data of its own"
            elif unfit := [key for key, value in request.parameters.items() if _value(value) is None]:
                reason = f"sends parameters ({', '.join(unfit)}) that a ConfigRecord cannot have"
            elif request.reply_kind not in (ReplyKind.UPDATE, ReplyKind.SETS, ReplyKind.METRICS):
                reason = f"asks for replies of the kind {request.reply_kind.value!r}"
            if reason:
                raise AppExitException(f"strategy {self.name!r} cannot run in a message app: it {reason}")

    def _payload(self, server_round: int, request: Request, config: ConfigRecord) -> RecordDict:
        from fedpkg.strategies.base import sets_of

        sets = sets_of(request.payload)
        records: dict[str, Any] = {
            name or self.arrayrecord_key: self.stepping.known_record(weights) or to_record(weights)
            for name, weights in sets.items()
        }
        said = {name: _value(value) for name, value in request.parameters.items()}
        said |= {name.replace("_", "-"): value for name, value in said.items()}
        config = ConfigRecord({**config, **said, SERVER_ROUND: server_round})
        if request.reply != "weights":
            config[REPLY] = request.reply
        return RecordDict({**records, self.configrecord_key: config})

    def _read(self, request: Request, came: Sequence[Message], model: Weights) -> tuple[list[Answer], list[LeftOut]]:
        from fedpkg.strategies.requests import parameters_alone
        from fedpkg.types import ReplyKind
        from fedpkg.weights.weights import Weights

        like = request.payload if isinstance(request.payload, Weights) else model
        templates: Mapping[str, Weights]
        if request.reply_kind is ReplyKind.METRICS:
            templates = {}
        elif request.reply_kind is ReplyKind.UPDATE:
            templates = {"": like if request.reply == "weights" or request.rest else parameters_alone(like)}
        else:
            templates = {name: parameters_alone(like) if one is None else one for name, one in request.sets.items()}
        return opened_sets(
            came, templates, arrays_key=self.arrayrecord_key, weight_key=self.weighted_by_key, use=request.use
        )


_COMMON = (
    *("fraction_train", "fraction_evaluate", "min_train_nodes", "min_evaluate_nodes", "min_available_nodes"),
    *("weighted_by_key", "arrayrecord_key", "configrecord_key", "train_metrics_aggr_fn", "evaluate_metrics_aggr_fn"),
)
_PROGRAMS = ("coordinator", "server_app", "server_functions")
_TYPES = {"train": "train", "validate": "evaluate"}
_ONLY_START = "FedStrategy may send several messages to a node in a round: use its start(), or derive from FedAvg"


def _is_action(request: Request) -> bool:
    return request.entry_point not in _TYPES


def _action(request: Request) -> str:
    return f"train.{request.entry_point}"


def _value(value: Any) -> Any:
    """A parameter as a value of a ConfigRecord; None if it cannot be one."""
    try:
        return ConfigRecord({"value": value})["value"]
    except (TypeError, ValueError):
        return None
