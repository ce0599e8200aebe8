"""Warnings about a package before it is distributed: big files, secrets, scripts that cannot run."""

from __future__ import annotations

import difflib
import re
import shlex
from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import Path
from posixpath import normpath

from fedpkg.compute_package.spec import PackageSpec
from fedpkg.errors import nearest
from fedpkg.fedn.callbacks import script_of_runner
from fedpkg.fedn.names import SPEC_FILES
from fedpkg.files import open_regular
from fedpkg.types import ENTRY_POINTS

BIG_FILE_BYTES = 10 << 20
_SECRET_NAMES = (
    ".env",
    ".env.*",
    "*.pem",
    "*.key",
    "id_rsa",
    "id_dsa",
    "id_ecdsa",
    "id_ed25519",
    "credentials*",
    ".netrc",
)
_SECRET_CONTENTS = (
    (re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----"), "a private key"),
    (re.compile(rb"(?<![0-9A-Z])(?:AKIA|ASIA)[0-9A-Z]{16}(?![0-9A-Z])"), "an AWS access key"),
)
_SCANNED_BYTES = 1 << 20  # keys are in small files, and a package with gigabytes of data must still build fast

_SHELL = re.compile(rb"#!.*\b(?:ba|da|z|k)?sh\b")
_SHELL_NAME = re.compile(r"(?:.*/)?(?:ba|da|z|k)?sh")
_INTERPRETER = re.compile(r"(python[\d.]*|pypy[\d.]*|bash|sh|dash|zsh|Rscript|julia|node|perl|ruby)")
_ASSIGNMENT = re.compile(r"\w+=")


def review(folder: Path, files: Iterable[tuple[str, int]], spec: PackageSpec) -> tuple[str, ...]:
    """Warnings about the package in ``folder``, which holds fedn.yaml; ``files`` are names relative to it and sizes."""
    sizes = dict(files)
    warnings = []
    scripts = {script_of(one.command): one.command for one in spec.entry_points.values()}
    for name, size_bytes in sizes.items():
        if size_bytes > BIG_FILE_BYTES:
            warnings.append(
                f"{name} is big ({size_bytes / (1 << 20):.1f} MiB); each client that changes it gets a copy"
            )
        with open_regular(folder / name) as file:
            content = file.read(_SCANNED_BYTES)
        if line_ends := _line_ends(name, content, scripts.get(name)):
            warnings.append(line_ends)
        secret = _secret(name, content)
        if secret:
            warnings.append(f"{name} {secret}; everyone who gets the package can read it")
    for entry_point in spec.entry_points.values():
        script = script_of(entry_point.command)
        if script is not None and script not in sizes and not (folder / script).is_symlink():
            warnings.append(f"entry point '{entry_point.name}' runs {script}, which is missing{nearest(script, sizes)}")
        usual = difflib.get_close_matches(entry_point.name, ENTRY_POINTS, n=1, cutoff=0.8)
        if usual and not {entry_point.name, usual[0]} & ({*ENTRY_POINTS} & {*spec.entry_points}):
            warnings.append(
                f"no built-in strategy uses the entry point '{entry_point.name}'; did you mean '{usual[0]}'?"
            )
    if all(name in sizes for name in SPEC_FILES):
        warnings.append(f"{SPEC_FILES[1]} is ignored, because {SPEC_FILES[0]} exists")
    if spec.python_env is not None and normpath(spec.python_env) not in sizes:
        warnings.append(f"python_env is {spec.python_env}, which is missing{nearest(spec.python_env, sizes)}")
    return tuple(warnings)


def script_of(command: str) -> str | None:
    """The package's file that a command runs (``python -u ./train.py …`` → ``train.py``), if that is evident."""
    words = _words(command)
    if not words:
        return None
    script = script_of_runner(words) or words[0]
    if _INTERPRETER.fullmatch(script.rpartition("/")[2]):
        script = words[1] if len(words) > 1 else ""
        if script == "-u":  # Python's only option without a value that is common here
            script = words[2] if len(words) > 2 else ""
    elif "/" not in script and script == words[0]:
        return None  # found on PATH
    if not script or script.startswith(("-", "/", "~")) or any(character in script for character in "$`*?;&|<>()"):
        return None
    return normpath(script)


def _words(command: str) -> list[str]:
    """The program that a command runs, and its arguments; empty if only bash can split the command."""
    try:
        words = shlex.split(command)
    except ValueError:  # quotes that only bash understands
        return []
    while words and (_ASSIGNMENT.match(words[0]) or words[0] == "exec"):
        words.pop(0)
    return words


def _line_ends(name: str, content: bytes, command: str | None) -> str | None:
    """A warning if Windows line ends break a script; ``command`` is the command that runs it, if any."""
    convert = f"convert it (sed -i 's/\\r$//' {name})"
    first, _, _ = content.partition(b"\n")
    program = (_words(command or "") or [""])[0]
    if b"\r\n" in content and (name.endswith(".sh") or _SHELL_NAME.fullmatch(program) or _SHELL.match(first)):
        return f"{name} has Windows line ends, which a shell reads as parts of words: {convert}"
    if first.startswith(b"#!") and first.endswith(b"\r") and normpath(program) == name:
        return f"{name} has Windows line ends, so the interpreter in its first line is not found: {convert}"
    return None


def _secret(name: str, content: bytes) -> str | None:
    base = name.rpartition("/")[2].lower()
    if any(fnmatchcase(base, pattern) for pattern in _SECRET_NAMES):
        return "looks like a secret by its name"
    return next((f"seems to contain {what}" for pattern, what in _SECRET_CONTENTS if pattern.search(content)), None)
