"""Whose fault an error is: a library's that fedpkg itself calls is not the fault of the person's strategy."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from fedpkg.controller.own_code import fault_of_own
from fedpkg.strategies.accounting import Spent, epsilon


def refuse() -> None:
    """As an accountant that fedpkg has called wrongly."""
    epsilon([Spent("poisson", -0.5, 1.0, 3)], 1e-5, population=10)


def error_of(call: Callable[[], object]) -> Exception:
    with pytest.raises(ValueError, match="Sampling rate") as caught:
        call()
    return caught.value


def test_error_in_a_library_is_the_fault_of_who_called_it() -> None:
    pytest.importorskip("dp_accounting")
    error = error_of(refuse)
    told = fault_of_own(error, where="round 1", session_id="s")
    assert told is not None and "in refuse" in told.message
    while error.__traceback__ is not None and error.__traceback__.tb_frame.f_globals["__name__"] == __name__:
        error.__traceback__ = error.__traceback__.tb_next
    assert fault_of_own(error, where="round 1", session_id="s") is None
