"""Chooses the tensors of a module that stay with a client, or are trained, by patterns or kinds of layers."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from fedpkg.client.errors import ClientError
from fedpkg.client.wrapped import bare

if TYPE_CHECKING:
    from torch import nn


def matching(model: nn.Module, *patterns: str) -> list[str]:
    """Names of the tensors (parameters and buffers) that match one of the patterns (``"head.*"``), in their order.

    Raises:
        ClientError: If a pattern matches no tensor.
    """
    names = list(bare(model).state_dict())
    found: set[str] = set()
    for pattern in patterns:
        these = fnmatch.filter(names, pattern)
        if not these:
            near = difflib.get_close_matches(pattern, names, n=3) or names[:8]
            raise ClientError(f"{pattern!r} matches no tensor of the model", f"its tensors: {', '.join(near)}")
        found.update(these)
    return [name for name in names if name in found]


def others(model: nn.Module, *patterns: str) -> list[str]:
    """Names of the tensors that match none of the patterns."""
    those = set(matching(model, *patterns))
    return [name for name in bare(model).state_dict() if name not in those]


def norm_layers(model: nn.Module) -> list[str]:
    """Names of all tensors of normalisation layers: scales and shifts, running means and variances, counters."""
    from torch import nn
    from torch.nn.modules.batchnorm import _NormBase

    kinds = [_NormBase, nn.LayerNorm, nn.GroupNorm]
    if hasattr(nn, "RMSNorm"):  # since PyTorch 2.4
        kinds.append(nn.RMSNorm)
    layers = {name for name, layer in bare(model).named_modules() if isinstance(layer, tuple(kinds))}
    return [name for name in bare(model).state_dict() if name.rpartition(".")[0] in layers]


def names_of_strategy(model: nn.Module, parameters: Mapping[str, Any]) -> list[str]:
    """Names of the tensors that stay with the clients in the strategies ``fedper`` and ``fedbn``.

    Raises:
        ClientError: If the model has no such tensors.
    """
    names = matching(model, *parameters.get("local_names", ()))
    norms = norm_layers(model) if parameters.get("local_norms") else []
    if parameters.get("local_norms") and not norms:
        raise ClientError(
            "the model has no normalisation layer that could stay with the client", "name: fedavg, or fedper"
        )
    return names + norms


@contextmanager
def only(model: nn.Module, *patterns: str) -> Iterator[None]:
    """In this context, only the parameters that match are trained; others have no gradient, so optimisers skip them.

    All batch normalisation layers still update their statistics.
    """
    chosen = set(matching(model, *patterns))
    frozen = [p for name, p in bare(model).named_parameters() if name not in chosen and p.requires_grad]
    for parameter in frozen:
        parameter.requires_grad_(False)
        parameter.grad = None
    try:
        yield
    finally:
        for parameter in frozen:
            parameter.requires_grad_(True)
