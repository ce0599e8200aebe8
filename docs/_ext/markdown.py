"""Pieces of Markdown (MyST) that the generated pages are made of."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

# Before a page that is in no table of contents: with all of them, the sidebar would be long and slow to make.
ORPHAN = "---\norphan: true\n---\n\n"
GENERATED = "<!-- This page is generated from the code when the documentation is built. -->"


def page(title: str, *blocks: str) -> str:
    """A page of blocks; empty ones are left out."""
    return "\n\n".join([f"# {title}", GENERATED, *(block.strip("\n") for block in blocks if block)]) + "\n"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell(one) for one in row) + " |" for row in lines)


def cell(text: str) -> str:
    """Text in a cell of a table: on one line, with its bars escaped."""
    return re.sub(r"(?<!\\)\|", r"\|", " ".join(text.split()))


def definitions(rows: Iterable[Sequence[str]]) -> str:
    """A list of terms, each with its paragraphs; unlike a wide table, a phone can show it."""
    told = []
    for term, first, *rest in rows:
        told.append("\n".join([term, f": {first}", *(f"\n  {' '.join(one.split())}" for one in rest if one)]))
    return ":::{container} definitions\n" + "\n\n".join(told) + "\n:::"


def code(text: str) -> str:
    return f"`{text}`" if text else ""


def block(language: str, text: str) -> str:
    return f"```{language}\n{text.rstrip()}\n```"


def contents(pages: Sequence[str], *, depth: int = 1, hidden: bool = False) -> str:
    """A table of contents of pages, as the sidebar shows them."""
    options = [f":maxdepth: {depth}", *([":hidden:"] if hidden else [])]
    return "\n".join(["```{toctree}", *options, "", *pages, "```"])


def inline(text: str) -> str:
    """The words of a docstring or a comment as Markdown: double backticks become single, what would be markup is plain."""
    parts = re.split(r"(``.+?``|`[^`]+`)", text, flags=re.DOTALL)
    return "".join(f"`{part.strip('`')}`" if part.startswith("`") else _plain(part) for part in parts)


def _plain(text: str) -> str:
    return re.sub(r"([*_|<>\[\]{}$#])", r"\\\1", text)


def prose(doc: str) -> str:
    """The paragraphs of a docstring as Markdown; what is indented in it stays as it is laid out."""
    found = []
    for paragraph in re.split(r"\n\s*\n", doc.strip("\n")):
        if paragraph.startswith("    "):
            found.append(block("text", re.sub(r"(?m)^    ", "", paragraph)))
        else:
            found.append(inline(paragraph))
    return "\n\n".join(found)
