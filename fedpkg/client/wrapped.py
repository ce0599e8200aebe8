"""Models in a wrapper, in which tensors have other names than in the model itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

# Name of a wrapper's class → the attribute with the model.
_WRAPPERS = {
    "OptimizedModule": "_orig_mod",  # torch.compile
    "DataParallel": "module",
    "DistributedDataParallel": "module",
    "GradSampleModule": "_module",  # Opacus
}
_INSIDE = {"_orig_mod", "module", "_module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}


def bare(model: nn.Module) -> nn.Module:
    """The module without its wrappers, with the same tensors."""
    while attribute := next((_WRAPPERS[c.__name__] for c in type(model).__mro__ if c.__name__ in _WRAPPERS), None):
        model = getattr(model, attribute)
    return model


def bare_name(name: str) -> str:
    """A tensor's name without the parts that wrappers around single layers add."""
    return ".".join(part for part in name.split(".") if part not in _INSIDE)
