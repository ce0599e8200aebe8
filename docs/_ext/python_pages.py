"""Pages of the Python API, by autodoc, and docstrings as reStructuredText."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from markdown import block, contents, page, table

# Page, title, what it is for, and directives of autodoc with their options.
PAGES = (
    (
        "fedpkg",
        "fedpkg",
        "Run, resume and read sessions from Python. [Python programs and notebooks](../../../how-to/python.md) shows how.",
        [
            ("autofunction", "fedpkg.library.run"),
            ("autofunction", "fedpkg.library.prepare"),
            ("autofunction", "fedpkg.library.load"),
            ("autoclass", "fedpkg.session.session.Session", ":members:"),
            ("autofunction", "fedpkg.fedn_imports.serve_fedn_imports"),
            ("autoexception", "fedpkg.errors.FedpkgError", ":members:"),
        ],
    ),
    (
        "events",
        "fedpkg.controller.events",
        "What a function that watches a session is called with.",
        [("automodule", "fedpkg.controller.events", ":members:")],
    ),
    (
        "client",
        "fedpkg.client",
        "For entry points: read and write model files, and the client's part of many methods.",
        [("automodule", "fedpkg.client", ":members:", ":imported-members:")],
    ),
    (
        "coordinator",
        "fedpkg.client.coordinator",
        "For a [coordinator](../../../how-to/coordinators.md).",
        [("automodule", "fedpkg.client.coordinator", ":members:")],
    ),
    (
        "apps",
        "fedpkg.apps",
        "[Messages and what they contain](../../../reference/records-and-messages.md).",
        [("automodule", "fedpkg.apps", ":members:", ":imported-members:")],
    ),
    (
        "strategies",
        "fedpkg.strategies",
        "For a [strategy of your own](../../../how-to/write-a-strategy.md).",
        [
            ("autofunction", "fedpkg.strategies.registry.register_aggregator"),
            ("autofunction", "fedpkg.strategies.registry.register_server_optimiser"),
            ("automodule", "fedpkg.strategies.base", ":members:"),
            ("automodule", "fedpkg.strategies.traits", ":members:"),
            ("automodule", "fedpkg.strategies.requests", ":members:"),
            ("automodule", "fedpkg.strategies.folds", ":members:"),
        ],
    ),
    (
        "samplers",
        "fedpkg.samplers",
        "For a [sampler of your own](../../../how-to/write-a-sampler.md).",
        [("automodule", "fedpkg.samplers.base", ":members:")],
    ),
    (
        "weights",
        "fedpkg.weights",
        "The [algebra of a model's parameters](../../weights.md).",
        [
            ("autoclass", "fedpkg.weights.weights.Weights", ":members:"),
            ("automodule", "fedpkg.weights.averaging", ":members:"),
        ],
    ),
    (
        "executor",
        "fedpkg.waist.executor",
        "The seam below the controller; the [executor's contract](../../executor-contract.md) says what an "
        "implementation owes.",
        [("automodule", "fedpkg.waist.executor", ":members:")],
    ),
    (
        "fedn",
        "fedpkg.APIClient",
        "FEDn's API client without a server. [This page](../../fedn-api.md) says what differs.",
        [("autoclass", "fedpkg.api_client.APIClient", ":members:")],
    ),
)


def pages() -> Iterator[tuple[str, str]]:
    rows = [[f"[`{title}`]({name}.md)", about] for name, title, about, _ in PAGES]
    listed = table(["module", ""], rows)
    yield "python/index.md", page("Python API", listed, contents([name for name, *_ in PAGES], hidden=True))
    for name, title, about, directives in PAGES:
        yield f"python/{name}.md", page(title, about, block("{eval-rst}", "\n".join(map(_directive, directives))))


def _directive(words: tuple[str, ...]) -> str:
    directive, target, *options = words
    return "\n".join([f".. {directive}:: {target}", *(f"   {option}" for option in options), ""])


def as_rst(_app: Any, _what: str, _name: str, _obj: Any, _options: Any, lines: list[str]) -> None:
    """Docstrings as reStructuredText: indented paragraphs keep their lines, columns are a list, other markup is plain."""
    told: list[str] = []
    for paragraph in re.split(r"\n\s*\n", "\n".join(lines).strip("\n")):
        rows = paragraph.split("\n")
        if rows[0].startswith("    "):
            told += ["::", "", *rows, ""]
        elif len(rows) > 1 and all(re.match(r"\S.*?\S {2,}\S", row) for row in rows):
            for row in rows:
                term, about = re.split(r" {2,}", row, maxsplit=1)
                told += [_escaped(term), f"    {_escaped(about)}"]
            told.append("")
        else:
            told += [*map(_escaped, rows), ""]
    lines[:] = told


def _escaped(line: str) -> str:
    parts = re.split(r"(``.+?``|`[^`]+`)", line)
    return "".join(part if part.startswith("`") else re.sub(r"(?<!\\)([*|])", r"\\\1", part) for part in parts)
