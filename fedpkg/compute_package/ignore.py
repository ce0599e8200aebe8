"""What stays out of a package: .fedpkgignore, .fednignore, .scaleoutignore and what never belongs in."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from fedpkg.errors import PackageError
from fedpkg.fedn import names
from fedpkg.files import read_bounded

IGNORE_FILES = (".fedpkgignore", *names.IGNORE_FILES)
ALWAYS_IGNORED = (".git", "__pycache__", "*.pyc", ".venv", ".fedpkg", ".DS_Store", *IGNORE_FILES)
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

    def match(self, name: str, *, is_folder: bool = False) -> IgnorePattern | None:
        """The pattern that keeps ``name`` (a relative posix path) out; a folder is kept out with all in it."""
        return next((pattern for pattern in self.patterns if pattern.matches(name, is_folder=is_folder)), None)

    def warnings(self) -> list[str]:
        """Patterns that do not do what their writer hoped."""
        return [
            f"{pattern.origin}: '{pattern.pattern}' brings nothing back: there are no exceptions in ignore files"
            for pattern in self.patterns
            if pattern.pattern.startswith("!")
        ]


def read_ignore(folder: Path) -> IgnoreRules:
    """The rules for ``folder``: what is always ignored, and its ignore files where they exist."""
    patterns = [IgnorePattern(pattern, "always ignored") for pattern in ALWAYS_IGNORED]
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
    return IgnoreRules(tuple(patterns))
