"""Which control groups (Linux, versions 1 and 2) this process is in, and what they let it use. Nothing is written."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path("/")


def own_groups(controller: str | None = None, root: Path = ROOT) -> Iterator[Path]:
    """This process's group of version 2, and that of version 1 with ``controller``; each, then those above it.

    Only what is mounted where this process sees it: in a container the groups around it may not be.
    """
    groups: dict[str, str] = {}
    for line in _text(root / "proc/self/cgroup").splitlines():
        _number, names, group = line.split(":", 2)
        groups.update(dict.fromkeys(names.split(","), group))
    for line in _text(root / "proc/self/mountinfo").splitlines():
        before, _, after = line.partition(" - ")
        kind, _source, options = after.split(" ", 2)
        if kind == "cgroup2":
            path = groups.get("")
        elif kind == "cgroup" and controller is not None and controller in options.split(","):
            path = groups.get(controller)
        else:
            continue
        mounted, place = (re.sub(r"\\(\d{3})", lambda code: chr(int(code[1], 8)), word) for word in before.split()[3:5])
        inside = "" if path is None else os.path.relpath(path, mounted)
        if path is None or inside.startswith(".."):  # what is mounted here is not ours
            continue
        top = root / place.lstrip("/")
        folder = top / inside
        yield from (group for group in (folder, *folder.parents) if group.is_relative_to(top))


def cpu_shares(root: Path = ROOT) -> Iterator[float]:
    """So many processors each of the groups allows, where it limits them."""
    for folder in own_groups("cpu", root):
        v1 = [*_text(folder / "cpu.cfs_quota_us").split(), *_text(folder / "cpu.cfs_period_us").split()]
        for words in (_text(folder / "cpu.max").split(), v1):
            if len(words) == 2 and all(word.isdigit() for word in words) and int(words[1]):  # else "max", or -1
                yield int(words[0]) / int(words[1])


def memory_limits(root: Path = ROOT) -> Iterator[int]:
    """So many bytes each of the groups allows, where it limits them."""
    for folder in own_groups("memory", root):
        for name in ("memory.max", "memory.limit_in_bytes"):
            yield from (int(word) for word in _text(folder / name).split() if word.isdigit())


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
