"""How the project speaks: words that people had to read twice must not come back in help, messages and pages."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from fedpkg.cli.main import fedpkg

REPO = Path(__file__).parents[3]

# A pattern, and what to write instead.
PATTERNS = {
    r"\bsomebody\b|\bsomeone\b": "name the person or the program: the user, another process",
    r"\bnobody\b": "no client, no process; or a passive sentence",
    r"\bwhoever\b|\bwhom\b": "the client that, the clients that",
    r"(?:^|[.;:] )Who\b": "clients that, users who",
    r"\bgoes by\b|\bgo by\b": "is named, is chosen by, depends on",
    r"\bso many\b|\bso much\b|\bso long\b": "a number with its noun: N clients, at most N bytes",
    r"\bof one's own\b|\bof its own accord\b": "your own, its own, a separate",
    r"\b(?:run\.yaml|fedn\.yaml|configuration|config|section|option)s? sa(?:ys?|id)\b": "sets, contains, defines",
    r"\bas (?:the |its |a )?\w+ has it\b": "as in, as defined in",
    r"\bis there,? if\b|\bif it is there\b": "if it exists",
    r"\bstands? (?:which|how many) attack": "tolerates",
}
_MESSAGES = ("hint", "about", "help", "reason", "message", "allowed")  # arguments that people read
_RAISED = re.compile(r"(Error|Failed|Failure|Refused|NotFound|NotIsolated|Warning|UsageError)$")


def commands(command: click.Command, path: str = "fedpkg") -> Iterator[tuple[str, str]]:
    yield path, command.help or ""
    for parameter in command.params:
        if isinstance(parameter, click.Option) and parameter.help:
            yield f"{path} {parameter.opts[-1]}", parameter.help
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None
            yield from commands(inner, f"{path} {name}")


def messages() -> Iterator[tuple[str, str]]:
    """Text in errors, failures, hints and what is logged for people; of an f-string, its fixed parts."""
    for path in sorted((REPO / "fedpkg").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            read = list(node.args) if _RAISED.search(name) else []
            read += [one.value for one in node.keywords if one.arg in _MESSAGES]
            for each in read:
                texts = [one.value for one in ast.walk(each) if isinstance(one, ast.Constant)]
                text = "…".join(one for one in texts if isinstance(one, str))
                yield f"{path.relative_to(REPO)}:{each.lineno}", text


def docstrings() -> Iterator[tuple[str, str]]:
    """Of all that is public."""
    for path in sorted((REPO / "fedpkg").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
                continue
            is_public = not getattr(node, "name", "").startswith("_")
            if is_public and (text := ast.get_docstring(node)):
                yield f"{path.relative_to(REPO)}:{getattr(node, 'lineno', 1)}", text


def pages() -> Iterator[tuple[str, str]]:
    """Prose of the pages, a paragraph each, without code."""
    for path in sorted([*REPO.glob("*.md"), *(REPO / "fedpkg").glob("*.md"), *REPO.glob("docs/**/*.md")]):
        if not {"_build", "generated"} & set(path.parts):
            yield from _paragraphs(path)
    for path in sorted([*REPO.glob("examples/*/*.md"), *REPO.glob("packages/*/*.md")]):
        yield from _paragraphs(path)


def _paragraphs(path: Path) -> Iterator[tuple[str, str]]:
    text = re.sub(r"(?ms)^```.*?^```", lambda code: "\n" * code[0].count("\n"), path.read_text())
    line = 1
    for paragraph in text.split("\n\n"):
        yield f"{path.relative_to(REPO)}:{line}", " ".join(re.sub(r"`[^`]*`", "code", paragraph).split())
        line += paragraph.count("\n") + 2


SOURCES = {"help": lambda: commands(fedpkg), "messages": messages, "docstrings": docstrings, "pages": pages}


@pytest.mark.parametrize("source", SOURCES)
def test_words_that_had_to_be_read_twice_do_not_come_back(source: str) -> None:
    found = [
        f"{where}: {match[0]!r}: write instead: {instead}\n    {text[max(0, match.start() - 60) : match.end() + 60]}"
        for where, text in SOURCES[source]()
        for pattern, instead in PATTERNS.items()
        for match in re.finditer(pattern, text, re.IGNORECASE if "Who" not in pattern else 0)
    ]
    assert not found, f"{len(found)} places:\n" + "\n".join(found)
