"""Which requests are answered: names of the host, tokens and cookies, origins; and the headers of every answer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias
from urllib.parse import urlencode

from aiohttp import hdrs, web

from fedpkg.dashboard.tokens import CSRF, Access, Role, cookie_value, is_loopback, is_same

Handler: TypeAlias = Callable[[web.Request], Awaitable[web.StreamResponse]]

TOKEN = "token"  # in the query of the printed address
SIGN_OUT = "/sign-out"  # the only form that viewers have
STATIC = "/static/"  # files without secrets, which the page for people without a token needs, too
ROLE = "role"  # of a request
_SAFE = ("GET", "HEAD")
MOST_BODY = 64 * 1024  # bytes of a request; forms of actions have a few words
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
FILE_POLICY = "default-src 'none'; style-src 'unsafe-inline'; sandbox; frame-ancestors 'none'"  # a downloaded SVG
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",  # "no-referrer" would hide the origin of our own forms, too
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
}


class Refused(Exception):
    """A request that is not answered, and what the person can do."""

    def __init__(self, status: int, title: str, words: str) -> None:
        super().__init__(words)
        self.status, self.title, self.words = status, title, words


def guard(access: Access) -> Any:
    """The middleware that every request passes. It raises `Refused`."""

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        _check_origin(request)
        if TOKEN in request.query:
            return _entered(access, request)
        request[ROLE] = "viewer" if request.path.startswith(STATIC) else _role(access, request)
        if request.method not in _SAFE:
            await _check_action(access, request)
        return await handler(request)

    return middleware


async def add_headers(request: web.Request, response: web.StreamResponse) -> None:
    """For `on_response_prepare`: every answer has these, also that of a server error."""
    for name, value in _HEADERS.items():
        response.headers.setdefault(name, value)
    response.headers.setdefault("Content-Security-Policy", PAGE_POLICY)
    response.headers.setdefault("Cache-Control", "no-store")
    response.headers.popall(hdrs.SERVER, None)


def _check_origin(request: web.Request) -> None:
    """Refuse what the page of another site has sent, also through a name of its own that leads here (DNS rebinding)."""
    host = request.headers.getall(hdrs.HOST, [])
    name = _host_name(host[0]) if len(host) == 1 else ""
    if not is_loopback(name):
        words = "Open the address that fedpkg dashboard has printed: its host is 127.0.0.1 or localhost."
        raise Refused(421, "This name leads to another server", words)
    origin = request.headers.get(hdrs.ORIGIN)
    if origin is not None and origin != f"http://{host[0]}":
        raise Refused(403, "A page of another site has asked for this", "Open the page here and try again.")
    is_navigation = request.headers.get("Sec-Fetch-Mode") == "navigate" and request.method in _SAFE
    if request.headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin") and not is_navigation:
        raise Refused(403, "A page of another site has asked for this", "Open the page here and try again.")


def _host_name(host: str) -> str:
    """The name in a Host header, without its port: that of a forwarded port is another one than ours."""
    if host.startswith("["):
        name, _, port = host[1:].partition("]")
        port = port.removeprefix(":")
    else:
        name, _, port = host.partition(":")
    return name.lower() if port.isdecimal() or not port else ""


def _entered(access: Access, request: web.Request) -> web.StreamResponse:
    """Change the token of the address into a cookie."""
    token = request.query.getone(TOKEN)
    role = access.role_of_token(token)
    if role is None or request.method not in _SAFE:
        raise Refused(401, "This token is not valid", "A token is valid until its server ends.")
    rest = [(name, value) for name, value in request.query.items() if name != TOKEN]
    path = "/" + request.rel_url.raw_path.lstrip("/")  # "//host" would be another site
    target = path + (f"?{urlencode(rest)}" if rest else "")
    if request.headers.get("Sec-Fetch-Site", "none") in ("none", "same-origin"):
        response = web.Response(status=303, headers={"Location": target})
    else:  # after a link on another site a browser would follow a redirection without the new cookie
        response = web.Response(status=200, headers={"Refresh": f"0; url={target}"})
    known = access.operator if role == "operator" and access.operator else access.viewer
    response.set_cookie(access.cookie, cookie_value(known), path="/", httponly=True, samesite="Strict")
    return response


def _role(access: Access, request: web.Request) -> Role:
    scheme, _, token = request.headers.get(hdrs.AUTHORIZATION, "").partition(" ")
    if token:
        role = access.role_of_token(token.strip()) if scheme.lower() == "bearer" else None
    else:
        role = access.role_of_cookie(request.cookies.get(access.cookie, ""))
    if role is None:
        raise Refused(401, "This page needs the token of its server", "")
    return role


async def _check_action(access: Access, request: web.Request) -> None:
    """Refuse an action without the operator's token, or one that a form of ours did not send."""
    if (request.content_length or 0) > MOST_BODY:
        raise Refused(413, "The request is too large", f"An action has at most {MOST_BODY} bytes.")
    if request.path != SIGN_OUT:
        if access.operator is None:
            raise Refused(403, "This dashboard is read-only", "It was started with --read-only.")
        if request[ROLE] != "operator":
            words = "Open the address for operators, which fedpkg dashboard has printed, and try again."
            raise Refused(403, "You can read here, but not act", words)
    if hdrs.AUTHORIZATION in request.headers:
        return  # no browser adds this header by itself
    if request.headers.get(hdrs.ORIGIN) is None:
        raise Refused(403, "The origin of this action is unknown", "Open the page here and try again.")
    given = (await request.post()).get(CSRF, "")
    if not isinstance(given, str) or not is_same(given, access.csrf(request[ROLE])):
        raise Refused(403, "This form is not valid any more", "Open the page again and repeat the action.")
