"""Models in a wrapper, in which tensors have other names than everyone else knows."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

# Name of a wrapper's class → where the model is in it. Also in fedpkg/weights/weights.py.
_WRAPPERS = {
    "OptimizedModule": "_orig_mod",  # torch.compile
    "DataParallel": "module",
    "DistributedDataParallel": "module",
    "GradSampleModule": "_module",  # Opacus
}
_INSIDE = {"_orig_mod", "module", "_module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}


def bare(model: nn.Module) -> nn.Module:
    """The module in its wrappers, with the same tensors."""
    while True:
        found = [_WRAPPERS[each.__name__] for each in type(model).__mro__ if each.__name__ in _WRAPPERS]
        if not found:
            return model
        model = getattr(model, found[0])


def bare_name(name: str) -> str:
    """A tensor's name without those of wrappers around single layers."""
    return ".".join(part for part in name.split(".") if part not in _INSIDE)
