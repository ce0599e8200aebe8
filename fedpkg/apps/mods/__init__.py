"""Functions around a ClientApp's answers: ``mod(message, context, call_next) -> reply``."""

from __future__ import annotations

from fedpkg.apps.mods.clipping import adaptiveclipping_mod, fixedclipping_mod
from fedpkg.apps.mods.local_dp import LocalDpMod
from fedpkg.apps.mods.secure import secagg_mod, secaggplus_mod
from fedpkg.apps.mods.sizes import arrays_size_mod, message_size_mod
from fedpkg.apps.mods.transforming import TransformMod

__all__ = [
    "LocalDpMod",
    "TransformMod",
    "adaptiveclipping_mod",
    "arrays_size_mod",
    "fixedclipping_mod",
    "message_size_mod",
    "secagg_mod",
    "secaggplus_mod",
]
