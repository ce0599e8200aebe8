"""What a package holds and offers, found without running anything of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fedpkg.compute_package.members import FileEntry, is_inside
from fedpkg.compute_package.review import review
from fedpkg.compute_package.unpack import UnpackedPackage, open_package
from fedpkg.types import Json


@dataclass(frozen=True)
class PackageReport:
    digest: str  # sha256 of the archive
    size_bytes: int  # of the archive
    entry_points: dict[str, str]  # name → command
    python_env: str | None
    files: tuple[FileEntry, ...]
    warnings: tuple[str, ...]

    def to_json(self) -> dict[str, Json]:
        return {
            "digest": self.digest,
            "size_bytes": self.size_bytes,
            "entry_points": dict(self.entry_points),
            "python_env": self.python_env,
            "files": [{"name": file.name, "size_bytes": file.size_bytes} for file in self.files],
            "warnings": list(self.warnings),
        }


def inspect_package(path: Path, cache: Path, *, max_bytes: int, max_members: int) -> PackageReport:
    """Look at an archive or a folder (as the archive that would be built of it); it ends up in the cache.

    Raises:
        PackageError: as ``open_package``.
    """
    return report_of(open_package(path, cache, max_bytes=max_bytes, max_members=max_members))


def report_of(package: UnpackedPackage) -> PackageReport:
    return PackageReport(
        digest=package.digest,
        size_bytes=package.size_bytes,
        entry_points={name: entry_point.command for name, entry_point in package.spec.entry_points.items()},
        python_env=package.spec.python_env,
        files=package.files,
        warnings=package_warnings(package),
    )


def package_warnings(package: UnpackedPackage) -> tuple[str, ...]:
    """What deserves a second look in an unpacked package."""
    skip = len(package.top) + 1 if package.top else 0
    inside = [(name[skip:], size_bytes) for name, size_bytes in package.files if is_inside(name, package.top)]
    return review(package.folder, inside, package.spec)
