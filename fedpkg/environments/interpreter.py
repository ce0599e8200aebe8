"""Python interpreters of this machine: the one that runs fedpkg, and others by version; what a package misses."""

from __future__ import annotations

import functools
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from fedpkg.environments.wanted import Item, PythonWish, Wanted
from fedpkg.errors import EnvironmentFailed
from fedpkg.fedn.names import SERVED

if TYPE_CHECKING:
    from packaging.requirements import Requirement

_MINORS = range(6, 30)  # minor versions of Python 3 to look for
_PATIENCE_S = 20.0  # for an interpreter to print its version
# Distributions with the same modules and version numbers: each satisfies a requirement of another in its row.
_EQUIVALENT = (
    ("tensorflow", "tensorflow-cpu", "tensorflow-gpu", "tensorflow-intel", "tensorflow-macos", "tensorflow-rocm"),
    ("opencv-python", "opencv-python-headless", "opencv-contrib-python", "opencv-contrib-python-headless"),
)
_WHO = (
    "import json, platform, sys, sysconfig; print(json.dumps([platform.python_version(), sys.executable, "
    "[sys.implementation.cache_tag, sysconfig.get_platform(), sys.base_prefix]]))"
)


@dataclass(frozen=True)
class Interpreter:
    """A Python: its program, its version, and what distinguishes its builds."""

    path: Path
    version: str
    build: tuple[str, ...]


@functools.cache
def this_interpreter() -> Interpreter:
    """The interpreter that runs fedpkg."""
    build = (str(sys.implementation.cache_tag), sysconfig.get_platform(), sys.base_prefix)
    return Interpreter(Path(sys.executable), platform.python_version(), build)


def find_uv() -> str | None:
    """The path of ``uv``: on PATH, or beside this interpreter, whose environment need not be activated."""
    return shutil.which("uv") or shutil.which("uv", path=str(Path(sys.executable).parent))


def find_interpreter(wish: PythonWish | None, *, package: str) -> Interpreter:
    """An interpreter that the package allows: this one, the newest ``python3.X`` on PATH, or one that uv has.

    Raises:
        EnvironmentFailed: there is none; the message has the required version and the versions found.
    """
    this = this_interpreter()
    if wish is None or wish.allows(this.version):
        return this
    there = {this.version: this}
    for other in _others(wish):
        if wish.allows(other.version):
            return other
        there.setdefault(other.version, other)
    for other in on_path(_MINORS):
        there.setdefault(other.version, other)
    found = ", ".join(sorted(there, key=lambda version: [int(part) for part in re.findall(r"\d+", version)]))
    version = re.search(r"\d+\.\d+", wish.text)
    install = f"install it (`uv python install {version[0]}`), or " if version else ""
    raise EnvironmentFailed(
        f"package {package} requires Python {wish.text} ({wish.where}), but this machine has {found}",
        hint=f"{install}use `--env current` to run the package with {this.version}",
        wanted=wish.text,
        found=list(there),
    )


def _others(wish: PythonWish) -> Iterator[Interpreter]:
    minors = [minor for minor in reversed(_MINORS) if any(wish.allows(f"3.{minor}.{micro}") for micro in (0, 99))]
    yield from on_path(minors)
    uv = find_uv()
    if uv is not None:
        arguments = ("python", "find", "--no-project", "--no-python-downloads", str(wish.specifier))
        path = _output([uv, *arguments])
        if path and (found := _ask(path.strip())) is not None:
            yield found


def on_path(minors: Iterable[int]) -> Iterator[Interpreter]:
    """The working ``python3.<minor>`` on PATH."""
    for minor in minors:
        path = shutil.which(f"python3.{minor}")
        if path is not None and (found := _ask(path)) is not None:
            yield found


def _ask(path: str) -> Interpreter | None:
    """The interpreter at a path; None if it does not work (such as an unused shim of pyenv)."""
    try:
        version, executable, build = json.loads(_output([path, "-I", "-S", "-c", _WHO]) or "")
        return Interpreter(Path(executable), str(version), tuple(map(str, build)))
    except (ValueError, TypeError):
        return None


def _output(command: list[str]) -> str | None:
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, cwd=os.sep, timeout=_PATIENCE_S
        )
    except (OSError, subprocess.TimeoutExpired, UnicodeDecodeError):
        return None
    return done.stdout if done.returncode == 0 else None


# ---- what this interpreter lacks


def lacks(wanted: Wanted) -> list[str]:
    """The requirements that this interpreter does not satisfy, as text.

    A requirement that the compatibility modules serve is satisfied. A wheel of the package never is: a distribution
    of the same name and version may differ from it.
    """
    this = this_interpreter()
    missing = []
    if wanted.python is not None and not wanted.python.allows(this.version):
        missing.append(f"Python {wanted.python.text} (this is {this.version})")
    missing += [f"{item} ({reason})" for item in wanted.items if (reason := _why_lacking(item)) is not None]
    return missing


def _why_lacking(item: Item) -> str | None:
    requirement = item.requirement
    if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
        return None
    if item.wheel is not None:
        return "a wheel of the package"
    return _why_unmet(requirement, frozenset())


def _why_unmet(requirement: Requirement, inside: frozenset[str]) -> str | None:
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    name = canonicalize_name(requirement.name)
    distribution = _distribution(name)
    if distribution is None:
        return None if name in SERVED else "not installed"
    if not requirement.specifier.contains(distribution.version, prereleases=True):
        return None if name in SERVED else f"{distribution.version} is installed"
    if name in inside:
        return None
    for extra in requirement.extras:  # the installer has checked all other requirements of the distribution
        for text in distribution.requires or ():
            needed = Requirement(text)
            if needed.marker is None or not needed.marker.evaluate({"extra": extra}):
                continue
            if reason := _why_unmet(needed, inside | {name}):
                return f"for [{extra}]: {needed.name} {reason}"
    return None


def _distribution(name: str) -> metadata.Distribution | None:
    """The installed distribution of that name, or an equivalent one."""
    others = (row for row in _EQUIVALENT if name in row)
    for one in (name, *next(others, ())):
        with suppress(metadata.PackageNotFoundError):
            return metadata.distribution(one)
    return None
