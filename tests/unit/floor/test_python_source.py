"""Source is parsed in several threads at once, whatever the garbage collector does in between."""

from __future__ import annotations

import ast
import gc
import sys
import threading
from pathlib import Path

import pytest

from fedpkg.python_source import parsed

SOURCE = Path(__file__).read_bytes()


def test_threads_that_parse_at_once_do_not_spoil_each_other() -> None:
    """Python 3.11 and older count the depth of all threads' trees together; a thread that is interrupted would fail."""
    trees: list[ast.Module] = []
    foreign = threading.Event()

    def parse() -> None:
        trees.extend(parsed(SOURCE) for _ in range(20))

    def parse_without_care() -> None:
        while not foreign.is_set():
            try:
                ast.parse(SOURCE)
            except SystemError:
                continue

    def let_others_run(phase: str, info: dict[str, int]) -> None:
        sum(range(50))

    threads = [threading.Thread(target=parse) for _ in range(3)]
    stranger = threading.Thread(target=parse_without_care)
    interval = sys.getswitchinterval()
    gc.callbacks.append(let_others_run)
    sys.setswitchinterval(1e-5)
    try:
        for thread in (stranger, *threads):
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        foreign.set()
        stranger.join()
        sys.setswitchinterval(interval)
        gc.callbacks.remove(let_others_run)
    assert len(trees) == 60


def test_source_that_is_not_python_is_an_error() -> None:
    with pytest.raises(SyntaxError):
        parsed("def")
