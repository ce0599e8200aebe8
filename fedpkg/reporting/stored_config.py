"""A session's merged configuration as YAML that may be shown to others."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_SECRET = re.compile(r"token|secret|passw|api_?key|credential|private_?key", re.IGNORECASE)
_IN_ADDRESS = re.compile(r"(://[^/@\s:]*:)[^/@\s]+(?=@)")
HIDDEN = "(hidden)"


def yaml_of(config: Mapping[str, Any]) -> str:
    """The configuration with all defaults; without secrets."""
    import yaml

    text: str = yaml.safe_dump(without_secrets(config), sort_keys=False, allow_unicode=True, width=110)
    return text


def without_secrets(value: Any, key: str = "") -> Any:
    """The same tree without values whose keys name tokens, passwords or keys, and without passwords in addresses."""
    if isinstance(value, Mapping):
        return {name: without_secrets(inner, str(name)) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_secrets(inner, key) for inner in value]
    if not isinstance(value, str) or not value:
        return value
    return HIDDEN if _SECRET.search(key) else _IN_ADDRESS.sub(rf"\1{HIDDEN}", value)
