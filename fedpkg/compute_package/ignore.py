"""What stays out of a package: what ignore files list, what a person excludes, and what nobody means to pack."""

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
    origin: str  # the file and line it stands in, for messages

    def matches(self, name: str, *, is_folder: bool) -> bool:
        """FEDn's rule: the shell pattern fits the path inside the package, or its last part (``*`` also crosses ``/``).

        A pattern that ends with ``/`` means folders only.
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
    ships: Callable[[str, int], bool]  # whether a checkpoint of that name and size goes in

    def match(self, name: str, *, is_folder: bool = False) -> IgnorePattern | None:
        """The pattern that keeps ``name`` (a relative posix path) out; a folder is kept out with all in it."""
        if name in self.git_ignored:
            return IgnorePattern(name, ".gitignore")
        return next((pattern for pattern in self.patterns if pattern.matches(name, is_folder=is_folder)), None)

    def unmeant(self, path: Path, name: str, *, is_folder: bool, size_bytes: int) -> str | None:
        """What ``name`` is that nobody means to pack, going by what lies at ``path``."""
        if is_folder:
            if (path / "pyvenv.cfg").is_file() or (path / "conda-meta").is_dir():
                return "a virtual environment"
        elif path.suffix in _CHECKPOINTS and size_bytes > _CHECKPOINT_BYTES and not self.ships(name, size_bytes):
            return f"a checkpoint of {size_bytes / 1e6:.0f} MB; --include '{name}' packs it"
        return None

    def warnings(self) -> list[str]:
        """Patterns that do not do what their writer hoped."""
        return [
            f"{pattern.origin}: '{pattern.pattern}' brings nothing back: there are no exceptions in ignore files"
            for pattern in self.patterns
            if pattern.pattern.startswith("!")
        ]


@dataclass(frozen=True)
class Selection:
    """What of a folder a person wants in its package; ``ask`` (name, size in bytes) is for big checkpoints."""

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
    """The rules for ``folder``: what is always ignored, its ignore files where they exist, and a person's selection."""
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
    """What the .gitignore files in ``folder``, and in the repository around it, keep out; relative paths.

    Git itself reads them; a file that is in the repository all the same is not kept out.

    Raises:
        PackageError: there is no git, or it fails.
    """
    words = ["ls-files", "--others", "--ignored", "--exclude-per-directory=.gitignore", "--directory", "-z"]
    environ = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    with tempfile.TemporaryDirectory(prefix="fedpkg-") as scratch:
        if _git(["rev-parse", "--git-dir"], folder, environ).returncode:  # in no repository
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
