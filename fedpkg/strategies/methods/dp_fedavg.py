"""DP-FedAvg: noise hides the update of each single client in the global model."""

from __future__ import annotations

import json
import logging
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec

from fedpkg.errors import ConfigError
from fedpkg.log import event
from fedpkg.registry import Count, NotNegative, Positive
from fedpkg.strategies.accounting import Accountant, Spent, check_installed, epsilon
from fedpkg.strategies.base import Replies, Reply, Request, State, Step, StepContext, StepResult
from fedpkg.strategies.folds import Fold, Folded, MeansFold, Term, folded
from fedpkg.strategies.registry import ServerOptimiserName, Transforms, register_strategy
from fedpkg.strategies.traits import Traits, change_numbers
from fedpkg.transforms.chain import Chain
from fedpkg.transforms.delta import Delta
from fedpkg.transforms.noise import Clip, FailureProbability, Probability, with_noise
from fedpkg.types import Sampling, Scheme

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from fedpkg.weights.weights import Weights

logger = logging.getLogger("fedpkg.strategies")

AtLeastOne = Annotated[float, msgspec.Meta(ge=1)]


@register_strategy(
    "dp_fedavg",
    equation="d_k = w_k - w;  a = w + (sum_S d_k min(1, C / |d_k|) + N(0, (z C)^2 I)) / m, with m the expected size of "
    "S;  w <- server_optimiser(w, w - a), without one w <- a",
    paper="McMahan et al. 2018, Learning Differentially Private Recurrent Language Models, arXiv:1710.06963; adaptive "
    "clipping: Andrew et al. 2021, Differentially Private Learning with Adaptive Clipping, arXiv:1905.03871, Alg. 1",
    attackers="none; one attacker shifts a round by at most C / m",
)
@dataclass(frozen=True)
class DpFedAvg:
    """Differential privacy of clients: clipped updates, Gaussian noise, and an account of the epsilon spent.

    All clients have equal weights, as their numbers of examples are private, too. Each round shows the epsilon spent so
    far. It depends on the sampler: ``poisson`` costs least, ``uniform`` more. With ``round_robin``, ``least_reused``,
    over-selection and the like, the account assumes that each client took part in every round. Samplers that depend on
    what clients report are refused, as their choice reveals it.

    A step is taken however few clients answer, as stopping would reveal their number. So ``round.required`` has no
    effect.

    Tied tensors (bit-equal copies in the seed model and in all updates) get the same noise. Noise is added to all
    parameters, also to those that clients do not train: list frozen ones under ``buffers`` of the run.yaml.

    The guarantee is for the parameters of the global models. Buffers stay as they are. The metrics, numbers of examples
    and logs that clients send are not covered.

    Args:
        noise_multiplier: Standard deviation z of the noise in the sum, in units of `clip_norm`. 0.5 to 2 is usual: the
            larger, the less epsilon a round spends. 0: no noise and no privacy, only clipping.
        clip_norm: L2 norm C to which updates are clipped, over all parameters; with `target_quantile`, the first one. A
            small value slows down learning, a large one adds more noise. Start with the updates' median norm.
        at: Where updates are clipped. With `client`, the server clips them again, as it need not trust the clients.
        target_quantile: Quantile of the updates' norms that C follows; 0.5 is usual. null: C is constant.
        clip_learning_rate: Step size of log C on its way to the quantile. 0.2 is that of the paper.
        count_std: Standard deviation of the noise in the number of updates shorter than C. The updates get more noise
            in return, so that both together spend what z allows. null: m / 20, at least z.
        budget: Largest epsilon of the session, which ends before the round that would exceed it. null: no limit.
        accountant: Method of the account. `rdp` (Renyi) suits all samplers. `pld` (privacy loss distributions) proves a
            smaller epsilon, but cannot account for cohorts of a fixed size.
        population: Number of clients that the account assumes, to plan for a larger federation. null: those of the
            session.
        noise_cohort_size: Size of the cohort that the noise assumes, so that a small cohort shows the noise of a large
            one. null: the expected size of the cohort.
        secret_noise: Draw the noise from the operating system. Otherwise it comes from the seed of the session: the
            run can be repeated, but anyone who knows the seed can subtract the noise.
    """

    noise_multiplier: NotNegative
    clip_norm: Positive = 0.1
    at: Literal["server", "client"] = "server"
    target_quantile: Probability | None = None
    clip_learning_rate: Positive = 0.2
    count_std: Positive | None = None
    delta: FailureProbability = 1e-5
    budget: Positive | None = None
    accountant: Accountant = "rdp"
    population: Count | None = None
    noise_cohort_size: AtLeastOne | None = None
    secret_noise: bool = False
    server_optimiser: ServerOptimiserName = None
    transforms: Transforms = ()

    @property
    def traits(self) -> Traits:
        return Traits(
            takes_empty_rounds=True,  # noise must be added even if no client was drawn
            heeds_required=False,
            treatment="parameters",
            changes_numbers=change_numbers(self.transforms),
            in_trees="never",
            why_not_in_trees="its guarantee counts one draw of clients and one noise for each round of the session",
            server_optimiser=self.server_optimiser,
        )

    def __post_init__(self) -> None:
        if self.budget is not None and self.noise_multiplier == 0:
            raise ValueError("a budget needs noise: noise_multiplier is 0")
        try:
            self._transforms(self.clip_norm)
        except ValueError as error:
            raise ValueError(f"transforms: {error}") from error
        if self.noise_multiplier:
            check_installed()

    def init(self, seed_model: Weights) -> State:
        from fedpkg.strategies.tied import tied_parameters

        tied = tied_parameters(seed_model)
        state: State = {"model": seed_model, "clip_norm": self.clip_norm, "spent": [], "tied": tied}
        return {**state, "secret": os.urandom(16).hex()} if self.secret_noise else state

    def step(self, state: State, ctx: StepContext) -> Step:
        from fedpkg.strategies.steps import real_parameters_of, with_parameters
        from fedpkg.strategies.tied import still_tied
        from fedpkg.weights.weights import Weights

        self._check_drawn(ctx.sampling)  # older versions let such a session begin
        model, clip = state["model"], float(state["clip_norm"])
        population, expected, cohort = self._sizes(ctx.sampling, len(ctx.clients))
        spent = _extended(state["spent"], ctx.sampling.scheme, cohort / population, self.noise_multiplier)
        cost = self._epsilon(spent, population) if self.noise_multiplier else math.inf
        # The noise is that of a cohort of this size. The sum of a smaller cohort gets a proportional share of it.
        scale = expected / cohort
        count_std, noise = self._noises(cohort)

        replies: Replies = yield Request(payload=model, transforms=self._transforms(clip))
        rng = self._rng(state, ctx)
        total, short, count = folded(self.fold(state), replies)
        tied = still_tied(state.get("tied", []), total)
        noisy = self._noisy(total, tied, noise * clip * scale, rng)
        step = Weights(noisy) / expected
        moved = with_parameters(model, real_parameters_of(model) + step)

        found: State = {**state, "spent": [list(part) for part in spent], "tied": tied}
        if count and ctx.round_number == 1 and noise:
            _say_where(total, tied)
        if self.target_quantile is not None:
            share = short / count if count else self.target_quantile
            if self.noise_multiplier:  # centred, so that each client adds at most 1/2
                centred = short - count / 2 + count_std * scale * float(rng.standard_normal())
                share = min(1.0, max(0.0, centred / expected + 0.5))
            clip *= math.exp(-self.clip_learning_rate * (share - self.target_quantile))
        if self.server_optimiser is not None:
            memory = state.get("server_optimiser", {})
            moved, found["server_optimiser"] = self.server_optimiser.step(model, moved, memory)
        found.update(model=moved, clip_norm=clip)
        metrics = {} if self.target_quantile is None else {"clip_norm": clip}
        if self.noise_multiplier:
            metrics = {"epsilon": cost, **metrics}
        finished = None
        if self.budget is not None:
            following = _extended(found["spent"], ctx.sampling.scheme, cohort / population, self.noise_multiplier)
            if (cost := self._epsilon(following, population)) > self.budget:
                finished = f"the next round would spend epsilon {cost:.4g}; the budget is {self.budget:g}"
        return StepResult(found, metrics, finished)

    def check(self, sampling: Sampling, num_clients: int) -> None:
        """Refuse settings without a guarantee before anything runs.

        Raises:
            ConfigError: with the reason.
        """
        population, _, cohort = self._sizes(sampling, num_clients)
        if cohort > population:
            raise ConfigError(
                f"dp_fedavg: a cohort of {cohort:g} cannot be drawn from a population of {population}",
                hint="set strategy.population to the number of clients",
                key="strategy.population",
            )
        if not self.noise_multiplier:
            return
        self._check_drawn(sampling)
        self._noises(cohort)
        spent = _extended([], sampling.scheme, cohort / population, self.noise_multiplier)
        if (cost := self._epsilon(spent, population)) > (self.budget or math.inf):
            raise ConfigError(
                f"dp_fedavg: one round spends epsilon {cost:.4g}; the budget is {self.budget:g}",
                hint="set a larger noise_multiplier, a smaller cohort, or a larger budget",
                key="strategy.budget",
            )

    def _check_drawn(self, sampling: Sampling) -> None:
        if self.noise_multiplier and sampling.scheme is Scheme.OTHER:
            raise ConfigError(
                "dp_fedavg: the choice of this sampler reveals what clients report, and no noise hides that",
                hint="set sampler.name to poisson, uniform, round_robin or least_reused; your own sampler, if it does "
                "not use what clients report, needs the attribute scheme = Scheme.DATA_FREE (fedpkg.samplers)",
                key="sampler.name",
            )

    def _sizes(self, sampling: Sampling, num_clients: int) -> tuple[int, float, float]:
        """The population, the expected size of a cohort, and the size of the cohort that the noise assumes."""
        expected = max(1.0, sampling.rate * num_clients)
        return self.population or num_clients, expected, self.noise_cohort_size or expected

    def _epsilon(self, spent: list[Spent], population: int) -> float:
        return epsilon(spent, self.delta, population=population, accountant=self.accountant)

    def _noises(self, cohort: float) -> tuple[float, float]:
        """The noise of the counts, and the multiplier for the updates. Together they spend as much as z alone."""
        z = self.noise_multiplier
        count_std = self.count_std or max(cohort / 20, z)
        if self.target_quantile is None or z == 0:
            return count_std, z
        rest = z**-2 - (2 * count_std) ** -2
        if rest <= 0:
            raise ConfigError(
                f"dp_fedavg: the counts alone spend more than noise_multiplier={z:g} allows (count_std={count_std:g})",
                hint=f"set count_std to more than {z / 2:g}",
                key="strategy.count_std",
            )
        return count_std, float(rest**-0.5)

    def _transforms(self, clip: float) -> Chain | None:
        bound = (Delta(), Clip(clip)) if self.at == "client" else ()
        steps = (*bound, *(step for step in self.transforms if not (bound and isinstance(step, Delta))))
        return Chain(steps) if steps else None

    def fold(self, state: State, start: int = 0) -> Fold[tuple[Weights, float, int]]:
        """The sum of the clipped updates, how many were within C, and the number of all."""
        from fedpkg.strategies.steps import real_parameters_of, squared_norm

        w, clip = real_parameters_of(state["model"]), float(state["clip_norm"])

        def term(reply: Reply) -> Term:
            update = real_parameters_of(reply.weights) - w
            length = math.sqrt(squared_norm(update))
            clipped = update * min(1.0, clip / length) if length > 0 else update
            return Term(clipped, numbers={"short": 1.0 if self._was_short(reply, length, clip) else 0.0})

        def finish(mean: Folded) -> tuple[Weights, float, int]:
            return mean.weights * mean.count, mean.total("short"), mean.count

        return MeansFold(w, term, finish, start, empty=lambda: (w.zeros_like(), 0.0, 0))

    def _noisy(
        self, total: Weights, tied: Sequence[Sequence[str]], std: float, rng: np.random.Generator
    ) -> dict[str, Tensor]:
        """The sum with noise; tied tensors share theirs."""
        first = {name: group[0] for group in tied for name in group[1:]}
        noisy = {name: with_noise(tensor, std, rng) for name, tensor in total.items() if name not in first}
        return {name: noisy[first.get(name, name)] for name in total}

    def _was_short(self, reply: Reply, length: float, clip: float) -> bool:
        return not reply.metadata.get("clipped") if self.at == "client" else length <= clip

    def _rng(self, state: State, ctx: StepContext) -> np.random.Generator:
        import numpy as np

        return np.random.default_rng([int(state["secret"], 16), ctx.round_number]) if self.secret_noise else ctx.rng


def _say_where(total: Weights, tied: Sequence[Sequence[str]]) -> None:
    """Log which tensors get noise in an unexpected way."""
    if tied:
        about = f"tied tensors ({'; '.join(' = '.join(group) for group in tied)}) get the same noise"
        event(logger, logging.WARNING, "dp_fedavg.tied", about=about)
    if frozen := [name for name, tensor in total.items() if not tensor.any()]:
        some = ", ".join(frozen[:6]) + (" …" if len(frozen) > 6 else "")
        about = (
            f"no client has changed {some}, but noise is added to all parameters. If these are frozen, leave them out: "
            f"set buffers: {json.dumps(frozen)} in the run.yaml"
        )
        event(logger, logging.WARNING, "dp_fedavg.frozen", about=about)


def _extended(spent: list[Any], scheme: Scheme, rate: float, noise_multiplier: float) -> list[Spent]:
    """The rounds so far and one more."""
    parts = [Spent(*part) for part in spent]
    drawn = scheme.value if scheme in (Scheme.POISSON, Scheme.WITHOUT_REPLACEMENT) else "other"
    if parts and parts[-1][:3] == (drawn, rate, noise_multiplier):
        return [*parts[:-1], parts[-1]._replace(rounds=parts[-1].rounds + 1)]
    return [*parts, Spent(drawn, rate, noise_multiplier, 1)]
