"""The registry of transforms."""

from __future__ import annotations

import functools
from typing import Annotated, TypeAlias

from msgspec import Meta

from fedpkg.registry import Registry

TRANSFORMS = Registry(
    kinds=("transform",),
    modules=tuple(f"fedpkg.transforms.{name}" for name in ("delta", "noise", "sparse", "narrow", "zstd")),
    group="fedpkg.transforms",
    able={"transform": (("apply", "undo"), ("packed", "unpack"))},
    told_by="fedpkg strategy list",
)

ErrorFeedback: TypeAlias = Annotated[
    bool,
    Meta(
        description="Keep what the transform loses, and add it to the client's next update. It takes the memory of one "
        "update for each client, and only clients can do it (`transforms`)."
    ),
]

register_transform = functools.partial(TRANSFORMS.register, "transform")
