"""The server of the pages: an aiohttp application on a home, from the first request to Ctrl-C."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiohttp import hdrs, web
from aiohttp.http_exceptions import HttpProcessingError

from fedpkg.api.actions import start_resuming, stop_session
from fedpkg.api.encoding import encode
from fedpkg.api.http import add_api, any_name
from fedpkg.api.openapi import Error, ErrorDetail
from fedpkg.api.opening import without_home
from fedpkg.api.routes import PREFIX
from fedpkg.dashboard import assets
from fedpkg.dashboard.access import (
    FILE_POLICY,
    MOST_BODY,
    ROLE,
    SIGN_OUT,
    STATIC,
    Handler,
    Refused,
    add_headers,
    guard,
)
from fedpkg.dashboard.asked import DOWNLOAD, SINCE, Asked, address, segment_text
from fedpkg.dashboard.downloads import File, part_of
from fedpkg.dashboard.drawing import draw, draw_refusal, draw_regions
from fedpkg.dashboard.live import Key, Live, Regions
from fedpkg.dashboard.page import Page
from fedpkg.dashboard.reading import Reader
from fedpkg.dashboard.routes import ROUTES, Route
from fedpkg.dashboard.tokens import Access
from fedpkg.errors import ConfigError, FedpkgError, NotFound, SessionError, StoreError

if TYPE_CHECKING:
    from fedpkg.api.opening import Opened

_log = logging.getLogger("fedpkg.dashboard")
KEPT_S = 5.0  # a page's estimates, such as the time left, are not older
MOST_KEPT = 8  # pages
_PING_S = 15.0  # a comment on a quiet stream, which finds viewers that are gone
MOST_STREAMS = 100  # viewers at the same time; each has one open connection
_ANSWERS: tuple[tuple[type[FedpkgError], int, str], ...] = (
    (NotFound, 404, "This is not in the home"),
    (ConfigError, 400, "This address cannot be understood"),
    (SessionError, 409, "This cannot be done now"),
    (StoreError, 503, "This cannot be read"),
)
_FOREVER = "private, max-age=31536000, immutable"


class Dashboard:
    """The pages of one home.

    Args:
        access: the tokens that open them.
    """

    def __init__(self, home: Path, access: Access) -> None:
        self._home, self._access = home, access
        self._reader = Reader(home)
        self._signal = Reader(home)  # a connection of its own: the change signal does not wait for a page
        self._live = Live(self._stamp, self._regions)
        self._answers: dict[str, tuple[str, float, Page]] = {}  # by address: stamp, time and page
        self._open: dict[Key, tuple[Route, Asked]] = {}  # the pages that have viewers

    def application(self) -> web.Application:
        middlewares = [self._answering(), guard(self._access)]
        app = web.Application(middlewares=middlewares, client_max_size=MOST_BODY)
        app.on_response_prepare.append(add_headers)
        app.on_shutdown.append(self._end_streams)
        app.on_cleanup.append(self._close)
        app.router.add_get(STATIC + "{version}/{name}", _static)
        app.router.add_post(SIGN_OUT, self._sign_out)
        app.router.add_post("/sessions/{session_id}/stop", self._stop)
        app.router.add_post("/sessions/{session_id}/resume", self._resume)
        add_api(app, self._reader, self._home.absolute())
        for route in ROUTES:
            app.router.add_get(any_name(route.path), self._handler(route))
        return app

    async def _end_streams(self, _app: web.Application) -> None:
        await self._live.close()

    async def _close(self, _app: web.Application) -> None:
        self._reader.close()
        self._signal.close()

    # ---- pages

    def _handler(self, route: Route) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            names = {name: segment_text(value) for name, value in request.match_info.items()}
            query = list(request.rel_url.query.items())
            asked = Asked(request.rel_url.raw_path, names, query, role=request[ROLE])
            if "text/event-stream" in request.headers.get(hdrs.ACCEPT, ""):
                return await self._stream(request, route, asked)
            if asked.get(DOWNLOAD):
                return await self._download(request, route, asked)
            stamp = await self._stamp()
            return _html(await self._reader.call(lambda at: self._page(route, asked.on(at), stamp)))

        return handle

    def _page(self, route: Route, asked: Asked, stamp: str) -> str:
        return draw(route, asked, self._answer(route, asked, stamp), **self._frame(asked.role), stamp=stamp)

    def _answer(self, route: Route, asked: Asked, stamp: str) -> Page:
        """What a page has. It is kept for a moment, for the pictures and files of the page."""
        key, now = asked.url(), time.monotonic()
        found = self._answers.pop(key, None)
        if found is None or not stamp or found[0] != stamp or now - found[1] > KEPT_S:
            found = stamp, now, route.answer(asked)
        self._answers[key] = found
        while len(self._answers) > MOST_KEPT:
            del self._answers[next(iter(self._answers))]
        return found[2]

    def _frame(self, role: str) -> dict[str, Any]:
        """What the frame of every page needs."""
        return {
            "home": self._home.name,
            "role": role,
            "csrf": self._access.csrf(role),
            "can_act": role == "operator",
            "is_read_only": self._access.operator is None,
        }

    def _refusal(self, request: web.Request, refused: Refused) -> web.StreamResponse:
        """What is answered to a request that is refused, or fails: a page, or JSON for programs."""
        if request.path.startswith(f"{PREFIX}/"):
            told = encode(Error(ErrorDetail(refused.status, refused.title, refused.words or None)))
            return web.Response(body=told, status=refused.status, content_type="application/json")
        frame = self._frame(request.get(ROLE, ""))
        return _html(draw_refusal(refused.status, refused.title, refused.words, **frame), refused.status)

    def _answering(self) -> Any:
        """The middleware that answers errors: with what has happened and what can be done, never with a traceback."""

        @web.middleware
        async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
            try:
                return await handler(request)
            except web.HTTPException as error:
                title = {404: "There is no such page", 405: "This address does not take this method"}.get(error.status)
                return self._refusal(request, Refused(error.status, title or error.reason, ""))
            except Refused as refused:
                return self._refusal(request, refused)
            except FedpkgError as error:
                return self._refusal(request, self._refused(error))
            except ConnectionError:  # the browser went to another page meanwhile
                return web.Response(status=499)
            except Exception:
                _log.exception("request.failed path=%s", request.path)
                words = "The error is in the output of fedpkg dashboard; please report it."
                return self._refusal(request, Refused(500, "This is a fault of fedpkg", words))

        return middleware

    def _refused(self, error: FedpkgError) -> Refused:
        if isinstance(error, StoreError) and not isinstance(error, NotFound) and not self._reader.has_store():
            return Refused(200, "No session has run in this home yet", "Start one: fedpkg run RUN.yaml")
        status, title = 500, "This page cannot be shown"
        for kind, of_kind, words in _ANSWERS:
            if isinstance(error, kind):
                status, title = of_kind, words
                break
        told = f"{error.message}\n{error.hint or ''}".strip()
        return Refused(status, title, without_home(told, self._home.absolute()))

    async def _sign_out(self, request: web.Request) -> web.StreamResponse:
        response = _html(draw_refusal(200, "You have signed out", "", **self._frame("")))
        response.del_cookie(self._access.cookie, path="/", httponly=True, samesite="Strict")
        return response

    async def _stop(self, request: web.Request) -> web.StreamResponse:
        session_id = segment_text(request.match_info["session_id"])
        await self._reader.call(lambda at: stop_session(at, session_id))
        return _see(address("sessions", session_id))

    async def _resume(self, request: web.Request) -> web.StreamResponse:
        session_id = segment_text(request.match_info["session_id"])
        resuming = await self._reader.call(lambda at: start_resuming(at, session_id))
        await asyncio.get_running_loop().run_in_executor(None, resuming.check)
        return _see(address("sessions", session_id))

    async def _download(self, request: web.Request, route: Route, asked: Asked) -> web.StreamResponse:
        stamp = await self._stamp()

        def work(at: Opened) -> File:
            of = asked.on(at)
            return part_of(of, self._answer(route, of, stamp), asked.get(DOWNLOAD))

        file = await self._reader.call(work)
        disposition = f'attachment; filename="{file.name}"'
        headers = {hdrs.CONTENT_TYPE: file.kind, "Content-Disposition": disposition}
        response = web.StreamResponse(headers={**headers, "Content-Security-Policy": FILE_POLICY})
        loop = asyncio.get_running_loop()
        with suppress(ConnectionError):  # a plot was drawn before its picture had come, and the picture is gone
            await response.prepare(request)
            while piece := await (
                self._reader.next_of(file.pieces) if file.reads else loop.run_in_executor(None, next, file.pieces, None)
            ):
                await response.write(piece)
            await response.write_eof()
        return response

    # ---- live updates

    async def _stamp(self) -> str:
        """Changes with the home; empty: the home has no store yet."""
        try:
            return await self._signal.stamp()
        except FedpkgError:
            return ""

    async def _regions(self, key: Key) -> Regions:
        if key not in self._open:
            return {}
        route, asked = self._open[key]

        def work(at: Opened) -> Regions:
            of = asked.on(at, is_live=True)
            return draw_regions(route, of, route.answer(of), **self._frame(asked.role), stamp="")

        try:
            return await self._reader.call(work)
        except FedpkgError as error:  # the session was removed, or the home is gone: the page stays as it is
            _log.debug("live.failed page=%s error=%s", asked.path, error.message)
        except Exception:
            _log.exception("live.failed page=%s", asked.path)
        return {}

    async def _stream(self, request: web.Request, route: Route, asked: Asked) -> web.StreamResponse:
        if len(self._live) >= MOST_STREAMS:
            raise Refused(503, "Too many pages are open", f"Live updates serve at most {MOST_STREAMS} pages.")
        key = (asked.url(), asked.role)
        self._open[key] = route, asked
        response = web.StreamResponse(headers={hdrs.CONTENT_TYPE: "text/event-stream"})
        queue = await self._live.join(key, request.headers.get("Last-Event-ID") or asked.get(SINCE))
        try:
            await response.prepare(request)
            await response.write(b"retry: 1000\n\n")
            while True:
                try:
                    change = await asyncio.wait_for(queue.get(), _PING_S)
                except asyncio.TimeoutError:
                    await response.write(b": quiet\n\n")
                    continue
                if change is None:
                    break
                await response.write(change.event)
        except ConnectionError:  # the viewer has left
            pass
        finally:
            if self._live.leave(key, queue):
                self._open.pop(key, None)
        return response


def _see(target: str) -> web.Response:
    """After an action: the page, by GET."""
    return web.Response(status=303, headers={"Location": target})


def _html(text: str, status: int = 200) -> web.Response:
    body = text.encode(errors="backslashreplace")  # no lone surrogate of a client's text fails a page
    return web.Response(body=body, status=status, content_type="text/html", charset="utf-8")


async def _static(request: web.Request) -> web.StreamResponse:
    """A file of ours. Its address has the version of all of them, so browsers keep it."""
    name = request.match_info["name"]
    found = await asyncio.get_running_loop().run_in_executor(None, assets.static_file, name)
    if found is None:
        raise web.HTTPNotFound
    headers = {"Cache-Control": _FOREVER if request.match_info["version"] == assets.version() else "no-cache"}
    if found.is_compressed:
        headers[hdrs.CONTENT_ENCODING] = "gzip"
    return web.Response(body=found.data, content_type=found.kind, charset="utf-8", headers=headers)


# ---- its life


def serve(home: Path, access: Access, at: socket.socket) -> None:
    """Serve the pages until SIGINT, SIGTERM or SIGHUP."""
    logging.getLogger("aiohttp.server").addFilter(_is_fault)
    asyncio.run(_serve(Dashboard(home, access).application(), at))


def _is_fault(record: logging.LogRecord) -> bool:
    """Whether a message of aiohttp is about more than a request that is no HTTP, which has been answered with 400."""
    return record.exc_info is None or not isinstance(record.exc_info[1], HttpProcessingError)


async def _serve(app: web.Application, at: socket.socket) -> None:
    ended = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            asyncio.get_running_loop().add_signal_handler(number, ended.set)
    runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=1.0)
    await runner.setup()
    try:
        await web.SockSite(runner, at).start()
        await ended.wait()
    finally:
        await runner.cleanup()
