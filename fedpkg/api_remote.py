"""FEDn's ``APIClient`` on the read API of a server, as ``fedpkg dashboard`` is one: the reading methods."""

from __future__ import annotations

import functools
import http.client
import inspect
import json
import shutil
import urllib.error
import urllib.request
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import quote, urlencode, urlsplit

from fedpkg.api_answers import Answer, done, failed
from fedpkg.api_reading import ReadingClient
from fedpkg.errors import ServerOnly, StoreError, nearest

_API = "/api/v1"


class RemoteClient:
    """The methods of `fedpkg.APIClient` that read, answered by a server; a failed call returns what it says.

    Args:
        address: as `fedpkg dashboard` prints it, with or without the token in it.
        token: the server's token.
        others: names of methods that only a client of a home has.

    Raises:
        StoreError: on a call, if the server cannot be reached.
    """

    def __init__(
        self, address: str, token: str | None = None, *, others: Collection[str] = (), timeout_s: float = 60.0
    ) -> None:
        parts = urlsplit(address)
        self.address = f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/').removesuffix(_API)}"
        in_address = dict(pair.split("=", 1) for pair in parts.query.split("&") if "=" in pair).get("token")
        self._token, self._others, self._timeout_s = token or in_address, others, timeout_s

    def get(self, path: str, **query: Any) -> Any:
        """The answer of an address of the read API, such as ``get("/sessions", state="running")``.

        See docs/reference/read-api.md. A list is given several times: ``sessions=["a", "b"]``.
        """
        try:
            with self._open(path, query) as response:
                lines = response.headers.get_content_subtype() == "jsonl"
                return [json.loads(line) for line in response] if lines else json.load(response)
        except urllib.error.HTTPError as error:
            return _refused(error)

    def download_model(self, id: str, path: str) -> Answer:
        """Write the file of a model to ``path``: with the suffix .npz or .safetensors in that format, with another one
        or none as it is stored.
        """
        suffix = Path(path).suffix
        query = {"form": suffix} if suffix in (".npz", ".safetensors") else {}
        try:
            with self._open(f"/models/{quote(id, safe='')}/file", query) as response, open(path, "wb") as file:
                shutil.copyfileobj(response, file, 1 << 20)
        except urllib.error.HTTPError as error:
            return _refused(error)
        return done("Model downloaded successfully.")

    def _open(self, path: str, query: Mapping[str, Any]) -> http.client.HTTPResponse:
        path = "/" + quote(path.lstrip("/"), safe="/%?&=+,:@!$'()*;~")
        words = urlencode({name: value for name, value in query.items() if value is not None}, doseq=True)
        request = urllib.request.Request(f"{self.address}{_API}{path}{'?' * bool(words)}{words}")
        if self._token:
            request.add_header("Authorization", f"Bearer {self._token}")
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            response: http.client.HTTPResponse = opener.open(request, timeout=self._timeout_s)
            return response
        except urllib.error.HTTPError:
            raise
        except (OSError, http.client.HTTPException, ValueError) as error:
            reason = getattr(error, "reason", error)
            raise StoreError(
                f"{self.address} cannot be reached: {reason}", hint="fedpkg dashboard starts the server of a home"
            ) from error

    def __getattr__(self, name: str) -> NoReturn:
        if not name.startswith("_") and name in self._others:
            raise ServerOnly(
                f"{name} is not answered by {self.address}: its API only reads",
                hint="fedpkg.APIClient(home=…) has all methods; docs/reference/fedn-api.md lists them",
            )
        raise AttributeError(f"APIClient has no method {name}{nearest(name, dir(type(self)))}")


def _refused(error: urllib.error.HTTPError) -> Answer:
    with error:
        body = error.read()
    try:
        told = json.loads(body)["error"]
        return failed(" ".join(filter(None, (told["message"], told.get("hint")))))
    except (ValueError, KeyError, TypeError):
        return failed(f"the server answered {error.code}")


def _asking(method: Callable[..., Any]) -> Callable[..., Any]:
    """A method that asks the server for the answer of the method of this name."""

    @functools.wraps(method)
    def asked(client: RemoteClient, *args: Any, **kwargs: Any) -> Any:
        given = {"args": json.dumps(args)} if args else {}
        named = {"kwargs": json.dumps(kwargs)} if kwargs else {}
        return client.get(f"/fedn/{method.__name__}", **given, **named)

    return asked


for _name, _method in inspect.getmembers(ReadingClient, inspect.isfunction):
    if not _name.startswith("_") and _name not in ("download_model", "download_package", "get_client_config"):
        setattr(RemoteClient, _name, _asking(_method))
