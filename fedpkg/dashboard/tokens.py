"""The tokens of a server and its socket: what is needed to print its address, before the server itself is imported."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import secrets
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from fedpkg.errors import ConfigError

Role: TypeAlias = Literal["viewer", "operator"]
CSRF = "csrf"  # in forms


@dataclass(frozen=True)
class Access:
    """The tokens of one server. Without an ``operator`` token there are no actions."""

    viewer: str = field(default_factory=lambda: secrets.token_urlsafe(24), repr=False)
    operator: str | None = field(default_factory=lambda: secrets.token_urlsafe(24), repr=False)
    _tickets: dict[str, Role] = field(default_factory=dict, repr=False)

    @property
    def cookie(self) -> str:
        """The cookie's name: servers on other ports of this machine have other ones."""
        return f"fedpkg-{_derived(self.viewer, 'name')[:8]}"

    def ticket(self, role: Role) -> str:
        """A token that opens a page once."""
        ticket = secrets.token_urlsafe(24)
        self._tickets[ticket] = role
        return ticket

    def role_of_token(self, token: str) -> Role | None:
        return self._tickets.pop(token, None) or self._role(token, lambda known: known)

    def role_of_cookie(self, value: str) -> Role | None:
        return self._role(value, cookie_value)

    def _role(self, given: str, form: Callable[[str], str]) -> Role | None:
        is_viewer = is_same(given, form(self.viewer))
        if self.operator is not None and is_same(given, form(self.operator)):
            return "operator"
        return "viewer" if is_viewer else None

    def csrf(self, role: str) -> str:
        """What forms of this role must contain."""
        return _derived(self.operator if role == "operator" and self.operator else self.viewer, CSRF)


def cookie_value(token: str) -> str:
    """What the browser keeps in place of the token, so that a cookie is no address that can be opened elsewhere."""
    return _derived(token, "cookie")


def is_same(given: str, known: str) -> bool:
    """Whether two texts are equal; the time that it takes tells nothing about them."""
    return hmac.compare_digest(given.encode(errors="surrogatepass"), known.encode())


def _derived(token: str, purpose: str) -> str:
    return hmac.new(token.encode(), purpose.encode(), hashlib.sha256).hexdigest()


def is_loopback(host: str) -> bool:
    """Whether a host's name or address is this machine's own."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def listening(host: str, port: int) -> socket.socket:
    """A socket that listens; port 0 is a free one.

    Raises:
        ConfigError: the port is in use, or the address is not one of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    found = socket.socket(family, socket.SOCK_STREAM)
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind((host, port))
        found.listen(128)
    except OSError as error:
        found.close()
        hint = "choose another --port; 0 takes a free one"
        raise ConfigError(f"port {port} of {host} cannot be used: {error.strerror or error}", hint=hint) from error
    return found
