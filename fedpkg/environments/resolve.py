"""What uv would install for a package, before the download: its size, PyTorch's build, and conflicts."""

from __future__ import annotations

import importlib
import json
import logging
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedpkg.devices import VISIBLE, this_machine
from fedpkg.environments.interpreter import Interpreter
from fedpkg.environments.wanted import ENV_FILE, Item, Wanted
from fedpkg.errors import EnvironmentFailed
from fedpkg.log import event

logger = logging.getLogger("fedpkg.environments")

Run = Callable[..., None]  # (command, variables for it); raises EnvironmentFailed

_TAIL_LINES = 15  # of an installer's output
_LARGEST = 3  # distributions in a message
_OLDEST_MINOR = 7  # the oldest minor version of Python 3 that is tried
# Variables with which a user chooses where distributions come from.
_UV_SOURCES = ("UV_DEFAULT_INDEX", "UV_INDEX", "UV_INDEX_URL", "UV_EXTRA_INDEX_URL", "UV_FIND_LINKS", "UV_CONFIG_FILE")
_PIP_SOURCES = {
    "PIP_INDEX_URL": "UV_DEFAULT_INDEX",
    "PIP_EXTRA_INDEX_URL": "UV_INDEX",
    "PIP_FIND_LINKS": "UV_FIND_LINKS",
}
_IN_CONFIG = re.compile(
    r"^\s*(\[\[(pip\.)?index\]\]|(index|extra-index|find-links|no-index|torch-backend|offline)\b)", re.M
)
_BACKEND = "UV_TORCH_BACKEND"
_TORCH = "--torch-backend=auto"
_TORCH_INDEX = "https://download.pytorch.org"
_HASTE = {"UV_HTTP_RETRIES": "0", "UV_HTTP_TIMEOUT": "10"}
_NOTHING_FITS = re.compile(r"No solution found|unsatisfiable|ResolutionImpossible|No matching distribution")


@dataclass(frozen=True)
class Fetched:
    """One distribution of a resolution; ``size_bytes`` is 0 if it does not come from an index."""

    name: str
    version: str
    size_bytes: int


def resolve(uv: str, wanted: Wanted, folder: Path, run: Run, *, only_wheels: bool) -> list[str]:
    """Log what uv will fetch for the environment ``folder``; returns options for the installation.

    Raises:
        EnvironmentFailed: no versions fit, or they cannot be looked up.
    """
    words = [*_compile(uv, folder), "--format", "pylock.toml", *(["--only-binary=:all:"] if only_wheels else [])]
    try:
        run([*words, "-o", str(folder / "pylock.toml")])
    except EnvironmentFailed as error:
        if "unexpected argument" in str(error.fields["output"]) or "invalid value" in str(error.fields["output"]):
            return []  # an older uv without that format
        raise
    fetched, options = _read(folder / "pylock.toml"), []
    if any(one.name == "torch" and one.size_bytes for one in fetched):
        if (named := _named_source(wanted)) is not None:
            _tell_of_cuda(fetched, f"{named} decides where it comes from")
            _tell_size(fetched)
            return []
        try:
            run([*words, _TORCH, "-o", str(folder / "pylock.torch.toml")], _HASTE)
        except EnvironmentFailed:
            _tell_of_cuda(fetched, f"{_TORCH_INDEX} cannot be used")
        else:
            fetched, options = _read(folder / "pylock.torch.toml"), [_TORCH]
            torch = next((one.version for one in fetched if one.name == "torch"), "")
            event(logger, logging.INFO, "environment.torch", about=f"PyTorch {torch}, which uv chose for this machine")
    _tell_size(fetched)
    return options


def _compile(uv: str, folder: Path) -> list[str]:
    python = str(folder / "bin" / "python")
    return [uv, "pip", "compile", "--quiet", "--no-header", "--python", python, str(folder / "requirements.txt")]


def _tell_size(fetched: Iterable[Fetched]) -> None:
    sized = sorted((one for one in fetched if one.size_bytes), key=lambda one: -one.size_bytes)
    if sized:
        largest = ", ".join(f"{one.name} {_size(one.size_bytes)}" for one in sized[:_LARGEST])
        size = _size(sum(one.size_bytes for one in sized))
        about = f"{size} in {len(sized)} distributions, minus what is in the cache of uv (largest: {largest})"
        event(logger, logging.INFO, "environment.fetching", about=about)


def _named_source(wanted: Wanted) -> str | None:
    """What determines the source of PyTorch, or its digest; None: nothing, so its own index may be used."""
    if any(item.hashes for item in (*wanted.items, *wanted.build_items)):
        return wanted.source
    return next((name for name in (_BACKEND, "UV_OFFLINE", *_PIP_SOURCES) if os.environ.get(name)), _source_of_uv())


def _source_of_uv() -> str | None:
    """The variable or configuration file in which the user has set uv's sources of distributions."""
    homes = (Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"), Path("/etc"))
    files = [file for home in homes if (file := home / "uv" / "uv.toml").is_file()]
    configured = [str(file) for file in files if _IN_CONFIG.search(file.read_text(errors="replace"))]
    return next(iter([*filter(os.environ.get, _UV_SOURCES), *configured]), None)


def sources_of_pip() -> dict[str, str]:
    """The user's sources for pip as variables for uv, unless the user has set sources for uv."""
    if _source_of_uv() is not None:
        return {}
    told = {uv: os.environ.get(pip, "").split() for pip, uv in _PIP_SOURCES.items()}
    return {name: ("," if name == "UV_FIND_LINKS" else " ").join(words) for name, words in told.items() if words}


def has_gpus() -> bool:
    """Whether this machine has NVIDIA GPUs, including those that this process may not use."""
    environ = {name: value for name, value in os.environ.items() if name != VISIBLE}
    return bool(this_machine(with_gpus=True, environ=environ).gpus)


def _tell_of_cuda(fetched: Iterable[Fetched], why: str) -> None:
    cuda = sum(one.size_bytes for one in fetched if one.name.startswith("nvidia-"))
    if cuda and not os.environ.get(_BACKEND) and not has_gpus():
        about = (
            f"PyTorch comes with {_size(cuda)} of CUDA libraries though this machine has no GPU, because {why}; "
            f"set {_BACKEND} or UV_INDEX to choose another source"
        )
        event(logger, logging.WARNING, "environment.torch", about=about)


def _read(lock: Path) -> list[Fetched]:
    if not lock.is_file():
        return []
    tomllib = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
    packages: list[Mapping[str, Any]] = tomllib.loads(lock.read_text()).get("packages", [])
    return [Fetched(one["name"], one.get("version", ""), _size_of(one)) for one in packages]


def _size_of(package: Mapping[str, Any]) -> int:
    """The size of its first wheel, or of its source distribution."""
    found: Mapping[str, Any] = (*package.get("wheels", ()), package.get("sdist", {}))[0]
    return int(found.get("size", 0))


def _size(count: int) -> str:
    unit, power = next((pair for pair in (("GB", 1e9), ("MB", 1e6)) if count >= pair[1]), ("kB", 1e3))
    return f"{count / power:.1f} {unit}"


# ---- when nothing fits


def explain(
    error: EnvironmentFailed,
    wanted: Wanted,
    interpreter: Interpreter,
    folder: Path,
    run: Run,
    *,
    uv: str | None,
    package: str,
) -> None:
    """If ``error`` is an installer's error about conflicting requirements, raise one that lists them.

    Raises:
        EnvironmentFailed: with the requirements, their file and line, and an older Python that would work.
    """
    output = str(error.fields["output"])
    if not _NOTHING_FITS.search(output):
        return
    items = [item for item in (*wanted.items, *wanted.build_items) if _is_named(item, output)]
    lines = "".join(f"    {item}  ({item.where})\n" for item in items)
    said = "\n".join(f"    {line}" for line in output.strip().splitlines()[-_TAIL_LINES:])
    older = _older_python(wanted, interpreter, _compile(uv, folder), run) if uv else None
    hint = "correct its requirements, or use `--env current` to run it with the Python that runs fedpkg"
    hint += "" if uv else "; with uv (`pip install uv`) fedpkg looks for an older Python that would work"
    raise EnvironmentFailed(
        f"Python {interpreter.version} cannot satisfy all requirements of package {package}:\n{lines}"
        f"  output of {'uv' if uv else 'pip'}:\n{said}",
        hint=f"Python {older} would work: {_how_to_wish(wanted, older)}" if older else hint,
        requirements=[str(item) for item in items],
        older_python=older,
        **error.fields,
    ) from error


def _is_named(item: Item, output: str) -> bool:
    name = re.sub(r"[-_.]+", "[-_.]+", item.requirement.name)
    return re.search(rf"(?<![\w.-]){name}(?![\w-])", output, re.IGNORECASE) is not None


def _older_python(wanted: Wanted, interpreter: Interpreter, compile_: list[str], run: Run) -> str | None:
    """The newest older Python that the package allows and that satisfies its requirements."""
    for minor in range(int(interpreter.version.split(".")[1]) - 1, _OLDEST_MINOR - 1, -1):
        version = f"3.{minor}"
        if wanted.python is None or wanted.python.allows(f"{version}.99"):
            try:
                run([*compile_, "--python-version", version])
            except EnvironmentFailed:
                continue
            return version
    return None


def _how_to_wish(wanted: Wanted, version: str) -> str:
    if wanted.source.endswith((".yaml", ".yml")):
        return f"write {json.dumps(version)} under 'python' in {wanted.source}"
    if wanted.source.endswith(".txt"):
        return f"write a {ENV_FILE} with python: {json.dumps(version)} and dependencies: [-r {wanted.source}]"
    return f'write requires-python = "=={version}.*" in {wanted.source}'
