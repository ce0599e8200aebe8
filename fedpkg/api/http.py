"""The read API over HTTP: `fedpkg.api.routes` in an aiohttp application."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, suppress
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Protocol, TypeVar, get_args, get_origin

from aiohttp import web

import fedpkg
from fedpkg.api.asking import check, parameters
from fedpkg.api.encoding import encode, pieces
from fedpkg.api.models import Download
from fedpkg.api.openapi import Error, ErrorDetail, document
from fedpkg.api.opening import Opened, without_home
from fedpkg.api.routes import PREFIX, ROUTES, Route
from fedpkg.errors import ConfigError, FedpkgError, HomeLocked, NotFound, SessionError, nearest

Result = TypeVar("Result")
_PIECE = 256 << 10  # bytes of a file that are read at once
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Reads(Protocol):
    """Runs what reads the home in another thread."""

    async def call(self, work: Callable[[Opened], Result]) -> Result: ...

    async def next_of(self, pieces: Iterator[bytes]) -> bytes | None: ...


def add_api(app: web.Application, reads: Reads, home: Path) -> None:
    """Add the addresses of the API to an application, which must check the tokens of requests, and that of an operator
    for each POST. ``home`` is the folder whose path no answer has.
    """
    app.router.add_get(f"{PREFIX}/openapi.json", _document)
    for route in ROUTES:
        add = app.router.add_post if route.is_action else app.router.add_get
        add(f"{PREFIX}{any_name(route.path)}", _told(_handler(route, reads), home))


def any_name(path: str) -> str:
    """A path of aiohttp whose names are any text without a slash: by default they have no braces, either."""
    return re.sub(r"{(\w+)}", r"{\1:[^/]+}", path)


async def _document(_request: web.Request) -> web.Response:
    return web.Response(body=_encoded_document(), content_type="application/json")


@cache
def _encoded_document() -> bytes:
    return encode(document(fedpkg.__version__))


def _handler(route: Route, reads: Reads) -> Handler:
    async def handle(request: web.Request) -> web.StreamResponse:
        given = _given(request, route)
        form: Any = given.pop("form", "json") if route.is_stream else "json"
        values = check(route.function, given, are_texts=True)
        if route.is_stream:
            items = await reads.call(lambda at: pieces(route.function(at, **values), form))
            return await _stream(request, reads, items, form)
        if route.is_file:
            return await _send(request, await reads.call(lambda at: route.function(at, **values)))
        body = await reads.call(lambda at: encode(route.function(at, **values)))
        return web.Response(body=body, content_type="application/json")

    return handle


async def _stream(request: web.Request, reads: Reads, items: Iterator[bytes], form: str) -> web.StreamResponse:
    first = await reads.next_of(items)  # before the status is sent: reading may fail
    kind = "application/jsonl" if form == "jsonl" else "application/json"
    response = web.StreamResponse(headers={"Content-Type": kind})
    await response.prepare(request)
    piece = first
    with suppress(ConnectionError):  # the reader has left
        while piece is not None:
            await response.write(piece)
            piece = await reads.next_of(items)
        await response.write_eof()
    return response


async def _send(request: web.Request, download: Download) -> web.StreamResponse:
    """A model's file, as a download."""
    in_thread = asyncio.get_running_loop().run_in_executor
    with ExitStack() as stack:
        file = await in_thread(None, lambda: stack.enter_context(download.open()))
        size = await in_thread(None, lambda: file.seek(0, 2))
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(size)}
        headers["Content-Disposition"] = f'attachment; filename="{download.name}"'
        response = web.StreamResponse(headers=headers)
        await response.prepare(request)
        file.seek(0)
        with suppress(ConnectionError):
            while piece := await in_thread(None, lambda: file.read(_PIECE)):
                await response.write(piece)
            await response.write_eof()
        return response


def _given(request: web.Request, route: Route) -> dict[str, Any]:
    """The parameters of a request. Raises ConfigError: one is unknown, or given twice."""
    known = parameters(route.function)
    names = [*known.__struct_fields__, *(["form"] if route.is_stream else [])]
    lists = {name for name, hint in known.__annotations__.items() if _is_list(hint)}
    given: dict[str, Any] = dict(request.match_info)
    for name in dict.fromkeys(request.query):
        values = request.query.getall(name)
        if name not in names or name in request.match_info:
            raise ConfigError(f"there is no parameter {name:.100}{nearest(name, names)}", key=name)
        if name in lists:
            given[name] = values
        elif len(values) > 1:
            raise ConfigError(f"{name} is given {len(values)} times", key=name)
        else:
            given[name] = values[0]
    if route.is_stream and given.get("form", "json") not in ("json", "jsonl"):
        raise ConfigError("form must be json or jsonl", key="form")
    return given


def _is_list(hint: Any) -> bool:
    if get_origin(hint) is Annotated:
        hint = get_args(hint)[0]
    return get_origin(hint) is list


def _told(handle: Handler, home: Path) -> Handler:
    """The handler, whose errors are answers."""

    async def told(request: web.Request) -> web.StreamResponse:
        try:
            return await handle(request)
        except FedpkgError as error:
            status = next(code for kind, code in _STATUSES.items() if isinstance(error, kind))
            message, hint = without_home(error.message, home), error.hint and without_home(error.hint, home)
            body = encode(Error(ErrorDetail(status, message, hint)))
            return web.Response(body=body, status=status, content_type="application/json")

    return told


# 503: the home, or a part of it, cannot be read.
_STATUSES = {NotFound: 404, ConfigError: 400, SessionError: 409, HomeLocked: 409, FedpkgError: 503}
