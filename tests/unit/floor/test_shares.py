"""A share of a number is the same everywhere: as it is written, or as a program computed it."""

from __future__ import annotations

import pytest

from fedpkg.shares import share_of


@pytest.mark.parametrize(
    ("share", "total", "nearest", "down", "up"),
    [
        (0.28, 25, 7, 7, 7),  # 7.000000000000001 in binary
        (0.29, 100, 29, 29, 29),  # 28.999999999999996
        (0.5, 5, 3, 2, 3),
        (0.5, 3, 2, 1, 2),
        (0.1 + 0.2, 10, 3, 3, 3),
        (1.0, 7, 7, 7, 7),
        (0.1, 12, 1, 1, 2),
        (0.3, 0, 0, 0, 0),
        (0.1, 10**12 + 5, 100000000001, 100000000000, 100000000001),
    ],
)
def test_shares_are_rounded_as_they_are_written(share: float, total: int, nearest: int, down: int, up: int) -> None:
    assert [share_of(share, total), share_of(share, total, "down"), share_of(share, total, "up")] == [nearest, down, up]


def test_share_that_a_program_computed_gives_its_number_again() -> None:
    for total in range(1, 100):
        for number in range(total + 1):
            assert {share_of(number / total, total, how) for how in ("nearest", "down", "up")} == {number}  # type: ignore[arg-type]
