"""The gradient of a client's loss, at the global model or at several points, on the same minibatches."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from fedpkg.client.errors import ClientError
from fedpkg.client.models import Given
from fedpkg.client.wrapped import bare

if TYPE_CHECKING:
    from torch import Tensor, nn

    Loss = Callable[[nn.Module, Any], Tensor]


def gradient(model: nn.Module, loss: Loss, batches: Iterable[Any]) -> dict[str, Tensor]:
    """sum_b (n_b / n) grad loss(model, b), by the names of the parameters; the model does not change.

    Frozen and unused parameters have the gradient 0. In training mode batch normalisation uses the statistics of the
    batch, as usual; call ``model.eval()`` before for a loss that is a mean over examples.

    Args:
        loss: Computes the mean loss of a batch.
        batches: Tensors, or tuples whose first element has the length n_b.
    """
    import torch

    before = {name: buffer.clone() for name, buffer in bare(model).named_buffers()}
    parameters = dict(bare(model).named_parameters())
    trained = {name: p for name, p in parameters.items() if p.requires_grad}
    sums = {name: torch.zeros_like(p, requires_grad=False) for name, p in parameters.items()}
    total = 0
    for batch in batches:
        size = len(batch[0]) if isinstance(batch, (tuple, list)) else len(batch)
        found = torch.autograd.grad(loss(model, batch), list(trained.values()), allow_unused=True)
        for name, grad in zip(trained, found):
            if grad is not None:
                sums[name].add_(grad, alpha=size)
        total += size
    if not total:
        raise ClientError("there are no batches to compute a gradient from")
    with torch.no_grad():
        for name, buffer in bare(model).named_buffers():
            buffer.copy_(before[name])
    # Tied parameters have all their names, as in the global model.
    return {
        name: sums[_first(parameters, p)] / total for name, p in bare(model).named_parameters(remove_duplicate=False)
    }


def gradients(model: nn.Module, given: Given, loss: Loss, batches: Iterable[Any]) -> dict[str, dict[str, Tensor]]:
    """The gradient at each set of weights of the input, under its name, as ``sets`` for `save`.

    All use the same batches and random draws (dropout), so that their differences have little variance. The model does
    not change. Tensors that stay with the client are its own at every point, and their gradient is sent as 0.
    """
    import torch

    batches = list(batches)
    own = {name: tensor.clone() for name, tensor in bare(model).state_dict().items()}
    generator = torch.get_rng_state()
    found = {}
    for name, point in given.sets.items():
        bare(model).load_state_dict({**own, **point, **given.own})
        torch.set_rng_state(generator)
        found[name] = gradient(model, loss, batches)
        for local in found[name].keys() & given.local:
            found[name][local].zero_()
    bare(model).load_state_dict(own)
    return found


def _first(parameters: dict[str, Any], wanted: Any) -> str:
    return next(name for name, parameter in parameters.items() if parameter is wanted)
