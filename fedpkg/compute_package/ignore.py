"""Files that stay out of a package: those in ignore files, those that the user excludes, and unintended ones."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from fedpkg.errors import PackageError
from fedpkg.fedn import names
from fedpkg.files import read_bounded

IGNORE_FILES = (".fedpkgignore", *names.IGNORE_FILES)
_CACHES = (".pytest_cache", ".mypy_cache", ".ruff_cache", ".ipynb_checkpoints", ".tox", ".nox", "node_modules")
UNMEANT_FOLDERS = (".git", ".hg", ".svn", ".venv", ".fedpkg", *_CACHES)
ALWAYS_IGNORED = (*UNMEANT_FOLDERS, "__pycache__", "*.pyc", ".DS_Store", *IGNORE_FILES)
_CHECKPOINT_BYTES = 100_000_000
_CHECKPOINTS = (".pt", ".pth", ".ckpt", ".safetensors", ".h5", ".hdf5", ".keras", ".bin")
_MAX_BYTES = 1 << 20


@dataclass(frozen=True)
class IgnorePattern:
    pattern: str  # as written
    origin: str  # its file and line, for messages

    def matches(self, name: str, *, is_folder: bool) -> bool:
        """FEDn's rule: the shell pattern matches the path in the package or its last part; ``*`` also matches ``/``.

        A pattern that ends with ``/`` matches folders only.
        """
        pattern = self.pattern
        if pattern.endswith("/"):
            if not is_folder:
                return False
            pattern = pattern.rstrip("/")
        return fnmatchcase(name, pattern) or fnmatchcase(name.rpartition("/")[2], pattern)


@dataclass(frozen=True)
class IgnoreRules:
    patterns: tuple[IgnorePattern, ...]
    git_ignored: frozenset[str]  # whole paths
    ships: Callable[[str, int], bool]  # whether a checkpoint of that name and size is packed
    only: tuple[IgnorePattern, ...] = ()  # the files that are packed at all; empty: every file

    def match(self, name: str, *, is_folder: bool = False) -> IgnorePattern | None:
        """The pattern that excludes ``name`` (a relative POSIX path); a folder is excluded with all its contents."""
        if name in self.git_ignored:
            return IgnorePattern(name, ".gitignore")
        return next((pattern for pattern in self.patterns if pattern.matches(name, is_folder=is_folder)), None)

    def omits(self, name: str) -> bool:
        """Whether a file is not among those that are packed at all; a pattern of a folder includes its contents."""
        parts = name.split("/")
        paths = [("/".join(parts[:end]), end < len(parts)) for end in range(1, len(parts) + 1)]
        return bool(self.only) and not any(
            pattern.matches(path, is_folder=is_folder) for pattern in self.only for path, is_folder in paths
        )

    def unmeant(self, path: Path, name: str, *, is_folder: bool, size_bytes: int) -> str | None:
        """A description of ``name``, at ``path``, if it is a kind of file that is rarely meant to be packed."""
        if is_folder:
            if (path / "pyvenv.cfg").is_file() or (path / "conda-meta").is_dir():
                return "a virtual environment"
        elif path.suffix in _CHECKPOINTS and size_bytes > _CHECKPOINT_BYTES and not self.ships(name, size_bytes):
            return f"a checkpoint of {size_bytes / 1e6:.0f} MB; to pack it, use --include '{name}'"
        return None

    def warnings(self) -> list[str]:
        """Patterns that do not work as their author expects."""
        return [
            f"{pattern.origin}: '{pattern.pattern}' has no effect: ignore files do not support exceptions (!)"
            for pattern in self.patterns
            if pattern.pattern.startswith("!")
        ]


@dataclass(frozen=True)
class Selection:
    """What the user selects from a folder; ``ask`` (name, size in bytes) decides about big checkpoints."""

    exclude: tuple[str, ...] = ()
    include: tuple[str, ...] = ()  # checkpoints that are packed without asking
    gitignore: bool = False
    ask: Callable[[str, int], bool] = lambda name, size_bytes: False

    def ships(self, name: str, size_bytes: int) -> bool:
        """Whether a checkpoint is packed."""
        included = any(IgnorePattern(one, "--include").matches(name, is_folder=False) for one in self.include)
        return included or self.ask(name, size_bytes)


USUAL = Selection()
WITH_CHECKPOINTS = Selection(include=("*",))


def read_ignore(folder: Path, selection: Selection = WITH_CHECKPOINTS) -> IgnoreRules:
    """The rules for ``folder``: the built-in ones, those of its ignore files, and the user's selection."""
    patterns = [IgnorePattern(pattern, "always ignored") for pattern in ALWAYS_IGNORED]
    patterns += [IgnorePattern(pattern, "--exclude") for pattern in selection.exclude]
    for file_name in IGNORE_FILES:
        try:
            text = read_bounded(folder / file_name, _MAX_BYTES).decode("utf-8-sig")
        except FileNotFoundError:
            continue
        except (OSError, UnicodeDecodeError) as error:
            raise PackageError(
                f"{folder / file_name}: cannot be read: {getattr(error, 'strerror', None) or error}",
                path=str(folder / file_name),
            ) from error
        for number, line in enumerate(text.splitlines(), start=1):
            pattern = line.strip()
            if pattern and not pattern.startswith("#"):
                patterns.append(IgnorePattern(pattern, f"{file_name}, line {number}"))
    return IgnoreRules(
        tuple(patterns), git_ignored(folder) if selection.gitignore else frozenset(), ships=selection.ships
    )


def git_ignored(folder: Path) -> frozenset[str]:
    """Relative paths that the .gitignore files in ``folder``, and in the repository around it, exclude.

    Git itself reads these files; a file that is tracked nevertheless is not excluded.

    Raises:
        PackageError: If git is not installed, or fails.
    """
    words = ["ls-files", "--others", "--ignored", "--exclude-per-directory=.gitignore", "--directory", "-z"]
    environ = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    with tempfile.TemporaryDirectory(prefix="fedpkg-") as scratch:
        if _git(["rev-parse", "--git-dir"], folder, environ).returncode:  # not in a repository
            _git(["init", "--quiet", scratch], folder, environ)
            environ |= {"GIT_DIR": f"{scratch}/.git", "GIT_WORK_TREE": str(folder.resolve())}
        done = _git(words, folder, environ)
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip()
        raise PackageError(f"{folder}: git cannot read its .gitignore: {said}", path=str(folder))
    return frozenset(name.rstrip("/") for name in os.fsdecode(done.stdout).split("\0"))


def _git(words: Sequence[str], folder: Path, environ: dict[str, str]) -> subprocess.CompletedProcess[bytes]:
    try:
        # A repository's settings may name a program as its monitor.
        command = ["git", "-c", "core.fsmonitor=false", *words]
        return subprocess.run(command, cwd=folder, env=environ, stdin=subprocess.DEVNULL, capture_output=True)
    except OSError as error:
        hint = "install git, or list patterns in .fedpkgignore"
        raise PackageError(f"git cannot be run: {error.strerror}", hint=hint) from error
