"""A dashboard in a process of its own, and requests to it, byte for byte."""

from __future__ import annotations

import http.client
import json
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from warm import warm_python


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()


@dataclass(frozen=True)
class Served:
    """A dashboard that runs."""

    home: Path
    port: int
    viewer: str
    operator: str | None
    process: subprocess.Popen[str]

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ask(
        self, path: str, *, method: str = "GET", token: str | None = "", body: str | None = None, **headers: str
    ) -> Answer:
        """A request; ``token``: None for none, empty for the viewer's. Names of headers have "_" in place of "-"."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.putrequest(method, path, skip_host="Host" in given, skip_accept_encoding=True)
        if token is not None:
            given.setdefault("Authorization", f"Bearer {token or self.viewer}")
        if body is not None:
            given.setdefault("Content-Length", str(len(body)))
        for name, value in given.items():
            connection.putheader(name, value)
        connection.endheaders(body.encode() if body else None)
        answer = connection.getresponse()
        found = Answer(answer.status, dict(answer.getheaders()), answer.read())
        connection.close()
        return found

    def cookie(self, token: str) -> str:
        """What a browser keeps after it has opened the address with a token."""
        entered = self.ask(f"/?token={token}", token=None)
        assert entered.status == 303, entered.text
        return entered.headers["Set-Cookie"].partition(";")[0]


@contextmanager
def served(home: Path, *words: str) -> Iterator[Served]:
    command = [*warm_python(), "-m", "fedpkg", "dashboard", "--home", str(home), "--json", "--no-open", *words]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    told = json.loads(process.stdout.readline())
    view = urlsplit(told["view"])
    token = parse_qs(view.query)["token"][0]
    operator = parse_qs(urlsplit(told["act"]).query)["token"][0] if told["act"] else None
    assert view.port is not None
    try:
        yield Served(home, view.port, token, operator, process)
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
        process.stdout.close()
