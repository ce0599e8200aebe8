"""Optimisers of torch.optim on the server, with their state kept as plain weights."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fedpkg.errors import AggregationError, ConfigError, nearest
from fedpkg.strategies.base import State
from fedpkg.strategies.registry import register_server_optimiser
from fedpkg.strategies.server_optimisers.base import (
    Epsilon,
    FirstDecay,
    LearningRate,
    ScheduleName,
    SecondDecay,
    WeightDecay,
)

if TYPE_CHECKING:
    from fedpkg.weights.weights import Weights

_NEED_MORE = ("LBFGS", "SparseAdam")  # a closure that computes losses; sparse gradients


@dataclass(frozen=True)
class TorchOptimiser:
    """An optimiser of torch.optim whose gradient is w - a.

    Each step makes a new optimiser, restores its state, and steps once.
    """

    optimiser: str
    learning_rate: float
    options: dict[str, Any] = field(default_factory=dict)
    schedule: Any = None

    def check(self, model: Weights) -> None:
        """Take a step that does not move.

        Raises:
            ConfigError: the optimiser refuses the model's tensors (Muon takes matrices alone).
        """
        try:
            self.step(model, model, {})
        except AggregationError:  # it divides by the gradient, which is 0 here
            return
        except Exception as error:  # optimisers refuse shapes with different errors, some only in the step
            raise ConfigError(
                f"torch.optim.{self.optimiser} does not suit this model: {error}",
                hint="choose another optimiser, as strategy: {name: fedopt, optimiser: AdamW}",
                key="strategy.optimiser",
            ) from error

    def step(self, model: Weights, aggregate: Weights, memory: State) -> tuple[Weights, State]:
        import torch

        from fedpkg.strategies.steps import gradient_of, next_rate, real_parameters_of, with_parameters
        from fedpkg.weights.weights import Weights

        rate, count = next_rate(self.learning_rate, self.schedule, memory)
        gradient = gradient_of(model, aggregate)
        parameters = {
            name: tensor.detach().clone().requires_grad_() for name, tensor in real_parameters_of(model).items()
        }
        optimiser = getattr(torch.optim, self.optimiser)(list(parameters.values()), lr=rate, **self.options)
        for name, parameter in parameters.items():
            parameter.grad = gradient[name]
            kept = {key: weights[name].clone() for key, weights in memory.get("tensors", {}).items() if name in weights}
            kept |= {key: values[name] for key, values in memory.get("numbers", {}).items() if name in values}
            if kept:
                optimiser.state[parameter] = kept
        optimiser.step()
        tensors: dict[str, dict[str, torch.Tensor]] = {}
        numbers: dict[str, dict[str, Any]] = {}
        for name, parameter in parameters.items():
            for key, value in optimiser.state[parameter].items():
                if isinstance(value, torch.Tensor):
                    tensors.setdefault(key, {})[name] = value
                elif value is not None:
                    numbers.setdefault(key, {})[name] = value
        stepped = with_parameters(aggregate, {name: tensor.detach() for name, tensor in parameters.items()})
        return stepped, {
            "step": count,
            "tensors": {key: Weights(values) for key, values in tensors.items()},
            "numbers": numbers,
        }


@register_server_optimiser(
    "torch", strategy="fedopt", equation="g = w - a;  w <- the step of torch.optim's optimiser along g"
)
def torch_optimiser(
    optimiser: str,
    learning_rate: LearningRate = 0.01,
    options: dict[str, Any] | None = None,
    schedule: ScheduleName = None,
) -> TorchOptimiser:
    """An optimiser of torch.optim, with its options.

    Args:
        optimiser: Name of the class, such as AdamW or RMSprop. LBFGS and SparseAdam are refused, as they need more
            than a gradient.
        options: Arguments of the class besides lr, such as {weight_decay: 0.01}. null: the defaults of torch.optim.
    """
    import torch

    known = [
        name
        for name, found in vars(torch.optim).items()
        if isinstance(found, type) and issubclass(found, torch.optim.Optimizer) and name != "Optimizer"
    ]
    usable = [name for name in known if name not in _NEED_MORE]
    if optimiser not in usable:
        raise ValueError(
            f"torch.optim.{optimiser} needs more than a gradient"
            if optimiser in known
            else f"torch.optim has no optimiser '{optimiser}'{nearest(optimiser, usable)}"
        )
    try:
        tried = torch.zeros(1, 1, requires_grad=True)
        tried.grad = torch.ones(1, 1)
        getattr(torch.optim, optimiser)([tried], lr=learning_rate, **(options or {})).step()
    except Exception as error:  # optimisers refuse options with different errors, some only in the step
        raise ValueError(f"torch.optim.{optimiser}: {error}") from error
    return TorchOptimiser(optimiser, learning_rate, options or {}, schedule)


@register_server_optimiser(
    "adamw",
    strategy="fedadamw",
    equation="g = w - a;  m <- b1 m + (1 - b1) g;  v <- b2 v + (1 - b2) g^2, both bias-corrected;  "
    "w <- (1 - eta lambda) w - eta m / (sqrt(v) + eps)",
    paper="Loshchilov and Hutter 2019, Decoupled Weight Decay Regularization, arXiv:1711.05101",
)
def adamw(
    learning_rate: LearningRate = 0.01,
    beta_1: FirstDecay = 0.9,
    beta_2: SecondDecay = 0.999,
    epsilon: Epsilon = 1e-8,
    weight_decay: WeightDecay = 0.01,
    schedule: ScheduleName = None,
) -> TorchOptimiser:
    """Adam with bias correction and decoupled weight decay, as torch.optim.AdamW."""
    options = {"betas": (beta_1, beta_2), "eps": epsilon, "weight_decay": weight_decay}
    return TorchOptimiser("AdamW", learning_rate, options, schedule)
