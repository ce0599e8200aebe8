"""The reference page of the read API: its addresses and the types of its answers, from its OpenAPI document."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from markdown import code, inline, page, table

import fedpkg
from fedpkg.api.openapi import document


def pages() -> Iterator[tuple[str, str]]:
    yield "read-api.md", read_api()


def read_api() -> str:
    told = document(fedpkg.__version__)
    schemas = told["components"]["schemas"]
    blocks = [
        "Each address is that of a function in `fedpkg.api`, which programs on this machine can call. [The read API](../read-api.md) "
        "says how. A type in a table is described below it.",
    ]
    areas: dict[str, list[tuple[str, str, Mapping[str, Any]]]] = {}
    for path, methods in told["paths"].items():
        for method, operation in methods.items():
            areas.setdefault(operation["tags"][0], []).append((method.upper(), path, operation))
    for area, operations in areas.items():
        blocks.append(f"## {area.replace('_', ' ').capitalize()}")
        blocks += [part for one in operations for part in _operation(*one)]
    blocks.append("## Types")
    for name, schema in schemas.items():
        if schema.get("properties"):
            blocks += [f"### {name}", inline(schema.get("description", "")), _fields(schema)]
    return page("Addresses of the read API", *filter(None, blocks))


def _operation(method: str, path: str, operation: Mapping[str, Any]) -> Iterator[str]:
    yield f"### {code(f'{method} {path}')}"
    content = operation["responses"]["200"]["content"]
    answer = next(iter(content.values()))["schema"]
    yield f"{inline(operation['summary'])} The function is {code(operation['operationId'])}; the answer: {_type(answer)}."
    rows = [
        (code(one["name"]), _type(one["schema"]), inline(one.get("description", ""))) for one in operation["parameters"]
    ]
    if rows:
        yield table(("parameter", "value", ""), rows)


def _fields(schema: Mapping[str, Any]) -> str:
    return table(("field", "value"), [(code(name), _type(one)) for name, one in schema["properties"].items()])


def _type(schema: Mapping[str, Any]) -> str:
    """A JSON schema in a few words."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in schema:
        return " or ".join(_type(one) for one in schema["anyOf"])
    if "enum" in schema:
        return ", ".join(code(str(one)) for one in schema["enum"])
    kind = schema.get("type")
    if kind == "array":
        return f"list of {_type(schema['items'])}" if schema.get("items") else "list"
    if kind == "object":
        inner = schema.get("additionalProperties")
        return f"object of {_type(inner)}" if isinstance(inner, Mapping) and inner else "object"
    words = {
        "string": "text",
        "integer": "whole number",
        "number": "number",
        "boolean": "true or false",
        "null": "null",
    }
    told = words.get(str(kind), "any JSON")
    bounds = [f"{word} {schema[key]}" for key, word in (("minimum", "from"), ("maximum", "to")) if key in schema]
    return " ".join([told, *bounds])
