"""The order in which outstanding requests arrive, whatever the order in which they end."""

from __future__ import annotations

import random
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from fedpkg.controller.outstanding import Key, Outstanding


class Request:
    """What `Outstanding` needs of a request; ``end`` is called by the one who settles it."""

    round_number = 1
    is_outstanding = False
    when_settled: Any = None

    def __init__(self, number: int, cohort: frozenset[str]) -> None:
        self.request_id, self.cohort, self.is_settled = str(number), tuple(sorted(cohort)), not cohort

    def settle(self) -> None:
        self.is_settled = True
        self.when_settled()


def expected(arrived: list[Key], requests: list[Request]) -> list[Key]:
    """One pass over all requests: an ended one arrives unless an earlier one of its clients has not arrived."""
    found, come_first = list(arrived), set[str]()
    for one in requests:
        key = one.round_number, one.request_id
        if key in found:
            continue
        if one.is_settled and come_first.isdisjoint(one.cohort):
            found.append(key)
        else:
            come_first.update(one.cohort)
    return found


@given(st.lists(st.frozensets(st.sampled_from("abcd"), max_size=3), max_size=12), st.randoms(use_true_random=False))
def test_requests_of_a_client_arrive_in_the_order_in_which_they_were_asked(
    cohorts: list[frozenset[str]], rng: random.Random
) -> None:
    requests = [Request(number, cohort) for number, cohort in enumerate(cohorts)]
    outstanding, arrived = Outstanding(), list[Key]()
    for number, one in enumerate(requests):
        outstanding.add(one)  # type: ignore[arg-type]
        arrived = expected(arrived, requests[: number + 1])
        assert outstanding.arrived(0, lambda: False) == arrived
    for one in rng.sample(requests, len(requests)):
        if not one.is_settled:
            one.settle()
        arrived = expected(arrived, requests)
        assert outstanding.arrived(0, lambda: False) == arrived
    assert len(arrived) == len(requests)
    taken = outstanding.take(arrived, lambda: False)
    assert len(taken) == len(requests) and len(outstanding) == 0
