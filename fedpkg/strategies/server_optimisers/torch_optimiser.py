"""Any optimiser of torch.optim on the server, its state kept as plain weights."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

from fedpkg.errors import AggregationError, ConfigError, nearest
from fedpkg.registry import BelowOne, NotNegative, Part, Positive
from fedpkg.strategies.base import State
from fedpkg.strategies.registry import register_server_optimiser

if TYPE_CHECKING:
    from fedpkg.weights.weights import Weights

_NEED_MORE = ("LBFGS", "SparseAdam")  # a closure that computes losses; sparse gradients


@dataclass(frozen=True)
class TorchOptimiser:
    """An optimiser of torch.optim whose gradient is w - a.

    It is made anew for every step, gets the tensors of its state back, and steps once.
    """

    optimiser: str
    learning_rate: float
    options: dict[str, Any] = field(default_factory=dict)
    schedule: Any = None

    def check(self, model: Weights) -> None:
        """Take a step that moves nothing.

        Raises:
            ConfigError: the optimiser does not take the model's tensors (Muon: matrices alone).
        """
        try:
            self.step(model, model, {})
        except AggregationError:  # it divides by a gradient, which is 0 here
            return
        except Exception as error:  # each has its own way to refuse shapes, some not before they step
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
    learning_rate: Positive = 0.01,
    options: dict[str, Any] | None = None,
    schedule: Annotated[Any, Part("schedule")] = None,
) -> TorchOptimiser:
    """Any optimiser of torch.optim, by its class's name, with its own options."""
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
    except Exception as error:  # each has its own way to refuse options, some not before they step
        raise ValueError(f"torch.optim.{optimiser}: {error}") from error
    return TorchOptimiser(optimiser, learning_rate, options or {}, schedule)


@register_server_optimiser(
    "adamw",
    strategy="fedadamw",
    equation="g = w - a;  w <- (1 - eta lambda) w;  m, v as in Adam, bias-corrected;  w <- w - eta m / (sqrt(v) + eps)",
    paper="Loshchilov and Hutter 2019, Decoupled Weight Decay Regularization, arXiv:1711.05101",
)
def adamw(
    learning_rate: Positive = 0.01,
    beta_1: BelowOne = 0.9,
    beta_2: BelowOne = 0.999,
    epsilon: Positive = 1e-8,
    weight_decay: NotNegative = 0.01,
    schedule: Annotated[Any, Part("schedule")] = None,
) -> TorchOptimiser:
    """torch.optim.AdamW: Adam with bias correction, and weight decay apart from the moments."""
    options = {"betas": (beta_1, beta_2), "eps": epsilon, "weight_decay": weight_decay}
    return TorchOptimiser("AdamW", learning_rate, options, schedule)
