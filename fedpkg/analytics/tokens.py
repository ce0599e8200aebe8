"""Tokens of tasks, in the form of a JSON Web Token. They say which task, node and organization a function runs for.

A token here opens nothing: a function reaches other organizations only through the program that runs it.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Mapping
from typing import Any

from fedpkg.analytics.backend import Backend
from fedpkg.analytics.errors import ClientError

_NAMES = ("node_id", "organization_id", "collaboration_id", "task_id", "image")  # in a token, and of a backend


def make(identity: Mapping[str, Any]) -> str:
    """A token without signature. ``identity`` is its subject: node_id, organization_id, task_id …"""
    subject = {"client_type": "container", "type": "container", **identity}
    content = {"sub": subject, "identity": subject, "type": "access"}  # the latter in versions before 3.3
    return f"{_part({'alg': 'none', 'typ': 'JWT'})}.{_part(content)}."


def of(backend: Backend) -> str:
    """The token of the task that a backend belongs to."""
    return make(
        {
            **{name: getattr(backend, name) for name in _NAMES},
            "database": backend.databases[0] if backend.databases else "default",
            "databases": [{"label": label} for label in backend.databases],
        }
    )


def check(token: str, backend: Backend) -> None:
    """Compare a token with the task that a backend belongs to.

    Raises:
        ClientError: It is no token, has expired, or is that of another task.
    """
    identity = identity_of(token)
    for name in _NAMES:
        if name in identity and identity[name] != (own := getattr(backend, name)):
            raise ClientError(
                f"the token is that of another task: its {name} is {identity[name]!r:.80}, and that of the running "
                f"function is {own!r:.80}. Use the token in the file TOKEN_FILE"
            )


def identity_of(token: str) -> dict[str, Any]:
    """What a token says about its task. The signature is not checked, as no one here has the key.

    Raises:
        ClientError: It is no token, or it has expired.
    """
    parts = token.strip().split(".")
    try:
        if len(parts) != 3:
            raise ValueError(f"it has {len(parts)} parts instead of 3")
        content = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
        identity = content.get("sub", content.get("identity"))  # the latter in versions before 3.3
        if not isinstance(identity, dict):
            raise ValueError("it has no subject")
        expires = content.get("exp")
        has_expired = isinstance(expires, (int, float)) and expires <= time.time()
    except (ValueError, AttributeError) as error:
        raise ClientError(f"the token of the task cannot be read: {error}") from error
    if has_expired:
        raise ClientError("the token of the task has expired: run the task again to get a new one")
    return identity


def _part(content: Mapping[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(content).encode()).rstrip(b"=").decode()
