"""Fixtures of the controller's tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from federating import at_once, federation
from zygotes import share

__all__ = ["at_once", "federation"]


@pytest.fixture(scope="session", autouse=True)
def shared_zygotes() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        share(patch)
        yield
