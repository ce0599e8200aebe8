"""Zygotes that outlive the executor that started them: sessions of many tests share one process for the same imports.

A conftest.py that imports `shared_zygotes` makes the executors of this process do so in the tests of its folder. What
a session sees is the same: keepers of its own, forked from a process that has made these imports. A test of the start
of zygotes, or of their end, does without.

The commands of lessons share zygotes, too: a session that ends gives them to the warm parent (warm.py), and the
processes that the parent forks later inherit them.
"""

from __future__ import annotations

import atexit
import json
import os
import select
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fedpkg.dispatch import forkserver
from fedpkg.dispatch.keepers import Keeper
from fedpkg.dispatch.zygotes import Zygote
from fedpkg.errors import DispatchError

MOST = 6  # processes that are kept; each has up to 200 MB
NOT_OF_THE_IMPORTS = ("sources", "log", "environ")
OF_THE_MOMENT = ("PYTEST_CURRENT_TEST", "TMPDIR", "PWD", "OLDPWD", "SHLVL", "_", "FEDPKG_TESTS_SHARE")
_kept: dict[str, Zygote] = {}
_inherited: dict[str, Handed] = {}


@dataclass(frozen=True)
class Handed:
    """A zygote that another process has started, which has ended."""

    control: int
    pid: int
    pidfd: int
    greeting: dict[str, Any]


@pytest.fixture(scope="module", autouse=True)
def shared_zygotes() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fedpkg.dispatch.forkserver.Zygote", Lease)
        yield


class Lease:
    """Has the methods of a Zygote."""

    warm_parent = ""  # where it listens, if this process gives it zygotes

    def __init__(self, interpreter: str, steps: Any, **options: Any) -> None:
        environ = {name: value for name, value in options["environ"].items() if name not in OF_THE_MOMENT}
        about = {name: value for name, value in options.items() if name not in NOT_OF_THE_IMPORTS}
        key = repr((interpreter, list(steps), sorted(about.items()), sorted(environ.items())))
        log: Path = options["log"]
        log.parent.mkdir(parents=True, exist_ok=True)
        log.touch()
        zygote = _kept.pop(key, None)
        if key in _inherited:
            zygote = Inherited(_inherited.pop(key), interpreter, steps, **options)
        if zygote is not None and zygote._process.poll() is not None:
            zygote.close()
            zygote = None
        if zygote is None:
            zygote = Zygote(interpreter, steps, **options)
        _kept[key] = self._zygote = zygote  # the last one now
        self._key = key
        while len(_kept) > MOST:
            _kept.pop(next(iter(_kept))).close()
        self._keepers: list[Keeper] = []
        self._closed = False

    @property
    def is_awaited(self) -> bool:
        return self._zygote.is_awaited

    def ready(self) -> dict[str, Any]:
        return self._zygote.ready()

    def keeper(self, *, warm: bool, given: Sequence[int] = ()) -> Keeper:
        keeper = self._zygote.keeper(warm=warm, given=given)
        self._keepers.append(keeper)
        if self._closed:
            keeper.close()
            raise DispatchError("this executor is closed")
        return keeper

    def close(self) -> None:
        self._closed = True
        for keeper in list(self._keepers):
            keeper.hang_up()
        for keeper in list(self._keepers):
            keeper.close()
        if self.warm_parent:
            hand_over(self._zygote, self._key, self.warm_parent)


class Inherited(Zygote):
    """A zygote that was handed to the parent of this process."""

    def __init__(self, handed: Handed, interpreter: str, steps: Any, **options: Any) -> None:
        self.handed = handed
        super().__init__(interpreter, steps, **options)

    def _start(self) -> None:
        self._starts += 1
        self._control = socket.socket(fileno=os.dup(self.handed.control))
        self._greeting = self.handed.greeting
        self._process: Any = self  # of another parent: it can be polled, and not waited for

    def poll(self) -> int | None:
        return 0 if select.select([self.handed.pidfd], [], [], 0)[0] else None

    def wait(self, timeout: float = 0) -> None:
        pass


def inherit(handed: Mapping[str, Handed], path: str) -> None:
    """From now on the executors of this process, which was forked by the warm parent, share zygotes with others."""
    _inherited.update(handed)
    Lease.warm_parent = path
    atexit.unregister(end)
    forkserver.Zygote = Lease  # type: ignore[assignment,misc]


def hand_over(zygote: Zygote, key: str, path: str) -> None:
    """Give a zygote that this process has started to the warm parent that listens there."""
    if isinstance(zygote, Inherited) or zygote._greeting is None or zygote._greeting["why_cold"]:
        return
    with socket.socket(socket.AF_UNIX) as line:
        line.connect(path)
        words = ["--keep", key, str(zygote._process.pid), json.dumps(zygote._greeting)]
        request = json.dumps({"words": words, "cwd": "", "environ": {}}).encode()
        socket.send_fds(line, [len(request).to_bytes(4, "big")], [zygote._control.fileno()])
        line.sendall(request)
        line.recv(1)  # the end of file: it is kept


@atexit.register
def end() -> None:
    for zygote in _kept.values():
        zygote.close()
    _kept.clear()
