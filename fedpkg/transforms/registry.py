"""Transforms by name."""

from __future__ import annotations

import functools

from fedpkg.registry import Registry

TRANSFORMS = Registry(
    kinds=("transform",),
    modules=tuple(f"fedpkg.transforms.{name}" for name in ("delta", "noise", "sparse", "narrow", "zstd")),
    group="fedpkg.transforms",
    able={"transform": (("apply", "undo"), ("packed", "unpack"))},
    told_by="fedpkg strategy list",
)

register_transform = functools.partial(TRANSFORMS.register, "transform")
