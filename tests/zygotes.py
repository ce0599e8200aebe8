"""Zygotes that outlive the executor that started them: sessions of many tests share one process for the same imports.

A conftest.py that imports `shared_zygotes` makes the executors of this process do so in the tests of its folder. What
a session sees is the same: keepers of its own, forked from a process that has made these imports. A test of the start
of zygotes, or of their end, does without.
"""

from __future__ import annotations

import atexit
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from fedpkg.dispatch.keepers import Keeper
from fedpkg.dispatch.zygotes import Zygote
from fedpkg.errors import DispatchError

MOST = 6  # processes that are kept; each has up to 200 MB
NOT_OF_THE_IMPORTS = ("sources", "log", "environ")
_kept: dict[str, Zygote] = {}


@pytest.fixture(scope="module", autouse=True)
def shared_zygotes() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fedpkg.dispatch.forkserver.Zygote", Lease)
        yield


class Lease:
    """Has the methods of a Zygote."""

    def __init__(self, interpreter: str, steps: Any, **options: Any) -> None:
        environ = {name: value for name, value in options["environ"].items() if name != "PYTEST_CURRENT_TEST"}
        about = {name: value for name, value in options.items() if name not in NOT_OF_THE_IMPORTS}
        key = repr((interpreter, list(steps), sorted(about.items()), sorted(environ.items())))
        log: Path = options["log"]
        log.parent.mkdir(parents=True, exist_ok=True)
        log.touch()
        zygote = _kept.pop(key, None)
        if zygote is not None and zygote._process.poll() is not None:
            zygote.close()
            zygote = None
        if zygote is None:
            zygote = Zygote(interpreter, steps, **options)
        _kept[key] = self._zygote = zygote  # the last one now
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


@atexit.register
def end() -> None:
    for zygote in _kept.values():
        zygote.close()
    _kept.clear()
