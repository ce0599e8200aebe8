"""The OpenAPI document of the read API, made from the types of its functions."""

from __future__ import annotations

import inspect
import re
from typing import Any

import msgspec

from fedpkg.api.asking import parameters
from fedpkg.api.routes import PREFIX, ROUTES, Route

_REFS = "#/components/schemas/{name}"
FORM = {
    "name": "form",
    "in": "query",
    "required": False,
    "description": "`json`: an array; `jsonl`: one JSON value on each line",
    "schema": {"enum": ["json", "jsonl"], "default": "json"},
}


class ErrorDetail(msgspec.Struct, frozen=True):
    """What is wrong, and what can be done."""

    status: int
    message: str
    hint: str | None = None


class Error(msgspec.Struct, frozen=True):
    """The answer to a request that has none."""

    error: ErrorDetail


def document(version: str) -> dict[str, Any]:
    """The document as a tree of JSON; ``version`` is that of fedpkg."""
    types: list[Any] = [Error, *(bytes if route.is_file else route.answer for route in ROUTES)]
    types += [parameters(route.function) for route in ROUTES]
    schemas, components = msgspec.json.schema_components(types, ref_template=_REFS)
    error, answers, asked = schemas[0], schemas[1 : 1 + len(ROUTES)], schemas[1 + len(ROUTES) :]
    paths = {}
    for route, answer, question in zip(ROUTES, answers, asked, strict=True):
        about = components[question["$ref"].rpartition("/")[2]]
        paths[f"{PREFIX}{route.path}"] = {"post" if route.is_action else "get": _operation(route, answer, about, error)}
    kept = {name: schema for name, schema in components.items() if name not in {route.name for route in ROUTES}}
    return {
        "openapi": "3.1.0",
        "info": {"title": "fedpkg", "version": version, "description": "What a home of fedpkg has; only reads."},
        "paths": paths,
        "components": {
            "schemas": kept,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"token": []}],
    }


def _operation(route: Route, answer: dict[str, Any], asked: dict[str, Any], error: dict[str, Any]) -> dict[str, Any]:
    schema = {"type": "array", "items": answer} if route.is_stream else answer
    content: dict[str, Any] = {"application/json": {"schema": schema}}
    if route.is_file:
        content = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
    if route.is_stream:
        content["application/jsonl"] = {"schema": {"type": "string"}}
    summary, more, told = _told(route.function.__doc__ or "")
    refused = {"description": "The request has no answer.", "content": {"application/json": {"schema": error}}}
    return {
        "operationId": route.name,
        "tags": [route.tag],
        "summary": summary,
        **({"description": more} if more else {}),
        "parameters": [*_parameters(route, asked, told), *([FORM] if route.is_stream else [])],
        "responses": {"200": {"description": "The answer.", "content": content}, "default": refused},
    }


def _told(docstring: str) -> tuple[str, str, dict[str, str]]:
    """The first paragraph of a docstring, the others, and what it says of each parameter."""
    summary, *rest = inspect.cleandoc(docstring).split("\n\n")
    told = {
        found[1]: " ".join(found[2].split())
        for part in rest
        if part.startswith("Args:")
        for found in re.finditer(r"^    (\w+): (.*(?:\n     .*)*)", part, re.MULTILINE)
    }
    more = " ".join(" ".join(rest_of.split()) for rest_of in rest if not rest_of.startswith("Args:"))
    return " ".join(summary.split()), more, told


def _parameters(route: Route, asked: dict[str, Any], told: dict[str, str]) -> list[dict[str, Any]]:
    in_path = re.findall(r"\{(\w+)\}", route.path)
    found = []
    for name, schema in asked.get("properties", {}).items():
        given = dict(schema)
        description = told.get(name) or given.pop("description", None)
        given.pop("description", None)
        found.append(
            {
                "name": name,
                "in": "path" if name in in_path else "query",
                "required": name in in_path or name in asked.get("required", ()),
                **({"description": description} if description else {}),
                "schema": given,
            }
        )
    return found
