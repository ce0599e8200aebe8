"""Warnings of a call for the people who use its algorithm, such as of a database that is probably misread."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

WARNINGS = "warnings"  # in a reply
MOST, CHARACTERS = 20, 300  # of the warnings of a call


@contextmanager
def noting(note: Callable[[str], object]) -> Iterator[None]:
    """Give the text of each such warning to ``note``; it is shown as well. An exception of the block has them, too."""
    really, found = warnings.showwarning, list[str]()

    def show(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
        really(message, category, *where, **more)
        if issubclass(category, UserWarning):
            found.append(str(message)[:CHARACTERS])
            note(found[-1])

    warnings.showwarning = show
    try:
        yield
    except Exception as error:
        with_notes: Any = error
        with_notes.__notes__ = [*getattr(error, "__notes__", ()), *(f"warning: {one}" for one in found[:MOST])]
        raise
    finally:
        warnings.showwarning = really


def reason_of(error: BaseException) -> str:
    """An error in words, with the warnings before it, which may be its cause."""
    return "; ".join((f"{type(error).__name__}: {error}", *map(str, getattr(error, "__notes__", ()))))


@contextmanager
def ignoring() -> Iterator[None]:
    """Do not even show such warnings: they may have names of columns."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        yield


def noted(told: Any) -> list[str]:
    """The warnings in a reply, in which there can be anything."""
    return [str(one)[:CHARACTERS] for one in told[:MOST]] if isinstance(told, list) else []
