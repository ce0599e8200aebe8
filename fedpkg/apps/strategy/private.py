"""Differential privacy of nodes around another strategy: clipped updates, and Gaussian noise in their mean."""

from __future__ import annotations

import functools
import math
import random
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fedpkg.apps.log import logger
from fedpkg.apps.message import Message
from fedpkg.apps.mods.clipping import CLIPPING_NORM, NORM_BIT
from fedpkg.apps.strategy.answers import Answer, LeftOut, array_record_of, to_record
from fedpkg.apps.strategy.base import Result, Strategy, fraction, positive
from fedpkg.apps.strategy.fedavg import FedAvg
from fedpkg.apps.strategy.metrics import metrics_of
from fedpkg.records.array_record import ArrayRecord
from fedpkg.records.record_dict import RecordDict
from fedpkg.records.value_records import ConfigRecord, MetricRecord

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from fedpkg.weights.weights import Weights


_HOME = "fedpkg.apps.strategy."
_NO_ACCOUNTANT = (
    "accountant= is not supported, because each strategy keeps the account itself: with the package dp-accounting (pip "
    "install 'fedpkg[dp]'), each round shows the epsilon that is spent at delta=, and strategy.epsilon has it; to stop "
    "at a budget, derive a class whose should_stop compares self.epsilon"
)


@dataclass(frozen=True)
class _Clipped:
    """A reply whose update has at most the clipping norm; ``is_within``: it had before."""

    message: Message
    is_within: bool


class _Private(Strategy):
    """A strategy around another one.

        w_k <- w + (w_k - w) min(1, C / |w_k - w|);  a = mean_k w_k + N(0, (z C / m)^2 I)

    and the strategy inside takes its step from w to a. All replies have the same weight, also in the averages of
    metrics, as numbers of examples are private, too. m is ``num_sampled_clients``, or the number of usable replies
    where there are fewer. Buffers, integers and booleans are neither clipped nor noised, so the guarantee does not
    cover them.

    The noise comes from the generator of ``random``, which a session seeds, so that a run can be repeated; anyone who
    knows the seed can subtract it. If the package dp-accounting is installed, each round shows the epsilon that all
    rounds so far have spent.

    Args:
        strategy: The strategy inside, FedAvg or one that derives from it.
        noise_multiplier: z; 0: no noise, and no privacy.
        clipping_norm: C.
        num_sampled_clients: The number of nodes that train in a round.
        delta: The probability that the epsilon shown does not hold.
        accountant: Must be None: the account is kept here.

    Attributes:
        epsilon: What all rounds so far have spent; None: not known.
    """

    clips_at_client = False

    def __init__(
        self,
        strategy: FedAvg,
        noise_multiplier: float,
        clipping_norm: float,
        num_sampled_clients: int,
        delta: float = 1e-5,
        *,
        accountant: None = None,
    ) -> None:
        if accountant is not None:
            raise TypeError(_NO_ACCOUNTANT)
        if not isinstance(strategy, FedAvg):
            raise TypeError(f"strategy is a {type(strategy).__name__}; it must derive from FedAvg")
        if num_sampled_clients < 1:
            raise ValueError(f"num_sampled_clients is {num_sampled_clients}; it must be 1 or more")
        if not 0 < delta < 1:
            raise ValueError(f"delta is {delta}; it must be between 0 and 1")
        self.strategy = strategy
        strategy.needs_sent_arrays = True  # or an update is not known
        self.noise_multiplier = positive("noise_multiplier", noise_multiplier, or_zero=True)
        self.clipping_norm = positive("clipping_norm", clipping_norm)
        self.num_sampled_clients = num_sampled_clients
        self.delta = delta
        self.epsilon: float | None = None
        self._rounds: list[tuple[float, int]] = []  # of each: the share of the nodes that was asked, and their number

    # ---- training

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Any
    ) -> Iterable[Message]:
        if self.clips_at_client:
            config = ConfigRecord(config)
            config[CLIPPING_NORM] = self.clipping_norm
        # Kept also if a strategy inside has its own configure_train.
        self._round_arrays = self.strategy._round_arrays = arrays
        messages = list(self.strategy.configure_train(server_round, arrays, config, grid))
        population = len(list(grid.get_node_ids()))
        if messages and len(messages) != self.num_sampled_clients:
            self.strategy._say_once(
                "sampled",
                f"num_sampled_clients is {self.num_sampled_clients}, which decides the noise, but {len(messages)} "
                "nodes train",
            )
        if messages:
            self._rounds.append((min(1.0, len(messages) / population), population))
        return messages

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        answers, model = self.strategy._answers(server_round, replies)
        clipped = self._clipped(server_round, answers, model) if model is not None else []
        if not clipped:
            return None, None
        std = self._multiplier() * self.clipping_norm / min(self.num_sampled_clients, len(clipped))
        is_noised = False

        def noise(aggregate: Weights, model: Weights) -> Weights:
            nonlocal is_noised
            is_noised = True
            return self._noised(aggregate, model, std)

        self.strategy.noise = noise
        try:
            arrays, metrics = self.strategy.aggregate_train(server_round, [one.message for one in clipped])
        finally:
            self.strategy.noise = None
        if arrays is not None and not is_noised:  # by an aggregate_train of the app's own
            stepping = self.strategy.stepping
            assert model is not None
            arrays = stepping.record_of(self._noised(stepping.weights_of(arrays), model, std))
        self._after(server_round, clipped)
        self._account(server_round)
        return arrays, metrics

    def _clipped(self, server_round: int, answers: Sequence[Answer], model: Weights) -> list[_Clipped]:
        from fedpkg.strategies.steps import real_parameters_of, squared_norm, with_parameters

        sent = real_parameters_of(model)
        found, left_out = [], []
        for answer in answers:
            assert answer.reply is not None
            weights = answer.reply.weights
            update = real_parameters_of(weights) - sent
            length = math.sqrt(squared_norm(update))
            is_within = self._is_within(answer, length)
            if isinstance(is_within, str):
                left_out.append(LeftOut(answer.message, is_within))
                continue
            if length > self.clipping_norm:
                weights = with_parameters(weights, sent + update * (self.clipping_norm / length))
            found.append(
                _Clipped(self._message(answer.message, weights, is_changed=length > self.clipping_norm), is_within)
            )
        self.strategy._log_left_out(server_round, "training", left_out)
        return found

    def _is_within(self, answer: Answer, length: float) -> bool | str:
        """Whether the update was within the norm; or why that is not known."""
        return length <= self.clipping_norm

    def _message(self, message: Message, weights: Weights, *, is_changed: bool) -> Message:
        """The reply with clipped arrays, the weight 1, and without the bit about its norm."""
        inner = self.strategy
        records: dict[str, Any] = dict(message.content)
        for name, record in message.content.metric_records.items():
            kept = {key: value for key, value in record.items() if key != NORM_BIT}
            records[name] = MetricRecord(
                {**kept, inner.weighted_by_key: 1.0} if inner.weighted_by_key in kept else kept
            )
        if is_changed:
            came = array_record_of(message, inner.arrayrecord_key)
            name = next(name for name, record in message.content.array_records.items() if record is came)
            records[name] = to_record(weights)
        return Message(RecordDict(records), metadata=message.metadata)

    def _noised(self, aggregate: Weights, model: Weights, std: float) -> Weights:
        """The aggregate with noise in its parameters, drawn in float64; tied ones get the same."""
        import numpy as np
        import torch

        from fedpkg.strategies.steps import real_parameters_of, with_parameters
        from fedpkg.strategies.tied import still_tied, tied_parameters

        if std == 0:
            return aggregate
        groups = still_tied(tied_parameters(model), aggregate)
        first = {name: group[0] for group in groups for name in group[1:]}
        noised: dict[str, Tensor] = {}
        for name, tensor in real_parameters_of(aggregate).items():
            if name in first:
                noised[name] = noised[first[name]]
            else:
                drawn = np.asarray(self._rng.standard_normal(tuple(tensor.shape)))
                noised[name] = tensor.double() + std * torch.from_numpy(drawn)
        return with_parameters(aggregate, noised)

    @functools.cached_property
    def _rng(self) -> np.random.Generator:
        """The generator of all noise."""
        import numpy as np

        return np.random.default_rng(random.getrandbits(128))

    def _multiplier(self) -> float:
        """The noise multiplier of the mean."""
        return self.noise_multiplier

    def _after(self, server_round: int, clipped: Sequence[_Clipped]) -> None:
        """What changes after a round."""

    def _account(self, server_round: int) -> None:
        from fedpkg.errors import ConfigError
        from fedpkg.strategies.accounting import Spent, epsilon

        if not self._rounds or self.noise_multiplier == 0:
            return
        inside = type(self.strategy)
        if inside.aggregator is not FedAvg.aggregator or not inside.aggregate_train.__module__.startswith(_HOME):
            self.strategy._say_once("epsilon", f"epsilon is not computed: {inside.__name__} takes no plain mean")
            return
        # An app's own configure_train may choose nodes by what they report, or ask some of them in every round.
        is_own = not inside.configure_train.__module__.startswith(_HOME)
        scheme = "other" if is_own else "without_replacement"
        rates = Counter(rate for rate, _ in self._rounds)
        spent = [Spent(scheme, rate, self.noise_multiplier, number) for rate, number in rates.items()]
        try:
            self.epsilon = epsilon(spent, self.delta, population=min(nodes for _, nodes in self._rounds))
        except ConfigError as error:
            self.strategy._say_once("epsilon", f"epsilon is not computed: {error.message} ({error.hint})")
            return
        logger.info("round %d: epsilon %.4g at delta %g so far", server_round, self.epsilon, self.delta)

    # ---- what the strategy inside does

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Any
    ) -> Iterable[Message]:
        return self.strategy.configure_evaluate(server_round, arrays, config, grid)

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        return self.strategy.aggregate_evaluate(server_round, replies)

    def should_stop(self, server_round: int, result: Result) -> bool:
        return self.strategy.should_stop(server_round, result)

    def shown(
        self, train: MetricRecord | None, evaluate: MetricRecord | None, server: MetricRecord | None
    ) -> dict[str, Any]:
        """Those of the strategy inside, the clipping norm, and epsilon."""
        more = {} if self.epsilon is None else {"epsilon": self.epsilon}
        return {**self.strategy.shown(train, evaluate, server), "clipping_norm": self.clipping_norm, **more}

    def summary(self) -> None:
        self.strategy.summary()
        logger.info(
            "%s: noise_multiplier %g, clipping_norm %g, num_sampled_clients %d",
            type(self).__name__,
            self.noise_multiplier,
            self.clipping_norm,
            self.num_sampled_clients,
        )
        if self.noise_multiplier == 0:
            logger.warning("noise_multiplier is 0: updates are clipped, but there is no privacy")


class DifferentialPrivacyServerSideFixedClipping(_Private):
    """Updates are clipped by the server to a fixed norm C [McMahan et al. 2018, arXiv:1710.06963]."""


class DifferentialPrivacyClientSideFixedClipping(_Private):
    """As `DifferentialPrivacyServerSideFixedClipping`; clients clip their updates by the mod ``fixedclipping_mod``.

    The server sends them C as ``config["clipping-norm"]``, and clips again, so that it need not trust them.
    """

    clips_at_client = True


class _Adaptive(_Private):
    """A clipping norm that follows a quantile of the updates' norms.

        C <- C exp(-eta (b - gamma)),  b the noisy share of the updates within C  [Andrew et al. 2021, arXiv:1905.03871]

    Args:
        strategy: The strategy inside, FedAvg or one that derives from it.
        noise_multiplier: z, for the mean and the share together; 0: no noise, and no privacy.
        num_sampled_clients: The number of nodes that train in a round.
        initial_clipping_norm: The first C.
        target_clipped_quantile: The quantile gamma.
        clip_norm_lr: The step size eta.
        clipped_count_stddev: Standard deviation of the noise in the number of updates within C. None: a twentieth of
            ``num_sampled_clients``, at least z.
        delta: The probability that the epsilon shown does not hold.
        accountant: Must be None: the account is kept here.
    """

    def __init__(
        self,
        strategy: FedAvg,
        noise_multiplier: float,
        num_sampled_clients: int,
        initial_clipping_norm: float = 0.1,
        target_clipped_quantile: float = 0.5,
        clip_norm_lr: float = 0.2,
        clipped_count_stddev: float | None = None,
        delta: float = 1e-5,
        *,
        accountant: None = None,
    ) -> None:
        super().__init__(
            strategy, noise_multiplier, initial_clipping_norm, num_sampled_clients, delta, accountant=accountant
        )
        self.target_clipped_quantile = fraction("target_clipped_quantile", target_clipped_quantile)
        self.clip_norm_lr = positive("clip_norm_lr", clip_norm_lr)
        if clipped_count_stddev is None:
            clipped_count_stddev = max(num_sampled_clients / 20, noise_multiplier)
        self.clipped_count_stddev = positive("clipped_count_stddev", clipped_count_stddev, or_zero=True)
        if noise_multiplier and 2 * self.clipped_count_stddev <= noise_multiplier:
            raise ValueError(
                f"clipped_count_stddev is {self.clipped_count_stddev:g}; the share alone then spends more than "
                f"noise_multiplier={noise_multiplier:g} allows: it must be above {noise_multiplier / 2:g}"
            )

    def _multiplier(self) -> float:
        """The noise of the mean, which together with that of the share spends as much as z alone."""
        if self.noise_multiplier == 0:
            return 0.0
        return float((self.noise_multiplier**-2 - (2 * self.clipped_count_stddev) ** -2) ** -0.5)

    def _after(self, server_round: int, clipped: Sequence[_Clipped]) -> None:
        std = self.clipped_count_stddev if self.noise_multiplier else 0.0
        count = sum(one.is_within for one in clipped) + std * float(self._rng.standard_normal())
        share = min(1.0, max(0.0, count / len(clipped)))
        self.clipping_norm *= math.exp(-self.clip_norm_lr * (share - self.target_clipped_quantile))
        logger.info("round %d: the clipping norm is %.4g", server_round, self.clipping_norm)


class DifferentialPrivacyServerSideAdaptiveClipping(_Adaptive):
    """Updates are clipped by the server to a norm that follows a quantile of theirs."""


class DifferentialPrivacyClientSideAdaptiveClipping(_Adaptive):
    """As `DifferentialPrivacyServerSideAdaptiveClipping`; clients clip by the mod ``adaptiveclipping_mod``.

    The server sends them C as ``config["clipping-norm"]``, and clips again, so that it need not trust them. They report
    in the metric ``norm-bit`` whether their update was within it; a reply without that is left out.
    """

    clips_at_client = True

    def _is_within(self, answer: Answer, length: float) -> bool | str:
        bit = metrics_of(answer.message.content).get(NORM_BIT)
        if bit not in (0, 1):
            return f"its metrics have no {NORM_BIT!r} of 0 or 1: add adaptiveclipping_mod to the mods of the ClientApp"
        return bool(bit)
