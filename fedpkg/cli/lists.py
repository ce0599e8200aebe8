"""The arguments of commands that list what clients said in a session."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from fedpkg.cli.completing import sessions
from fedpkg.cli.options import common_options

Function = TypeVar("Function", bound=Callable[..., Any])


def of_clients_and_rounds(function: Function) -> Function:
    """SESSION, --round and --client, and the common options."""
    for option in (
        common_options,
        click.option("--client", "client_id", metavar="ID", help="Only of this client."),
        click.option("--round", "round_number", type=click.IntRange(1, 10**9), metavar="N", help="Only of this round."),
        click.argument("session_ref", metavar="[SESSION]", required=False, shell_complete=sessions),
    ):
        function = option(function)
    return function
