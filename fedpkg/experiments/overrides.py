"""Overrides of an experiment (``lr=0.1``, ``+a.b=1``, ``~gone``, ``method=fedavg,scaffold``), parsed by hydra-core."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from fedpkg.errors import ConfigError

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override

EXTRA_HINT = "pip install 'fedpkg[experiments]'"


def parse(overrides: Sequence[str]) -> list[Override]:
    """Overrides as hydra parses them. Raises ConfigError."""
    try:
        from hydra.core.override_parser.overrides_parser import OverridesParser
        from hydra.errors import HydraException
    except ModuleNotFoundError as error:
        raise not_installed(error) from error
    parser = OverridesParser.create()
    parsed = []
    for word in overrides:
        try:
            parsed += parser.parse_overrides([word])
        except HydraException as error:
            raise _unparsable(word, str(error)) from error
    return parsed


def not_installed(error: ModuleNotFoundError) -> ConfigError:
    """The error for a missing hydra-core."""
    return ConfigError(f"composing an experiment needs hydra-core, which is not installed ({error})", hint=EXTRA_HINT)


def _unparsable(word: str, said: str) -> ConfigError:
    key, equals, value = word.partition("=")
    if not equals and not key.startswith("~"):
        return ConfigError(f"on the command line: '{word}' is not key=value", hint="for example rounds=3")
    reason = next((line for line in said.splitlines() if line and not line.startswith(("See ", "Error parsing"))), said)
    hint = "quote text with special characters twice: \"key='a, b'\"; lists are [a,b], sections {a:1}"
    if reason.startswith("Lexer"):
        odd = next((letter for letter in value if not letter.isascii()), "")
        reason, hint = f"'{odd or value}' can only stand in quotes", f"\"{key}='{value}'\", with both kinds of quotes"
    elif value.count("{") != value.count("}") or value.count("[") != value.count("]"):
        hint = "a bracket is not closed, or the shell has split the word: put it in quotes"
    return ConfigError(f"on the command line: '{word}' cannot be parsed: {reason.strip()}", hint=hint, key=key)
