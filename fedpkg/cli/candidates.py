"""What completes a word, as click and the shells' scripts take it: values, paths, and registered names."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from click.shell_completion import CompletionItem

if TYPE_CHECKING:
    from fedpkg.registry import Registry, Spec


def beginning(incomplete: str, found: Iterable[tuple[str, str]]) -> list[CompletionItem]:
    """The values that begin so, with what each of them is. What ends in ``=``, ``.`` or ``/`` is to be continued."""
    return [
        CompletionItem(value, type="part" if value.endswith(("=", ".", "/")) else "plain", help=about or None)
        for value, about in found
        if value.startswith(incomplete)
    ]


def paths(incomplete: str, is_meant: Callable[[Path], bool]) -> list[CompletionItem]:
    """Folders, and those files that are meant."""
    folder, _, begun = incomplete.rpartition("/")
    typed = incomplete[: len(incomplete) - len(begun)]
    place = Path(os.path.expanduser(folder)) if folder else Path("/" if typed else ".")
    found = []
    for path in sorted(place.iterdir()):
        if path.name.startswith(begun) and (begun or not path.name.startswith(".")):
            if path.is_dir():
                found.append(CompletionItem(f"{typed}{path.name}/", type="path"))
            elif is_meant(path):
                found.append(CompletionItem(f"{typed}{path.name}", type="path"))
    return found


def with_suffix(incomplete: str, suffixes: tuple[str, ...]) -> list[CompletionItem]:
    """Folders, and files whose names end so."""
    return paths(incomplete, lambda path: path.suffix in suffixes)


def names_of_kind(registry: Registry, kind: str) -> Iterator[tuple[str, str]]:
    """Names and aliases, with what each is."""
    specs: Iterable[Spec] = registry.specs(kind)
    yield from ((name, spec.about) for spec in specs for name in (spec.name, *spec.aliases))
