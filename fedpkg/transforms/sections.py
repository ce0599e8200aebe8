"""Transforms as sections of a run.yaml, and the chain that they make."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fedpkg.config_shape import Places
from fedpkg.transforms.chain import Chain, chain_of
from fedpkg.transforms.registry import TRANSFORMS


def sections_of(chain: Chain | None) -> tuple[dict[str, Any], ...]:
    """The sections of a run.yaml that make the transforms of a chain.

    Raises:
        ConfigError: the class of a transform is not registered and cannot be imported.
    """
    return () if chain is None else tuple(TRANSFORMS.section_of("transform", step) for step in chain.steps)


def chain_of_sections(sections: Sequence[Mapping[str, Any]]) -> Chain | None:
    """The inverse of `sections_of`.

    Raises:
        ConfigError: a transform is not known here, or they do not fit together.
    """
    places = Places("an order's transforms")
    return chain_of([TRANSFORMS.make("transform", section, places, ("transforms",)) for section in sections])
