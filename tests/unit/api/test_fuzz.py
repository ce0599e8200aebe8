"""The read API asked at random, from its own OpenAPI document."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import content_type_conformance, response_schema_conformance

import fedpkg
from fedpkg.api.openapi import document

schema = schemathesis.openapi.from_dict(document(fedpkg.__version__))
CHECKS = [not_a_server_error, response_schema_conformance, content_type_conformance]
_LEAKS = re.compile(rb"Traceback|File \\?\"|/site-packages/|/usr/lib")


def _asked(case: schemathesis.Case, address: str, home: Path) -> None:
    response = case.call(base_url=address, timeout=60)
    body = response.content
    if (
        response.status_code == 400 and b"Got more than 8190 bytes" in body
    ):  # by aiohttp, of addresses that are too long
        return
    case.validate_response(response, checks=CHECKS)
    if b"log" not in case.operation.path.encode() and b"tasks" not in case.operation.path.encode():
        assert not _LEAKS.search(body), body[:500]  # the texts of clients' logs are theirs
    assert str(home).encode() not in body, body[:500]


SOME = ["list_sessions", "series", "list_clients", "list_validations", "get_tensors"]


@schema.include(operation_id=SOME).parametrize()
@settings(max_examples=5, derandomize=True, suppress_health_check=list(HealthCheck))
def test_answers_to_random_questions(case: schemathesis.Case, address: str, home: Path) -> None:
    _asked(case, address, home)


@pytest.mark.soak
@schema.include(method="GET").parametrize()
@settings(max_examples=100, suppress_health_check=list(HealthCheck))
def test_answers_to_many_random_questions(case: schemathesis.Case, address: str, home: Path) -> None:
    _asked(case, address, home)
