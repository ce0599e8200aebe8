"""A report about a package comes from its files alone."""

from __future__ import annotations

import tarfile
from pathlib import Path

from fedpkg.compute_package.build import build_package
from fedpkg.compute_package.unpack import open_package


def test_folder_and_its_archive_give_the_same_report(client: Path, cache: Path, tmp_path: Path) -> None:
    (client / ".env").write_text("x", encoding="utf-8")
    (client / "fedn.yaml").write_text(
        "python_env: sub/größe.txt\nentry_points: {train: {command: a}}", encoding="utf-8"
    )
    built = build_package(client, tmp_path / "package.tar.gz")
    report = open_package(built.path, cache)
    assert report == open_package(client, cache)
    assert report.digest == built.digest
    assert report.files == built.files
    assert report.warnings() == built.warnings
    assert report.warnings()[0].startswith(".env looks like a secret")
    assert report.size_bytes == built.size_bytes
    assert report.spec.python_env == "sub/größe.txt"


def test_package_with_its_spec_at_the_root_is_reviewed_alike(client: Path, cache: Path, tmp_path: Path) -> None:
    (client / "entrypoint.py").rename(client / "entrypont.py")
    with tarfile.open(tmp_path / "flat.tgz", "w:gz") as tar:
        tar.add(client, arcname=".")
    report = open_package(tmp_path / "flat.tgz", cache)
    assert ("entrypont.py", 15) in report.files
    assert report.warnings()[0] == (
        "entry point 'train' runs entrypoint.py, which is missing; did you mean 'entrypont.py'?"
    )


def test_nothing_of_the_package_runs(client: Path, cache: Path, tmp_path: Path) -> None:
    trace = tmp_path / "it ran"
    code = f"open({str(trace)!r}, 'w')"
    (client / "entrypoint.py").write_text(code, encoding="utf-8")
    (client / "fedn.yaml").write_text(f"entry_points: {{train: {{command: 'touch \"{trace}\"'}}}}", encoding="utf-8")
    open_package(client, cache)
    assert not trace.exists()
