"""Secure aggregation, which needs clients that talk to each other over a network: its mods say so."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from fedpkg.apps.message import Message


def secagg_mod(message: Message, context: object, call_next: object) -> NoReturn:
    """Refuse: see `secaggplus_mod`."""
    raise NotImplementedError(_WHY.format("secagg_mod"))


def secaggplus_mod(message: Message, context: object, call_next: object) -> NoReturn:
    """Refuse: secure aggregation is not available in a session on one machine.

    Raises:
        NotImplementedError: Always.
    """
    raise NotImplementedError(_WHY.format("secaggplus_mod"))


_WHY = (
    "{}: secure aggregation is not available: on one machine the server could read every client's files. Remove the "
    "mod, or use local differential privacy (LocalDpMod)"
)
